"""Time the steps of aligning feed-forward sublayers alone, on a sample of the pairs."""

import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

from torch import Tensor

from ffmerge.method.correlation import correlation_of_standardized, standardize
from ffmerge.method.permutation import Pair, best_permutation


def sample(pairs: Sequence[Pair], n: int) -> list[Pair]:
    """Choose n pairs spread evenly over all, or all if there are no more than n."""
    n = min(n, len(pairs))
    return [pairs[i * len(pairs) // n] for i in range(n)]


def steps_alone(
    layer: Callable[[int], Tensor], pairs: Sequence[Pair], threads: int
) -> dict[str, float]:
    """Time each step of aligning real features alone, in seconds a pair.

    layer: number of a layer -> (n_tokens, d_ff) features. Centring and the matrix product use all
    threads. As many assignments are solved at once as there are threads, and each counts for its
    share of their time. A first product and the solver's import warm up and do not count.
    """
    seconds = dict.fromkeys(("centring", "product", "assignment"), 0.0)

    @contextmanager
    def timed(step: str) -> Iterator[None]:
        begin = time.perf_counter()
        yield
        seconds[step] += time.perf_counter() - begin

    i, j = pairs[0]
    correlation = correlation_of_standardized(standardize(layer(i)), standardize(layer(j)))
    best_permutation(correlation[:2, :2])  # loads the solver
    with ThreadPoolExecutor(threads) as pool:
        for start in range(0, len(pairs), threads):
            correlations = []
            for i, j in pairs[start : start + threads]:
                anchor, raw = standardize(layer(i)), layer(j)
                with timed("centring"):
                    other = standardize(raw)
                with timed("product"):
                    correlations.append(correlation_of_standardized(anchor, other))
            with timed("assignment"):
                list(pool.map(best_permutation, correlations))
    return {step: total / len(pairs) for step, total in seconds.items()}
