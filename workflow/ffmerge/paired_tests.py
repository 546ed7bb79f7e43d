"""Paired tests on per-example scores: two models, the same test examples.

Whether one model beats another is tested by swapping their outputs on random examples (approximate
randomization: what the difference would be if both were the same). Whether a difference stays below
a margin, and everything about more than two models, by bootstrap over examples. The p-values of one
table are corrected together.
"""

from collections.abc import Sequence

import numpy
from numpy.typing import NDArray

from ffmerge.intervals import resampled_sums, score_columns

Values = NDArray[numpy.float64]
CHUNK = 256  # random swaps at a time


class Scored:
    """A tested model: its score, and its scores on bootstrap resamples of the test examples.

    resampled: (resamples,); the draws of all models with the same number of examples are the same.
    """

    def __init__(self, test: dict, columns: dict[str, Sequence], resamples: int, seed: int) -> None:
        self.columns, self.of_sums = score_columns(test["metric"], columns, test.get("average"))
        self.score: float = test["score"]
        sums = resampled_sums(self.columns, resamples, seed)
        self.resampled: Values = numpy.array([self.of_sums(row) for row in sums])


def swap_test(better: Scored, worse: Scored, sign: int, swaps: int, seed: int) -> float:
    """p-value of `better` beating `worse`: share of random swaps with at least their difference.

    sign: 1 where a higher score is better, else -1.
    Raises ValueError if the models were not scored on equally many examples.
    """
    a, b = better.columns, worse.columns
    if len(a) != len(b):
        raise ValueError(f"a paired test of {len(a)} and {len(b)} examples")
    observed = sign * (better.of_sums(a.sum(axis=0)) - worse.of_sums(b.sum(axis=0)))
    generator = numpy.random.default_rng(seed)
    at_least, total = 0, a.sum(axis=0) + b.sum(axis=0)
    for start in range(0, swaps, CHUNK):
        swapped = generator.random((min(CHUNK, swaps - start), len(a)), dtype=numpy.float32) < 0.5
        sums = a.sum(axis=0) + swapped.astype(float) @ (b - a)  # (chunk, n_columns)
        for own in sums:
            difference = sign * (better.of_sums(own) - worse.of_sums(total - own))
            at_least += difference >= observed - 1e-12
    return (1 + at_least) / (1 + swaps)


def sign_test(differences: Values, swaps: int, seed: int) -> float:
    """p-value of the mean being above 0, by random signs; differences: (n,)."""
    generator = numpy.random.default_rng(seed)
    signs = generator.choice([-1.0, 1.0], size=(swaps, len(differences)))
    at_least = (signs @ differences >= differences.sum() - 1e-12).sum()
    return float((1 + at_least) / (1 + swaps))


def share_at_most(resampled: Values, bound: float) -> float:
    """p-value of a statistic being above a bound: share of its resamples that are not."""
    return float((1 + (resampled <= bound).sum()) / (1 + len(resampled)))


def spread(models: Sequence[Scored]) -> tuple[float, Values]:
    """Largest difference between the scores of some models, and on each resample."""
    scores = [model.score for model in models]
    resampled = numpy.stack([model.resampled for model in models])
    return max(scores) - min(scores), resampled.max(axis=0) - resampled.min(axis=0)


def holm(p_values: Sequence[float]) -> list[float]:
    """p-values corrected for their number (Holm 1979), in the order given."""
    n = len(p_values)
    corrected, least = [0.0] * n, 0.0
    for rank, i in enumerate(sorted(range(n), key=lambda i: p_values[i])):
        least = max(least, min(1.0, (n - rank) * p_values[i]))
        corrected[i] = least
    return corrected
