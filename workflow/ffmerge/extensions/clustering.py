"""Cluster similar feed-forward sublayers into groups to merge, beyond the paper's windows.

The paper searches all windows of adjacent layers by the loss of each candidate (Section 3.4). Its
conclusion leaves groups of other layers, and several groups in one model, to future work. Here they
are proposed from features alone, without a forward pass of any candidate.
"""

from collections.abc import Iterable, Mapping
from itertools import combinations
from typing import Any

import torch
from torch import Tensor

from ffmerge.method import groups
from ffmerge.method.groups import Group
from ffmerge.method.windows import start_of_role, window

ALIGNED = ("anchor", "layer", "correlation")  # columns of alignment.csv
COMPARED = ("i", "j", "cka")  # columns of cka.csv


def most_similar(
    similarity: Mapping[str, Tensor], n_removed: Mapping[str, int], anchor: str
) -> list[Group]:
    """Groups of each tower's most similar layers, adjacent or not, as many as clustering gives.

    similarity: (n_layers, n_layers) symmetric, by tower, such as the correlation of aligned neurons
    or CKA. n_removed: sublayers to remove, by tower. Raises ValueError as `clusters` does.
    """
    return [
        groups.group(tower, layers, anchor)
        for tower, n in n_removed.items()
        for layers in clusters(similarity[tower], n)
    ]


def clusters(similarity: Tensor, n_removed: int) -> list[list[int]]:
    """Groups of two or more layers that remove n_removed, in the order of their first layers.

    Complete linkage: the least similar pair of a group counts, since all its layers have to fit
    whichever is the anchor. similarity: (n_layers, n_layers) symmetric; the diagonal is not read.
    Raises ValueError unless 0 <= n_removed < n_layers and every similarity is a finite number.
    """
    n_layers = len(similarity)
    if not 0 <= n_removed < n_layers:
        raise ValueError(f"{n_removed} sublayers cannot be removed of {n_layers}: one has to stay")
    if not torch.isfinite(similarity).all():
        raise ValueError("a similarity of two layers is not finite")
    if n_removed == 0:
        return []
    from scipy.cluster.hierarchy import cut_tree, linkage  # half a second that only this needs

    above = torch.triu_indices(n_layers, n_layers, offset=1)
    tree = linkage(1 - similarity.double()[above[0], above[1]].numpy(), method="complete")
    labels = cut_tree(tree, n_clusters=n_layers - n_removed)[:, 0].tolist()
    members: dict[int, list[int]] = {}
    for layer, label in enumerate(labels):
        members.setdefault(label, []).append(layer)
    return [layers for layers in members.values() if len(layers) > 1]


def propose(
    alignment: list[dict[str, str]],
    cka: list[dict[str, str]],
    selection: Mapping[str, Mapping[str, Any]],
    sizes: Iterable[int],
    n_layers: int,
    anchor: str,
) -> dict[str, dict[str, dict[str, list[list[int]]]]]:
    """Propose groups by both similarities, beside the window that was searched.

    alignment, cka: rows of alignment.csv and cka.csv; selection: k -> start of the `best` window.
    Returns k -> strategy (window, correlation, cka) -> tower -> layers of each group; all
    strategies of a k remove k - 1 sublayers of each tower.
    """
    towers = list(dict.fromkeys(row["tower"] for row in alignment))
    outputs = [row for row in cka if row["sublayer"] == "feed_forward"]
    similarities = {
        strategy: {
            tower: matrix_of([row for row in rows if row["tower"] == tower], columns, n_layers)
            for tower in towers
        }
        for strategy, (rows, columns) in {
            "correlation": (alignment, ALIGNED),
            "cka": (outputs, COMPARED),
        }.items()
    }
    proposals = {}
    for k in sizes:
        chosen = {"window": window(towers, start_of_role(selection, k, "best"), k, anchor)}
        for strategy, similarity in similarities.items():
            chosen[strategy] = most_similar(similarity, dict.fromkeys(towers, k - 1), anchor)
        proposals[str(k)] = {
            strategy: {
                t: [list(group.layers) for group in members if group.tower == t] for t in towers
            }
            for strategy, members in chosen.items()
        }
    return proposals


def matrix_of(rows: list[dict[str, str]], columns: tuple[str, str, str], n_layers: int) -> Tensor:
    """The similarities of one tower's layers, (n_layers, n_layers) symmetric, from rows of a CSV.

    columns: those of the layers i < j and of their similarity.
    Raises ValueError naming a pair that is missing.
    """
    i, j, value = columns
    similarities = {(int(row[i]), int(row[j])): float(row[value]) for row in rows}
    matrix = torch.eye(n_layers, dtype=torch.float64)
    for pair in combinations(range(n_layers), 2):
        if pair not in similarities:
            raise ValueError(f"no similarity is given for layers {pair[0]} and {pair[1]}")
        matrix[pair] = matrix[pair[::-1]] = similarities[pair]
    return matrix
