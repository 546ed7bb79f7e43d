"""Groups of feed-forward sublayers that become one: adjacent or not, one group or several."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

ANCHORS = {"first": lambda k: 0, "middle": lambda k: (k - 1) // 2, "last": lambda k: k - 1}


def anchor_layer(start: int, k: int, anchor: str) -> int:
    """The layer of k adjacent ones that the others align to (Section 5.3).

    The middle of an even number is the earlier of the two. Raises ValueError for another anchor.
    """
    if anchor not in ANCHORS:
        raise ValueError(f"anchor {anchor!r}: allowed are {', '.join(ANCHORS)}")
    return start + ANCHORS[anchor](k)


@dataclass(frozen=True)
class Group:
    """FF sublayers of one tower that become one. The others are aligned to the anchor's.

    Raises ValueError if the anchor is not among the layers, or a layer is named twice.
    """

    tower: str
    layers: tuple[int, ...]
    anchor: int

    def __post_init__(self) -> None:
        if self.anchor not in self.layers:
            raise ValueError(f"anchor {self.anchor} is not among the layers {list(self.layers)}")
        if len(set(self.layers)) < len(self.layers):
            raise ValueError(f"layers {list(self.layers)} name one twice")

    def as_json(self) -> dict[str, Any]:
        """Tower, layers and anchor, as results and configurations hold them."""
        return {"tower": self.tower, "layers": list(self.layers), "anchor": self.anchor}

    @classmethod
    def from_json(cls, entry: Mapping[str, Any]) -> "Group":
        """The group that `as_json` gave; further keys are left out."""
        return cls(entry["tower"], tuple(entry["layers"]), entry["anchor"])


def group(tower: str, layers: Iterable[int], anchor: str) -> Group:
    """A group of any layers of a tower, in their order, merged towards an anchor (Section 5.3).

    anchor: `first`, `middle` or `last` of the layers.
    """
    layers = sorted(layers)
    return Group(tower, tuple(layers), layers[anchor_layer(0, len(layers), anchor)])


def check_groups(groups: Sequence[Group], n_layers: Mapping[str, int]) -> None:
    """Raise ValueError, naming tower and layer, for groups that a model cannot have.

    n_layers: number of layers of each of the model's towers.
    """
    taken: set[tuple[str, int]] = set()
    for group in groups:
        if group.tower not in n_layers:
            known = ", ".join(n_layers)
            raise ValueError(f"the model has no tower {group.tower!r} (it has: {known})")
        for layer in group.layers:
            if not 0 <= layer < n_layers[group.tower]:
                last = n_layers[group.tower] - 1
                raise ValueError(f"layer {layer}: the {group.tower} has the layers 0 to {last}")
            if (group.tower, layer) in taken:
                raise ValueError(f"layer {layer} of the {group.tower} is in two groups")
            taken.add((group.tower, layer))


def from_layers(layers: Mapping[str, Iterable[Iterable[int]]], anchor: str) -> list[Group]:
    """Groups from lists of layers by tower, as results hold them."""
    return [group(tower, members, anchor) for tower, lists in layers.items() for members in lists]
