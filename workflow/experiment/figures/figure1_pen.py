"""What Figure 1 is drawn of: boxes told apart by shape, line and lightness, not by hue alone."""

from dataclasses import dataclass
from typing import Any

from matplotlib.axes import Axes
from matplotlib.patches import Circle, FancyArrowPatch, Rectangle

INK, GREY, LIGHT, TINT, DARK = "#222222", "#808080", "#ececec", "#cfe3f2", "#005a8f"
SMALL, MEDIUM, LARGE = 6.5, 8.0, 11.0  # points

Span = tuple[float, float]


@dataclass(frozen=True)
class Pen:
    """Draws on an axis whose unit is an inch; x and y count from (left, bottom)."""

    axis: Axes
    left: float
    bottom: float

    def text(
        self,
        x: float,
        y: float,
        text: object,
        size: float = SMALL,
        ha: str = "center",
        color: str = INK,
        **style: Any,
    ) -> None:
        """A word, centred vertically on y."""
        place = (self.left + x, self.bottom + y, str(text))
        self.axis.text(*place, fontsize=size, ha=ha, va="center", color=color, **style)

    def line(self, x: Span, y: Span, color: str = INK, linewidth: float = 0.7, zorder=1) -> None:
        """A line from (x[0], y[0]) to (x[1], y[1])."""
        xs, ys = [self.left + one for one in x], [self.bottom + one for one in y]
        self.axis.plot(xs, ys, color=color, linewidth=linewidth, zorder=zorder)

    def arrow(self, x: Span, y: Span, color: str = INK, size: float = 9) -> None:
        """An arrow from (x[0], y[0]) to (x[1], y[1])."""
        ends = [(self.left + a, self.bottom + b) for a, b in zip(x, y, strict=True)]
        style = {"arrowstyle": "-|>", "mutation_scale": size, "shrinkA": 0, "shrinkB": 0}
        self.axis.add_patch(FancyArrowPatch(*ends, color=color, linewidth=0.8, **style))

    def disc(self, x: float, y: float, radius: float, fill: str) -> None:
        """A circle around (x, y)."""
        place = (self.left + x, self.bottom + y)
        self.axis.add_patch(Circle(place, radius, facecolor=fill, edgecolor=INK, linewidth=0.8))

    def box(
        self,
        x: float,
        y: float,
        width: float,
        height: float,
        fill: str,
        linewidth: float = 0.7,
        linestyle: Any = "-",
    ) -> None:
        """A rectangle whose lower left corner is (x, y)."""
        corner = (self.left + x, self.bottom + y)
        style = {"facecolor": fill, "linewidth": linewidth, "linestyle": linestyle}
        self.axis.add_patch(Rectangle(corner, width, height, edgecolor=INK, **style))

    def attention(self, x: float, y: float, width: float, height: float) -> None:
        """A multi-headed attention sublayer."""
        self.box(x, y, width, height, LIGHT)
        self.text(x + width / 2, y + height / 2, "MHA")

    def feed_forward(
        self, x: float, y: float, width: float, height: float, layer: object, bold: bool = False
    ) -> None:
        """W_in and W_out of a layer of the base model; bold for the anchor."""
        self.box(x, y, width, height, TINT, linewidth=2.2 if bold else 0.7)
        names = [rf"$W^{{\rm {name}}}_{{{layer}}}$" for name in ("in", "out")]
        self._halves(x, y, width, height, names, INK)

    def permutation(self, x: float, y: float, width: float, height: float, layer: object) -> None:
        """P_i: neurons that change places."""
        self.box(x, y, width, height, "white")
        for a, b in ((0.2, 0.8), (0.5, 0.2), (0.8, 0.5)):
            ends = (y + a * height, y + b * height)
            self.line((x + 0.14 * width, x + 0.4 * width), ends, linewidth=0.9, zorder=2)
        self.text(x + 0.71 * width, y + height / 2, f"$P_{{{layer}}}$")

    def merged(self, x: float, y: float, width: float, height: float) -> None:
        """W_in* and W_out*, the one sublayer that is stored."""
        self.box(x, y, width, height, DARK)
        names = [rf"$W^{{{{\rm {name}}}*}}$" for name in ("in", "out")]
        self._halves(x, y, width, height, names, "white")

    def use(self, x: float, y: float, width: float, height: float) -> None:
        """The place of a sublayer in a layer that has no weights of its own."""
        self.box(x, y, width, height, "white", linestyle=(0, (3, 2)))
        self.text(x + width / 2, y + height / 2, "$W^*$")

    def _halves(
        self, x: float, y: float, width: float, height: float, names: list[str], color: str
    ) -> None:
        self.line((x + width / 2,) * 2, (y, y + height), color=color, zorder=2)
        for side, name in zip((0.25, 0.76), names, strict=True):
            self.text(x + side * width, y + height / 2, name, color=color)
