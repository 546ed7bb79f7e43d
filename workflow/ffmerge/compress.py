"""Merging on disk: from a base model's file to one in which the merged sublayer is stored once."""

import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

from ffmerge.architectures import towers
from ffmerge.merge import merged_sublayer
from ffmerge.permutation import Permutations

WEIGHTS = "model.safetensors"
# keys in config.json, [{"tower": …, "layers": […]}, …]: what shares its weights, and what is gone
GROUPS, DROPPED = "ffmerge_groups", "ffmerge_dropped"
INT8 = "ffmerge_int8"  # key in config.json of a quantized model: what its linear maps need


def merge_on_disk(
    base_model: Path,
    layers: Sequence[int],
    anchor: int,
    permutations: dict[str, Permutations] | None,
    directory: Path,
) -> None:
    """Write the base model with the FF sublayers of `layers` merged in every tower.

    The merged sublayer carries the names of the first of the layers; the others' tensors are left
    out, and config.json says which layers share it. Nothing is built: only tensors are read. All
    weights are float32. permutations: by tower; None averages without aligning.
    """
    table = towers(json.loads((base_model / "config.json").read_text())["model_type"])
    with safe_open(str(base_model / WEIGHTS), framework="pt") as file:

        def tensor(name: str) -> Tensor:
            return _float32(file.get_tensor(name))

        left_out, merged = set(), {}
        for name, tower in table.items():
            own = permutations[name] if permutations is not None else None
            sublayer = merged_sublayer(tensor, tower, layers, anchor, own)
            for layer in layers:
                left_out |= set(tower.tensors(layer).values())
            merged |= {tower.tensors(layers[0])[role]: value for role, value in sublayer.items()}
        kept = {name: tensor(name) for name in file.keys() if name not in left_out}  # noqa: SIM118
    groups = [{"tower": name, "layers": list(layers)} for name in table]
    write_model(base_model, directory, kept | merged, {GROUPS: groups})


def write_model(
    base_model: Path, directory: Path, tensors: dict[str, Tensor], changes: dict[str, Any]
) -> None:
    """Write a model made from a base model: its tensors in float32, its configuration changed.

    changes: keys of config.json with their values.
    """
    directory.mkdir(parents=True)
    if (base_model / "generation_config.json").exists():
        shutil.copy(base_model / "generation_config.json", directory)
    config = json.loads((base_model / "config.json").read_text())
    config |= {**changes, "dtype": str(torch.float32).removeprefix("torch.")}
    (directory / "config.json").write_text(json.dumps(config, indent=2) + "\n")
    save_file(
        {name: _float32(tensor).contiguous() for name, tensor in tensors.items()},
        str(directory / WEIGHTS),
        metadata={"format": "pt"},
    )


def _float32(tensor: Tensor) -> Tensor:
    return tensor.float() if tensor.is_floating_point() else tensor
