"""Linear CKA: how similar two layers' outputs are (Section 5.5; Kornblith et al., 2019)."""

from collections.abc import Callable

import torch
from torch import Tensor

from ffmerge.method.correlation import centre


def cka_matrix(
    layer: Callable[[int], Tensor],
    n_layers: int,
    done: Callable[[], object] = lambda: None,
) -> Tensor:
    """Linear CKA of all pairs of layers, (n_layers, n_layers) float64.

    ‖XᵀY‖²_F / (‖XᵀX‖_F ‖YᵀY‖_F) of the centred outputs X and Y of two layers: the biased form, in
    [0, 1]. It equals the n × n Gram form, but costs d²n instead of dn².
    layer: number of a layer -> its (n_tokens, d) outputs, called about n²/2 times, so that only
    two layers are in memory. done: called after each pair i < j.
    Symmetric, with a diagonal of exactly 1. A layer whose features are all constant has CKA 0 with
    all others. Raises ValueError naming the layers if outputs are not finite or token counts
    differ.
    """
    scales = []
    for i in range(n_layers):  # a layer's norm costs as much as a pair, so compute it once
        try:
            scales.append(_scale(_centred(layer(i))))
        except ValueError as error:
            raise ValueError(f"layer {i}: {error}") from None
    matrix = torch.eye(n_layers, dtype=torch.float64)
    for i in range(n_layers - 1):
        x = _centred(layer(i)) * scales[i]
        for j in range(i + 1, n_layers):
            try:
                similarity = _cka_of_normalized(x, _centred(layer(j)) * scales[j])
            except ValueError as error:
                raise ValueError(f"layers {i} and {j}: {error}") from None
            matrix[i, j] = matrix[j, i] = similarity
            done()
    return matrix


def mean_off_diagonal(matrix: Tensor) -> float:
    """Mean similarity over all pairs of different layers; NaN for a single layer."""
    n = len(matrix)
    return matrix[~torch.eye(n, dtype=torch.bool)].mean().item()


def mean_by_distance(matrix: Tensor) -> dict[int, float]:
    """Distance |i - j| from 1 on -> mean similarity of the pairs of layers at that distance."""
    return {d: matrix.diagonal(d).mean().item() for d in range(1, len(matrix))}


def _centred(outputs: Tensor) -> Tensor:
    """Centre the columns of X, (n_tokens, d); a constant one becomes 0."""
    centred, norm = centre(outputs, "the outputs of feature")
    return torch.where(norm > 0, centred, 0.0)  # scaling would amplify the rounding noise


def _scale(centred: Tensor) -> float:
    """1 / √‖XᵀX‖_F, or 0 if X is all zeros; CKA of so scaled X and Y is just ‖XᵀY‖²_F."""
    size = torch.linalg.vector_norm(centred, dtype=torch.float64).item()
    if size == 0:
        return 0.0
    unit = centred * (1 / size)  # fourth powers would leave the range of float32
    return 1 / (size * _norm_of_product(unit, unit) ** 0.5)


def _cka_of_normalized(x: Tensor, y: Tensor) -> float:
    if len(x) != len(y):
        raise ValueError(f"outputs at {len(x)} and at {len(y)} tokens do not pair")
    return min(_norm_of_product(x, y) ** 2, 1.0)


def _norm_of_product(x: Tensor, y: Tensor) -> float:
    """‖XᵀY‖_F."""
    return torch.linalg.vector_norm(x.T @ y, dtype=torch.float64).item()
