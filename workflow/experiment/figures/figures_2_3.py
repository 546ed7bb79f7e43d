"""Figures 2 and 3: test scores against the parameters removed (Sections 5.1 and 5.2)."""

from collections.abc import Sequence
from dataclasses import replace

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from experiment.figures import style
from experiment.tables.layout import Row
from experiment.tables.scores import Result
from ffmerge.evaluation.metrics import metric_named

REMOVED, SCORE = "parameters removed (%)", "test score"
BASE = {"color": "#444444", "linestyle": ":", "linewidth": 1.2}
UNCOMPRESSED_LABEL = "Uncompressed"


def points(results: Sequence[Result]) -> list[Row]:
    """List the score of each model, and the parameters removed.

    The interval is that of the difference from the uncompressed model, which has none itself.
    """
    return [
        {
            "panel": result.model,
            "metric": result.metric,
            "series": style.METHOD_STYLES[result.method]["label"]
            if result.method
            else UNCOMPRESSED_LABEL,
            REMOVED: result.reduction_cell(),
            SCORE: replace(result.score_cell(), interval=result.from_base),
        }
        for result in results
    ]


def draw(points: Sequence[Row]) -> Figure:
    """Draw a panel for each model: a line at the uncompressed score, a curve for each method."""
    return style.draw_panels(points, _draw_panel)


def _draw_panel(axis: Axes, points: Sequence[Row]) -> None:
    (base,) = (point for point in points if point["series"] == UNCOMPRESSED_LABEL)
    metric = metric_named(base["metric"])
    axis.axhline(base[SCORE].raw, label=UNCOMPRESSED_LABEL, **BASE)
    for method, curve in style.curves(points):
        curve.sort(key=lambda point: point[REMOVED].raw)
        scores = [point[SCORE] for point in curve]
        axis.errorbar(
            [point[REMOVED].raw for point in curve],
            [score.raw for score in scores],
            yerr=[
                [score.raw - score.interval.low for score in scores],
                [score.interval.high - score.raw for score in scores],
            ],
            capsize=3,
            markersize=5,
            **method,
        )
    axis.set_title(base["panel"])
    axis.set_xlabel(REMOVED)
    axis.set_ylabel(f"test {metric.unit} {'↑' if metric.higher_is_better else '↓'}")
    axis.set_xlim(left=0)
