"""The common style of the figures: legible without colour, the same bytes when drawn again."""

from collections.abc import Callable, Iterator

import matplotlib

matplotlib.use("agg")
import seaborn
from matplotlib import pyplot
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from provenance.job import Job
from provenance.ledger import Rows, write_ledger

WIDTH = 10.0  # inches, three panels side by side
HEIGHT = 3.2
METHOD_STYLES = {  # safe for colour-blind readers, and different in marker and line alone
    "permute": {"label": "Permute FF Merge", "color": "#0072B2", "marker": "o", "linestyle": "-"},
    "vanilla": {"label": "Vanilla FF Merge", "color": "#D55E00", "marker": "s", "linestyle": "--"},
    "drop": {"label": "Layer Drop", "color": "#009E73", "marker": "^", "linestyle": "-."},
}


def by_panel(points: Rows) -> dict[str, list]:
    """Group points by their `panel`."""
    panels: dict[str, list] = {}
    for point in points:
        panels.setdefault(point["panel"], []).append(point)
    return panels


def draw_panels(points: Rows, draw_panel: Callable[[Axes, list], None]) -> Figure:
    """Draw panels side by side, each from its axis and its points; the first has the legend."""
    panels = by_panel(points)
    seaborn.set_theme(context="paper", style="ticks", font_scale=1.05)
    size = (WIDTH * len(panels) / 3, HEIGHT)
    figure, axes = pyplot.subplots(1, len(panels), figsize=size, squeeze=False)
    for axis, panel_points in zip(axes[0], panels.values(), strict=True):
        draw_panel(axis, panel_points)
    axes[0][0].legend(frameon=False)
    return figure


def curves(points: Rows) -> Iterator[tuple[dict, list]]:
    """Yield the line style and the points of each method that has any."""
    for method in METHOD_STYLES.values():
        if curve := [point for point in points if point["series"] == method["label"]]:
            yield method, curve


def save(figure: Figure, job: Job, points: Rows) -> None:
    """Write a figure as a job's `pdf` and `png`, without a date, and its points as the ledger."""
    seaborn.despine(figure)
    figure.tight_layout()
    figure.savefig(job.output.pdf, metadata={"CreationDate": None, "Producer": None})
    figure.savefig(job.output.png, dpi=200, metadata={"Software": None})
    write_ledger(job, points)
