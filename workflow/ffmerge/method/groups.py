"""Groups of feed-forward sublayers that become one: adjacent or not, one group or several."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ffmerge.method.windows import anchor_layer, layers_of, start_of_role, starts


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


def group(tower: str, layers: Iterable[int], anchor: str) -> Group:
    """A group of any layers of a tower, in their order, merged towards an anchor (Section 5.3).

    anchor: `first`, `middle` or `last` of the layers.
    """
    layers = sorted(layers)
    return Group(tower, tuple(layers), layers[anchor_layer(0, len(layers), anchor)])


def window(towers: Iterable[str], start: int, k: int, anchor: str) -> list[Group]:
    """The same k adjacent layers in every tower (Section 3.4)."""
    return [group(tower, layers_of(start, k), anchor) for tower in towers]


def candidate_windows(
    n_layers: Mapping[str, int], n_removed: Mapping[str, int], anchor: str
) -> list[list[list[Group]]]:
    """The candidates of each window search that removes n_removed sublayers (Section 3.4).

    n_layers, n_removed: by tower. Towers of the same depth that lose the same number share a
    window, as in the paper's translator, so there is one search; otherwise there is one search per
    tower, but none for a tower that loses nothing.
    Raises ValueError if a tower has too few layers.
    """
    return windows_of(n_layers, {t: n + 1 for t, n in n_removed.items() if n > 0}, anchor)


def windows_of(
    n_layers: Mapping[str, int], sizes: Mapping[str, int], anchor: str
) -> list[list[list[Group]]]:
    """The windows of each search among windows of k adjacent layers. sizes: k by tower."""
    shared = len({(n_layers[tower], k) for tower, k in sizes.items()}) == 1
    searches = []
    for towers in [list(sizes)] if shared else [[tower] for tower in sizes]:
        depth, k = n_layers[towers[0]], sizes[towers[0]]
        searches.append([window(towers, start, k, anchor) for start in starts(depth, k)])
    return searches


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


def of_role(
    selection: Mapping[str, Mapping[str, Any]],
    k: int,
    role: str,
    towers: Iterable[str],
    anchor: str,
) -> list[Group]:
    """The groups selected for a role: a window in every tower, or groups that were proposed.

    selection: k -> role -> the start of a window, or the layers of groups by tower.
    """
    if isinstance(proposed := selection.get(str(k), {}).get(role), Mapping):
        return from_layers(proposed, anchor)
    return window(towers, start_of_role(selection, k, role), k, anchor)
