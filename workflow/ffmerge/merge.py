"""Merging aligned feed-forward sublayers into one (Eqs. 3 and 4)."""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from ffmerge.architectures import FeedForward, towers
from ffmerge.permutation import Permutations
from ffmerge.tie import tie

Sublayer = dict[str, Tensor]
"""One FF sublayer: `up.weight` (d_ff, d_model), `up.bias` (d_ff,), `down.weight` (d_model, d_ff)
and `down.bias` (d_model,), in any layout the architecture stores."""


def permute(sublayer: Sublayer, permutation: Tensor, layout: str = "out_in") -> Sublayer:
    """The sublayer with its neurons reordered, P W_in, P b_in, W_out Pᵀ: the same function.

    permutation: (d_ff,), new neuron j is old neuron permutation[j]; layout: see FeedForward.
    """
    neurons = {"out_in": (0, 1), "in_out": (1, 0)}[layout]  # axes of the up and down weights
    permutation = permutation.to(sublayer["up.weight"].device)
    return {
        "up.weight": sublayer["up.weight"].index_select(neurons[0], permutation),
        "up.bias": sublayer["up.bias"].index_select(0, permutation),
        "down.weight": sublayer["down.weight"].index_select(neurons[1], permutation),
        "down.bias": sublayer["down.bias"],
    }


def merge(
    sublayers: Sequence[Sublayer], permutations: Sequence[Tensor], layout: str = "out_in"
) -> Sublayer:
    """The average of k aligned sublayers (Eqs. 3 and 4), in the first one's dtype.

    permutations: one (d_ff,) a sublayer; the anchor's is the identity. Sums are float64, so that k
    copies of a sublayer merge to exactly that sublayer.
    Raises ValueError if the sublayers' shapes differ.
    """
    shapes = [{name: tuple(tensor.shape) for name, tensor in s.items()} for s in sublayers]
    if any(shape != shapes[0] for shape in shapes):
        raise ValueError(f"sublayers of different shapes cannot be merged: {shapes}")
    total: Sublayer = {}
    for sublayer, permutation in zip(sublayers, permutations, strict=True):
        for name, tensor in permute(sublayer, permutation, layout).items():
            total[name] = total[name] + tensor.double() if name in total else tensor.double()
    return {
        name: (tensor / len(sublayers)).to(sublayers[0][name].dtype)
        for name, tensor in total.items()
    }


def merged_sublayer(
    tensor: Callable[[str], Tensor],
    tower: FeedForward,
    layers: Sequence[int],
    anchor: int,
    permutations: Permutations | None,
) -> Sublayer:
    """The sublayer that replaces those in `layers`.

    tensor: name of a parameter -> its value, from a model or a file. permutations: of the tower;
    None averages without aligning (the paper's "vanilla").
    """
    sublayers = [
        {role: tensor(name) for role, name in tower.tensors(layer).items()} for layer in layers
    ]
    d_ff = len(sublayers[0]["up.bias"])
    orders = [
        permutations.towards(anchor, layer) if permutations is not None else torch.arange(d_ff)
        for layer in layers
    ]
    return merge(sublayers, orders, tower.layout)


@torch.no_grad()
def merge_in_model(
    model: nn.Module,
    layers: Sequence[int],
    anchor: int,
    permutations: dict[str, Permutations] | None,
) -> None:
    """Merge and tie the FF sublayers of `layers` in every tower of a model, in place.

    The model's own parameters are replaced, not written to: `tie.untouched` brings them back.
    permutations: by tower; None for vanilla.
    """
    for name, tower in towers(model.config.model_type).items():
        own = permutations[name] if permutations is not None else None
        merged = merged_sublayer(model.get_parameter, tower, layers, anchor, own)
        for which in ("up", "down"):
            module = model.get_submodule(tower.module(layers[0], which))
            module.weight = nn.Parameter(merged[f"{which}.weight"])
            module.bias = nn.Parameter(merged[f"{which}.bias"])
        tie(model, tower, layers)
