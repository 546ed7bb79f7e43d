"""Save and load models: a configuration and safetensors in which tied sublayers are stored once.

The model's configuration lists what is merged (`ffmerge_groups`), so that a directory loads tied,
here and with `from_pretrained` (see `tied_model`). Tensors have the names of their modules in
`transformers` 5.
"""

import copy
from collections.abc import Set
from pathlib import Path
from typing import Any

import torch
import transformers
from torch import Tensor, nn
from transformers.initialization import no_init_weights

from ffmerge.models import tensor_file, tied_model
from ffmerge.models.format import GROUPS, INT8, WEIGHTS
from ffmerge.models.memory import check_device
from ffmerge.models.towers import architecture_of_config, attribute, locate_towers, towers


def save(model: nn.Module, directory: Path) -> None:
    """Write a model's configuration and weights; tied tensors are written once.

    The same weights give the same bytes. (safetensors' `save_model` would list shared names in the
    file's head, in an order that changes from run to run.)
    """
    save_configuration(model, directory)
    stored = {min(names): tensor for tensor, names in _tensors(model)}
    tensor_file.write_all(directory / WEIGHTS, stored)


def _tensors(model: nn.Module) -> list[tuple[Tensor, list[str]]]:
    """Each stored parameter and buffer once, with all its names: several if it is tied."""
    names: dict[int, tuple[Tensor, list[str]]] = {}
    for name, tensor in model.state_dict(keep_vars=True).items():  # tied tensors are one object
        names.setdefault(id(tensor), (tensor, []))[1].append(name)
    return list(names.values())


def save_configuration(model: nn.Module, directory: Path) -> None:
    """Write a model's configuration without its weights."""
    directory.mkdir(parents=True, exist_ok=True)
    config = copy.copy(model.config)
    config.architectures = [type(model).__name__]
    if hasattr(config, GROUPS):
        config.__class__ = tied_model.tied_config_class(type(config))
    config.save_pretrained(directory)
    if getattr(model, "generation_config", None) is not None:
        model.generation_config.save_pretrained(directory)


def load(directory: Path, device: str = "cpu") -> nn.Module:
    """Read a model from disk, its merged sublayers tied, in evaluation mode and float32.

    Raises ValueError for a device that is not here, before anything is read; for an int8 model,
    which `quantization.load` reads; if the file lacks a tensor of the model or has another one; and
    if its number of layers is not the configuration's.
    """
    check_device(device)
    model = build(directory := Path(directory))
    if hasattr(model.config, INT8):
        raise ValueError(f"{directory} holds int8 weights: quantization.load reads them, not this")
    load_weights(model, directory / WEIGHTS)
    return model.to(device).eval()


def read_configuration(directory: str | Path) -> transformers.PreTrainedConfig:
    """Read the configuration of a stock or a merged model, registered with transformers or not."""
    values, _ = transformers.PreTrainedConfig.get_config_dict(directory)
    if values.get("model_type") == tied_model.MODEL_TYPE:
        return tied_model.MergedConfig.from_pretrained(directory)
    return transformers.AutoConfig.from_pretrained(directory, trust_remote_code=False)


def build(directory: Path) -> nn.Module:
    """Build the model that a directory's configuration describes, tied but without its weights.

    Raises ValueError, naming both counts, unless the file has the configured number of layers: a
    model without some layers but with the old count would load with random layers in their place.
    """
    config, stored = read_configuration(directory), tensor_file.read_head(directory / WEIGHTS)
    for name, tower in locate_towers(architecture_of_config(config), stored).items():
        count = tower.feed_forward.count
        if count and len(tower) != (configured := attribute(config, count)):
            raise ValueError(
                f"{directory}: {count} is {configured} in config.json, but {WEIGHTS} holds "
                f"{len(tower)} layers of the {name}; put the number of layers it holds there"
            )
    model_class = getattr(transformers, config.architectures[0])
    if hasattr(config, GROUPS):
        model_class = tied_model.tied_model_class(model_class)
    with no_init_weights():
        model = model_class(config)
    model.tie_weights()
    _untie_stored_head(model, stored.keys())
    if (directory / "generation_config.json").exists():
        model.generation_config = transformers.GenerationConfig.from_pretrained(directory)
    return model


def _untie_stored_head(model: nn.Module, stored: Set[str]) -> None:
    """Untie the head from the embeddings if a file stores both.

    The files of T5 v1.1, Flan-T5 and mT5 do, but their configuration classes always say tied.
    """
    tied, head = model.all_tied_weights_keys, model.get_output_embeddings()
    for target, source in list(tied.items()):
        same = {source} | {name for name, origin in tied.items() if origin == source} - {target}
        module, _, name = target.rpartition(".")
        if model.get_submodule(module) is head and target in stored and stored & same:
            setattr(head, name, nn.Parameter(model.get_parameter(source).detach().clone()))
            del tied[target]


@torch.no_grad()
def load_weights(model: nn.Module, file: Path) -> None:
    """Fill a model, whose ties are set already, from a file, one tensor at a time.

    Raises ValueError naming the tensors that are missing, left over, or of another shape.
    """
    stored, places = tensor_file.read_head(file), {}
    missing, misshapen = [], []
    for tensor, names in _tensors(model):
        name = next((name for name in names if name in stored), None)
        if name is None:
            missing.append(min(names))
        elif stored[name].shape != tensor.shape:
            misshapen.append(name)
        else:
            places[name] = tensor
    unexpected = [name for name in stored if name not in places and name not in misshapen]
    faults = {"Missing": missing, "Unexpected": unexpected, "Of another shape": misshapen}
    if any(faults.values()):
        listed = "; ".join(
            f"{fault}: {', '.join(names)}" for fault, names in faults.items() if names
        )
        raise ValueError(f"{file} does not fit {type(model).__name__}. {listed}")
    for name, tensor in places.items():
        tensor.copy_(tensor_file.read(file, stored[name]))


def from_scratch(architecture: dict[str, Any]) -> nn.Module:
    """Build a model with random weights.

    architecture: `model_type`, `architectures` (one class name), and keys of that model type's
    configuration.
    """
    settings = dict(architecture)
    config = transformers.AutoConfig.for_model(settings.pop("model_type"), **settings)
    return getattr(transformers, config.architectures[0])(config)


def check_layers(model: nn.Module, n_layers: int) -> None:
    """Raise ValueError unless every tower of the model has n_layers layers."""
    for name, tower in towers(model).items():
        if len(tower) != n_layers:
            raise ValueError(
                f"base_model.n_layers: {n_layers} in the configuration, but the {name} has "
                f"{len(tower)}"
            )
