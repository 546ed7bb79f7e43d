"""Draw the similarity of all pairs of layers as a heat map (Figures 5 and 6)."""

import numpy
from matplotlib.axes import Axes
from matplotlib.collections import QuadMesh
from matplotlib.patches import Rectangle

COLOURS = "magma"  # perceptually uniform: lightness alone, from black to white, shows the order
N_TICKS = 6  # per axis, at most about this many
CKA = "linear CKA"


def heat_map(axis: Axes, similarities: numpy.ndarray) -> QuadMesh:
    """Draw (n_layers, n_layers) similarities from 0 to 1. Returns the mesh, for a colour bar."""
    n = len(similarities)
    # edges in the cells' colours: otherwise some viewers show the page between neighbours
    image = axis.pcolormesh(
        similarities, cmap=COLOURS, vmin=0, vmax=1, edgecolors="face", linewidth=0.2
    )
    axis.set_aspect("equal")
    axis.invert_yaxis()
    layers = range(0, n, -(-n // N_TICKS))
    for side in (axis.xaxis, axis.yaxis):
        side.set_ticks([layer + 0.5 for layer in layers], layers)
        side.set_tick_params(length=2, pad=2)
    axis.spines[:].set_linewidth(0)
    frame = {"fill": False, "edgecolor": "#888888", "linewidth": 0.6, "clip_on": False}
    axis.add_patch(Rectangle((0, 0), n, n, **frame))  # similar layers are as light as the page
    return image
