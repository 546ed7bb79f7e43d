"""Figure 1: the method, drawn for the window that was selected in each model.

`points` reads the windows, `draw` lays out a panel for each, and `Pen` draws the parts of a panel.
Boxes differ in shape, line and lightness, not in hue alone. Lengths are inches.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import seaborn
from matplotlib import pyplot
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Circle, FancyArrowPatch, Rectangle

import experiment.figures.style  # noqa: F401 - selects the backend
from experiment.tables.layout import Row
from ffmerge.method.groups import anchor_layer
from ffmerge.method.windows import layers_of
from ffmerge.models.architectures import architecture_of
from provenance import cells
from provenance.cells import JOB, Cell, Source

INK, GREY, LIGHT, TINT, DARK = "#222222", "#808080", "#ececec", "#cfe3f2", "#005a8f"
SMALL, MEDIUM, LARGE = 6.5, 8.0, 11.0  # points
Span = tuple[float, float]

WINDOW_WIDTH = 5.2
WINDOW, ROW = 3.4, (0.2, 0.46)  # height of all layers of a window, and of one (min, max)
OUTSIDE, THIN = 1.2, (0.05, 0.14)  # the same for the layers outside it

# left edge and width of each column, from the base model to the compressed one
NUMBER, MHA, FF, CHIP = 0.22, (0.26, 0.36), (0.68, 0.74), (1.62, 0.44)
MEAN, MERGED = 2.44, (2.75, 0.7)
USE, USE_MHA, USE_NUMBER = (3.78, 0.74), (4.58, 0.36), 4.98

COLUMNS = 2
GAP, HEADER, FOOTER, LINE = 0.5, 1.0, 0.4, 0.3  # between, around panels, of the legend


@dataclass(frozen=True)
class Window:
    """A tower of n_layers whose FF sublayers start … start + k - 1 are merged towards `anchor`."""

    title: str
    n_layers: int
    start: int
    k: int
    anchor: int

    def __contains__(self, layer: int) -> bool:
        return self.start <= layer < self.start + self.k

    def height(self, layer: int) -> float:
        """Height of a layer's row; small outside the window."""
        if layer in self:
            return min(max(WINDOW / self.k, ROW[0]), ROW[1])
        return min(max(OUTSIDE / (self.n_layers - self.k), THIN[0]), THIN[1])

    def bottom(self, layer: int) -> float:
        """Height of a layer's lower edge above that of layer 0; n_layers gives the total height."""
        return sum(self.height(below) for below in range(layer))


@dataclass(frozen=True)
class Pen:
    """Draw on an axis whose unit is an inch; x and y count from (left, bottom)."""

    axis: Axes
    left: float
    bottom: float

    def text(self, x: float, y: float, text: object, size: float = SMALL, **options: Any) -> None:
        """Write a text, centred vertically on y."""
        options = {"ha": "center", "va": "center", "color": INK} | options
        self.axis.text(self.left + x, self.bottom + y, str(text), fontsize=size, **options)

    def line(self, x: Span, y: Span, color: str = INK, linewidth: float = 0.7, zorder=1) -> None:
        """Draw a line from (x[0], y[0]) to (x[1], y[1])."""
        xs, ys = [self.left + one for one in x], [self.bottom + one for one in y]
        self.axis.plot(xs, ys, color=color, linewidth=linewidth, zorder=zorder)

    def arrow(self, x: Span, y: Span, color: str = INK, size: float = 9) -> None:
        """Draw an arrow from (x[0], y[0]) to (x[1], y[1])."""
        ends = [(self.left + a, self.bottom + b) for a, b in zip(x, y, strict=True)]
        options = {"arrowstyle": "-|>", "mutation_scale": size, "shrinkA": 0, "shrinkB": 0}
        self.axis.add_patch(FancyArrowPatch(*ends, color=color, linewidth=0.8, **options))

    def disc(self, x: float, y: float, radius: float, fill: str) -> None:
        """Draw a circle around (x, y)."""
        place = (self.left + x, self.bottom + y)
        self.axis.add_patch(Circle(place, radius, facecolor=fill, edgecolor=INK, linewidth=0.8))

    def box(
        self,
        x: float,
        y: float,
        width: float,
        height: float,
        fill: str,
        *labels: str,
        color: str = INK,
        **options: Any,
    ) -> None:
        """Draw a rectangle whose lower left corner is (x, y), with a label or one in each half."""
        corner = (self.left + x, self.bottom + y)
        options = {"facecolor": fill, "edgecolor": INK, "linewidth": 0.7} | options
        self.axis.add_patch(Rectangle(corner, width, height, **options))
        if len(labels) > 1:
            self.line((x + width / 2,) * 2, (y, y + height), color=color, zorder=2)
        for side, label in zip((0.25, 0.76) if len(labels) > 1 else (0.5,), labels, strict=False):
            self.text(x + side * width, y + height / 2, label, color=color)

    def attention(self, *place: float) -> None:
        """Draw a multi-headed attention sublayer."""
        self.box(*place, LIGHT, "MHA")

    def feed_forward(self, *place: float, layer: object, bold: bool = False) -> None:
        """Draw W_in and W_out of a layer of the base model; bold for the anchor."""
        names = [rf"$W^{{\rm {name}}}_{{{layer}}}$" for name in ("in", "out")]
        self.box(*place, TINT, *names, linewidth=2.2 if bold else 0.7)

    def permutation(self, x: float, y: float, width: float, height: float, layer: object) -> None:
        """Draw P_i, neurons that change places."""
        self.box(x, y, width, height, "white")
        for a, b in ((0.2, 0.8), (0.5, 0.2), (0.8, 0.5)):
            ends = (y + a * height, y + b * height)
            self.line((x + 0.14 * width, x + 0.4 * width), ends, linewidth=0.9, zorder=2)
        self.text(x + 0.71 * width, y + height / 2, f"$P_{{{layer}}}$")

    def merged(self, *place: float) -> None:
        """Draw W_in* and W_out*, the one sublayer that is stored."""
        self.box(*place, DARK, r"$W^{{\rm in}*}$", r"$W^{{\rm out}*}$", color="white")

    def use(self, *place: float) -> None:
        """Draw the place of a sublayer in a layer without weights of its own."""
        self.box(*place, "white", "$W^*$", linestyle=(0, (3, 2)))


