"""Relaxed tying: merged layers keep their own biases and a low-rank correction of each map.

And the baseline of it: low-rank maps alone, without merging.

A layer's map is W + B A instead of the shared W, with B (n_out, r) and A (r, n_in) of its own. The
paper does not do this. It is the relaxation of "Relaxed Recursive Transformers" (Bae et al., 2024),
with an SVD that weighs errors by what a map gets, as in ASVD (Yuan et al., 2023) and SVD-LLM (Wang
et al., 2024).
"""

from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor, nn

from ffmerge.method.features import Features
from ffmerge.method.groups import Group
from ffmerge.method.merge import merge_in_model, permute
from ffmerge.method.permutation import Permutations
from ffmerge.models.format import GROUPS
from ffmerge.models.tied_model import LOW_RANK, OWN, RANK, factorize, relax, relaxed_modules
from ffmerge.models.towers import Tower, towers
from provenance.progress import progress

INPUT, NEURON = "input", "neuron"  # sublayers in the file of features: what each map gets
GIVEN = {INPUT: "input", NEURON: "neuron"}
"""What has to be collected: see `features.collect_outputs`."""
RIDGE = 1e-6  # of the mean second moment: weighs directions that no input had
ROWS = 1024  # positions that are read at a time
MOMENTS = 4  # square matrices of the wider side that are in memory at once


@torch.no_grad()
def merge_relaxed(
    model: nn.Module,
    groups: Sequence[Group],
    permutations: dict[str, Permutations] | None,
    rank: int,
    inputs: Mapping[str, Features],
) -> None:
    """Merge groups in place as `merge_in_model` does, and correct each layer's maps.

    Only weights are shared. inputs: the original's, by INPUT and NEURON.
    Raises ValueError as `merge_in_model` does.
    """
    model_towers = towers(model)
    originals = {
        (group, layer): {role: model.get_parameter(name) for role, name in tensors.items()}
        for group in groups
        for layer in group.layers
        for tensors in [model_towers[group.tower].tensors(layer)]
    }
    merge_in_model(model, groups, permutations)
    for (group, layer), sublayer in progress(originals.items(), desc="corrections"):
        tower = model_towers[group.tower]
        moments = {of: second_moment(f, group.tower, layer) for of, f in inputs.items()}
        if permutations is not None:
            order = permutations[group.tower].towards(group.anchor, layer)
            sublayer = permute(sublayer, order, tower.feed_forward)
            moments[NEURON] = moments[NEURON][order][:, order]
        for which in tower.feed_forward.maps:
            module = model.get_submodule(tower.module(layer, which))
            residual = sublayer[f"{which}.weight"].double() - module.weight.double()
            moment = moments[NEURON if which == "down" else INPUT].to(residual.device)
            b, a = low_rank(_out_in(residual, tower), moment, rank)
            relax(module, rank)
            module.correction_out.copy_(b)
            module.correction_in.copy_(a)
            if module.bias is not None:
                module.bias = nn.Parameter(sublayer[f"{which}.bias"].clone())
    for entry in getattr(model.config, GROUPS):
        if Group.from_json(entry) in groups:
            entry[RANK] = rank


