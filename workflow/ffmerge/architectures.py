"""Where each architecture keeps its feed-forward sublayers: data only, no algorithm.

An entry lists the towers of a model (a stack of layers whose FF sublayers may be merged with each
other: GPT-2 and ViT have one, an encoder-decoder has two) by the names their modules carry in
`transformers` 5.
"""

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class FeedForward:
    """One tower's feed-forward sublayers, `x_out = W_out φ(W_in x + b_in) + b_out` (Section 3.3).

    layers: path of the tower's list of layers.
    up, down: the linear maps W_in and W_out, relative to one layer.
    layout: how a weight is stored: `out_in` (nn.Linear) or `in_out` (GPT-2's Conv1D).
    mask: which positions of a batch carry tokens: a key of the batch, or None where all do.
    """

    layers: str
    up: str
    down: str
    layout: Literal["out_in", "in_out"] = "out_in"
    mask: str | None = "attention_mask"

    def module(self, layer: int, which: Literal["up", "down"]) -> str:
        """Full name of the module that holds W_in (`up`) or W_out (`down`) of a layer."""
        return f"{self.layers}.{layer}.{getattr(self, which)}"

    def tensors(self, layer: int) -> dict[str, str]:
        """Full names of a sublayer's four tensors, by role."""
        return {
            f"{which}.{kind}": f"{self.module(layer, which)}.{kind}"
            for which in ("up", "down")
            for kind in ("weight", "bias")
        }


ARCHITECTURES: dict[str, dict[str, FeedForward]] = {
    "gpt2": {
        "decoder": FeedForward("transformer.h", up="mlp.c_fc", down="mlp.c_proj", layout="in_out"),
    },
    "vit": {
        "encoder": FeedForward("vit.layers", up="mlp.fc1", down="mlp.fc2", mask=None),
    },
    "marian": {
        "encoder": FeedForward("model.encoder.layers", up="fc1", down="fc2"),
        "decoder": FeedForward(
            "model.decoder.layers", up="fc1", down="fc2", mask="decoder_attention_mask"
        ),
    },
}


def towers(model_type: str) -> dict[str, FeedForward]:
    """The towers of an architecture, by name.

    Raises ValueError, naming the known architectures, for one that is not in the table.
    """
    try:
        return ARCHITECTURES[model_type]
    except KeyError:
        known = ", ".join(sorted(ARCHITECTURES))
        raise ValueError(
            f"architecture {model_type!r} has no entry in ffmerge.architectures (known: {known}); "
            "add one that names its layers and their two linear maps"
        ) from None
