"""What an entry of the table of architectures says, from Python, JSON or YAML.

An entry lists the towers of a model (a stack of layers whose FF sublayers may be merged with each
other: GPT-2 and ViT have one, an encoder-decoder has two) by the names their modules carry in
`transformers` 5.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any, Literal


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


def one_tower(prefix: str, name: str, *forms: FeedForward) -> Architecture:
    """An architecture whose layers are all in one stack."""
    return Architecture(prefix, {name: forms})
