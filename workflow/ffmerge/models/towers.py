"""Locate the towers of a model by the names of its parameters and the table of architectures."""

import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from functools import reduce
from typing import TYPE_CHECKING, Any

from ffmerge.models.architectures import Architecture, FeedForward, architecture_of
from ffmerge.models.format import OWN_ENTRY

if TYPE_CHECKING:
    from torch import nn
    from transformers import PreTrainedConfig


@dataclass(frozen=True)
class Tower:
    """A stack of layers whose FF sublayers may be merged with each other.

    paths: full name of each layer. names: those of all parameters of the model.
    """

    feed_forward: FeedForward
    paths: tuple[str, ...]
    names: frozenset[str] = field(repr=False)

    def __len__(self) -> int:
        return len(self.paths)

    def module(self, layer: int, which: str) -> str:
        """Full name of a layer's linear map: `up` (W_in), `down` (W_out), `gate` or `attention`.

        Raises ValueError if the table of architectures names no such map.
        """
        relative = getattr(self.feed_forward, which)
        if relative is None:
            raise ValueError(f"{self.paths[layer]} has no {which} in the table of architectures")
        return f"{self.paths[layer]}.{relative}"

    def tensors(self, layer: int) -> dict[str, str]:
        """Full names of an FF sublayer's tensors by role: `up.weight`, …; biases if it has any."""
        roles = {
            f"{which}.{kind}": f"{self.module(layer, which)}.{kind}"
            for which in self.feed_forward.maps
            for kind in ("weight", "bias")
        }
        return {role: name for role, name in roles.items() if name in self.names}

    def widths(self, layer: int, shape: Callable[[str], Sequence[int]]) -> tuple[int, int]:
        """(d_model, d_ff) of a layer's FF sublayer. shape: name of a parameter -> its shape."""
        n_out, n_in = shape(f"{self.module(layer, 'down')}.weight")
        return (n_out, n_in) if self.feed_forward.layout == "out_in" else (n_in, n_out)

    def shared_modules(self, layers: Sequence[int]) -> list[list[str]]:
        """Names of the modules that share weights if these layers merge, a list for each map."""
        return [[self.module(layer, which) for layer in layers] for which in self.feed_forward.maps]


def towers(model: "nn.Module") -> dict[str, Tower]:
    """The towers of a model, by name.

    Raises ValueError if the model's architecture is not in the table, or does not fit its entry, or
    naming layers that have no FF sublayer where others have one.
    """
    names = (name for name, _ in model.named_parameters(remove_duplicate=False))
    found = locate_towers(architecture_of_config(model.config), names)
    for name, tower in found.items():
        maps = [f"{which}.weight" for which in tower.feed_forward.maps]
        if lacking := [i for i in range(len(tower)) if not {*maps} <= tower.tensors(i).keys()]:
            raise ValueError(
                f"layers {', '.join(map(str, lacking))} of the {name} have no feed-forward "
                "sublayer of the form that others have, as beside experts: such a stack cannot be "
                "merged"
            )
    return found


def architecture_of_config(config: "PreTrainedConfig") -> Architecture:
    """The entry in a model's own configuration, or else in the table of architectures."""
    return architecture_of(
        {"model_type": config.model_type, OWN_ENTRY: getattr(config, OWN_ENTRY, None)}
    )


def attribute(config: Any, path: str) -> Any:
    """The value at a path in a configuration, such as `text_config.num_hidden_layers`."""
    return reduce(getattr, path.split("."), config)


def locate_towers(architecture: Architecture, names: Iterable[str]) -> dict[str, Tower]:
    """The towers whose parameters are among the names of a model or a file.

    A part of a model, such as the encoder of an encoder-decoder, has only some of its towers.
    Raises ValueError naming the modules it looked for if there are none, two stacks of layers with
    one name, or a layer that two towers have.
    """
    names = frozenset(names)
    present = {}
    for name, forms in architecture.towers.items():
        found = [(form, _paths(architecture.prefix, form, names)) for form in forms]
        found = [Tower(form, paths, names) for form, paths in found if paths]
        if other := [tower for tower in found if not {*tower.paths} & {*found[0].paths}]:
            raise ValueError(
                f"the {name} would be two stacks of layers, of {found[0].paths[0]} and "
                f"{other[0].paths[0]}: give each a name of its own under `towers` of the "
                "architecture's entry"
            )
        if found:
            present[name] = found[0]
    if not present:
        modules = [
            f"{form.layers}.{form.up}" for forms in architecture.towers.values() for form in forms
        ]
        raise ValueError(f"no layer of the model has the modules {' or '.join(modules)}")
    taken: dict[str, str] = {}
    for name, tower in present.items():
        for path in tower.paths:
            if path in taken:
                raise ValueError(
                    f"{path} is in two towers of the architecture's entry, {taken[path]} and {name}"
                )
            taken[path] = name
    return present


def _paths(prefix: str, form: FeedForward, names: frozenset[str]) -> tuple[str, ...]:
    """Full names of the layers in order, in a model with a head or in a base model."""
    layers = re.escape(form.layers).replace(r"\*", r"(\d+)")
    for within in [f"{prefix}.", ""] if prefix else [""]:
        pattern = re.compile(rf"({re.escape(within)}{layers})\.")
        layer_of = {m[1]: tuple(map(int, m.groups()[1:])) for m in map(pattern.match, names) if m}
        modules = [getattr(form, which) for which in form.maps]
        if any(all(f"{path}.{m}.weight" in names for m in modules) for path in layer_of):
            return tuple(sorted(layer_of, key=layer_of.get))
    return ()
