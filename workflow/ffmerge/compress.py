"""Merging on disk: from a base model's file to one in which the merged sublayer is stored once."""

import json
import shutil
from collections.abc import Sequence
from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

from ffmerge.architectures import towers
from ffmerge.merge import merged_sublayer
from ffmerge.permutation import Permutations

WEIGHTS = "model.safetensors"
GROUPS = "ffmerge_groups"  # key in config.json: [{"tower": …, "layers": […]}, …]


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
    shutil.copytree(
        base_model, directory, ignore=lambda _, names: {n for n in names if _is_not_model(n)}
    )
    config = json.loads((base_model / "config.json").read_text())
    table = towers(config["model_type"])
    with safe_open(str(base_model / WEIGHTS), framework="pt") as file:

        def tensor(name: str) -> Tensor:
            value = file.get_tensor(name)
            return value.float() if value.is_floating_point() else value

        dropped, merged = set(), {}
        for name, tower in table.items():
            own = permutations[name] if permutations is not None else None
            sublayer = merged_sublayer(tensor, tower, layers, anchor, own)
            for layer in layers:
                dropped |= set(tower.tensors(layer).values())
            merged |= {tower.tensors(layers[0])[role]: value for role, value in sublayer.items()}
        kept = {name: tensor(name) for name in file.keys() if name not in dropped}  # noqa: SIM118
        metadata = file.metadata() or {}
    save_file(
        {name: value.contiguous() for name, value in (kept | merged).items()},
        str(directory / WEIGHTS),
        metadata=metadata,
    )
    config[GROUPS] = [{"tower": name, "layers": list(layers)} for name in table]
    config["dtype"] = str(torch.float32).removeprefix("torch.")
    (directory / "config.json").write_text(json.dumps(config, indent=2) + "\n")


def _is_not_model(name: str) -> bool:
    return name not in {"config.json", "generation_config.json"}
