"""Models on disk: configuration and safetensors, where tied sublayers are stored once.

What is merged is written into the model's configuration (`ffmerge_groups`), so that a directory
loads tied by itself, here and by `from_pretrained` (see `tied_model`). Tensors carry the names that
the modules have in `transformers` 5.
"""

import copy
from pathlib import Path
from typing import Any

import safetensors.torch
import transformers
from safetensors import safe_open
from torch import nn
from transformers.initialization import no_init_weights

from ffmerge.merged_file import INT8, WEIGHTS
from ffmerge.tie import GROUPS
from ffmerge.tied_model import tied_config_class, tied_model_class
from ffmerge.towers import architecture_of_config, attribute, located, towers


def save(model: nn.Module, directory: Path) -> None:
    """Write a model's configuration and weights; tensors that share memory are written once.

    The same weights give the same bytes. (`save_model` would list the shared names in the file's
    head, in an order that changes from run to run.)
    """
    save_configuration(model, directory)
    names: dict[int, list[str]] = {}
    tensors = model.state_dict(keep_vars=True)  # with what is tied as the same object
    for name, tensor in tensors.items():
        names.setdefault(id(tensor), []).append(name)
    stored = {name: tensors[name].detach().contiguous() for name in map(min, names.values())}
    safetensors.torch.save_file(stored, str(directory / WEIGHTS), metadata={"format": "pt"})


def save_configuration(model: nn.Module, directory: Path) -> None:
    """Write what a model is, without its weights."""
    directory.mkdir(parents=True, exist_ok=True)
    config = copy.copy(model.config)
    config.architectures = [type(model).__name__]
    if hasattr(config, GROUPS):
        config.__class__ = tied_config_class(type(config))
    config.save_pretrained(directory)
    if getattr(model, "generation_config", None) is not None:
        model.generation_config.save_pretrained(directory)


def load(directory: Path, device: str = "cpu") -> nn.Module:
    """A model from disk, its merged sublayers tied, in evaluation mode; in float32 unless int8.

    Raises ValueError if the file lacks a tensor of the model or has one that the model lacks, or
    has another number of layers than the configuration says.
    """
    directory = Path(directory)
    if hasattr(transformers.AutoConfig.from_pretrained(directory), INT8):
        from ffmerge import quantization  # bitsandbytes: seconds that only this needs

        return quantization.load(directory, device)
    model = build(directory)
    load_weights(model, directory / WEIGHTS)
    return model.to(device).eval()


def build(directory: Path) -> nn.Module:
    """The model that a directory's configuration describes, tied but without its weights.

    Raises ValueError naming both counts if its file has another number of layers.
    """
    config = transformers.AutoConfig.from_pretrained(directory)
    check_stored_layers(config, directory)
    model_class = getattr(transformers, config.architectures[0])
    if hasattr(config, GROUPS):
        model_class = tied_model_class(model_class)
    with no_init_weights():
        model = model_class(config)
    model.tie_weights()
    _untie_a_head_of_its_own(model, directory / WEIGHTS)
    if (directory / "generation_config.json").exists():
        model.generation_config = transformers.GenerationConfig.from_pretrained(directory)
    return model


def _untie_a_head_of_its_own(model: nn.Module, file: Path) -> None:
    """Give the head weights of its own if the file has them beside the embeddings.

    So have T5 v1.1, Flan-T5 and mT5, whose configuration classes say of any file that it is tied.
    """
    with safe_open(str(file), framework="pt") as tensors:
        stored = set(tensors.keys())
    tied, head = model.all_tied_weights_keys, model.get_output_embeddings()
    for target, source in list(tied.items()):
        same = {source} | {name for name, of in tied.items() if of == source} - {target}
        module, _, name = target.rpartition(".")
        if model.get_submodule(module) is head and target in stored and stored & same:
            setattr(head, name, nn.Parameter(model.get_parameter(source).detach().clone()))
            del tied[target]


def check_stored_layers(config: transformers.PreTrainedConfig, directory: Path) -> None:
    """Raises ValueError unless a model's file holds as many layers as its configuration says.

    A dropped model that kept the old count would load with random layers in the place of those
    that are gone.
    """
    with safe_open(str(directory / WEIGHTS), framework="pt") as file:
        found = located(architecture_of_config(config), file.keys())
    for name, tower in found.items():
        count = tower.feed_forward.count
        said = attribute(config, count) if count else len(tower)
        if len(tower) != said:
            raise ValueError(
                f"{directory}: {count} is {said} in config.json, but {WEIGHTS} holds "
                f"{len(tower)} layers of the {name}; put the number of layers it holds there"
            )


def load_weights(model: nn.Module, file: Path) -> None:
    """Fill a model (tied as it should be) from a file.

    Raises ValueError naming the tensors that are missing or left over.
    """
    try:
        safetensors.torch.load_model(model, str(file), strict=True)
    except RuntimeError as error:
        raise ValueError(f"{file} does not fit {type(model).__name__}: {error}") from None


def from_scratch(architecture: dict[str, Any]) -> nn.Module:
    """A model with random weights from the keys of its configuration class.

    architecture: `model_type`, `architectures` (one class name) and that configuration's own keys.
    """
    settings = dict(architecture)
    config = transformers.AutoConfig.for_model(settings.pop("model_type"), **settings)
    return getattr(transformers, config.architectures[0])(config)


def check_layers(model: nn.Module, n_layers: int) -> None:
    """Raises ValueError unless every tower of the model has n_layers layers."""
    for name, tower in towers(model).items():
        if len(tower) != n_layers:
            raise ValueError(
                f"base_model.n_layers: {n_layers} in the configuration, but the {name} has "
                f"{len(tower)}"
            )
