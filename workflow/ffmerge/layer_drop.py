"""The baseline: a window of whole layers is left out (Section 4.4).

An encoder-decoder loses the same layers on both sides. What is left is an ordinary, shallower model
of the same architecture: its configuration says how many layers it has, and its tensors carry the
numbers of their new places.
"""

import copy
import json
import re
from collections.abc import Sequence
from pathlib import Path

from safetensors import safe_open
from torch import nn
from transformers import CONFIG_MAPPING
from transformers.initialization import no_init_weights

from ffmerge.architectures import FeedForward, towers
from ffmerge.compress import DROPPED, WEIGHTS, write_model


def dropped_layers(model_type: str, layers: Sequence[int]) -> list[dict]:
    """What the configuration of a model without these layers notes under DROPPED."""
    return [{"tower": name, "layers": list(layers)} for name in towers(model_type)]


def renamed(name: str, table: dict[str, FeedForward], layers: Sequence[int]) -> str | None:
    """A tensor's name in the model without `layers`; None if it goes with them.

    name: of a parameter or buffer of the whole model; table: the architecture's towers.
    """
    for tower in table.values():
        if found := re.match(rf"{re.escape(tower.layers)}\.(\d+)\.", name):
            layer = int(found[1])
            place = layer - sum(dropped < layer for dropped in layers)
            rest = name[found.end() :]
            return None if layer in layers else f"{tower.layers}.{place}.{rest}"
    return name


def without_layers(model: nn.Module, layers: Sequence[int]) -> nn.Module:
    """A model without these layers on every side; its parameters are the given model's own.

    Raises ValueError if no layer would be left.
    """
    table = towers(model.config.model_type)
    config = copy.deepcopy(model.config)
    for tower in table.values():
        setattr(config, tower.count, _left(getattr(config, tower.count), layers))
    setattr(config, DROPPED, dropped_layers(config.model_type, layers))
    with no_init_weights():
        shallower = type(model)(config)
    shallower.tie_weights()
    kept = {renamed(name, table, layers): tensor for name, tensor in model.state_dict().items()}
    kept.pop(None, None)
    shallower.load_state_dict(kept, assign=True)
    shallower.tie_weights()  # assigning has replaced the shared parameter by one a name
    shallower.generation_config = getattr(model, "generation_config", None)
    return shallower.to(model.device).train(model.training)


def drop_on_disk(base_model: Path, layers: Sequence[int], directory: Path) -> None:
    """Write the base model without these layers on every side, in float32; nothing is built.

    Raises ValueError if no layer would be left.
    """
    config = json.loads((base_model / "config.json").read_text())
    table = towers(config["model_type"])
    changes = {tower.count: _left(config[tower.count], layers) for tower in table.values()}
    # a count may stand there under another name too, as it does for the published OPUS-MT models
    aliases = CONFIG_MAPPING[config["model_type"]].attribute_map.items()
    changes |= {alias: changes[key] for alias, key in aliases if alias in config and key in changes}
    changes[DROPPED] = dropped_layers(config["model_type"], layers)
    with safe_open(str(base_model / WEIGHTS), framework="pt") as file:
        names = {name: renamed(name, table, layers) for name in file.keys()}  # noqa: SIM118
        kept = {new: file.get_tensor(name) for name, new in names.items() if new is not None}
    write_model(base_model, directory, kept, changes)


def _left(n_layers: int, layers: Sequence[int]) -> int:
    if outside := sorted(set(layers) - set(range(n_layers))):
        raise ValueError(f"layers {outside} cannot be dropped: the model has 0 to {n_layers - 1}")
    if len(set(layers)) >= n_layers:
        raise ValueError(f"{len(set(layers))} layers dropped of {n_layers} leave none")
    return n_layers - len(set(layers))
