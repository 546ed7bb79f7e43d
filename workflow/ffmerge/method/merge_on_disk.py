"""Merge on disk: write a base model's file again with each merged sublayer stored once."""

import json
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ffmerge.method.groups import Group
from ffmerge.method.merge import check_mergeable, merged_sublayer
from ffmerge.method.permutation import Permutations
from ffmerge.method.tie import groups_entry
from ffmerge.models import tensor_file
from ffmerge.models.architectures import architecture_of
from ffmerge.models.format import GROUPS, MERGED_TYPE, STOCK_TYPE, WEIGHTS
from ffmerge.models.tensor_file import Stored
from ffmerge.models.towers import Tower, locate_towers


def towers_in(directory: Path) -> dict[str, Tower]:
    """The towers of a model on disk, by name."""
    config = json.loads((directory / "config.json").read_text())
    return locate_towers(architecture_of(config), tensor_file.read_head(directory / WEIGHTS))


def merge_on_disk(
    base_model: Path,
    groups: Sequence[Group],
    permutations: dict[str, Permutations] | None,
    directory: Path,
) -> None:
    """Write the base model with the FF sublayers of each group merged.

    A merged sublayer is stored under the names of the first of its layers, and config.json says
    which modules share it. No model is built: tensors are read and written one at a time, as
    float32. permutations: by tower; None averages without aligning.
    Raises ValueError, before anything is written, as `check_mergeable` does.
    """
    model_towers = towers_in(base_model)
    file = base_model / WEIGHTS
    stored = tensor_file.read_head(file)
    check_mergeable(groups, model_towers, lambda name: stored[name].shape)

    def tensor(name: str) -> Tensor:
        return _float32(tensor_file.read(file, stored[name]))

    left_out, merged = set(), {}
    for group in groups:
        tower = model_towers[group.tower]
        of_tower = permutations[group.tower] if permutations is not None else None
        sublayer = merged_sublayer(tensor, tower, group, of_tower)
        for layer in group.layers:
            left_out |= set(tower.tensors(layer).values())
        names = tower.tensors(group.layers[0])
        merged |= {names[role]: value for role, value in sublayer.items()}
    kept = {n: place for n, place in stored.items() if n in merged or n not in left_out}

    def values(name: str) -> Tensor | Iterator[Tensor]:
        return merged[name] if name in merged else tensor_file.read_rows(file, stored[name])

    changes = {GROUPS: groups_entry(groups, model_towers), **merged_type(base_model)}
    write_model(base_model, directory, kept, values, changes)


def merged_type(base_model: Path) -> dict[str, str]:
    """The model type of a merged model, as config.json has it: only code that ties it loads it."""
    model_type = json.loads((base_model / "config.json").read_text())["model_type"]
    return {"model_type": MERGED_TYPE, STOCK_TYPE: model_type}


def write_model(
    base_model: Path,
    directory: Path,
    stored: Mapping[str, Stored],
    values: Callable[[str], Tensor | Iterator[Tensor]],
    changes: dict[str, Any],
) -> None:
    """Write a model made from a base model, with other tensors and a changed configuration.

    stored: name -> shape and dtype of a tensor; floats are written as float32. values: name -> its
    value or blocks of its rows, called when it is written. changes: keys of config.json and their
    values.
    """
    directory.mkdir(parents=True)
    if (base_model / "generation_config.json").exists():
        shutil.copy(base_model / "generation_config.json", directory)
    config = json.loads((base_model / "config.json").read_text())
    config |= {**changes, "dtype": str(torch.float32).removeprefix("torch.")}
    (directory / "config.json").write_text(json.dumps(config, indent=2) + "\n")
    entries = {
        name: Stored(torch.float32 if place.dtype.is_floating_point else place.dtype, place.shape)
        for name, place in stored.items()
    }
    tensor_file.write(directory / WEIGHTS, entries, values)


def _float32(tensor: Tensor) -> Tensor:
    return tensor.float() if tensor.is_floating_point() else tensor
