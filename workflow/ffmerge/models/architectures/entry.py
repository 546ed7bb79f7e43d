"""An entry of the table of architectures, from Python, JSON or YAML.

An entry lists the towers of a model by the names of their modules in `transformers` 5. A tower is a
stack of layers whose FF sublayers may be merged with each other: GPT-2 and ViT have one tower, an
encoder-decoder has two.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any, Literal


@dataclass(frozen=True)
class FeedForward:
    """One tower's feed-forward sublayers, `x_out = W_out φ(W_in x + b_in) + b_out` (Section 3.3).

    layers: path of the tower's layers in the base model, with `*` for a number: `h.*`.
    up, down: the linear maps W_in and W_out, relative to a layer.
    gate: W_gate of a gated sublayer, `W_out (φ(W_gate x) · W_in x)`; None for a plain one. The same
        name as `up` if one map outputs the gate's values followed by those of W_in.
    attention: the output projection of self-attention, relative to a layer.
    count: the configuration's key for the number of layers, with `.` between nested keys; None if
        layers are counted stage by stage.
    layout: how weights are stored: `out_in` (nn.Linear) or `in_out` (GPT-2's Conv1D).
    mask: the key of a batch that masks the positions with tokens; None if all positions have one.
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


ALLOWED = {  # key -> its values
    "layout": ("out_in", "in_out"),
    "mask": ("attention_mask", "decoder_attention_mask", None),
}


@dataclass(frozen=True)
class Architecture:
    """The towers of an architecture, by name.

    prefix: name of the base model within a model with a head; empty if there is none.
    towers: the forms of each tower, tried in turn (T5's sublayers are gated or not).
    """

    prefix: str
    towers: dict[str, tuple[FeedForward, ...]]

    @classmethod
    def from_entry(cls, entry: Mapping[str, Any]) -> "Architecture":
        """Parse JSON or YAML values: `prefix`, and `towers` with the keys of FeedForward.

        A tower is one mapping, or a list of mappings if it comes in several forms.
        Raises ValueError naming a key that is missing or unknown.
        """
        if not entry.get("towers") or set(entry) - {"prefix", "towers"}:
            keys = ", ".join(map(str, entry))
            raise ValueError(f"an architecture has the keys prefix and towers (found: {keys})")
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
        """Plain values for `from_entry`, without defaults."""
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
    for key, allowed in ALLOWED.items():
        if form.get(key, allowed[0]) not in allowed:
            words = " or ".join("null" if value is None else value for value in allowed)
            raise ValueError(f"towers.{tower}.{key}: has to be {words}")
    return FeedForward(**form)


def one_tower(prefix: str, name: str, *forms: FeedForward) -> Architecture:
    """An architecture with a single tower."""
    return Architecture(prefix, {name: forms})
