"""Align neurons by linear assignment (Eq. 2), for all pairs of layers that need it.

The permutation π of an ordered pair (anchor, other) maps anchor neuron j to the other sublayer's
neuron π(j). Only pairs i < j are solved: swapping a pair transposes its cost matrix, so that π(j→i)
is the inverse of π(i→j).
"""

from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import lru_cache

import numpy
import torch
from torch import Tensor

from ffmerge.method.correlation import correlation_of_standardized, standardize

Pair = tuple[int, int]


@dataclass(frozen=True)
class Alignment:
    """A solved pair: its permutation and the mean correlation of the neurons it matches.

    permutation: (d_ff,), anchor neuron j is matched with the other layer's neuron permutation[j].
    aligned, unaligned: mean of C(j, π(j)), and of C(j, j) for comparison.
    """

    permutation: Tensor
    aligned: float
    unaligned: float


def best_permutation(correlation: Tensor) -> Tensor:
    """The permutation π that maximises Σ_j C(j, π(j)) (Eq. 2), by scipy's Jonker-Volgenant solver.

    correlation: (d_ff, d_ff), row j is anchor neuron j. Returns (d_ff,) int64.
    Raises ValueError if an entry is not finite.
    """
    least, greatest = torch.aminmax(correlation)  # NaN if any is; needs no memory
    if not torch.isfinite(greatest - least):  # scipy reads an infinity as "forbidden"
        raise ValueError("a correlation is not finite")
    from scipy.optimize import linear_sum_assignment  # half a second that only this needs

    # Subtract each column's best. This shifts the sums of all permutations alike, and scipy, which
    # does not reduce columns itself, is two to three times as fast if many neurons are similar.
    # The cost is float64 and minimised, because scipy would otherwise make such a copy.
    cost = correlation.to("cpu", torch.float64, copy=True).neg_()
    cost -= cost.min(dim=0).values
    _, columns = linear_sum_assignment(cost.numpy())
    return torch.from_numpy(columns)


def inverse(permutation: Tensor) -> Tensor:
    """The inverse permutation: inverse(π)[π(j)] = j."""
    return torch.argsort(permutation)


def align_all_pairs(
    features: Callable[[int], Tensor],
    pairs: Iterable[Pair],
    workers: int = 1,
    overwrite: bool = False,
    device: str = "cpu",
) -> Iterator[tuple[Pair, Alignment]]:
    """Solve every pair, `workers` at a time, and yield the solutions in the order of `pairs`.

    features: layer -> (n_tokens, d_ff); with `overwrite` these are overwritten, which saves the
    memory of another layer. Each worker holds one layer's features and one (d_ff, d_ff) matrix, and
    all share the features of the latest anchor: sort `pairs` to read every anchor once.
    device: where matrix products are computed. The processor solves assignments, so that a GPU
    computes the next pair's product meanwhile.
    Raises ValueError naming the layers if features are not finite or token counts differ.
    """

    def standardized(layer: int) -> Tensor:
        return standardize(features(layer).to(device), overwrite)

    anchors = lru_cache(maxsize=1)(standardized)

    def solve(pair: Pair) -> Alignment:
        try:
            anchor, other = anchors(pair[0]), standardized(pair[1])
            correlation = correlation_of_standardized(anchor, other)
            del other  # the assignment needs room
        except ValueError as error:
            raise ValueError(f"layers {pair[0]} and {pair[1]}: {error}") from None
        permutation = best_permutation(correlation)
        matched = correlation[torch.arange(len(permutation)), permutation]
        return Alignment(permutation, matched.mean().item(), correlation.diag().mean().item())

    pairs = list(pairs)
    if workers == 1:  # in this thread: another one would allocate buffers again
        yield from zip(pairs, map(solve, pairs), strict=True)
        return
    threads = torch.get_num_threads()
    torch.set_num_threads(max(1, threads // workers))
    try:
        with ThreadPoolExecutor(workers) as pool:
            yield from zip(pairs, pool.map(solve, pairs), strict=True)
    finally:
        torch.set_num_threads(threads)


class Permutations:
    """The solved pairs of one tower, for any anchor.

    solved: (i, j) with i < j -> (d_ff,) permutation.
    """

    def __init__(self, solved: dict[Pair, Tensor]) -> None:
        self.solved = solved

    def towards(self, anchor: int, layer: int) -> Tensor:
        """π that aligns `layer` to `anchor`, (d_ff,); the identity for the anchor itself.

        Raises KeyError naming the pair if it was not solved.
        """
        if anchor == layer:
            d_ff = len(next(iter(self.solved.values())))
            return torch.arange(d_ff)
        pair = (min(anchor, layer), max(anchor, layer))
        if pair not in self.solved:
            raise KeyError(f"no permutation was solved for layers {pair[0]} and {pair[1]}")
        return self.solved[pair] if anchor < layer else inverse(self.solved[pair])


def save_permutations(towers: dict[str, dict[Pair, Alignment]], file: str) -> None:
    """Write every tower's permutations as safetensors `tower.i.j`, (d_ff,) int32."""
    from safetensors.numpy import save_file

    tensors = {
        f"{tower}.{i}.{j}": alignment.permutation.numpy().astype(numpy.int32)
        for tower, solved in towers.items()
        for (i, j), alignment in solved.items()
    }
    save_file(tensors, file)


def load_permutations(file: str) -> dict[str, Permutations]:
    """Every tower's permutations, as written by `save_permutations`."""
    from safetensors.torch import load_file

    solved: dict[str, dict[Pair, Tensor]] = {}
    for name, permutation in load_file(file).items():
        tower, i, j = name.split(".")
        solved.setdefault(tower, {})[int(i), int(j)] = permutation.long()
    return {tower: Permutations(pairs) for tower, pairs in solved.items()}
