"""Bootstrap confidence intervals over per-example scores."""

from collections.abc import Callable, Sequence

import numpy
from numpy.typing import NDArray

Values = NDArray[numpy.float64]
OfSums = Callable[[Values], Values]
AT_ONCE = 64  # resamples whose draws are in memory at the same time


def resampled_sums(columns: Values, resamples: int, seed: int) -> Values:
    """Column sums of bootstrap resamples of the rows.

    columns: (n_examples, n_columns). Returns (resamples, n_columns). The draws depend on n_examples
    and the seed alone, so that two models scored on the same examples are resampled in pairs.
    """
    generator = numpy.random.default_rng(seed)
    n, sums = len(columns), []
    for start in range(0, resamples, AT_ONCE):
        times_drawn = [
            numpy.bincount(generator.integers(n, size=n), minlength=n)
            for _ in range(start, min(start + AT_ONCE, resamples))
        ]
        sums.append(numpy.array(times_drawn, dtype=float) @ columns)
    return numpy.concatenate(sums)


def score_columns(
    metric: str, per_example: dict[str, Sequence[float]], average: str | None = None
) -> tuple[Values, OfSums]:
    """Additive columns of a metric, and the metric as a function of their sums.

    metric: perplexity, accuracy or bleu; per_example: see Evaluation, numbers or their strings;
    average: see `perplexity`. Columns are (n_examples, n_columns); the function maps sums
    (..., n_columns) to scores (...). Raises ValueError for another metric.
    """

    def column(name: str) -> Values:
        return numpy.asarray(per_example[name], dtype=float)

    match metric:
        case "perplexity":
            losses, counts = column("negative_log_likelihood"), column("n_tokens")
            if average == "windows":
                losses, counts = losses / counts, numpy.ones_like(counts)
            return numpy.stack([losses, counts], axis=1), lambda s: numpy.exp(s[..., 0] / s[..., 1])
        case "accuracy":
            correct = column("correct")
            columns = numpy.stack([correct, numpy.ones_like(correct)], axis=1)
            return columns, lambda s: 100 * s[..., 0] / s[..., 1]
        case "bleu":
            from ffmerge.evaluation.bleu import COUNTS, bleu_from_counts  # needs sacrebleu

            columns = numpy.stack([column(name) for name in COUNTS], axis=1)
            return columns, lambda s: numpy.apply_along_axis(bleu_from_counts, -1, s)
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
    scores = score(resampled_sums(columns, resamples, seed))
    tail = 100 * (1 - confidence) / 2
    low, high = numpy.percentile(scores, [tail, 100 - tail])
    return float(low), float(high)
