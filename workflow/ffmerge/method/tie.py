"""Tie k feed-forward sublayers to one set of weights (Section 3.3)."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from torch import nn

from ffmerge.method.groups import Group
from ffmerge.models.format import GROUPS
from ffmerge.models.towers import Tower, towers


def tie(model: nn.Module, modules: Sequence[Sequence[str]]) -> None:
    """Make the modules of each list share the weight and bias of its first one, in place.

    modules: full names, one list per linear map of a merged sublayer.
    """
    for first, *rest in modules:
        source = model.get_submodule(first)
        for name in rest:
            target = model.get_submodule(name)
            target.weight, target.bias = source.weight, source.bias


def groups_entry(
    groups: Sequence[Group], model_towers: Mapping[str, Tower]
) -> list[dict[str, Any]]:
    """The entry GROUPS of a configuration for merged groups."""
    return [
        {**group.as_json(), "modules": model_towers[group.tower].shared_modules(group.layers)}
        for group in groups
    ]


def combined_entry(groups: Sequence[Group], model: nn.Module) -> list[dict[str, Any]]:
    """The entry GROUPS of a model's configuration once these groups are merged as well.

    A group replaces the earlier groups whose layers it has.
    Raises ValueError naming the layers if a group has some layers of an earlier one but not all.
    """
    kept = []
    for entry in getattr(model.config, GROUPS, []):
        layers = set(entry["layers"])
        touching = [g for g in groups if g.tower == entry["tower"] and layers & set(g.layers)]
        if not touching:
            kept.append(entry)
        elif not layers <= set(touching[0].layers):
            raise ValueError(
                f"layers {entry['layers']} of the {entry['tower']} share their weights already: a "
                f"group has all of them or none, not {list(touching[0].layers)}"
            )
    return [*kept, *groups_entry(groups, towers(model))]


@contextmanager
def temporary_changes(model: nn.Module) -> Iterator[None]:
    """Put a model's FF sublayers back on leaving: the same tensors, bit for bit."""
    modules = [
        model.get_submodule(tower.module(layer, which))
        for tower in towers(model).values()
        for layer in range(len(tower))
        for which in tower.feed_forward.maps
    ]
    kept = [(module, module.weight, module.bias) for module in modules]
    groups = getattr(model.config, GROUPS, None)
    try:
        yield
    finally:
        for module, weight, bias in kept:
            module.weight, module.bias = weight, bias
        if groups is not None:
            setattr(model.config, GROUPS, groups)
        elif hasattr(model.config, GROUPS):
            delattr(model.config, GROUPS)
