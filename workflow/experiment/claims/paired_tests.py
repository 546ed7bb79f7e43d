"""Test differences between models that were scored on the same test examples.

A difference is divided by its standard error over articles, pages or examples (see Scored), and
compared with Student's distribution, which counts how few there are. All p-values are two-sided: a
small one says that the data decide, not for which side.
"""

from collections.abc import Sequence
from itertools import permutations
from math import inf

from scipy.special import stdtr

from ffmerge.evaluation.intervals import Scored

ROUNDING = 1e-9  # numbers that differ by less count as equal


def one_sided(statistic: Scored, bound: float) -> tuple[float, float]:
    """p-values of a statistic being below and above a bound: how likely it is if it were at it."""
    distance, error = statistic.score - bound, statistic.error
    if statistic.n < 2 or abs(distance) < ROUNDING:
        return 0.5, 0.5
    t = distance / error if error else inf * distance
    return float(stdtr(statistic.n - 1, t)), float(stdtr(statistic.n - 1, -t))


def bound_test(statistic: Scored, bound: float) -> float:
    """Two-sided p-value of a statistic differing from a bound."""
    return 2 * min(one_sided(statistic, bound))


def widest(models: Sequence[Scored]) -> Scored:
    """Return the largest difference between the scores of two models, as resampled."""
    return max(models, key=lambda m: m.score).minus(min(models, key=lambda m: m.score))


def spread_test(models: Sequence[Scored], bound: float) -> float:
    """p-value of the largest difference between models being on one side of a bound.

    Below: every pair has to be below (intersection-union test, which needs no correction). Above:
    the pair furthest apart has to be above, at a p-value multiplied by the number of pairs.
    """
    differences = [a.minus(b) for a, b in permutations(models, 2)]
    below = max(one_sided(difference, bound)[0] for difference in differences)
    above = len(differences) / 2 * one_sided(widest(models), bound)[1]
    return min(1.0, 2 * min(below, above))


def holm(p_values: Sequence[float]) -> list[float]:
    """Correct p-values for their number (Holm 1979); returns them in the same order."""
    n = len(p_values)
    corrected, least = [0.0] * n, 0.0
    for rank, i in enumerate(sorted(range(n), key=lambda i: p_values[i])):
        least = max(least, min(1.0, (n - rank) * p_values[i]))
        corrected[i] = least
    return corrected
