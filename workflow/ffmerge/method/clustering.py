"""Which feed-forward sublayers to merge: strategies behind one interface.

The paper searches all windows of adjacent layers by the loss of each candidate (Section 3.4). Its
conclusion leaves groups of other layers, and several in one model, to future work: here they are
proposed from features alone, without a forward pass of any candidate.
"""

from collections.abc import Callable, Iterable, Mapping
from typing import Any, Protocol

import torch
from torch import Tensor

from ffmerge.method import groups
from ffmerge.method.groups import Group
from ffmerge.method.windows import best_start, start_of_role, starts


class Strategy(Protocol):
    """Selects groups whose merging removes a number of FF sublayers from each tower."""

    def select(self, n_removed: Mapping[str, int]) -> list[Group]:
        """Groups that remove n_removed[tower] sublayers of each tower. ValueError if none can."""


class WindowSearch:
    """The paper's: one window of adjacent layers, the best of all by a score (Algorithm 1).

    Towers of the same depth that lose the same number have the same window, as the paper's
    translator; others are searched one after the other, the rest of the model as it is.
    n_layers: of each tower. score: of the model with these groups merged; better(a, b): whether
    score a is strictly better. tried: every candidate with its score, as it comes.
    """

    def __init__(
        self,
        n_layers: Mapping[str, int],
        anchor: str,
        score: Callable[[list[Group]], float],
        better: Callable[[float, float], bool],
    ) -> None:
        self.n_layers, self.anchor = n_layers, anchor
        self._score, self._better = score, better
        self.tried: list[tuple[list[Group], float]] = []

    def select(self, n_removed: Mapping[str, int]) -> list[Group]:
        kinds = {(self.n_layers[tower], n) for tower, n in n_removed.items()}
        alike = [list(n_removed)] if len(kinds) == 1 else [[tower] for tower in n_removed]
        return [group for towers in alike for group in self._best(towers, n_removed[towers[0]])]

    def candidates(self, n_removed: Mapping[str, int]) -> int:
        """How many windows `select` scores."""
        kinds = {(self.n_layers[tower], n) for tower, n in n_removed.items()}
        each = kinds if len(kinds) == 1 else [(self.n_layers[t], n) for t, n in n_removed.items()]
        return sum(len(starts(n_layers, n + 1)) for n_layers, n in each if n)

    def _best(self, towers: list[str], n_removed: int) -> list[Group]:
        if n_removed == 0:
            return []
        k = n_removed + 1
        scores = {}
        for start in starts(self.n_layers[towers[0]], k):
            window = groups.window(towers, start, k, self.anchor)
            scores[start] = self._score(window)
            self.tried.append((window, scores[start]))
        return groups.window(towers, best_start(scores, list(scores), self._better), k, self.anchor)


class Clusters:
    """The layers that are most alike, adjacent or not, in as many groups as that gives.

    similarity: of each tower's layers, (n_layers, n_layers) symmetric, such as the correlation of
    aligned neurons or CKA. Layers are clustered by complete linkage: a group's least similar pair
    counts, for whichever is the anchor has to fit all others.
    """

    def __init__(self, similarity: Mapping[str, Tensor], anchor: str) -> None:
        self.similarity, self.anchor = similarity, anchor

    def select(self, n_removed: Mapping[str, int]) -> list[Group]:
        return [
            groups.group(tower, layers, self.anchor)
            for tower, n in n_removed.items()
            for layers in clusters(self.similarity[tower], n)
        ]


def clusters(similarity: Tensor, n_removed: int) -> list[list[int]]:
    """Groups of at least two layers, in the order of their first ones, that remove n_removed.

    similarity: (n_layers, n_layers) symmetric; the diagonal is not read.
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
    members = [[i for i, label in enumerate(labels) if label == each] for each in set(labels)]
    return sorted(layers for layers in members if len(layers) > 1)


def aligned_correlation(rows: list[dict[str, str]], n_layers: int) -> Tensor:
    """Mean correlation of matched neurons, (n_layers, n_layers), from one tower's solved pairs.

    rows: `anchor`, `layer` and `correlation` of alignment.csv; an assignment and its inverse have
    the same correlation. Raises ValueError naming a pair that is missing.
    """
    return _symmetric(
        {(int(row["anchor"]), int(row["layer"])): float(row["correlation"]) for row in rows},
        n_layers,
    )


def output_cka(rows: list[dict[str, str]], n_layers: int) -> Tensor:
    """CKA of one tower's FF outputs (Figure 5), (n_layers, n_layers): `i`, `j`, `cka` of cka.csv.

    Raises ValueError naming a pair that is missing.
    """
    return _symmetric({(int(row["i"]), int(row["j"])): float(row["cka"]) for row in rows}, n_layers)


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
    strategies = {
        name: Clusters(
            {t: read([r for r in rows if r["tower"] == t], n_layers) for t in towers}, anchor
        )
        for name, read, rows in (
            ("correlation", aligned_correlation, alignment),
            ("cka", output_cka, outputs),
        )
    }
    proposals = {}
    for k in sizes:
        chosen = {"window": groups.window(towers, start_of_role(selection, k, "best"), k, anchor)}
        for name, strategy in strategies.items():
            chosen[name] = strategy.select(dict.fromkeys(towers, k - 1))
        proposals[str(k)] = {
            name: {t: [list(group.layers) for group in found if group.tower == t] for t in towers}
            for name, found in chosen.items()
        }
    return proposals


def _symmetric(of_pair: dict[tuple[int, int], float], n_layers: int) -> Tensor:
    matrix = torch.eye(n_layers, dtype=torch.float64)
    for i in range(n_layers):
        for j in range(i + 1, n_layers):
            if (i, j) not in of_pair:
                raise ValueError(f"no similarity is given for layers {i} and {j}")
            matrix[i, j] = matrix[j, i] = of_pair[i, j]
    return matrix
