"""A window merged in every tower of a model, as the paper does."""

from collections.abc import Iterable

from ffmerge.method.groups import Group
from ffmerge.method.merge import merge_in_model
from ffmerge.method.permutation import Permutations
from ffmerge.models.towers import towers


def in_every_tower(towers: Iterable[str], layers: Iterable[int], anchor: int) -> list[Group]:
    """The same layers of each of these towers."""
    layers = tuple(layers)
    return [Group(tower, layers, anchor) for tower in towers]


def merge_window(
    model,
    layers: Iterable[int],
    anchor: int,
    permutations: dict[str, Permutations] | None = None,
) -> None:
    """Merge the same layers of every tower in place; without permutations this is vanilla."""
    merge_in_model(model, in_every_tower(towers(model), layers, anchor), permutations)