Sample = tuple[Callable[..., None], str, float]  # how to draw a box, its meaning, width of that
LEGEND: list[Sample] = [
    (Pen.attention, "multi-headed attention", 1.2),
    (partial(Pen.feed_forward, layer="i"), "FF sublayer", 0.65),
    (partial(Pen.permutation, layer="i"), "neurons in the anchor's order", 1.55),
    (Pen.merged, "average, stored once", 1.15),
    (Pen.use, "no weights of its own", 1.2),
]
BOX, SPACE = 0.62, 0.08  # of a sample


def points(
    tasks: Mapping[str, dict[str, Any]], base_models: Sequence[Path], selections: Sequence[Path]
) -> list[Row]:
    """Describe the selected window of every tower of each task, and the FF sublayers it leaves.

    tasks: name -> `label`, `k` and `anchor`; base_models: their directories; selections: their
    selection.json.
    """
    files = zip(tasks.values(), base_models, selections, strict=True)
    return [point for task, *paths in files for point in _towers(task, *paths)]


def _towers(task: dict[str, Any], base_model: Path, selection: Path) -> Iterator[Row]:
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
    """Draw a panel for each window, from the base model to the compressed one."""
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
    width = WINDOW_WIDTH * len(rows[0]) + GAP * (len(rows[0]) - 1)
    legend = _lines(width)
    height = sum(stacks) + (HEADER + FOOTER) * len(rows) + LINE * len(legend)
    # a unit of the axis is an inch, so that text in points keeps its size relative to the boxes
    margin = 2 * 1.08 * pyplot.rcParams["font.size"] / 72  # added by tight_layout
    figure, axis = pyplot.subplots(figsize=(width + margin, height + margin))
    axis.set(xlim=(0, width), ylim=(0, height), aspect="equal")
    axis.set_axis_off()
    top = height
    for row, stack in zip(rows, stacks, strict=True):
        top -= HEADER
        for column, window in enumerate(row):
            bottom = top - window.bottom(window.n_layers)
            draw_window(Pen(axis, column * (WINDOW_WIDTH + GAP), bottom), window)
        top -= stack + FOOTER
    for n, line in enumerate(reversed(legend)):
        pen, x = Pen(axis, 0, (n + 0.5) * LINE), 0.0
        for sample, meaning, length in line:
            sample(pen, x, -0.1, BOX, 0.2)
            pen.text(x + BOX + SPACE, 0, meaning, size=MEDIUM - 0.5, ha="left")
            x += BOX + length + 4 * SPACE
    return figure


def _lines(width: float) -> list[list[Sample]]:
    """Break the legend's samples into lines that are no wider than the figure."""
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


