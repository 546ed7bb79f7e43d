"""Bootstrap of scores over what is independent: whole articles or pages, where files name them."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from math import sqrt
from typing import Any

import numpy
from numpy.typing import NDArray
from scipy.special import ndtri, stdtrit

Values = NDArray[numpy.float64]
OfSums = Callable[[Values], Values]
PerExample = Mapping[str, Sequence[float]]  # column -> a value an example; see Evaluation
AT_ONCE = 64  # resamples whose draws are in memory at the same time
CLUSTERS = ("article", "page")  # columns that name what an example is part of
ENOUGH_CLUSTERS = 20  # with fewer, an interval depends on how they are distributed


@dataclass(frozen=True)
class Scored:
    """A tested model, or a difference between two.

    score: on all examples. resampled: (resamples,) scores of bootstrap resamples; resample i has
    the same examples for all models of a task. left_out: (n,) scores without each of the n units
    that are resampled. over: what the units are, in words.
    """

    score: float
    resampled: Values
    left_out: Values
    over: str

    @property
    def n(self) -> int:
        """The number of units."""
        return len(self.left_out)

    @property
    def error(self) -> float:
        """Standard error, by the jackknife: right for units of unequal size, and for few."""
        return sqrt((self.n - 1) * self.left_out.var())

    def minus(self, other: "Scored") -> "Scored":
        """Return the difference of two scores, resampled in pairs."""
        return Scored(
            self.score - other.score,
            self.resampled - other.resampled,
            self.left_out - other.left_out,
            self.over,
        )

    def interval(self, confidence: float) -> tuple[float, float]:
        """Percentile interval of the resamples, as wide as the standard error and n demand.

        The bootstrap is too narrow for few units or unequal ones, and so are the quantiles of a
        normal distribution: Student's are used, with n-1 degrees of freedom (Hesterberg 2015).
        """
        tail = 100 * (1 - confidence) / 2
        low, high = numpy.percentile(self.resampled, [tail, 100 - tail])
        if spread := self.resampled.std():
            quantiles = stdtrit(max(1, self.n - 1), tail / 100) / ndtri(tail / 100)
            widening = quantiles * self.error / spread
            low, high = (self.score + widening * (bound - self.score) for bound in (low, high))
        return float(low), float(high)


def scored_models(
    tests: dict[str, dict[str, Any]],
    per_example: dict[str, PerExample],
    resamples: int,
    seed: int,
) -> dict[str, Scored]:
    """Resample the tested models of one task with common resamples; returns them by name.

    tests, per_example: name -> summary of the test (`metric`, `score` and, for a language model,
    `average`), and its columns.
    Raises ValueError if the models were not scored on the same number of examples and clusters.
    """
    parts = {
        name: score_columns(test["metric"], per_example[name], test.get("average"))
        for name, test in tests.items()
    }
    units = {name: in_clusters(columns, per_example[name]) for name, (columns, _) in parts.items()}
    kinds = {over for _, over in units.values()}
    if len(kinds) != 1:
        raise ValueError(f"models to compare were scored on {' and on '.join(sorted(kinds))}")
    drawn = resampled_sums(numpy.hstack([rows for rows, _ in units.values()]), resamples, seed)
    first, scored = 0, {}
    for name, (rows, over) in units.items():
        (_, of_sums), n_columns = parts[name], rows.shape[1]
        others = rows.sum(axis=0) - rows if len(rows) > 1 else rows
        resampled = of_sums(drawn[:, first : first + n_columns])
        scored[name] = Scored(tests[name]["score"], resampled, of_sums(others), over)
        first += n_columns
    return scored


def in_clusters(columns: Values, per_example: PerExample) -> tuple[Values, str]:
    """Sum the columns over each cluster, (n_clusters, n_columns), and say what the clusters are.

    Examples of one article or page are alike, so it is articles or pages that are resampled.
    Where none or only one is named, each example counts as independent.
    """
    n = len(columns)
    for name in CLUSTERS:
        if name in per_example:
            _, cluster = numpy.unique(numpy.asarray(per_example[name], str), return_inverse=True)
            n_clusters = int(cluster.max()) + 1
            if n_clusters == 1:
                return columns, f"{n} test examples of one {name}, as if independent"
            sums = numpy.zeros((n_clusters, columns.shape[1]))
            numpy.add.at(sums, cluster, columns)
            few = f", fewer than {ENOUGH_CLUSTERS}" if n_clusters < ENOUGH_CLUSTERS else ""
            return sums, f"{n_clusters} {name}s of {n} test examples{few}"
    return columns, f"{n} test examples, each on its own"


def resampled_sums(columns: Values, resamples: int, seed: int) -> Values:
    """Column sums of bootstrap resamples of the rows.

    columns: (n_rows, n_columns). Returns (resamples, n_columns). The draws depend on n_rows and
    the seed alone, so that two models scored on the same examples are resampled in pairs.
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
    metric: str, per_example: PerExample, average: str | None = None
) -> tuple[Values, OfSums]:
    """Additive columns of a metric, and the metric as a function of their sums.

    metric: loss, perplexity, accuracy or bleu; per_example: numbers or their strings; average: of
    a loss or perplexity, over `windows`, or else over tokens (examples where none are counted).
    Columns are (n_examples, n_columns); the function maps sums (..., n_columns) to scores (...).
    Raises ValueError for another metric.
    """

    def column(name: str) -> Values:
        return numpy.asarray(per_example[name], dtype=float)

    match metric:
        case "loss":
            losses = column("negative_log_likelihood")
            counts = column("n_tokens") if "n_tokens" in per_example else numpy.ones_like(losses)
            if average == "windows":
                losses, counts = losses / counts, numpy.ones_like(counts)
            return numpy.stack([losses, counts], axis=1), lambda s: s[..., 0] / s[..., 1]
        case "perplexity":
            columns, loss = score_columns("loss", per_example, average)
            return columns, lambda s: numpy.exp(loss(s))
        case "accuracy":
            correct = column("correct")
            columns = numpy.stack([correct, numpy.ones_like(correct)], axis=1)
            return columns, lambda s: 100 * s[..., 0] / s[..., 1]
        case "bleu":
            from ffmerge.evaluation.bleu import COUNTS, bleu_from_counts  # needs sacrebleu

            columns = numpy.stack([column(name) for name in COUNTS], axis=1)
            return columns, lambda s: numpy.apply_along_axis(bleu_from_counts, -1, s)
    raise ValueError(f"metric {metric!r}: known are loss, perplexity, accuracy and bleu")
