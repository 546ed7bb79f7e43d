"""Drop whole layers, the baseline (Section 4.4), or FF sublayers alone.

The paper's encoder-decoder loses the same layers on both sides. A model without layers is an
ordinary, shallower one of the same architecture: its configuration has the new number of layers,
and its tensors are renumbered.
"""

import copy
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import cosine_similarity
from transformers import CONFIG_MAPPING
from transformers.initialization import no_init_weights

from ffmerge.method.features import token_mask, token_rows
from ffmerge.method.groups import Group
from ffmerge.method.merge_on_disk import towers_in, write_model
from ffmerge.models import tensor_file
from ffmerge.models.format import DROPPED, WEIGHTS
from ffmerge.models.towers import Tower, attribute, towers

# keys of some decoders' configurations: lists with one value per layer
PER_LAYER = ("layer_types", "no_rope_layers", "attention_layers")

Layers = Sequence[int] | Mapping[str, Sequence[int]]
"""Layers of every tower, or of towers by name."""


def by_tower(model_towers: Mapping[str, Tower], layers: Layers) -> dict[str, list[int]]:
    """The layers of each tower."""
    of = layers if isinstance(layers, Mapping) else dict.fromkeys(model_towers, layers)
    return {name: list(of.get(name, ())) for name in model_towers}


def dropped_entry(model_towers: Mapping[str, Tower], layers: Layers) -> list[dict]:
    """The entry DROPPED of the configuration of a model without these layers."""
    of = by_tower(model_towers, layers)
    return [{"tower": name, "layers": gone} for name, gone in of.items() if gone]


def new_name(name: str, model_towers: Mapping[str, Tower], layers: Layers) -> str | None:
    """A tensor's name in the model without `layers`; None if it is dropped with them.

    name: that of a parameter or buffer in the whole model.
    """
    of = by_tower(model_towers, layers)
    for key, tower in model_towers.items():
        kept = [path for layer, path in enumerate(tower.paths) if layer not in of[key]]
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


def without_layers(model: nn.Module, layers: Layers) -> nn.Module:
    """A model without these layers. It shares its parameters with the whole model.

    Raises ValueError if no layer would be left.
    """
    model_towers = towers(model)
    config = copy.deepcopy(model.config)
    for path, value in changed_keys(config.to_dict(), model_towers, layers).items():
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


@torch.no_grad()
def drop_feed_forwards(model: nn.Module, groups: Sequence[Group]) -> None:
    """Drop FF sublayers in place: their outputs are zero, and stay so when the model is trained.

    The model's parameters are replaced, not written to: `tie.temporary_changes` can put them back.
    """
    model_towers = towers(model)
    for group in groups:
        for layer in group.layers:
            for role, name in model_towers[group.tower].tensors(layer).items():
                old = model.get_parameter(name)
                new = torch.zeros_like(old) if role.startswith("down") else old.detach()
                module, _, kind = name.rpartition(".")
                setattr(model.get_submodule(module), kind, nn.Parameter(new, requires_grad=False))


@torch.inference_mode()
def block_influences(
    model: nn.Module, batches: Iterable[dict[str, Tensor]]
) -> dict[str, list[float]]:
    """How much each layer changes the hidden states, by tower (ShortGPT; Men et al., 2024, Eq. 1).

    The block influence of a layer is 1 - the mean cosine of its input and its output at each
    position with a token, in [0, 2]. batches: as the model's forward takes them.
    Raises ValueError naming a layer whose states are not finite.
    """
    model_towers = towers(model)
    cosines: dict[tuple[str, int], list[Tensor]] = {}
    masks: dict[str, Tensor | None] = {}

    def hook(name: str, layer: int) -> Any:
        def add(_: nn.Module, inputs: tuple, options: dict, output: Any) -> None:
            before = inputs[0] if inputs else options["hidden_states"]
            after = output[0] if isinstance(output, tuple) else output
            states = f"states.{name}.{layer}"
            rows = [token_rows(each, masks[name], states).double() for each in (before, after)]
            cosines.setdefault((name, layer), []).append(cosine_similarity(*rows, dim=-1).cpu())

        path = model_towers[name].paths[layer]
        return model.get_submodule(path).register_forward_hook(add, with_kwargs=True)

    hooks = [hook(name, layer) for name, of in model_towers.items() for layer in range(len(of))]
    try:
        for batch in batches:
            masks = {name: token_mask(tower, batch) for name, tower in model_towers.items()}
            model(**batch)
    finally:
        for each in hooks:
            each.remove()
    return {
        name: [1 - torch.cat(cosines[name, layer]).mean().item() for layer in range(len(of))]
        for name, of in model_towers.items()
    }


def drop_on_disk(base_model: Path, layers: Layers, directory: Path) -> None:
    """Write the base model without these layers, as float32, one tensor at a time.

    Raises ValueError if no layer would be left.
    """
    config = json.loads((base_model / "config.json").read_text())
    model_towers = towers_in(base_model)
    changes = changed_keys(config, model_towers, layers)
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


def changed_keys(
    config: Mapping[str, Any], model_towers: Mapping[str, Tower], layers: Layers
) -> dict[str, Any]:
    """Key of a configuration, or path to it -> its value without these layers.

    Raises ValueError if no layer would be left, or if no key holds a tower's number of layers.
    """
    changes: dict[str, Any] = {DROPPED: dropped_entry(model_towers, layers)}
    of = by_tower(model_towers, layers)
    for name, tower in model_towers.items():
        left, count = _left(len(tower), of[name]), tower.feed_forward.count
        if count is None:
            raise ValueError(f"layers of the {name} cannot be dropped: no key counts them alone")
        changes[count] = left
    gone = next(iter(of.values()))  # such models have one tower
    for key in PER_LAYER:
        if values := config.get(key):
            changes[key] = [value for layer, value in enumerate(values) if layer not in gone]
    if stages := config.get("stage_names"):  # of a backbone, whose output is the last stage again
        changes["stage_names"] = stages[: len(stages) - len(gone)]
    return changes | {key: None for key in ("out_features", "out_indices") if key in config}


def _left(n_layers: int, layers: Sequence[int]) -> int:
    if outside := sorted(set(layers) - set(range(n_layers))):
        raise ValueError(f"layers {outside} cannot be dropped: the model has 0 to {n_layers - 1}")
    if len(set(layers)) >= n_layers:
        raise ValueError(f"{len(set(layers))} layers dropped of {n_layers} leave none")
    return n_layers - len(set(layers))
