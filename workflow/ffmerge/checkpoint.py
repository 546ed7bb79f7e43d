"""Models on disk: configuration and safetensors, where tied sublayers are stored once.

What is merged is written into the model's configuration (`ffmerge_groups`), so that a directory
loads tied by itself. Tensors carry the names that the modules have in `transformers` 5.
"""

from pathlib import Path
from typing import Any

import safetensors.torch
import transformers
from torch import nn
from transformers.initialization import no_init_weights

from ffmerge.architectures import towers
from ffmerge.compress import GROUPS, WEIGHTS
from ffmerge.tie import tie


def save(model: nn.Module, directory: Path) -> None:
    """Write a model's configuration and weights; tensors that share memory are written once."""
    directory.mkdir(parents=True, exist_ok=True)
    model.config.architectures = [type(model).__name__]
    model.config.save_pretrained(directory)
    if getattr(model, "generation_config", None) is not None:
        model.generation_config.save_pretrained(directory)
    safetensors.torch.save_model(model, str(directory / WEIGHTS), metadata={"format": "pt"})


def load(directory: Path, device: str = "cpu") -> nn.Module:
    """A model from disk, its merged sublayers tied, in float32 and in evaluation mode.

    Raises ValueError if the file lacks a tensor of the model or has one that the model lacks.
    """
    directory = Path(directory)
    config = transformers.AutoConfig.from_pretrained(directory)
    with no_init_weights():
        model = getattr(transformers, config.architectures[0])(config)
    model.tie_weights()
    for group in getattr(config, GROUPS, []):
        tie(model, towers(config.model_type)[group["tower"]], group["layers"])
    load_weights(model, directory / WEIGHTS)
    if (directory / "generation_config.json").exists():
        model.generation_config = transformers.GenerationConfig.from_pretrained(directory)
    return model.to(device).eval()


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
    for name, tower in towers(model.config.model_type).items():
        found = len(model.get_submodule(tower.layers))
        if found != n_layers:
            raise ValueError(
                f"base_model.n_layers: {n_layers} in the configuration, but the {name} has {found}"
            )
