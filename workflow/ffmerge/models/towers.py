"""The towers of one model: the entries of the table of architectures, located by names."""

import re
from collections.abc import Iterable, Sequence
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

    paths: full name of each layer. names: of all parameters of the model.
    """

    feed_forward: FeedForward
    paths: tuple[str, ...]
    names: frozenset[str] = field(repr=False)

    def __len__(self) -> int:
        return len(self.paths)

    def module(self, layer: int, which: str) -> str:
        """Full name of a layer's map: `up` (W_in), `down` (W_out), `gate` or `attention`.

        Raises ValueError where the table of architectures names no such map.
        """
        relative = getattr(self.feed_forward, which)
        if relative is None:
            raise ValueError(f"{self.paths[layer]} has no {which} in the table of architectures")
        return f"{self.paths[layer]}.{relative}"

    def tensors(self, layer: int) -> dict[str, str]:
        """Full names of a sublayer's tensors by role, `up.weight` and so on; biases if any."""
        roles = {
            f"{which}.{kind}": f"{self.module(layer, which)}.{kind}"
            for which in self.feed_forward.maps
            for kind in ("weight", "bias")
        }
        return {role: name for role, name in roles.items() if name in self.names}

    def shared_modules(self, layers: Sequence[int]) -> list[list[str]]:
        """For each map of an FF sublayer, its modules in these layers, that may share weights."""
        return [[self.module(layer, which) for layer in layers] for which in self.feed_forward.maps]


def towers(model: "nn.Module") -> dict[str, Tower]:
    """The towers of a model, by name.

    Raises ValueError for an architecture that is not in the table, or does not fit its entry.
    """
    names = (name for name, _ in model.named_parameters(remove_duplicate=False))
    return located(architecture_of_config(model.config), names)


def architecture_of_config(config: "PreTrainedConfig") -> Architecture:
    """The entry in the table of architectures, or that the model's configuration itself has."""
    return architecture_of(
        {"model_type": config.model_type, OWN_ENTRY: getattr(config, OWN_ENTRY, None)}
    )


def attribute(config: Any, path: str) -> Any:
    """A value of a configuration by its path, such as `text_config.num_hidden_layers`."""
    return reduce(getattr, path.split("."), config)


def located(architecture: Architecture, names: Iterable[str]) -> dict[str, Tower]:
    """The towers among the parameters of a model or a file, by their names.

    A part of a model (an encoder of an encoder-decoder) has those of its towers that are there.
    Raises ValueError naming what was looked for if there is none.
    """
    names = frozenset(names)
    found = {}
    for tower, forms in architecture.towers.items():
        for form in forms:
            if paths := _paths(architecture.prefix, form, names):
                found[tower] = Tower(form, paths, names)
                break
    if not found:
        looked = [
            f"{form.layers}.{form.up}" for forms in architecture.towers.values() for form in forms
        ]
        raise ValueError(f"no layer of the model has the modules {' or '.join(looked)}")
    return found


def _paths(prefix: str, form: FeedForward, names: frozenset[str]) -> tuple[str, ...]:
    """Full names of the layers, in order, of a model with a head or of a base model."""
    layers = re.escape(form.layers).replace(r"\*", r"(\d+)")
    for within in [f"{prefix}.", ""] if prefix else [""]:
        pattern = re.compile(rf"({re.escape(within)}{layers})\.")
        layer_of = {m[1]: tuple(map(int, m.groups()[1:])) for m in map(pattern.match, names) if m}
        modules = [getattr(form, which) for which in form.maps]
        if any(all(f"{path}.{m}.weight" in names for m in modules) for path in layer_of):
            return tuple(sorted(layer_of, key=layer_of.get))
    return ()
