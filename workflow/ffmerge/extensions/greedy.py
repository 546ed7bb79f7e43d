"""Search small groups of adjacent layers by loss, one FF sublayer after the other.

The paper merges one window. Here the layers of a tower are divided into runs. At first each layer
is a run of its own; every step joins the two adjacent runs that cost least, which removes one FF.
"""

from collections.abc import Callable, Iterable, Sequence

from ffmerge.method.groups import Group, group

RETRIED = 4  # boundaries that a step tries: those that cost least when they were last tried

Boundary = tuple[str, int]
"""A tower, and the layer before the boundary."""


def n_trials(n_boundaries: int, n_removed: int) -> int:
    """Number of losses that `joined` needs."""
    later = (min(RETRIED, n_boundaries - step) for step in range(1, n_removed))
    return 1 + n_boundaries + sum(later)


def joined(
    boundaries: Sequence[Boundary],
    n_removed: int,
    losses: Callable[[list[frozenset[Boundary]]], Sequence[float]],
) -> list[tuple[frozenset[Boundary], float]]:
    """Remove boundaries greedily; the sets removed after each step, with their losses.

    The first step tries all boundaries. A later one tries RETRIED of them, as in lazy greedy search
    (Minoux 1978): costs seldom fall when others are removed. losses: of the model without each set.
    Raises ValueError if there are fewer boundaries than n_removed.
    """
    if len(boundaries) < n_removed:
        raise ValueError(f"{n_removed} boundaries cannot be removed of {len(boundaries)}")
    removed: frozenset[Boundary] = frozenset()
    (before,), steps = losses([removed]), []
    costs = dict.fromkeys(boundaries, 0.0)
    for _ in range(n_removed):
        closest = sorted((b for b in boundaries if b not in removed), key=costs.__getitem__)
        closest = closest[:RETRIED] if removed else closest
        found = losses([removed | {b} for b in closest])
        tried = dict(zip(closest, found, strict=True))
        costs |= {b: value - before for b, value in tried.items()}
        best = min(tried, key=tried.__getitem__)
        removed, before = removed | {best}, tried[best]
        steps.append((removed, before))
    return steps


def groups_between(removed: Iterable[Boundary], anchor: str) -> list[Group]:
    """The groups whose layers have no boundary between them any more."""
    runs: list[tuple[str, list[int]]] = []
    for tower, layer in sorted(removed):
        if runs and runs[-1][0] == tower and runs[-1][1][-1] == layer:
            runs[-1][1].append(layer + 1)
        else:
            runs.append((tower, [layer, layer + 1]))
    return [group(tower, layers, anchor) for tower, layers in runs]
