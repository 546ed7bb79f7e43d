"""What the figures share: one look, legible without colour, and the same bytes when redrawn."""

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
METHODS = {  # colour-blind safe, and told apart by marker and line alone
    "permute": {"label": "Permute FF Merge", "color": "#0072B2", "marker": "o", "linestyle": "-"},
    "vanilla": {"label": "Vanilla FF Merge", "color": "#D55E00", "marker": "s", "linestyle": "--"},
    "drop": {"label": "Layer Drop", "color": "#009E73", "marker": "^", "linestyle": "-."},
}


def panels(n: int) -> tuple[Figure, list]:
    """A figure with n panels side by side."""
    seaborn.set_theme(context="paper", style="ticks", font_scale=1.05)
    figure, axes = pyplot.subplots(1, n, figsize=(WIDTH * n / 3, HEIGHT), squeeze=False)
    return figure, list(axes[0])


def panels_of(points: Rows) -> tuple[Figure, list[tuple[Axes, list]]]:
    """A figure with a panel for each `panel` of its points, and the points of each."""
    by_panel: dict[str, list] = {}
    for point in points:
        by_panel.setdefault(point["panel"], []).append(point)
    figure, axes = panels(len(by_panel))
    return figure, list(zip(axes, by_panel.values(), strict=True))


def save(figure: Figure, job: Job, points: Rows) -> None:
    """Write a figure as a job's `pdf` and `png`, and its points as the ledger.

    Nothing in them tells when they were drawn, so that the same data give the same bytes.
    """
    seaborn.despine(figure)
    figure.tight_layout()
    figure.savefig(job.output.pdf, metadata={"CreationDate": None, "Producer": None})
    figure.savefig(job.output.png, dpi=200, metadata={"Software": None})
    write_ledger(job, points)
