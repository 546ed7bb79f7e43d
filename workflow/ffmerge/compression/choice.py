"""Which sublayers are merged: those that a strategy selects, and what aligning them needs."""

import math
from itertools import combinations
from operator import lt

from torch import Tensor, nn

from ffmerge.compression.alignment import Aligner
from ffmerge.compression.loss import Loss
from ffmerge.method import cka
from ffmerge.method.clustering import Clusters, WindowSearch
from ffmerge.method.features import Features
from ffmerge.method.groups import Group
from ffmerge.method.merge import merge_in_model
from ffmerge.method.permutation import Pair, Permutations
from ffmerge.method.tie import untouched
from ffmerge.models.towers import towers
from provenance.progress import progress

Tried = list[tuple[list[Group], float]]
Shapes = dict[str, list[tuple[int, ...]]]
"""Of each tower's layers, (d_model, d_ff) as W_out's weight has them: equal ones can be merged."""


def shapes_of(model: nn.Module) -> Shapes:
    """The widths of every FF sublayer."""
    return {
        name: [
            tuple(model.get_submodule(tower.module(i, "down")).weight.shape)
            for i in range(len(tower))
        ]
        for name, tower in towers(model).items()
    }


def pairs_alike(shapes: Shapes) -> dict[str, list[Pair]]:
    """All pairs of layers of the same widths, by tower."""
    return {
        name: [(i, j) for i, j in combinations(range(len(own)), 2) if own[i] == own[j]]
        for name, own in shapes.items()
    }


def windows_of(model: nn.Module, n_removed: dict[str, int], anchor: str) -> list[list[Group]]:
    """All windows that a search scores: those with layers of the same widths alone.

    Raises ValueError if there is none.
    """
    shapes = shapes_of(model)
    search = WindowSearch(_n_layers(shapes), anchor, lambda _: 0.0, lt)
    search.select(n_removed)
    alike = [window for window, _ in search.tried if _fit(window, shapes)]
    if not alike:
        check_widths(model, [group for window, _ in search.tried for group in window])
    return alike


def by_loss(
    model: nn.Module,
    n_removed: dict[str, int],
    anchor: str,
    permutations: dict[str, Permutations] | None,
    loss: Loss,
) -> tuple[list[Group], Tried]:
    """The window of the least loss (Section 3.4), and all windows with theirs.

    permutations: all that the windows need; None for vanilla. The model is left as it was.
    Raises ValueError if no window has layers of the same widths alone.
    """
    shapes, bar = shapes_of(model), progress(total=len(windows_of(model, n_removed, anchor)))
    bar.set_description("windows")

    def score(window: list[Group]) -> float:
        if not _fit(window, shapes):
            return math.inf
        with untouched(model):
            merge_in_model(model, window, permutations)
            found = loss.of(model)
        bar.update()
        return found if math.isfinite(found) else math.inf

    search = WindowSearch(_n_layers(shapes), anchor, score, lt)
    chosen = search.select(n_removed)
    bar.close()
    check_widths(model, chosen)
    return chosen, [(window, found) for window, found in search.tried if _fit(window, shapes)]


def by_similarity(
    model: nn.Module, n_removed: dict[str, int], anchor: str, similarity: dict[str, Tensor]
) -> list[Group]:
    """The layers that are most alike. similarity: of each tower, (n_layers, n_layers).

    Raises ValueError if layers of different widths would have to be merged.
    """
    shapes = shapes_of(model)
    apart = {name: similarity[name].clone() for name in n_removed}
    for name, own in shapes.items():
        for i, j in combinations(range(len(own)), 2):
            if own[i] != own[j]:
                apart[name][i, j] = apart[name][j, i] = -len(own)  # less than any similarity
    groups = Clusters(apart, anchor).select(n_removed)
    check_widths(model, groups)
    return groups


def correlations(model: nn.Module, aligner: Aligner) -> dict[str, Tensor]:
    """Mean correlation of aligned neurons of all pairs of layers of a width; others have 0."""
    shapes = shapes_of(model)
    aligner.align(pairs_alike(shapes))
    return {name: aligner.correlation(name, len(own)) for name, own in shapes.items()}


def output_similarities(outputs: Features) -> dict[str, Tensor]:
    """CKA of all pairs of layers' FF outputs, by tower."""
    found = {}
    for name, n in outputs.towers().items():
        bar = progress(total=n * (n - 1) // 2, desc=f"CKA {name}")
        found[name] = cka.cka_matrix(lambda i, name=name: outputs.layer(name, i), n, bar.update)
        bar.close()
    return found


def _n_layers(shapes: Shapes) -> dict[str, int]:
    return {name: len(own) for name, own in shapes.items()}


def _fit(groups: list[Group], shapes: Shapes) -> bool:
    return all(len({shapes[g.tower][layer] for layer in g.layers}) == 1 for g in groups)


def check_widths(model: nn.Module, groups: list[Group]) -> None:
    """Raises ValueError, with the layers of each width, if a group's layers differ in widths."""
    shapes = shapes_of(model)
    if _fit(groups, shapes):
        return
    told = []
    for name, own in shapes.items():
        for shape in dict.fromkeys(own):
            layers = [i for i, each in enumerate(own) if each == shape]
            told.append(f"{name} {layers}: {' × '.join(map(str, shape))}")
    raise ValueError(
        "FF sublayers merge only within equal widths, of which there are not enough for what is to "
        f"be removed; remove less, or name --layers ({'; '.join(told)})"
    )
