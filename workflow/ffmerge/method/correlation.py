"""Cross-correlation of features (Eq. 1)."""

import torch
from torch import Tensor

# Values that are centred at a time: their float64 copy stays in a processor core's cache, and torch
# hands so few to no other thread, for which this one would wait at every step on a busy machine.
VALUES = 2**15


def standardize(features: Tensor, overwrite: bool = False) -> Tensor:
    """Features with mean 0 and norm 1 a neuron, so that products of columns are correlations.

    features: (n_tokens, d_ff); with `overwrite`, float32 in whose memory the result will be.
    Returns float32 of the same shape; a constant neuron becomes 0.
    Two passes with the means in float64: E[xy] - E[x]E[y] in one float32 pass cancels.
    Raises ValueError naming the first neuron with a value that is not finite.
    """
    centred, norm = centre(features, "the features of neuron", overwrite)
    scale = torch.where(norm > 0, 1 / norm, 0.0)
    return centred.mul_(scale.float())


def centre(columns: Tensor, what: str, overwrite: bool = False) -> tuple[Tensor, Tensor]:
    """Columns with mean 0, float32 of the same shape, and the norm of each, float64.

    columns: (n_tokens, d). overwrite: see `standardize`. A constant column has norm 0, whatever
    rounding has left of it: that is noise, not a feature. The means are float64, for what is far
    from zero would lose its variation.
    Raises ValueError, `what` and the number of the first column that is not finite.
    """
    n_rows = max(1, VALUES // columns.shape[1])
    blocks = columns.split(n_rows)
    mean = sum(rows.sum(dim=0, dtype=torch.float64) for rows in blocks) / len(columns)
    if not torch.isfinite(mean).all():
        column = int((~torch.isfinite(mean)).nonzero()[0])
        raise ValueError(f"{what} {column} are not all finite")
    centred = columns if overwrite else torch.empty_like(columns, dtype=torch.float32)
    squares = torch.zeros_like(mean)
    for rows, into in zip(blocks, centred.split(n_rows), strict=True):
        squares += into.copy_(rows - mean).double().square_().sum(dim=0)
    norm = squares.sqrt()
    rounding = torch.finfo(torch.float32).eps * mean.abs() * len(columns) ** 0.5
    return centred, torch.where(norm > rounding, norm, 0.0)


def cross_correlation(anchor: Tensor, other: Tensor) -> Tensor:
    """Correlation of every anchor neuron with every other neuron (Eq. 1).

    anchor, other: (n_tokens, d_ff) features of the same tokens, before the activation.
    Returns (d_ff, d_ff) in [-1, 1]; row j is anchor neuron j. A constant neuron correlates 0 with
    all. Raises ValueError if the token counts differ or a feature is not finite.
    """
    return correlation_of_standardized(standardize(anchor), standardize(other))


def correlation_of_standardized(anchor: Tensor, other: Tensor) -> Tensor:
    """`cross_correlation` of features that went through `standardize`."""
    if len(anchor) != len(other):
        raise ValueError(f"features of {len(anchor)} and of {len(other)} tokens do not pair")
    return (anchor.T @ other).clamp_(-1, 1)
