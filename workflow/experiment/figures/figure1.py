"""Figure 1: the method, drawn for the window that was selected in each model."""

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import seaborn
from matplotlib import pyplot
from matplotlib.figure import Figure

from experiment.figures import style  # noqa: F401 - chooses the backend
from experiment.figures.figure1_panel import WIDTH, Window, draw_window
from experiment.figures.figure1_pen import MEDIUM, Pen
from experiment.tables.layout import Row
from ffmerge.method.windows import anchor_layer, layers_of
from ffmerge.models.architectures import architecture_of
from provenance import cells
from provenance.cells import JOB, Cell, Source

COLUMNS = 2
GAP, HEADER, FOOTER, LINE = 0.5, 1.0, 0.4, 0.3  # inches between panels, around them, of the legend

Sample = tuple[Callable[..., None], str, float]  # draws a box, what it stands for, inches of that
LEGEND: list[Sample] = [
    (Pen.attention, "multi-headed attention", 1.2),
    (partial(Pen.feed_forward, layer="i"), "FF sublayer", 0.65),
    (partial(Pen.permutation, layer="i"), "neurons in the anchor's order", 1.55),
    (Pen.merged, "average, stored once", 1.15),
    (Pen.use, "no weights of its own", 1.2),
]
BOX, SPACE = 0.62, 0.08  # of a sample


def points(task: dict[str, Any], base_model: Path, selection: Path) -> Iterator[Row]:
    """A row for each of a task's towers: the window that was selected, and what it leaves.

    task: `label`, `k` and `anchor`, which the configuration gives; base_model: its directory.
    """
    architecture, k = base_model / "config.json", task["k"]
    names = architecture_of(Source(architecture).value()).towers
    for name, forms in names.items():
        start = cells.of(selection, f"/{k}/best")
        n_layers = cells.of(architecture, f"/{forms[0].count}")

        def computed(number: Any, rule: str = "{}") -> Cell:
            return Cell((Source(selection), Source(architecture)), rule, JOB, computed=number)

        yield {
            "panel": f"{task['label']} {name}" if len(names) > 1 else task["label"],
            "first layer": start,
            "merged layers": computed([layers_of(start.raw, k)], "window"),
            "anchor": computed(anchor_layer(start.raw, k, task["anchor"])),
            "layers": n_layers,
            "stored FF sublayers": computed(n_layers.raw - k + 1),
        }


def draw(points: Sequence[Row]) -> Figure:
    """One panel for each window: align, average, tie, from the base model to the compressed one."""
    windows = [
        Window(
            title=point["panel"],
            n_layers=point["layers"].raw,
            start=point["first layer"].raw,
            k=len(point["merged layers"].raw[0]),
            anchor=point["anchor"].raw,
        )
        for point in points
    ]
    seaborn.set_theme(context="paper", style="white")
    rows = [windows[i : i + COLUMNS] for i in range(0, len(windows), COLUMNS)]
    stacks = [max(window.bottom(window.n_layers) for window in row) for row in rows]
    width = WIDTH * len(rows[0]) + GAP * (len(rows[0]) - 1)
    legend = _lines(width)
    height = sum(stacks) + (HEADER + FOOTER) * len(rows) + LINE * len(legend)
    # a unit of the axis is an inch, so that text in points keeps its size relative to the boxes
    margin = 2 * 1.08 * pyplot.rcParams["font.size"] / 72  # what tight_layout leaves around it
    figure, axis = pyplot.subplots(figsize=(width + margin, height + margin))
    axis.set(xlim=(0, width), ylim=(0, height), aspect="equal")
    axis.set_axis_off()
    top = height
    for row, stack in zip(rows, stacks, strict=True):
        top -= HEADER
        for column, window in enumerate(row):
            bottom = top - window.bottom(window.n_layers)
            draw_window(Pen(axis, column * (WIDTH + GAP), bottom), window)
        top -= stack + FOOTER
    for n, line in enumerate(reversed(legend)):
        pen, x = Pen(axis, 0, (n + 0.5) * LINE), 0.0
        for sample, meaning, length in line:
            sample(pen, x, -0.1, BOX, 0.2)
            pen.text(x + BOX + SPACE, 0, meaning, size=MEDIUM - 0.5, ha="left")
            x += BOX + length + 4 * SPACE
    return figure


def _lines(width: float) -> list[list[Sample]]:
    """The legend's samples in lines that are no wider than the figure."""
    lines: list[list[Sample]] = [[]]
    used = 0.0
    for sample in LEGEND:
        needed = BOX + SPACE + sample[2]
        if used + needed > width:
            lines.append([])
            used = 0.0
        lines[-1].append(sample)
        used += needed + 3 * SPACE
    return lines
