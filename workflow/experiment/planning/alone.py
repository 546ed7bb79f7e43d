"""What the steps of alignment take alone: what the whole of it is held against, and planned by."""

import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor

from torch import Tensor

from ffmerge.method.correlation import correlation_of_standardized, standardize
from ffmerge.method.permutation import best_permutation

Pair = tuple[int, int]


def sample(pairs: Sequence[Pair], n: int) -> list[Pair]:
    """n pairs spread evenly over all, or all where they are no more."""
    n = min(n, len(pairs))
    return [pairs[i * len(pairs) // n] for i in range(n)]


def steps_alone(
    layer: Callable[[int], Tensor], pairs: Sequence[Pair], threads: int
) -> dict[str, float]:
    """Seconds a pair of each step of aligning real features, nothing else going on.

    layer: its number -> (n_tokens, d_ff) features. Centring and the matrix product have all
    threads; of assignments, as many are solved at once as there are threads, and each counts for
    its share of the time that they take together. What warms up, a first product and the
    solver's import, does not count.
    """
    seconds = dict.fromkeys(("centring", "product", "assignment"), 0.0)

    def timed(step: str, work: Callable[[], object]) -> object:
        begin = time.perf_counter()
        result = work()
        seconds[step] += time.perf_counter() - begin
        return result

    i, j = pairs[0]
    correlation = correlation_of_standardized(standardize(layer(i)), standardize(layer(j)))
    best_permutation(correlation[:2, :2])  # loads the solver
    with ThreadPoolExecutor(threads) as pool:
        for start in range(0, len(pairs), threads):
            correlations = []
            for i, j in pairs[start : start + threads]:
                anchor, other = standardize(layer(i)), layer(j)
                other = timed("centring", lambda other=other: standardize(other))
                correlations.append(
                    timed(
                        "product",
                        lambda a=anchor, b=other: correlation_of_standardized(a, b),
                    )
                )
            timed("assignment", lambda c=correlations: list(pool.map(best_permutation, c)))
    return {step: total / len(pairs) for step, total in seconds.items()}
