"""Groups: the feed-forward sublayers that become one, adjacent or not, one group or several."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ffmerge.method.windows import anchor_layer, layers_of, start_of_role


@dataclass(frozen=True)
class Group:
    """FF sublayers of one tower that become one; the others are aligned to the anchor's."""

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


def group(tower: str, layers: Iterable[int], anchor: str) -> Group:
    """A group of any layers of a tower, in their order, merged towards an anchor (Section 5.3).

    anchor: `first`, `middle` or `last` of them.
    """
    layers = sorted(layers)
    return Group(tower, tuple(layers), layers[anchor_layer(0, len(layers), anchor)])


def window(towers: Iterable[str], start: int, k: int, anchor: str) -> list[Group]:
    """The same k adjacent layers in every tower (Section 3.4)."""
    return [group(tower, layers_of(start, k), anchor) for tower in towers]


def check_groups(groups: Sequence[Group], n_layers: dict[str, int]) -> None:
    """Raises ValueError, naming tower and layer, for groups that a model cannot have.

    n_layers: layers of each of the model's towers.
    """
    seen: set[tuple[str, int]] = set()
    for each in groups:
        if each.tower not in n_layers:
            known = ", ".join(n_layers)
            raise ValueError(f"the model has no tower {each.tower!r} (it has: {known})")
        for layer in each.layers:
            if not 0 <= layer < n_layers[each.tower]:
                last = n_layers[each.tower] - 1
                raise ValueError(f"layer {layer}: the {each.tower} has the layers 0 to {last}")
            if (each.tower, layer) in seen:
                raise ValueError(f"layer {layer} of the {each.tower} is in two groups")
            seen.add((each.tower, layer))


def from_layers(layers: Mapping[str, Iterable[Iterable[int]]], anchor: str) -> list[Group]:
    """Groups from the layers of each, by tower, as results hold them."""
    return [group(tower, each, anchor) for tower, of_tower in layers.items() for each in of_tower]


def of_role(
    selection: Mapping[str, Mapping[str, Any]],
    k: int,
    role: str,
    towers: Iterable[str],
    anchor: str,
) -> list[Group]:
    """What was selected for a role: a window's, or groups that were proposed.

    selection: of each k, the starts of its windows, or the layers of a role's groups by tower.
    """
    if isinstance(proposed := selection.get(str(k), {}).get(role), Mapping):
        return from_layers(proposed, anchor)
    return window(towers, start_of_role(selection, k, role), k, anchor)
