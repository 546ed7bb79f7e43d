"""Permutations of the pairs of layers that are needed, solved once, from features on disk."""

from collections.abc import Iterable, Mapping

import torch
from torch import Tensor

from ffmerge.method.features import Features
from ffmerge.method.groups import Group
from ffmerge.method.permutation import Alignment, Pair, Permutations, align_all_pairs
from provenance.progress import progress


class Aligner:
    """Solves pairs when they are needed."""

    def __init__(self, features: Features) -> None:
        self._features = features
        self.solved: dict[str, dict[Pair, Alignment]] = {name: {} for name in features.towers()}

    def align(self, pairs: Mapping[str, Iterable[Pair]]) -> None:
        """Solve these pairs of each tower, in either order, if they are not solved yet."""
        todo = [
            (tower, pair)
            for tower, those in pairs.items()
            for pair in sorted({(min(pair), max(pair)) for pair in those})
            if pair not in self.solved[tower]
        ]
        bar = progress(total=len(todo), desc="aligning pairs")
        for tower in pairs:
            own = [pair for name, pair in todo if name == tower]
            layer = lambda i, tower=tower: self._features.layer(tower, i)  # noqa: E731
            for pair, alignment in align_all_pairs(layer, own, overwrite=True):
                self.solved[tower][pair] = alignment
                bar.update()
        bar.close()

    def permutations(self) -> dict[str, Permutations]:
        """What is solved, by tower."""
        return {
            tower: Permutations({pair: each.permutation for pair, each in solved.items()})
            for tower, solved in self.solved.items()
        }

    def correlation(self, tower: str, n_layers: int) -> Tensor:
        """Mean correlation of matched neurons, (n_layers, n_layers); 0 for pairs not solved."""
        matrix = torch.eye(n_layers, dtype=torch.float64)
        for (i, j), each in self.solved[tower].items():
            matrix[i, j] = matrix[j, i] = each.aligned
        return matrix


def pairs_of(groups: Iterable[Group]) -> dict[str, set[Pair]]:
    """The pairs that merging these groups needs, by tower: each layer with its anchor."""
    pairs: dict[str, set[Pair]] = {}
    for group in groups:
        own = {(group.anchor, layer) for layer in group.layers if layer != group.anchor}
        pairs.setdefault(group.tower, set()).update(own)
    return pairs
