"""Drop a window of whole layers, the baseline (Section 4.4).

An encoder-decoder loses the same layers on both sides. The result is an ordinary, shallower model
of the same architecture: its configuration has the new number of layers, and its tensors are
renumbered.
"""

import copy
import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from torch import Tensor, nn
from transformers import CONFIG_MAPPING
from transformers.initialization import no_init_weights

from ffmerge.method.merge_on_disk import towers_in, write_model
from ffmerge.models import tensor_file
from ffmerge.models.format import DROPPED, WEIGHTS
from ffmerge.models.towers import Tower, attribute, towers

# keys of some decoders' configurations: lists with one value per layer
PER_LAYER = ("layer_types", "no_rope_layers", "attention_layers")


def dropped_entry(model_towers: Mapping[str, Tower], layers: Sequence[int]) -> list[dict]:
    """The entry DROPPED of the configuration of a model without these layers."""
    return [{"tower": name, "layers": list(layers)} for name in model_towers]


def new_name(name: str, model_towers: Mapping[str, Tower], layers: Sequence[int]) -> str | None:
    """A tensor's name in the model without `layers`; None if it is dropped with them.

    name: that of a parameter or buffer in the whole model.
    """
    for tower in model_towers.values():
        kept = [path for layer, path in enumerate(tower.paths) if layer not in layers]
        for path in tower.paths:
            if name.startswith(f"{path}."):
                within = name[len(path) :]
                if path in kept:
                    return tower.paths[kept.index(path)] + within
                return name if _is_of_all_layers(tower, path, within) else None
    return name


def _is_of_all_layers(tower: Tower, path: str, within: str) -> bool:
    """Whether the first layer holds a parameter for all layers, as T5 does its position biases."""
    first, *others = tower.paths
    in_others = any(f"{other}{within}" in tower.names for other in others)
    return path == first and f"{first}{within}" in tower.names and not in_others


def without_layers(model: nn.Module, layers: Sequence[int]) -> nn.Module:
    """A model without these layers in every tower. It shares its parameters with the whole model.

    Raises ValueError if no layer would be left.
    """
    model_towers = towers(model)
    config = copy.deepcopy(model.config)
    for path, value in _changes(config.to_dict(), model_towers, layers).items():
        outer, _, key = path.rpartition(".")
        setattr(attribute(config, outer) if outer else config, key, value)
    with no_init_weights():
        shallower = type(model)(config)
    state = model.state_dict(keep_vars=True)  # the parameters themselves: ties are kept
    kept = {new_name(name, model_towers, layers): tensor for name, tensor in state.items()}
    kept.pop(None, None)
    shallower.load_state_dict(kept, assign=True)
    shallower.generation_config = getattr(model, "generation_config", None)
    return shallower.to(model.device).train(model.training)


def drop_on_disk(base_model: Path, layers: Sequence[int], directory: Path) -> None:
    """Write the base model without these layers in every tower, as float32, one tensor at a time.

    Raises ValueError if no layer would be left.
    """
    config = json.loads((base_model / "config.json").read_text())
    model_towers = towers_in(base_model)
    changes = _changes(config, model_towers, layers)
    # a count may have a second name in the file, as in the published OPUS-MT models
    aliases = CONFIG_MAPPING[config["model_type"]].attribute_map.items()
    changes |= {alias: changes[key] for alias, key in aliases if alias in config and key in changes}
    for path in [path for path in changes if "." in path]:
        outer, key = path.split(".")
        changes[outer] = {**changes.get(outer, config[outer]), key: changes.pop(path)}
    file = base_model / WEIGHTS
    stored = tensor_file.read_head(file)
    names = {new_name(name, model_towers, layers): name for name in stored}
    names.pop(None, None)
    kept = {new: stored[name] for new, name in names.items()}

    def values(new: str) -> Iterator[Tensor]:
        return tensor_file.read_rows(file, kept[new])

    write_model(base_model, directory, kept, values, changes)


def _changes(
    config: Mapping[str, Any], model_towers: Mapping[str, Tower], layers: Sequence[int]
) -> dict[str, Any]:
    """Key of a configuration, or path to it -> its value without these layers.

    Raises ValueError if no layer would be left, or if no key holds a tower's number of layers.
    """
    changes: dict[str, Any] = {DROPPED: dropped_entry(model_towers, layers)}
    for name, tower in model_towers.items():
        left, count = _left(len(tower), layers), tower.feed_forward.count
        if count is None:
            raise ValueError(f"layers of the {name} cannot be dropped: no key counts them alone")
        changes[count] = left
    for key in PER_LAYER:
        if values := config.get(key):
            changes[key] = [value for layer, value in enumerate(values) if layer not in layers]
    if stages := config.get("stage_names"):  # of a backbone, whose output is the last stage again
        changes["stage_names"] = stages[: len(stages) - len(layers)]
    return changes | {key: None for key in ("out_features", "out_indices") if key in config}


def _left(n_layers: int, layers: Sequence[int]) -> int:
    if outside := sorted(set(layers) - set(range(n_layers))):
        raise ValueError(f"layers {outside} cannot be dropped: the model has 0 to {n_layers - 1}")
    if len(set(layers)) >= n_layers:
        raise ValueError(f"{len(set(layers))} layers dropped of {n_layers} leave none")
    return n_layers - len(set(layers))
