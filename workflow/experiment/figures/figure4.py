"""Figure 4: the score of every window of the 1/3 setting before tuning (Section 5.2)."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pandas
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from experiment.figures import style
from experiment.tables.layout import Row
from ffmerge.evaluation.metrics import METRICS
from provenance import cells
from provenance.cells import Cell, Source

WINDOW, SCORE = "merged FF sublayers", "validation score"


def points(tasks: dict[str, dict[str, Any]], files: Sequence[Path]) -> list[Row]:
    """List the windows of each task and method, by their start.

    tasks: name -> `kind`, `label` and `k`; files: windows.csv of each.
    """
    return [
        point
        for task, file in zip(tasks.values(), files, strict=True)
        for point in _windows(task, file)
    ]


def _windows(task: dict[str, Any], file: Path) -> Iterator[Row]:
    metric = METRICS[task["kind"]]
    # the paper shows the language model's loss "for visibility"
    as_loss = metric.name == "perplexity"
    better = "↑" if metric.higher_is_better and not as_loss else "↓"
    column, decimals = ("loss", 3) if as_loss else ("score", metric.decimals)
    scores = pandas.read_csv(file).query("k == @task['k']").sort_values("start", kind="stable")
    for n, method in scores["method"].items():
        window = tuple(Source(file, f"/{n}/{name}") for name in ("start", "k"))
        yield {
            "panel": task["label"],
            "unit": f"{'loss (nats)' if as_loss else metric.unit} {better}",
            "series": style.METHOD_STYLES[method]["label"],
            WINDOW: Cell(window, "span", "values"),
            SCORE: cells.of(file, f"/{n}/{column}", f"{{:.{decimals}f}}"),
        }


def draw(points: Sequence[Row]) -> Figure:
    """Draw a panel for each model, in it a curve for each method over the windows' starts."""
    return style.draw_panels(points, _draw_panel)


def _draw_panel(axis: Axes, points: Sequence[Row]) -> None:
    for method, curve in style.curves(points):
        starts = [point[WINDOW].raw[0] for point in curve]
        axis.plot(starts, [point[SCORE].raw for point in curve], markersize=5, **method)
    labels = {point[WINDOW].raw[0]: str(point[WINDOW]) for point in points}
    axis.set_xticks(list(labels), list(labels.values()), rotation=45 if len(labels) > 5 else 0)
    axis.set_title(points[0]["panel"])
    axis.set_xlabel(WINDOW)
    axis.set_ylabel(f"validation {points[0]['unit']}")
