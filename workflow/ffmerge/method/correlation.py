"""Cross-correlation of features (Eq. 1)."""

import torch
from torch import Tensor

# Values to centre at a time. Their float64 copy fits into a core's cache, and torch does not share
# so few with other threads, for which this one would wait at every step on a busy machine.
VALUES_PER_BLOCK = 2**15


def standardize(features: Tensor, overwrite: bool = False) -> Tensor:
    """Shift and scale every neuron to mean 0 and norm 1: products of columns are correlations.

    features: (n_tokens, d_ff); with `overwrite`, float32 whose memory the result takes over.
    Returns float32 of the same shape; a constant neuron becomes 0.
    Takes two passes with float64 means: E[xy] - E[x]E[y] in one float32 pass would cancel.
    Raises ValueError naming the first neuron with a value that is not finite.
    """
    centred, norm = centre(features, "the features of neuron", overwrite)
    scale = torch.where(norm > 0, 1 / norm, 0.0)
    return centred.mul_(scale.float())


def centre(columns: Tensor, what: str, overwrite: bool = False) -> tuple[Tensor, Tensor]:
    """Centre columns to mean 0. Returns them as float32 of the same shape, and their float64 norms.

    columns: (n_tokens, d). what: their name in errors. overwrite: see `standardize`.
    A constant column gets norm 0, since all that rounding leaves of it is noise. The means are
    float64: columns far from zero would otherwise lose their variation.
    Raises ValueError naming the first column with a value that is not finite.
    """
    n_rows = max(1, VALUES_PER_BLOCK // columns.shape[1])
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
