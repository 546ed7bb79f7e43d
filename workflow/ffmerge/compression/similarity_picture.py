"""How similar the outputs of a model's FF sublayers are: linear CKA, one heat map a tower."""

from pathlib import Path

from matplotlib.figure import Figure
from torch import Tensor

from ffmerge.method.cka import mean_off_diagonal
from ffmerge.method.heat_map import CKA, heat_map


def draw(similarities: dict[str, Tensor], name: str, file: Path) -> None:
    """Write the picture, in the look of Figure 5. similarities: (n_layers, n_layers) by tower."""
    figure = Figure(figsize=(2.5 * len(similarities) + 0.6, 3.2))
    axes = figure.subplots(1, len(similarities), squeeze=False)
    for axis, (tower, matrix) in zip(axes[0], similarities.items(), strict=True):
        image = heat_map(axis, matrix.numpy())
        axis.set_title(
            f"{name} {tower}\nmean off-diagonal {mean_off_diagonal(matrix):.2f}", fontsize=8
        )
        axis.set_xlabel("FF sublayer")
    axes[0][0].set_ylabel("FF sublayer")
    bar = figure.colorbar(image, cax=axes[0][-1].inset_axes((1.08, 0, 0.07, 1)))
    bar.set_label(CKA)
    bar.outline.set_visible(False)
    figure.savefig(file, dpi=200, bbox_inches="tight")
