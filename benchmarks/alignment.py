"""Align all pairs of layers, against their matrix products and assignments alone."""

import tempfile
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path

import torch
from scipy.optimize import linear_sum_assignment
from torch import Tensor

from ffmerge.method.correlation import standardize
from ffmerge.method.features import Features, FeatureWriter
from ffmerge.method.permutation import Pair, align_all_pairs
from timing import Measured, compared, in_turns

CORES = 2


@dataclass(frozen=True)
class Size:
    """Shape of the features to align, and how often to time it."""

    n_layers: int
    n_tokens: int
    d_ff: int
    rounds: int


FULL = (Size(12, 10_000, 3072, 2), Size(3, 10_000, 5120, 2))  # ViT-base; 3 layers of GPT-2 large
TOY = (Size(3, 200, 32, 1),)


def measure(sizes: tuple[Size, ...] = FULL) -> list[Measured]:
    """Measure one line for each size."""
    with tempfile.TemporaryDirectory() as directory:
        return [_measured(size, Path(directory, "features.safetensors")) for size in sizes]


def _measured(size: Size, file: Path) -> Measured:
    write_features(size, file)
    features = Features(file)
    pairs = list(combinations(range(size.n_layers), 2))
    ready = [standardize(features.layer("encoder", i)) for i in range(size.n_layers)]

    def library() -> list[Tensor]:
        def layer(i: int) -> Tensor:
            return Features(file).layer("encoder", i)  # reads the file again, as a job does

        solved = align_all_pairs(layer, pairs, workers=CORES)
        return [alignment.permutation for _, alignment in solved]

    samples = in_turns(size.rounds, library=library, bare=lambda: bare(ready, pairs))
    for ours, theirs in zip(samples["library"], samples["bare"], strict=True):
        assert all(map(torch.equal, ours.returned, theirs.returned))
    what = f"alignment of {len(pairs)} pairs, d_ff {size.d_ff}, {size.n_tokens:,} positions"
    return compared(what, samples["library"], samples["bare"], ("at most", 1.2))


def bare(ready: list[Tensor], pairs: list[Pair]) -> list[Tensor]:
    """Solve pairs of standardized features from memory, on the same number of cores."""

    def solve(pair: Pair) -> Tensor:
        cost = (ready[pair[0]].T @ ready[pair[1]]).double().neg_()
        cost -= cost.min(dim=0).values  # as in the library, so that both solve the same problem
        return torch.from_numpy(linear_sum_assignment(cost.numpy())[1])

    threads = torch.get_num_threads()
    torch.set_num_threads(max(1, threads // CORES))
    try:
        with ThreadPoolExecutor(CORES) as pool:
            return list(pool.map(solve, pairs))
    finally:
        torch.set_num_threads(threads)


def write_features(size: Size, file: Path) -> None:
    """Write features whose neurons correlate between layers, in a random order in each layer."""
    random = torch.Generator().manual_seed(0)
    shape = (size.n_tokens, size.d_ff)
    common = torch.randn(shape, generator=random)
    names = {f"encoder.{layer}": shape for layer in range(size.n_layers)}
    with FeatureWriter(file, names) as writer:
        for name in names:
            order = torch.randperm(size.d_ff, generator=random)
            writer.append(name, 0.3 * common[:, order] + torch.randn(shape, generator=random))
