"""Relaxed tying: merged layers keep their own biases and a low-rank correction of each map.

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
from ffmerge.models.tied_model import RANK, relax, relaxed_modules
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
            own, shared = sublayer[f"{which}.weight"].double(), module.weight.double()
            residual = own - shared if tower.feed_forward.layout == "out_in" else (own - shared).T
            relax(module, rank)
            moment = moments[NEURON if which == "down" else INPUT].to(residual.device)
            b, a = low_rank(residual, moment, rank)
            module.correction_out.copy_(b)
            module.correction_in.copy_(a)
            if module.bias is not None:
                module.bias = nn.Parameter(sublayer[f"{which}.bias"].clone())
    for entry in getattr(model.config, GROUPS):
        if any(Group(entry["tower"], tuple(entry["layers"]), entry["anchor"]) == g for g in groups):
            entry[RANK] = rank


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
    if n_out <= n_in:  # singular vectors by the smaller Gram matrix, eigenvalues ascending
        basis = torch.linalg.eigh(weighted @ weighted.T).eigenvectors[:, -rank:]
    else:
        right = torch.linalg.eigh(weighted.T @ weighted).eigenvectors[:, -rank:]
        basis = torch.linalg.qr(weighted @ right).Q
    rows = basis.T @ residual
    lengths = rows.norm(dim=1, keepdim=True).sqrt().clamp_min(torch.finfo(torch.float32).tiny)
    return basis * lengths.T, rows / lengths


def second_moment(values: Features, tower: str, layer: int) -> Tensor:
    """Second moment E[x xᵀ] of a layer's values, (d, d) float64, read ROWS positions at a time."""
    n_tokens, d = values.shape(tower, layer)
    total = torch.zeros(d, d, dtype=torch.float64)
    for first in range(0, n_tokens, ROWS):
        x = values.layer(tower, layer, first, ROWS)
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


def corrections(model: nn.Module) -> str:
    """A line on the corrections of a model's merged layers; empty if they have none."""
    found = relaxed_modules(model)
    if not found:
        return ""
    modules = [model.get_submodule(name) for name in found]
    n = sum(each.correction_in.numel() + each.correction_out.numel() for each in modules)
    ranks = ", ".join(map(str, sorted(set(found.values()))))
    return (
        f"each merged layer keeps its biases and corrections of rank {ranks}: {n:,} parameters in "
        f"{len(modules)} maps"
    )