def draw_window(pen: Pen, window: Window) -> None:
    """Draw the steps align, average and tie; layer 0 of the tower is at the bottom."""
    w = window
    centre = w.bottom(w.start) + w.k * w.height(w.start) / 2
    _headings(pen, w)
    for layer in range(w.n_layers):
        if layer in w:
            _merged_layer(pen, w, layer, centre)
            continue
        low, h = w.bottom(layer), w.height(layer)
        for place, fill in ((MHA, LIGHT), (FF, "#d2d2d2"), (USE, "#d2d2d2"), (USE_MHA, LIGHT)):
            pen.box(place[0], low + 0.15 * h, place[1], 0.7 * h, fill, linewidth=0)
    for layers in (range(w.start), range(w.start + w.k, w.n_layers)):
        if layers:
            _unchanged(pen, w, layers)
    pen.disc(MEAN, centre, 0.17, "white")
    pen.text(MEAN, centre, rf"$\Sigma/{w.k}$", size=7)
    pen.arrow((MEAN + 0.17, MERGED[0]), (centre, centre))
    pen.merged(MERGED[0], centre - 0.16, MERGED[1], 0.32)


def _headings(pen: Pen, w: Window) -> None:
    top = w.bottom(w.n_layers)
    pen.text(0, top + 0.82, w.title, size=LARGE, ha="left")
    shared = f"layers {w.start}-{w.start + w.k - 1} share one FF sublayer"
    stored = f"{w.n_layers - w.k + 1} of {w.n_layers} stored"
    pen.text(0, top + 0.6, f"{shared}: {stored}", size=MEDIUM, ha="left", color="#555555")
    for left, right, name in ((MHA, FF, "base model"), (USE, USE_MHA, "compressed model")):
        middle = (left[0] + right[0] + right[1]) / 2
        pen.text(middle, top + 0.3, name, size=MEDIUM)
        for end in (top + 0.04, -0.16):  # the direction of the data
            pen.arrow((middle, middle), (end, end + 0.13), color=GREY, size=6)
    for number, (x, name) in enumerate(((1.62, "align"), (2.23, "average"), (3.22, "tie")), 1):
        pen.disc(x, top + 0.3, 0.07, INK)
        pen.text(x, top + 0.3, number, color="white", weight="bold")
        pen.text(x + 0.11, top + 0.3, name, size=MEDIUM, ha="left")


def _merged_layer(pen: Pen, w: Window, layer: int, centre: float) -> None:
    h = w.height(layer)
    low = w.bottom(layer) + 0.1 * h
    middle, tall, chip = low + 0.4 * h, 0.8 * h, min(0.7 * h, 0.24)
    is_anchor = layer == w.anchor
    pen.text(NUMBER, middle, layer, ha="right")
    pen.attention(MHA[0], low, MHA[1], tall)
    pen.line((MHA[0] + MHA[1], FF[0]), (middle, middle))
    pen.feed_forward(FF[0], low, FF[1], tall, layer=layer, bold=is_anchor)
    pen.line((FF[0] + FF[1], CHIP[0]), (middle, middle))
    if is_anchor:
        pen.text(CHIP[0] + CHIP[1] / 2, middle, "anchor", weight="bold")
    else:
        pen.permutation(CHIP[0], middle - chip / 2, CHIP[1], chip, layer)
    pen.line((CHIP[0] + CHIP[1], MEAN), (middle, centre), zorder=0)
    pen.line((MERGED[0] + MERGED[1], USE[0]), (centre, middle), zorder=0)
    pen.use(USE[0], low, USE[1], tall)
    pen.line((USE[0] + USE[1], USE_MHA[0]), (middle, middle))
    pen.attention(USE_MHA[0], low, USE_MHA[1], tall)
    pen.text(USE_NUMBER, middle, layer, ha="left")


def _unchanged(pen: Pen, w: Window, layers: range) -> None:
    """Number the layers outside the window where there is room, and mark them as unchanged."""
    first, last = layers[0], layers[-1]
    for layer in layers if w.height(first) >= 0.11 else sorted({first, last}):
        middle = w.bottom(layer) + w.height(layer) / 2
        for x, side in ((NUMBER, "right"), (USE_NUMBER, "left")):
            pen.text(x, middle, layer, ha=side, color=GREY)
    middle = (w.bottom(first) + w.bottom(last + 1)) / 2
    pen.text((FF[0] + FF[1] + USE[0]) / 2, middle, "unchanged", color=GREY)
