"""What the figures share: one look, legible without colour, and the same bytes when redrawn."""

from pathlib import Path

import matplotlib

matplotlib.use("agg")
import seaborn
from matplotlib import pyplot
from matplotlib.figure import Figure

WIDTH = 10.0  # inches, three panels side by side
HEIGHT = 3.2
METHODS = {  # colour-blind safe, and told apart by marker and line alone
    "permute": {"label": "Permute FF Merge", "color": "#0072B2", "marker": "o", "linestyle": "-"},
    "vanilla": {"label": "Vanilla FF Merge", "color": "#D55E00", "marker": "s", "linestyle": "--"},
}
BASE = {"color": "#444444", "linestyle": ":", "linewidth": 1.2}


def panels(n: int) -> tuple[Figure, list]:
    """A figure with n panels side by side."""
    seaborn.set_theme(context="paper", style="ticks", font_scale=1.05)
    figure, axes = pyplot.subplots(1, n, figsize=(WIDTH * n / 3, HEIGHT), squeeze=False)
    return figure, list(axes[0])


def save(figure: Figure, pdf: Path, png: Path) -> None:
    """Write a figure without dates, so that the same data give the same bytes."""
    seaborn.despine(figure)
    figure.tight_layout()
    figure.savefig(pdf, metadata={"CreationDate": None, "Producer": None})
    figure.savefig(png, dpi=200, metadata={"Software": None})
