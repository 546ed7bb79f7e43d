"""What a user asks to be removed: a share or a number of sublayers, or the layers themselves."""

import re
from collections.abc import Mapping
from fractions import Fraction

from ffmerge.method.groups import Group, check_groups, group


def n_to_remove(asked: str | float | int, n_layers: Mapping[str, int]) -> dict[str, int]:
    """How many FF sublayers each tower loses, the same share of each as far as that goes.

    asked: a share (`1/3`, `0.33`) of all sublayers, or a count of them (`4`). n_layers: of each
    tower. What does not divide goes to the towers that come closest to one more.
    Raises ValueError if nothing or too much would be removed: a tower keeps one sublayer.
    """
    try:
        amount = Fraction(str(asked))
    except (ValueError, ZeroDivisionError):
        raise ValueError(f"--remove {asked}: has to be a share such as 1/3, or a count") from None
    n_all = sum(n_layers.values())
    is_count = amount >= 1 and amount.denominator == 1
    n = int(amount) if is_count else round(amount * n_all)
    most = n_all - len(n_layers)
    if (amount > 1 and not is_count) or not 1 <= n <= most:
        told = ", ".join(f"{name} {count}" for name, count in n_layers.items())
        raise ValueError(
            f"--remove {asked}: from 1 to {most} FF sublayers can be removed of {n_all} ({told})"
        )
    exact = {name: Fraction(n * count, n_all) for name, count in n_layers.items()}
    removed = {name: min(int(share), n_layers[name] - 1) for name, share in exact.items()}
    while sum(removed.values()) < n:
        open_ = [name for name in removed if removed[name] < n_layers[name] - 1]
        removed[max(open_, key=lambda name: exact[name] - removed[name])] += 1
    return removed


def groups_of(asked: str, n_layers: Mapping[str, int], anchor: str) -> list[Group]:
    """Groups as a user writes them: `3-7`, `2-4,8-10`, `1+4+7`, `encoder:2-4,decoder:0-2`.

    Without a tower's name a group is made in every tower.
    Raises ValueError for what does not read so, or for layers that the model does not have.
    """
    found, named = [], list(n_layers)
    for item in asked.replace(" ", "").split(","):
        tower, colon, layers = item.rpartition(":")
        named = [tower] if colon else named
        found += [group(name, _layers(layers, asked), anchor) for name in named]
    for each in found:
        if len(each.layers) < 2:
            raise ValueError(f"--layers {asked}: a group has two layers at least")
    check_groups(found, dict(n_layers))
    return found


def _layers(written: str, asked: str) -> list[int]:
    layers: list[int] = []
    for part in written.split("+"):
        if not (match := re.fullmatch(r"(\d+)(?:-(\d+))?", part)):
            raise ValueError(f"--layers {asked}: write 3-7, or 2-4,8-10, or 1+4+7 ({part!r}?)")
        first, last = int(match[1]), int(match[2] or match[1])
        layers += range(first, last + 1)
    return layers
