"""Merging on disk: from a base model's file to one in which each merged sublayer is stored once."""

import json
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ffmerge.method.groups import Group, check_groups
from ffmerge.method.merge import merged_sublayer
from ffmerge.method.permutation import Permutations
from ffmerge.method.tie import noted
from ffmerge.models import tensor_file
from ffmerge.models.architectures import architecture_of
from ffmerge.models.format import GROUPS, MERGED_TYPE, STOCK_TYPE, WEIGHTS
from ffmerge.models.tensor_file import Stored
from ffmerge.models.towers import Tower, located


def towers_in(directory: Path) -> dict[str, Tower]:
    """The towers of a model on disk, by the names of the tensors in its file."""
    config = json.loads((directory / "config.json").read_text())
    return located(architecture_of(config), tensor_file.read_head(directory / WEIGHTS))


def merge_on_disk(
    base_model: Path,
    groups: Sequence[Group],
    permutations: dict[str, Permutations] | None,
    directory: Path,
) -> None:
    """Write the base model with the FF sublayers of each group merged.

    A merged sublayer carries the names of the first of its layers; the others' tensors are left
    out, and config.json says what shares it. Nothing is built: tensors are read and written one by
    one. All weights are float32. permutations: by tower; None averages without aligning.
    Raises ValueError for groups that the model cannot have.
    """
    found = towers_in(base_model)
    check_groups(groups, {name: len(tower) for name, tower in found.items()})
    file = base_model / WEIGHTS
    stored = tensor_file.read_head(file)

    def tensor(name: str) -> Tensor:
        return _float32(tensor_file.read(file, stored[name]))

    left_out, merged = set(), {}
    for group in groups:
        tower = found[group.tower]
        own = permutations[group.tower] if permutations is not None else None
        sublayer = merged_sublayer(tensor, tower, group, own)
        for layer in group.layers:
            left_out |= set(tower.tensors(layer).values())
        names = tower.tensors(group.layers[0])
        merged |= {names[role]: value for role, value in sublayer.items()}
    kept = {name: each for name, each in stored.items() if name in merged or name not in left_out}

    def values(name: str) -> Tensor | Iterator[Tensor]:
        return merged[name] if name in merged else tensor_file.read_rows(file, stored[name])

    changes = {GROUPS: noted(groups, found), **merged_type(base_model)}
    write_model(base_model, directory, kept, values, changes)


def merged_type(base_model: Path) -> dict[str, str]:
    """What a merged model's configuration says that it is, so that only what ties it loads it."""
    model_type = json.loads((base_model / "config.json").read_text())["model_type"]
    return {"model_type": MERGED_TYPE, STOCK_TYPE: model_type}


def write_model(
    base_model: Path,
    directory: Path,
    stored: Mapping[str, Stored],
    values: Callable[[str], Tensor | Iterator[Tensor]],
    changes: dict[str, Any],
) -> None:
    """Write a model made from a base model: its tensors in float32, its configuration changed.

    stored: shape and type of each tensor; values: its name -> its value, or blocks of its rows,
    asked for when it is written. changes: keys of config.json with their values.
    """
    directory.mkdir(parents=True)
    if (base_model / "generation_config.json").exists():
        shutil.copy(base_model / "generation_config.json", directory)
    config = json.loads((base_model / "config.json").read_text())
    config |= {**changes, "dtype": str(torch.float32).removeprefix("torch.")}
    (directory / "config.json").write_text(json.dumps(config, indent=2) + "\n")
    entries = {
        name: Stored(torch.float32 if each.dtype.is_floating_point else each.dtype, each.shape)
        for name, each in stored.items()
    }
    tensor_file.write(directory / WEIGHTS, entries, values)


def _float32(tensor: Tensor) -> Tensor:
    return tensor.float() if tensor.is_floating_point() else tensor
