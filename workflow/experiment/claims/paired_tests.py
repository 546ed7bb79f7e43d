"""Test differences between models that were scored on the same test examples.

Swapping the outputs of two models on random examples tests whether they differ at all. Bootstrap
over examples tests whether a difference stays below a bound, and everything about more than two
models. All p-values are two-sided: a small one says that the data decide, not for which side.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import permutations
from typing import Any

import numpy

from ffmerge.evaluation.intervals import OfSums, Values, resampled_sums, score_columns

SWAPS_AT_ONCE = 2**22  # examples times swaps that are in memory together
ROUNDING = 1e-9  # scores that differ by less count as equal


@dataclass(frozen=True)
class Scored:
    """A tested model.

    score: on all examples; columns: (n_examples, n_columns) that the metric adds up; of_sums: the
    metric as a function of such sums, (..., n_columns) -> (...). resampled: (resamples,) scores of
    bootstrap resamples; resample i has the same examples for all models of a task.
    """

    score: float
    columns: Values
    of_sums: OfSums
    resampled: Values


def scored_models(
    tests: dict[str, dict[str, Any]],
    per_example: dict[str, Mapping[str, Sequence]],
    resamples: int,
    seed: int,
) -> dict[str, Scored]:
    """Resample the tested models of one task with common resamples; returns them by name.

    tests, per_example: name -> summary of the test, and its columns (see Evaluation).
    Raises ValueError if the models were not scored on equally many examples.
    """
    parts = {
        name: score_columns(test["metric"], per_example[name], test.get("average"))
        for name, test in tests.items()
    }
    sizes = {len(columns) for columns, _ in parts.values()}
    if len(sizes) != 1:
        raise ValueError(f"models to compare were scored on {sorted(sizes)} examples")
    drawn = resampled_sums(numpy.hstack([c for c, _ in parts.values()]), resamples, seed)
    widths = numpy.cumsum([columns.shape[1] for columns, _ in parts.values()])
    return {
        name: Scored(tests[name]["score"], columns, of_sums, of_sums(sums))
        for (name, (columns, of_sums)), sums in zip(
            parts.items(), numpy.split(drawn, widths[:-1], axis=1), strict=True
        )
    }


def swap_test(one: Scored, other: Scored, swaps: int, seed: int) -> float:
    """p-value of a difference between two scores (approximate randomization, Noreen 1989).

    Each example's outputs are swapped with probability 1/2. p is the share of swaps after which the
    scores are at least as far apart as observed, counting the observation itself. Corpus metrics
    are recomputed from the swapped examples' sums (Riezler and Maxwell 2005).
    Raises ValueError if the models were not scored on equally many examples.
    """
    a, b = one.columns, other.columns
    if len(a) != len(b):
        raise ValueError(f"a paired test of {len(a)} and {len(b)} examples")
    total_a, total_b = a.sum(axis=0), b.sum(axis=0)
    changes = (b - a)[(a != b).any(axis=1)]  # swapping equal ones changes nothing
    observed = abs(one.of_sums(total_a) - other.of_sums(total_b))
    generator = numpy.random.default_rng(seed)
    at_once, as_far = max(1, SWAPS_AT_ONCE // max(1, len(changes))), 0
    for start in range(0, swaps, at_once):
        n = min(at_once, swaps - start)
        swapped = generator.integers(2, size=(n, len(changes)), dtype=bool).astype(float)
        change = swapped @ changes  # (n, n_columns)
        apart = abs(one.of_sums(total_a + change) - other.of_sums(total_b - change))
        as_far += int((apart >= observed - ROUNDING).sum())
    return (1 + as_far) / (1 + swaps)


def share_at_most(resampled: Values, bound: float) -> float:
    """One-sided p-value of a statistic being above a bound: the share of resamples at most it.

    The statistic itself counts as a resample, so that p is never 0.
    """
    return float((1 + (resampled <= bound + ROUNDING).sum()) / (1 + len(resampled)))


def bound_test(resampled: Values, bound: float) -> float:
    """Two-sided p-value of a statistic differing from a bound (bootstrap)."""
    return two_sided(share_at_most(resampled, bound), share_at_most(-resampled, -bound))


def two_sided(p_above: float, p_below: float) -> float:
    """Two-sided p-value from the two one-sided ones."""
    return min(1.0, 2 * min(p_above, p_below))


def widest(models: Sequence[Scored]) -> tuple[float, Values]:
    """Largest difference between the scores of two models, and that pair's on each resample."""
    high, low = max(models, key=lambda m: m.score), min(models, key=lambda m: m.score)
    return high.score - low.score, high.resampled - low.resampled


def spread_test(models: Sequence[Scored], bound: float) -> float:
    """p-value of the largest difference between models being on one side of a bound.

    Below: every pair has to be below (intersection-union test, which needs no correction). Above:
    the observed spread has to exceed the bound by more than the range of the models' errors, as in
    Tukey's range test; resampled spreads are too wide and would reject too often.
    """
    spread, _ = widest(models)
    below = max(
        share_at_most(bound - a.resampled + b.resampled, 0.0) for a, b in permutations(models, 2)
    )
    errors = numpy.stack([model.resampled - model.score for model in models])
    ranges = errors.max(axis=0) - errors.min(axis=0)
    return two_sided(share_at_most(-ranges, bound - spread), below)


def holm(p_values: Sequence[float]) -> list[float]:
    """Correct p-values for their number (Holm 1979); returns them in the same order."""
    n = len(p_values)
    corrected, least = [0.0] * n, 0.0
    for rank, i in enumerate(sorted(range(n), key=lambda i: p_values[i])):
        least = max(least, min(1.0, (n - rank) * p_values[i]))
        corrected[i] = least
    return corrected
