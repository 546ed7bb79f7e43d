"""Compare our method with vanilla averaging over seeds of tuning (our own table, not the paper's).

Intervals over test examples say nothing of another order of the training data.
"""

from collections.abc import Mapping, Sequence
from itertools import product
from math import sqrt

import numpy
from pandas import DataFrame
from scipy.special import stdtrit

from experiment.tables.layout import Row
from experiment.tables.scores import Result
from experiment.variants import RATIO_LABELS
from ffmerge.evaluation.metrics import metric_named
from provenance.cells import JOB, Cell, Interval, Source

METHOD_LABELS = {"vanilla": "Vanilla", "permute": "Permute"}
GAIN, LOSS, DASH = "gain by aligning", "Loss (nats)↓", "–"


def seeds(
    results: Sequence[Result],
    ratios: Mapping[str, Mapping[str, int]],
    seed: int,
    confidence: float,
) -> DataFrame:
    """List each model's test score by seed, its mean and its standard deviation.

    The gain by aligning is the difference of two models tuned with the same seed, positive where
    the permuted one is better. Its interval is Student's, over seeds. At the end are the gains in
    loss, which tell more of a few seeds than accuracy and BLEU do.
    results: of Table 5's models, tuned with each seed; ratios: task -> k of each ratio; seed: the
    configuration's, which a result without one has; confidence: level of the interval.
    """
    found = {(r.task, r.k, r.method, seed if r.seed is None else r.seed): r for r in results}
    order = sorted({n for *_, n in found}, key=lambda n: (n != seed, n))
    rows: list[Row] = []
    losses: list[Row] = []
    for task, (ratio, removed) in product(ratios, RATIO_LABELS.items()):
        k = ratios[task].get(ratio)
        models = {
            method: [found[task, k, method, n] for n in order]
            for method in METHOD_LABELS
            if (task, k, method, seed) in found
        }
        start = {"FFs Removed": removed, "Seeds": ", ".join(map(str, order))}
        for method, tuned in models.items():
            start = {**tuned[0].names, **start}
            rows.append({**start, "What": METHOD_LABELS[method], **_over_seeds(tuned)})
        if len(models) == len(METHOD_LABELS):
            pairs = models["permute"], models["vanilla"], confidence
            rows.append({**start, "What": GAIN, **_over_seeds(*pairs)})
            losses.append({**start, "Metric": LOSS, "What": GAIN, **_over_seeds(*pairs, loss=True)})
    return DataFrame(rows + losses)


def _over_seeds(
    models: Sequence[Result],
    others: Sequence[Result] = (),
    confidence: float | None = None,
    *,
    loss: bool = False,
) -> Row:
    """Numbers of models over seeds, or of their gains on others with the same seeds.

    loss: take losses instead of scores.
    """
    metric = metric_named(models[0].metric)
    better, decimals = (False, 4) if loss else (metric.higher_is_better, metric.decimals)
    values = numpy.array([model.loss if loss else model.score for model in models])
    if others:
        values -= [other.loss if loss else other.score for other in others]
        values *= 1 if better else -1
    sources = tuple(Source(result.file) for result in (*models, *others))
    n, rule = len(values), f"{{:{'+' * bool(others)}.{decimals}f}}"
    center, deviation = float(values.mean()), float(values.std(ddof=1))

    def cell(number: object, rule: str = rule, interval: Interval | None = None) -> Cell:
        return Cell(sources, rule, JOB, interval, computed=number)

    interval, low, high = None, DASH, DASH
    if confidence is not None:
        half = float(stdtrit(n - 1, (1 + confidence) / 2)) * deviation / sqrt(n)
        over = f"Student's t over {n} seeds"
        interval = Interval(center - half, center + half, confidence, over)
        low, high = cell(interval.low), cell(interval.high)
    return {
        "By Seed": cell(values.tolist(), ", ".join([rule] * n)),
        "Mean": cell(center, interval=interval),
        "SD": cell(deviation, f"{{:.{decimals}f}}"),
        "Low": low,
        "High": high,
    }