@torch.no_grad()
def approximate(
    model: nn.Module,
    groups: Sequence[Group],
    n_removed: Mapping[str, int],
    inputs: Mapping[str, Features],
) -> None:
    """Replace FF maps by low-rank ones in place: what merging has to beat at its size.

    groups: all layers of each tower, none of them merged. n_removed: FF sublayers by tower whose
    parameters this saves; biases are kept. inputs: as for `merge_relaxed`.
    """
    entries = []
    for group, tower in ((group, towers(model)[group.tower]) for group in groups):
        maps = [
            (layer, which, tower.module(layer, which))
            for layer in group.layers
            for which in tower.feed_forward.maps
        ]
        weights = [model.get_submodule(name).weight for _, _, name in maps]
        n_kept = sum(w.numel() for w in weights) * (len(tower) - n_removed[group.tower])
        rank = max(1, n_kept // (len(tower) * sum(sum(w.shape) for w in weights)))
        for layer, which, name in progress(maps, desc="low-rank maps"):
            module = model.get_submodule(name)
            weight = _out_in(module.weight, tower).double()
            moment = second_moment(
                inputs[NEURON if which == "down" else INPUT], group.tower, layer
            ).to(weight.device)
            b, a = low_rank(weight, moment, rank)
            factorize(module, rank)
            module.factor_in.copy_(a)
            module.weight.copy_(_out_in(b, tower))
        modules = {"modules": [[name] for _, _, name in maps]}
        entries.append({**group.as_json(), **modules, RANK: rank, LOW_RANK: True})
    setattr(model.config, GROUPS, entries)


def _out_in(weight: Tensor, tower: Tower) -> Tensor:
    """A weight as (n_out, n_in), or one of these as it is stored."""
    return weight if tower.feed_forward.layout == "out_in" else weight.T


def low_rank(residual: Tensor, moment: Tensor, rank: int) -> tuple[Tensor, Tensor]:
    """B (n_out, r) and A (r, n_in) whose product is nearest to a residual D for its inputs.

    They minimize E‖(D - B A) x‖². With a root S Sᵀ of the second moment E[x xᵀ], and the left
    singular vectors U of D S, that is B A = U_r U_rᵀ D: the root need not be inverted. r is the
    rank, or the full one if this is less. Row i of A is as long as column i of B.
    residual: (n_out, n_in) float64. moment: (n_in, n_in) float64.
    """
    n_out, n_in = residual.shape
    rank = min(rank, n_out, n_in)
    moment = moment.clone()
    diagonal = moment.diagonal()
    diagonal += RIDGE * diagonal.mean().clamp_min(torch.finfo(moment.dtype).tiny)
    weighted = residual @ torch.linalg.cholesky(moment)
    if n_out <= n_in:  # singular vectors by the smaller Gram matrix, the largest first
        basis = torch.linalg.eigh(weighted @ weighted.T).eigenvectors.flip(-1)[:, :rank]
    else:
        right = torch.linalg.eigh(weighted.T @ weighted).eigenvectors.flip(-1)[:, :rank]
        basis = torch.linalg.qr(weighted @ right).Q
    rows = basis.T @ residual
    lengths = rows.norm(dim=1, keepdim=True).sqrt().clamp_min(torch.finfo(torch.float32).tiny)
    return basis * lengths.T, rows / lengths


def second_moment(values: Features, tower: str, layer: int) -> Tensor:
    """Second moment E[x xᵀ] of a layer's values, (d, d) float64, read ROWS positions at a time."""
    n_tokens, d = values.shape(tower, layer)
    total = torch.zeros(d, d, dtype=torch.float64)
    for first in range(0, n_tokens, ROWS):
        x = values.layer(tower, layer, first, ROWS).double()  # float32 sums may have no root
        total += x.T @ x
    return total / n_tokens


def check_rank(
    groups: Sequence[Group],
    model_towers: Mapping[str, Tower],
    shape: Callable[[str], Sequence[int]],
    rank: int,
) -> None:
    """Raise ValueError if corrections of this rank would take as much as merging removes.

    shape: name of a parameter -> its shape, from a model or a file.
    """
    removed = per_rank = 0
    for group in groups:
        tower, k = model_towers[group.tower], len(group.layers)
        for which in tower.feed_forward.maps:
            n, m = shape(f"{tower.module(group.layers[0], which)}.weight")
            removed += (k - 1) * n * m
            per_rank += k * (n + m)
    if rank * per_rank >= removed:
        raise ValueError(
            f"--rank {rank}: corrections of {rank * per_rank:,} parameters would take what merging "
            f"removes, {removed:,}: take at most rank {(removed - 1) // per_rank}"
        )


def more_removed(model: nn.Module, n_removed: Mapping[str, int], rank: int) -> dict[str, int]:
    """FF sublayers of a window to remove so that as many parameters go in spite of corrections.

    That is the least n with n (F - r S) - r S ≥ n_removed F, for the sizes F of an FF's weights and
    S of its corrections of rank 1. n_removed: by tower, as what is returned.
    Raises ValueError if a tower has too few layers for that.
    """
    more = {}
    for name, n in n_removed.items():
        tower = towers(model)[name]
        maps = [tower.module(0, which) for which in tower.feed_forward.maps]
        shapes = [model.get_submodule(module).weight.shape for module in maps]
        size, taken = sum(shape.numel() for shape in shapes), rank * sum(map(sum, shapes))
        more[name] = 0 if n == 0 else len(tower)
        if n and taken < size:
            more[name] = -(-(n * size + taken) // (size - taken))
        if n and more[name] >= len(tower):
            raise ValueError(
                f"--rank {rank}: corrections take so much that no window of the {name} makes up "
                "for them: choose a lower rank, or remove less"
            )
    return more


def corrections(model: nn.Module) -> str:
    """A line on low-rank maps or corrections of a model's FF sublayers; empty if there are none."""
    found = relaxed_modules(model)
    if not found:
        return ""
    n = sum(
        getattr(model.get_submodule(name), own).numel()
        for name in found
        for own in OWN
        if hasattr(model.get_submodule(name), own)
    )
    ranks = ", ".join(map(str, sorted({rank for rank, _ in found.values()})))
    if any(is_low_rank for _, is_low_rank in found.values()):
        return f"{len(found)} maps are products of two, of rank {ranks}"
    return (
        f"each merged layer keeps its biases and corrections of rank {ranks}: {n:,} parameters in "
        f"{len(found)} maps"
    )
