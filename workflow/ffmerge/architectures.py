"""Where each architecture keeps its sublayers: data only, no algorithm.

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
    attention: the output projection of the layer's self-attention, relative to it.
    count: the key of the model's configuration that says how many layers there are.
    layout: how a weight is stored: `out_in` (nn.Linear) or `in_out` (GPT-2's Conv1D).
    mask: which positions of a batch carry tokens: a key of the batch, or None where all do.
    """

    layers: str
    up: str
    down: str
    attention: str
    count: str
    layout: Literal["out_in", "in_out"] = "out_in"
    mask: str | None = "attention_mask"

    def module(self, layer: int, which: Literal["up", "down", "attention"]) -> str:
        """Full name of a layer's W_in (`up`), W_out (`down`) or attention output projection."""
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
        "decoder": FeedForward(
            layers="transformer.h",
            up="mlp.c_fc",
            down="mlp.c_proj",
            attention="attn.c_proj",
            count="n_layer",
            layout="in_out",
        ),
    },
    "vit": {
        "encoder": FeedForward(
            layers="vit.layers",
            up="mlp.fc1",
            down="mlp.fc2",
            attention="attention.o_proj",
            count="num_hidden_layers",
            mask=None,
        ),
    },
    "marian": {
        "encoder": FeedForward(
            layers="model.encoder.layers",
            up="fc1",
            down="fc2",
            attention="self_attn.out_proj",
            count="encoder_layers",
        ),
        "decoder": FeedForward(
            layers="model.decoder.layers",
            up="fc1",
            down="fc2",
            attention="self_attn.out_proj",
            count="decoder_layers",
            mask="decoder_attention_mask",
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
