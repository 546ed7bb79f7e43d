"""Figures 5 and 6: the similarity of all pairs of layers, a heat map for each tower."""

from collections.abc import Iterator, Mapping, Sequence
from math import isqrt
from pathlib import Path
from typing import Any

import numpy
import pandas
import seaborn
from matplotlib import pyplot
from matplotlib.figure import Figure

from experiment.figures import style
from experiment.tables.layout import Row
from ffmerge.method.heat_map import CKA, heat_map
from provenance import cells
from provenance.cells import Cell, Source

SHOWN = {5: "feed_forward", 6: "attention"}
SUBLAYER_NAMES = {
    "feed_forward": ("FF sublayer", "FF"),
    "attention": ("attention sublayer", "attention"),
}
PAIR, MEAN = "layers", "mean off-diagonal"


def points(files: Sequence[Path], tasks: Mapping[str, dict[str, Any]], shown: str) -> list[Row]:
    """List the CKA of all pairs of layers of each tower, in order, and both sublayers' means.

    files: cka.csv of each task; tasks: name -> `label`, in the order of the files.
    shown: the sublayer to draw, `feed_forward` or `attention`; the panel's title has its mean and
    that of the other one.
    """
    return [
        point
        for file, task in zip(files, tasks.values(), strict=True)
        for point in _pairs(file, task["label"], shown)
    ]


def _pairs(file: Path, label: str, shown: str) -> Iterator[Row]:
    rows = pandas.read_csv(file)
    several = rows["tower"].nunique() > 1
    for tower, tower_rows in rows.groupby("tower", sort=False):
        panel = f"{label} {tower}" if several else label
        for sublayer in (shown, *(name for name in SUBLAYER_NAMES if name != shown)):
            named = {"panel": panel, "sublayer": SUBLAYER_NAMES[sublayer][0]}
            pairs = tower_rows[tower_rows["sublayer"] == sublayer]
            if sublayer == shown:
                for n, i, j in pairs.sort_values(["i", "j"])[["i", "j"]].itertuples():
                    similarity = cells.of(file, f"/{n}/cka", "{:.2f}")
                    yield {**named, PAIR: f"{i}, {j}", CKA: similarity}
            different = pairs.index[pairs["i"] != pairs["j"]]
            sources = tuple(Source(file, f"/{n}/cka") for n in different)
            yield {**named, PAIR: MEAN, CKA: Cell(sources, "{:.2f}", "mean")}


def draw(points: Sequence[Row]) -> Figure:
    """Draw a heat map for each tower on one scale from 0 to 1, layer 0 at the top left."""
    panels = style.by_panel(points)
    names = dict(SUBLAYER_NAMES.values())
    seaborn.set_theme(context="paper", style="ticks", font_scale=1.05)
    size = (style.WIDTH * len(panels) / 4 + 0.6, style.HEIGHT)  # the rest is the colour bar's
    figure, axes = pyplot.subplots(1, len(panels), figsize=size, squeeze=False)
    for axis, (title, panel_points) in zip(axes[0], panels.items(), strict=True):
        *pairs, mean, other_mean = panel_points
        n = isqrt(len(pairs))
        image = heat_map(axis, numpy.reshape([pair[CKA].raw for pair in pairs], (n, n)))
        other = names[other_mean["sublayer"]]
        axis.set_title(f"{MEAN} {mean[CKA]} ({other} {other_mean[CKA]})", fontsize=7.5)
        place = {"xycoords": "axes fraction", "ha": "center", "va": "bottom"}
        axis.annotate(title, (0.5, 1.11), fontsize="large", **place)
        axis.set_xlabel(mean["sublayer"])
    axes[0][0].set_ylabel(mean["sublayer"])
    bar = figure.colorbar(image, cax=axes[0][-1].inset_axes((1.08, 0, 0.07, 1)))
    bar.set_label(CKA)
    bar.outline.set_visible(False)
    return figure
