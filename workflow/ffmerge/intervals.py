"""Bootstrap confidence intervals over per-example scores."""

from collections.abc import Callable, Sequence

import numpy
from numpy.typing import NDArray

from ffmerge.bleu import COUNTS, bleu_from_counts


def resampled_sums(
    columns: NDArray[numpy.float64], resamples: int, seed: int
) -> NDArray[numpy.float64]:
    """Column sums of bootstrap resamples of the rows.

    columns: (n_examples, n_columns). Returns (resamples, n_columns). The draws depend on n_examples
    and the seed alone, so that two models scored on the same examples are resampled in pairs.
    """
    generator = numpy.random.default_rng(seed)
    n = len(columns)
    return numpy.stack(
        [
            numpy.bincount(generator.integers(n, size=n), minlength=n) @ columns
            for _ in range(resamples)
        ]
    )


def score_columns(
    metric: str, per_example: dict[str, Sequence[float]], average: str | None = None
) -> tuple[NDArray[numpy.float64], Callable[[NDArray[numpy.float64]], float]]:
    """The additive columns behind a metric, and the metric as a function of their sums.

    metric: perplexity, accuracy or bleu; per_example: see Evaluation, numbers or their strings;
    average: of a perplexity. Raises ValueError for another metric.
    """

    def column(name: str) -> NDArray[numpy.float64]:
        return numpy.asarray(per_example[name], dtype=float)

    match metric:
        case "perplexity":
            losses, counts = column("negative_log_likelihood"), column("n_tokens")
            if average == "windows":
                losses, counts = losses / counts, numpy.ones_like(counts)
            return numpy.stack([losses, counts], axis=1), lambda s: float(numpy.exp(s[0] / s[1]))
        case "accuracy":
            correct = column("correct")
            columns = numpy.stack([correct, numpy.ones_like(correct)], axis=1)
            return columns, lambda s: float(100 * s[0] / s[1])
        case "bleu":
            return numpy.stack([column(name) for name in COUNTS], axis=1), bleu_from_counts
    raise ValueError(f"metric {metric!r}: known are perplexity, accuracy and bleu")


def bootstrap_interval(
    metric: str,
    per_example: dict[str, Sequence[float]],
    resamples: int,
    confidence: float,
    seed: int,
    average: str | None = None,
) -> tuple[float, float]:
    """Percentile bootstrap interval of a metric over its examples."""
    columns, score = score_columns(metric, per_example, average)
    scores = [score(sums) for sums in resampled_sums(columns, resamples, seed)]
    tail = 100 * (1 - confidence) / 2
    low, high = numpy.percentile(scores, [tail, 100 - tail])
    return float(low), float(high)
