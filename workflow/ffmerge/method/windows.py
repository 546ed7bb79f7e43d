"""Windows of k adjacent feed-forward sublayers and their selection (Section 3.4)."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from random import Random
from typing import Any

from ffmerge.method.groups import Group, anchor_layer, from_layers, group


def starts(n_layers: int, k: int) -> list[int]:
    """First layers of all windows of k: 0 … N-k. Raises ValueError unless 1 <= k <= N."""
    if not 1 <= k <= n_layers:
        raise ValueError(f"k = {k}: a window has from 1 to all {n_layers} layers")
    return list(range(n_layers - k + 1))


def printed_starts(n_layers: int, k: int) -> list[int]:
    """The starts that the paper prints, 0 … (N-1)-k inclusive.

    They leave out the last valid start, N-k, and are empty for k = N, which Table 5 reports.
    """
    return starts(n_layers, k)[:-1]


def layers_of(start: int, k: int) -> list[int]:
    """The layers of a window."""
    return list(range(start, start + k))


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


def pairs_in_windows(n_layers: int, merged: Iterable[tuple[int, str]]) -> list[tuple[int, int]]:
    """The pairs i < j of a layer and its anchor, in every window of each size k and anchor."""
    pairs = set()
    for k, anchor in merged:
        for start in starts(n_layers, k):
            to = anchor_layer(start, k, anchor)
            pairs |= {(min(i, to), max(i, to)) for i in layers_of(start, k) if i != to}
    return sorted(pairs)


def best_start(
    scores: Mapping[int, float], among: Iterable[int], better: Callable[[float, float], bool]
) -> int | None:
    """The start with the best score; the earliest of equals, None if there are no starts.

    scores: start -> validation score; better(a, b): whether a is strictly better.
    """
    best = None
    for start in among:
        if best is None or better(scores[start], scores[best]):
            best = start
    return best


def random_starts(among: Sequence[int], excluded: int, n: int, seed: int) -> list[int]:
    """Draw up to n different starts, without the excluded one, for Table 2."""
    others = [start for start in among if start != excluded]
    return Random(seed).sample(others, min(n, len(others)))


def select_windows(
    scores: dict[int, dict[str, dict[int, float]]],
    n_layers: int,
    better: Callable[[float, float], bool],
    range_of_starts: str,
    n_random: int,
    seed: int,
    only: Mapping[str, Sequence[int]] | None = None,
) -> dict[str, dict]:
    """Choose the windows of each k, as JSON: the start of each role, and each method's winner.

    scores: k -> method -> start -> validation score. range_of_starts: `full` or `printed`; an empty
    printed range falls back to the full one. n_random: random windows to draw (Table 2).
    only: k, as text -> the starts that were scored, if not all were.
    A row of Table 5 has one window for both methods: aligned merging selects it (`best`), or the
    only method there is. `winners` keeps the best start of each method in each range.
    """
    selection = {}
    for k, methods in sorted(scores.items()):
        ranges = {"full": starts(n_layers, k), "printed": printed_starts(n_layers, k)}
        if only is not None:
            scored = only[str(k)]
            ranges = {name: [s for s in among if s in scored] for name, among in ranges.items()}
        winners = {
            method: {name: best_start(by_start, among, better) for name, among in ranges.items()}
            for method, by_start in methods.items()
        }
        selecting = "permute" if "permute" in winners else next(iter(winners))
        best = winners[selecting][range_of_starts]
        best = winners[selecting]["full"] if best is None else best
        among = ranges[range_of_starts] or ranges["full"]
        selection[str(k)] = {
            "best": best,
            "random": random_starts(among, best, n_random, seed),
            "selected_by": selecting,
            "winners": winners,
        }
    return selection


def start_of_role(selection: Mapping[str, dict], k: int, role: str) -> int:
    """The first layer of the window of size k with a role: `best`, `random1`, `random2`, …

    Raises ValueError if there are fewer random windows than the role asks for, or if no window of
    that size was scored.
    """
    if str(k) not in selection:
        raise ValueError(f"no window of k = {k} was scored: `windows.only` names others")
    windows = selection[str(k)]
    if role == "best":
        return windows["best"]
    n = int(role.removeprefix("random"))
    if n > len(windows["random"]):
        raise ValueError(f"role {role!r}: k = {k} leaves {len(windows['random'])} random windows")
    return windows["random"][n - 1]


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
