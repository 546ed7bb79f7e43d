"""Merging aligned feed-forward sublayers into one (Eqs. 3 and 4)."""

from collections.abc import Callable, Iterable, Sequence

import torch
from torch import Tensor, nn

from ffmerge.method.groups import Group, check_groups
from ffmerge.method.permutation import Permutations
from ffmerge.method.tie import tie, with_earlier
from ffmerge.models.architectures import FeedForward
from ffmerge.models.format import GROUPS
from ffmerge.models.towers import Tower, towers

Sublayer = dict[str, Tensor]
"""One FF sublayer by role: `up.weight` (d_ff, d_model), `up.bias` (d_ff,), `down.weight`
(d_model, d_ff), `down.bias` (d_model,), in any layout the architecture stores; if gated also
`gate.weight` and `gate.bias`, which are the first d_ff rows of `up` where both are one map. Biases
only where the architecture has them."""


def permute(sublayer: Sublayer, permutation: Tensor, form: FeedForward) -> Sublayer:
    """The sublayer with its neurons reordered, P W_in, P b_in, W_out Pᵀ: the same function.

    A gated sublayer's neuron is φ(gate)·up: the rows of both move together.
    permutation: (d_ff,), new neuron j is old neuron permutation[j].
    """
    rows = torch.cat([permutation, permutation + len(permutation)]) if form.fused else permutation
    axes = {"weight": {"out_in": 0, "in_out": 1}[form.layout], "bias": 0}  # of what is put out
    permuted = {}
    for role, tensor in sublayer.items():
        which, kind = role.split(".")
        if which != "down":
            permuted[role] = tensor.index_select(axes[kind], rows.to(tensor.device))
        elif kind == "weight":
            permuted[role] = tensor.index_select(1 - axes[kind], permutation.to(tensor.device))
        else:
            permuted[role] = tensor
    return permuted


def n_neurons(sublayer: Sublayer, form: FeedForward) -> int:
    """d_ff: what W_out takes in."""
    return sublayer["down.weight"].shape[{"out_in": 1, "in_out": 0}[form.layout]]


def merge(
    sublayers: Iterable[Sublayer], permutations: Sequence[Tensor], form: FeedForward
) -> Sublayer:
    """The average of k aligned sublayers (Eqs. 3 and 4), or of a part of each, in its own dtype.

    sublayers: asked for one after the other, and held no longer than they are added. permutations:
    one (d_ff,) a sublayer; the anchor's is the identity. Sums are float64, so that k copies of a
    sublayer merge to exactly that sublayer.
    Raises ValueError if the sublayers' shapes differ.
    """
    total: Sublayer = {}
    for sublayer, permutation in zip(sublayers, permutations, strict=True):
        if not total:
            dtypes = {name: tensor.dtype for name, tensor in sublayer.items()}
            total = {name: torch.zeros_like(t, dtype=torch.float64) for name, t in sublayer.items()}
        if (shapes := _shapes(sublayer)) != _shapes(total):
            both = f"{_shapes(total)} and {shapes}"
            raise ValueError(f"sublayers of different shapes cannot be merged: {both}")
        for name, tensor in permute(sublayer, permutation, form).items():
            total[name] += tensor
    k = len(permutations)
    return {name: tensor.div_(k).to(dtypes[name]) for name, tensor in total.items()}


def _shapes(sublayer: Sublayer) -> dict[str, tuple[int, ...]]:
    return {name: tuple(tensor.shape) for name, tensor in sublayer.items()}


def merged_sublayer(
    tensor: Callable[[str], Tensor],
    tower: Tower,
    group: Group,
    permutations: Permutations | None,
) -> Sublayer:
    """The sublayer that replaces those of a group.

    tensor: name of a parameter -> its value, from a model or a file. permutations: of the tower;
    None averages without aligning (the paper's "vanilla").
    Raises ValueError, naming the layers of each width, if the group's layers differ in width.
    """
    form = tower.feed_forward
    names = [tower.tensors(layer) for layer in group.layers]
    down = "down.weight"
    widths = [n_neurons({down: tensor(each[down])}, form) for each in names]
    _check_widths(group, widths)
    orders = [
        permutations.towards(group.anchor, layer)
        if permutations is not None
        else torch.arange(width)
        for layer, width in zip(group.layers, widths, strict=True)
    ]
    merged: Sublayer = {}
    for role in names[0]:  # one by one: in float64 a whole sublayer is much of a small model
        merged |= merge(({role: tensor(each[role])} for each in names), orders, form)
    return merged


def _check_widths(group: Group, widths: Sequence[int]) -> None:
    if len(set(widths)) == 1:
        return
    layers_of: dict[int, list[int]] = {}
    for layer, width in zip(group.layers, widths, strict=True):
        layers_of.setdefault(width, []).append(layer)
    told = "; ".join(f"{width} in {layers}" for width, layers in layers_of.items())
    raise ValueError(
        f"FF sublayers of different widths cannot be merged: in the {group.tower}, d_ff is {told}. "
        "Choose layers of one width"
    )


@torch.no_grad()
def merge_in_model(
    model: nn.Module, groups: Sequence[Group], permutations: dict[str, Permutations] | None
) -> None:
    """Merge and tie the FF sublayers of each group, in place, and note it in the configuration.

    The model's own parameters are replaced, not written to: `tie.untouched` brings them back.
    permutations: by tower; None for vanilla.
    Raises ValueError for groups that the model cannot have.
    """
    found = towers(model)
    check_groups(groups, {name: len(tower) for name, tower in found.items()})
    notes = with_earlier(groups, model)
    for group in groups:
        tower = found[group.tower]
        own = permutations[group.tower] if permutations is not None else None
        merged = merged_sublayer(model.get_parameter, tower, group, own)
        for role, name in tower.tensors(group.layers[0]).items():
            module = model.get_submodule(name.rpartition(".")[0])
            setattr(module, role.split(".")[1], nn.Parameter(merged[role]))
        tie(model, tower.shared_modules(group.layers))
    setattr(model.config, GROUPS, notes)
