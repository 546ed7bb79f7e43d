"""Align neurons by linear assignment (Eq. 2), for all pairs of layers that need it.

The permutation π of an ordered pair (anchor, other) maps anchor neuron j to the other sublayer's
neuron π(j). Only pairs i < j are solved: swapping a pair transposes its cost matrix, so that π(j→i)
is the inverse of π(i→j).
"""

from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy
import torch
from torch import Tensor

from ffmerge.method.correlation import correlation_of_standardized, standardize

Pair = tuple[int, int]

# Of the auction that prepares an assignment, chosen by processor time on features of trained models
# and of random weights with 512 to 8192 neurons.
LEAST_FOR_AUCTION = 256  # neurons; below, scipy alone is as fast
SCALES = (0.03, 0.006, 0.0012)  # ε over the spread of the correlations
FREE_SHARE = 0.02
MOST_BIDS = 40  # a row, on average


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

    correlation: (d_ff, d_ff), row j is anchor neuron j. Returns (d_ff,) int64 on the processor.
    Raises ValueError if an entry is not finite.
    """
    least, greatest = torch.aminmax(correlation)  # NaN if any is; needs no memory
    if not torch.isfinite(greatest - least):  # scipy reads an infinity as "forbidden"
        raise ValueError("a correlation is not finite")
    from scipy.optimize import linear_sum_assignment  # half a second that only this needs

    # Adding a number to a row or a column shifts the sums of all permutations alike, so the best
    # one stays the best. After near-optimal prices scipy finds most columns free at once.
    # The cost is float64 and minimised, because scipy would otherwise make such a copy.
    prices = auction_prices(correlation, (greatest - least).item())
    cost = correlation.to("cpu", torch.float64, copy=True).neg_()
    cost += prices.to("cpu", torch.float64)
    cost -= cost.amin(dim=1, keepdim=True)
    cost -= cost.amin(dim=0)
    _, columns = linear_sum_assignment(cost.numpy())
    return torch.from_numpy(columns)


def auction_prices(correlation: Tensor, spread: float) -> Tensor:
    """Near-optimal dual prices of the columns of an assignment problem, by an auction.

    correlation: (n, n), finite; spread: its largest minus its smallest entry. Returns (n,) float32.
    In each round all rows without a column bid for the one that gains them most after its price.
    A bid raises the price by what the row gains over its second best, and by ε; the highest wins.
    ε shrinks from 3 % to 0.1 % of the spread. A scale ends when 2 % of the rows are free, because
    the last ones would take most rounds, and an exact solver has to finish anyway.
    Source: Bertsekas, "Auction algorithms for network flow problems" (1992), with all rows bidding
    at once.
    """
    n, device = len(correlation), correlation.device
    prices = torch.zeros(n, device=device)
    if n < LEAST_FOR_AUCTION or not spread:
        return prices
    bids_left = MOST_BIDS * n  # many equal rows would outbid each other by ε only
    for epsilon in (spread * scale for scale in SCALES):
        owner = torch.full((n,), -1, device=device)  # column -> row
        free = torch.arange(n, device=device)
        while len(free) > FREE_SHARE * n and bids_left > 0:
            bids_left -= len(free)
            gain = correlation[free].sub_(prices) if len(free) < n else correlation - prices
            best, column = gain.max(dim=1)
            second = gain.scatter_(1, column[:, None], -torch.inf).amax(dim=1)
            bid = best.sub_(second).add_(epsilon)
            highest = torch.zeros_like(prices).scatter_reduce_(0, column, bid, "amax")
            won = (bid >= highest[column]).nonzero()[:, 0]
            winner = torch.full_like(owner, -1).scatter_(0, column[won], free[won])
            prices += highest
            sold = (winner >= 0).nonzero()[:, 0]
            outbid = owner[sold]
            owner[sold] = winner[sold]
            is_free = torch.zeros(n, dtype=torch.bool, device=device)
            is_free[free] = True
            is_free[winner[sold]] = False
            is_free[outbid[outbid >= 0]] = True
            free = is_free.nonzero()[:, 0]
    return prices


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

        Raises KeyError naming the pair, or the anchor of no pair, if it was not solved.
        """
        if anchor == layer:  # layers of other stages can have another d_ff
            d_ff = next((len(p) for pair, p in self.solved.items() if anchor in pair), None)
            if d_ff is None:
                raise KeyError(f"no permutation was solved for layer {anchor}")
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


def load_permutations(*files: str | Path) -> dict[str, Permutations]:
    """Every tower's permutations, from files that `save_permutations` wrote of different pairs."""
    from safetensors.torch import load_file

    solved: dict[str, dict[Pair, Tensor]] = {}
    for name, permutation in (item for file in files for item in load_file(file).items()):
        tower, i, j = name.split(".")
        solved.setdefault(tower, {})[int(i), int(j)] = permutation.long()
    return {tower: Permutations(pairs) for tower, pairs in solved.items()}
