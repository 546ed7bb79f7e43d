"""What the figures share: one look, legible without colour, and the same bytes when redrawn."""

from pathlib import Path

import matplotlib

matplotlib.use("agg")
import seaborn
from matplotlib import pyplot
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from pandas import DataFrame

from ffmerge.evaluation import metric_named

WIDTH = 10.0  # inches, three panels side by side
HEIGHT = 3.2
METHODS = {  # colour-blind safe, and told apart by marker and line alone
    "permute": {"label": "Permute FF Merge", "color": "#0072B2", "marker": "o", "linestyle": "-"},
    "vanilla": {"label": "Vanilla FF Merge", "color": "#D55E00", "marker": "s", "linestyle": "--"},
    "drop": {"label": "Layer Drop", "color": "#009E73", "marker": "^", "linestyle": "-."},
}
BASE = {"color": "#444444", "linestyle": ":", "linewidth": 1.2}


def panels(n: int) -> tuple[Figure, list]:
    """A figure with n panels side by side."""
    seaborn.set_theme(context="paper", style="ticks", font_scale=1.05)
    figure, axes = pyplot.subplots(1, n, figsize=(WIDTH * n / 3, HEIGHT), squeeze=False)
    return figure, list(axes[0])


def scores_by_reduction(axis: Axes, results: DataFrame) -> None:
    """Draw test scores against the parameters removed: the uncompressed model's and each method's.

    results: rows of one task, as ffmerge.tables.results writes them.
    """
    base = results[results["method"].isna()].iloc[0]
    metric = metric_named(base["metric"])
    axis.axhline(base["score"], label="Uncompressed", **BASE)
    for method in [name for name in METHODS if name in set(results["method"])]:
        of_method = results[results["method"] == method].sort_values("reduction_percent")
        axis.errorbar(
            of_method["reduction_percent"],
            of_method["score"],
            yerr=[of_method["score"] - of_method["low"], of_method["high"] - of_method["score"]],
            capsize=3,
            markersize=5,
            **METHODS[method],
        )
    axis.set_title(base["model"])
    axis.set_xlabel("parameters removed (%)")
    axis.set_ylabel(f"test {metric.unit} {'↑' if metric.higher_is_better else '↓'}")
    axis.set_xlim(left=0)


def save(figure: Figure, pdf: Path, png: Path) -> None:
    """Write a figure without dates, so that the same data give the same bytes."""
    seaborn.despine(figure)
    figure.tight_layout()
    figure.savefig(pdf, metadata={"CreationDate": None, "Producer": None})
    figure.savefig(png, dpi=200, metadata={"Software": None})
