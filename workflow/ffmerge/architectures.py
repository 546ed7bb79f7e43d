"""Where each architecture keeps its sublayers: data only, no algorithm.

An entry lists the towers of a model (a stack of layers whose FF sublayers may be merged with each
other: GPT-2 and ViT have one, an encoder-decoder has two) by the names their modules carry in
`transformers` 5.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any, Literal

OWN_ENTRY = "ffmerge_architecture"  # key of a model's config.json: its entry, if not in the table
# `model_type` in config.json of a model with merged sublayers, and the key of what it was before
MERGED_TYPE, STOCK_TYPE = "ffmerge", "ffmerge_model_type"


@dataclass(frozen=True)
class FeedForward:
    """One tower's feed-forward sublayers, `x_out = W_out φ(W_in x + b_in) + b_out` (Section 3.3).

    layers: path of the tower's layers in the base model, `*` for a number: `h.*`.
    up, down: the linear maps W_in and W_out, relative to one layer.
    gate: of a gated sublayer, `W_out (φ(W_gate x) · W_in x)`; None for a plain one. The same name
        as `up` where one map puts out the gate's values and, behind them, W_in's.
    attention: the output projection of the layer's self-attention, relative to it.
    count: the key of the model's configuration that says how many layers there are, `.` between
        the names of nested ones; None where a stack's layers are counted stage by stage.
    layout: how a weight is stored: `out_in` (nn.Linear) or `in_out` (GPT-2's Conv1D).
    mask: which positions of a batch carry tokens: a key of the batch, or None where all do.
    """

    layers: str
    up: str
    down: str
    gate: str | None = None
    attention: str | None = None
    count: str | None = "num_hidden_layers"
    layout: Literal["out_in", "in_out"] = "out_in"
    mask: str | None = "attention_mask"

    @property
    def fused(self) -> bool:
        """Whether gate and up are one linear map."""
        return self.gate == self.up

    @property
    def maps(self) -> tuple[str, ...]:
        """The linear maps of a sublayer, by the names of these fields; a fused one once."""
        return ("gate", "up", "down") if self.gate and not self.fused else ("up", "down")


@dataclass(frozen=True)
class Architecture:
    """The towers of an architecture, by name.

    prefix: name of the base model within a model with a head; empty where there is none.
    towers: of each, the forms that it comes in (T5's sublayers are gated or not).
    """

    prefix: str
    towers: dict[str, tuple[FeedForward, ...]]

    @classmethod
    def from_entry(cls, entry: Mapping[str, Any]) -> "Architecture":
        """An architecture from JSON or YAML: `prefix`, and `towers` with the keys of FeedForward.

        A tower is one mapping, or a list of them where it comes in several forms.
        Raises ValueError naming a key that is missing or unknown.
        """
        if not entry.get("towers") or set(entry) - {"prefix", "towers"}:
            found = ", ".join(map(str, entry))
            raise ValueError(f"an architecture has the keys prefix and towers (found: {found})")
        return cls(
            entry.get("prefix") or "",
            {
                name: tuple(
                    _feed_forward(name, form)
                    for form in (forms if isinstance(forms, list) else [forms])
                )
                for name, forms in entry["towers"].items()
            },
        )

    def entry(self) -> dict[str, Any]:
        """What `from_entry` reads: plain values, without those that are the defaults."""
        defaults = {field.name: field.default for field in fields(FeedForward)}
        towers = {
            name: [
                {key: value for key, value in asdict(form).items() if value != defaults[key]}
                for form in forms
            ]
            for name, forms in self.towers.items()
        }
        return {"prefix": self.prefix, "towers": towers}


def _feed_forward(tower: str, form: Mapping[str, Any]) -> FeedForward:
    known = {field.name for field in fields(FeedForward)}
    if unknown := sorted(set(form) - known):
        raise ValueError(f"towers.{tower}: unknown {', '.join(unknown)} (known: {sorted(known)})")
    if missing := [key for key in ("layers", "up", "down") if not form.get(key)]:
        raise ValueError(f"towers.{tower}: {', '.join(missing)} missing")
    if form.get("layout", "out_in") not in ("out_in", "in_out"):
        raise ValueError(f"towers.{tower}.layout: has to be out_in or in_out")
    return FeedForward(**form)


def _one_tower(prefix: str, name: str, *forms: FeedForward) -> Architecture:
    return Architecture(prefix, {name: forms})


ARCHITECTURES: dict[str, Architecture] = {
    "gpt2": _one_tower(
        "transformer",
        "decoder",
        FeedForward(
            layers="h.*",
            up="mlp.c_fc",
            down="mlp.c_proj",
            attention="attn.c_proj",
            count="n_layer",
            layout="in_out",
        ),
    ),
    "llama": _one_tower(
        "model",
        "decoder",
        FeedForward(
            layers="layers.*",
            gate="mlp.gate_proj",
            up="mlp.up_proj",
            down="mlp.down_proj",
            attention="self_attn.o_proj",
        ),
    ),
    "bert": _one_tower(
        "bert",
        "encoder",
        FeedForward(
            layers="encoder.layer.*",
            up="intermediate.dense",
            down="output.dense",
            attention="attention.output.dense",
        ),
    ),
    "vit": _one_tower(
        "vit",
        "encoder",
        FeedForward(
            layers="layers.*",
            up="mlp.fc1",
            down="mlp.fc2",
            attention="attention.o_proj",
            mask=None,
        ),
    ),
    "marian": Architecture(
        "model",
        {
            "encoder": (
                FeedForward(
                    layers="encoder.layers.*",
                    up="fc1",
                    down="fc2",
                    attention="self_attn.out_proj",
                    count="encoder_layers",
                ),
            ),
            "decoder": (
                FeedForward(
                    layers="decoder.layers.*",
                    up="fc1",
                    down="fc2",
                    attention="self_attn.out_proj",
                    count="decoder_layers",
                    mask="decoder_attention_mask",
                ),
            ),
        },
    ),
}


def architecture_of(config: Mapping[str, Any]) -> Architecture:
    """The entry for a model.

    config: what its config.json holds: `model_type`, or the entry itself under OWN_ENTRY.
    Raises ValueError, naming the known architectures, for one that is not in the table.
    """
    if config.get(OWN_ENTRY):
        return Architecture.from_entry(config[OWN_ENTRY])
    model_type = config.get(STOCK_TYPE) or config["model_type"]
    try:
        return ARCHITECTURES[model_type]
    except KeyError:
        known = ", ".join(sorted(ARCHITECTURES))
        raise ValueError(
            f"architecture {model_type!r} has no entry in ffmerge.architectures (known: {known}); "
            "add one that names its layers and their two linear maps (`ffmerge inspect --propose` "
            "looks for them)"
        ) from None
