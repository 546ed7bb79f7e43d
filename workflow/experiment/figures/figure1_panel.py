"""One panel of Figure 1: a window of a tower, from the base model to the compressed one."""

from dataclasses import dataclass

from experiment.figures.figure1_pen import GREY, INK, LARGE, LIGHT, MEDIUM, Pen

# Lengths are inches.
WIDTH = 5.2
WINDOW, ROW = 3.4, (0.2, 0.46)  # height of a window's layers together, and of one (least, most)
OUTSIDE, THIN = 1.2, (0.05, 0.14)  # the same for the layers outside it

# left edge and width of each column, from the base model to the compressed one
NUMBER, MHA, FF, CHIP = 0.22, (0.26, 0.36), (0.68, 0.74), (1.62, 0.44)
MEAN, MERGED = 2.44, (2.75, 0.7)
USE, USE_MHA, USE_NUMBER = (3.78, 0.74), (4.58, 0.36), 4.98


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
        """Inches that a layer takes: little outside the window."""
        if layer in self:
            return min(max(WINDOW / self.k, ROW[0]), ROW[1])
        return min(max(OUTSIDE / (self.n_layers - self.k), THIN[0]), THIN[1])

    def bottom(self, layer: int) -> float:
        """Inches from the bottom of layer 0 to that of a layer; n_layers gives the whole height."""
        return sum(self.height(below) for below in range(layer))


def draw_window(pen: Pen, window: Window) -> None:
    """Align, average and tie the window's sublayers; layer 0 of the tower is at the bottom."""
    w = window
    centre = w.bottom(w.start) + w.k * w.height(w.start) / 2
    _headings(pen, w)
    for layer in range(w.n_layers):
        if layer in w:
            _merged_layer(pen, w, layer, centre)
        else:
            _other_layer(pen, w, layer)
    for first, last in ((0, w.start - 1), (w.start + w.k, w.n_layers - 1)):
        if first <= last:
            _unchanged(pen, w, first, last)
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
        for end in (top + 0.04, -0.16):  # the way of the data
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
    pen.feed_forward(FF[0], low, FF[1], tall, layer, bold=is_anchor)
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


def _other_layer(pen: Pen, w: Window, layer: int) -> None:
    low, h = w.bottom(layer), w.height(layer)
    for (x, width), fill in ((MHA, LIGHT), (FF, "#d2d2d2"), (USE, "#d2d2d2"), (USE_MHA, LIGHT)):
        pen.box(x, low + 0.15 * h, width, 0.7 * h, fill, linewidth=0)


def _unchanged(pen: Pen, w: Window, first: int, last: int) -> None:
    """Numbers of layers outside the window (where there is room), and that they stay the same."""
    room = w.height(first) >= 0.11
    for layer in range(first, last + 1) if room else sorted({first, last}):
        middle = w.bottom(layer) + w.height(layer) / 2
        for x, side in ((NUMBER, "right"), (USE_NUMBER, "left")):
            pen.text(x, middle, layer, ha=side, color=GREY)
    middle = (w.bottom(first) + w.bottom(last + 1)) / 2
    pen.text((FF[0] + FF[1] + USE[0]) / 2, middle, "unchanged", color=GREY)
