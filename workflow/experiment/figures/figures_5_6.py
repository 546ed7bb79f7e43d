"""Figures 5 and 6: how similar the outputs of all pairs of layers are, one heat map a tower."""

from collections.abc import Iterator, Mapping, Sequence
from math import isqrt
from pathlib import Path
from typing import Any

import numpy
import seaborn
from matplotlib import pyplot
from matplotlib.figure import Figure

from experiment.figures import style
from experiment.tables.layout import Row
from ffmerge.method.heat_map import CKA, heat_map
from provenance import cells
from provenance.cells import Cell, Source

NAMES = {"feed_forward": ("FF sublayer", "FF"), "attention": ("attention sublayer", "attention")}
PAIR, MEAN = "layers", "mean off-diagonal"


def points(files: Sequence[Path], tasks: Mapping[str, dict[str, Any]], shown: str) -> list[Row]:
    """Of each tower a row for every pair of layers, in order, and the means of both sublayers.

    files: cka.csv of each task; tasks: name -> `label`, in the order of the files.
    shown: the sublayer to draw, `feed_forward` or `attention`; the mean of the other one stands
    beside its own in the panel's title.
    """
    return [
        point
        for file, task in zip(files, tasks.values(), strict=True)
        for point in _of_task(file, task["label"], shown)
    ]


def _of_task(file: Path, label: str, shown: str) -> Iterator[Row]:
    rows = list(enumerate(Source(file).value()))
    towers = list(dict.fromkeys(row["tower"] for _, row in rows))
    for tower in towers:
        panel = f"{label} {tower}" if len(towers) > 1 else label
        for sublayer in (shown, *(name for name in NAMES if name != shown)):
            named = {"panel": panel, "sublayer": NAMES[sublayer][0]}
            pairs = {
                (row["i"], row["j"]): f"/{n}/cka"
                for n, row in rows
                if (row["tower"], row["sublayer"]) == (tower, sublayer)
            }
            if sublayer == shown:
                for (i, j), pointer in sorted(pairs.items()):
                    yield {**named, PAIR: f"{i}, {j}", CKA: cells.of(file, pointer, "{:.2f}")}
            different = tuple(Source(file, pointer) for (i, j), pointer in pairs.items() if i != j)
            yield {**named, PAIR: MEAN, CKA: Cell(different, "{:.2f}", "mean")}


def draw(points: Sequence[Row]) -> Figure:
    """One heat map for each tower, all on the same scale from 0 to 1; layer 0 at the top left."""
    panels: dict[str, list[Row]] = {}
    for point in points:
        panels.setdefault(point["panel"], []).append(point)
    names = dict(NAMES.values())
    seaborn.set_theme(context="paper", style="ticks", font_scale=1.05)
    size = (style.WIDTH * len(panels) / 4 + 0.6, style.HEIGHT)  # the rest is the colour bar's
    figure, axes = pyplot.subplots(1, len(panels), figsize=size, squeeze=False)
    for axis, (title, of_panel) in zip(axes[0], panels.items(), strict=True):
        *pairs, mean, other_mean = of_panel
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
