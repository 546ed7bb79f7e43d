"""Figures 5 and 6: how similar the outputs of all pairs of layers are, one heat map a tower."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy
import pandas
import seaborn
from matplotlib import pyplot
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from ffmerge.figures import look

COLOURS = "magma"  # perceptually uniform: its lightness alone, from black to white, tells the order
N_TICKS = 6  # at most about so many on an axis
NAMES = {"feed_forward": ("FF sublayer", "FF"), "attention": ("attention sublayer", "attention")}


def draw(files: Sequence[Path], tasks: Mapping[str, dict[str, Any]], shown: str) -> Figure:
    """One heat map for each tower of each task, all on the same scale from 0 to 1.

    files: cka.csv of each task; tasks: name -> `label`, in the order of the files.
    shown: the sublayer to draw, `feed_forward` or `attention`; the mean of the other one stands
    beside its own in the panel's title. Layers count from 0, at the top left.
    """
    panels = [
        (title, similarities)
        for file, task in zip(files, tasks.values(), strict=True)
        for title, similarities in _towers(file, task["label"])
    ]
    other = next(sublayer for sublayer in NAMES if sublayer != shown)
    seaborn.set_theme(context="paper", style="ticks", font_scale=1.05)
    size = (look.WIDTH * len(panels) / 4 + 0.6, look.HEIGHT)  # the rest is the colour bar's
    figure, axes = pyplot.subplots(1, len(panels), figsize=size, squeeze=False)
    for axis, (title, similarities) in zip(axes[0], panels, strict=True):
        image = _heat_map(axis, similarities[shown])
        axis.set_title(
            f"mean off-diagonal {_mean(similarities[shown]):.2f} "
            f"({NAMES[other][1]} {_mean(similarities[other]):.2f})",
            fontsize=7.5,
        )
        place = {"xycoords": "axes fraction", "ha": "center", "va": "bottom"}
        axis.annotate(title, (0.5, 1.11), fontsize="large", **place)
        axis.set_xlabel(NAMES[shown][0])
    axes[0][0].set_ylabel(NAMES[shown][0])
    bar = figure.colorbar(image, cax=axes[0][-1].inset_axes((1.08, 0, 0.07, 1)))
    bar.set_label("linear CKA")
    bar.outline.set_visible(False)
    return figure


def _towers(file: Path, label: str) -> list[tuple[str, dict[str, numpy.ndarray]]]:
    """Title and, for each sublayer, the (n_layers, n_layers) similarities of each tower."""
    table = pandas.read_csv(file)
    names = list(table["tower"].unique())
    return [
        (
            f"{label} {name}" if len(names) > 1 else label,
            {
                sublayer: rows.pivot(index="i", columns="j", values="cka").to_numpy()
                for sublayer, rows in table[table["tower"] == name].groupby("sublayer")
            },
        )
        for name in names
    ]


def _heat_map(axis: Axes, similarities: numpy.ndarray):
    n = len(similarities)
    # each cell has an edge of its own colour, or viewers show the page between neighbours
    image = axis.pcolormesh(
        similarities, cmap=COLOURS, vmin=0, vmax=1, edgecolors="face", linewidth=0.2
    )
    axis.set_aspect("equal")
    axis.invert_yaxis()
    layers = range(0, n, -(-n // N_TICKS))
    for one in (axis.xaxis, axis.yaxis):
        one.set_ticks([layer + 0.5 for layer in layers], layers)
        one.set_tick_params(length=2, pad=2)
    axis.spines[:].set_linewidth(0)
    frame = {"fill": False, "edgecolor": "#888888", "linewidth": 0.6, "clip_on": False}
    axis.add_patch(Rectangle((0, 0), n, n, **frame))  # similar layers are as light as the page
    return image


def _mean(similarities: numpy.ndarray) -> float:
    """Mean over pairs of different layers."""
    return similarities[~numpy.eye(len(similarities), dtype=bool)].mean()
