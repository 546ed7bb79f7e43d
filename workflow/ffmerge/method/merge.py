"""Merging aligned feed-forward sublayers into one (Eqs. 3 and 4)."""

from collections.abc import Callable, Iterable, Mapping, Sequence

import torch
from torch import Tensor, nn

from ffmerge.method.groups import Group, check_groups
from ffmerge.method.permutation import Permutations
from ffmerge.method.tie import combined_entry, tie
from ffmerge.models.architectures import FeedForward
from ffmerge.models.format import GROUPS
from ffmerge.models.towers import Tower, towers

Sublayer = dict[str, Tensor]
"""One FF sublayer by role: `up.weight` (d_ff, d_model), `up.bias` (d_ff,), `down.weight`
(d_model, d_ff), `down.bias` (d_model,), in the layout that the architecture stores. A gated one
also has `gate.weight` and `gate.bias`; if gate and up are one map, these are the first d_ff rows of
`up`. Biases are there only if the architecture has them."""


def permute(sublayer: Sublayer, permutation: Tensor, form: FeedForward) -> Sublayer:
    """Reorder the neurons, P W_in, P b_in, W_out Pᵀ, which leaves the function unchanged.

    A neuron of a gated sublayer is φ(gate)·up, so that the rows of both move together.
    permutation: (d_ff,), new neuron j is old neuron permutation[j].
    """
    rows = torch.cat([permutation, permutation + len(permutation)]) if form.fused else permutation
    axes = {"weight": {"out_in": 0, "in_out": 1}[form.layout], "bias": 0}  # of outputs
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


def merge(
    sublayers: Iterable[Sublayer], permutations: Sequence[Tensor], form: FeedForward
) -> Sublayer:
    """Average k aligned sublayers (Eqs. 3 and 4), or the same tensors of each, in their dtype.

    sublayers: read one at a time. permutations: one (d_ff,) per sublayer, the identity for the
    anchor. Sums are float64, so that k copies of a sublayer merge to exactly that sublayer.
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

    tensor: name of a parameter -> its value, from a model or a file. permutations: the tower's;
    None averages without aligning (the paper's "vanilla").
    """
    if permutations is not None:
        orders = [permutations.towards(group.anchor, layer) for layer in group.layers]
    else:
        _, d_ff = tower.widths(group.anchor, lambda name: tensor(name).shape)
        orders = [torch.arange(d_ff)] * len(group.layers)
    names = [tower.tensors(layer) for layer in group.layers]
    merged: Sublayer = {}
    for role in names[0]:  # one at a time: a whole sublayer in float64 is much of a small model
        sublayers = ({role: tensor(by_role[role])} for by_role in names)
        merged |= merge(sublayers, orders, tower.feed_forward)
    return merged


def check_mergeable(
    groups: Sequence[Group],
    model_towers: Mapping[str, Tower],
    shape: Callable[[str], Sequence[int]],
) -> None:
    """Raise ValueError for groups that a model cannot have, or whose layers differ in width.

    The message names tower and layer, or the layers of each width. shape: name of a parameter ->
    its shape, from a model or a file.
    """
    check_groups(groups, {name: len(tower) for name, tower in model_towers.items()})
    for group in groups:
        layers_of: dict[tuple[int, int], list[int]] = {}
        for layer in group.layers:
            widths = model_towers[group.tower].widths(layer, shape)
            layers_of.setdefault(widths, []).append(layer)
        if len(layers_of) > 1:
            widths = "; ".join(f"{d_ff} in {layers}" for (_, d_ff), layers in layers_of.items())
            raise ValueError(
                f"FF sublayers of different widths cannot be merged: in the {group.tower}, d_ff is "
                f"{widths}. Choose layers of one width"
            )


@torch.no_grad()
def merge_in_model(
    model: nn.Module, groups: Sequence[Group], permutations: dict[str, Permutations] | None
) -> None:
    """Merge and tie the FF sublayers of each group in place, and note it in the configuration.

    The model's parameters are replaced, not written to: `tie.temporary_changes` can put them back.
    permutations: by tower; None for vanilla.
    Raises ValueError, before anything changes, as `check_mergeable` does, and for a group that has
    some layers of an earlier group but not all.
    """
    model_towers = towers(model)
    check_mergeable(groups, model_towers, lambda name: model.get_parameter(name).shape)
    entry = combined_entry(groups, model)
    for group in groups:
        tower = model_towers[group.tower]
        of_tower = permutations[group.tower] if permutations is not None else None
        merged = merged_sublayer(model.get_parameter, tower, group, of_tower)
        for role, name in tower.tensors(group.layers[0]).items():
            module = model.get_submodule(name.rpartition(".")[0])
            setattr(module, role.split(".")[1], nn.Parameter(merged[role]))
        tie(model, tower.shared_modules(group.layers))
    setattr(model.config, GROUPS, entry)
