"""The user's model in memory, whole: checked, loaded, and with what is needed to store it again."""

import shutil
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

from ffmerge.compression.source import Source
from ffmerge.models import tensor_file
from ffmerge.models.format import WEIGHTS
from ffmerge.models.pretrained import load_whole, unpickle
from provenance.progress import progress

VALUES = 2**20  # that are looked at at a time


def readable(source: Source, scratch: Path) -> Source:
    """The same with safetensors, which pickled weights are made in `scratch`.

    Raises ValueError as `pretrained.unpickle`.
    """
    if source.weights[0].suffix != ".bin":
        return source
    directory = scratch / "unpickled"
    directory.mkdir(parents=True)
    unpickle(list(source.weights), directory / WEIGHTS)
    for name in ("config.json", "generation_config.json"):
        if (source.directory / name).exists():
            shutil.copyfile(source.directory / name, directory / name)
    return replace(source, weights=(directory / WEIGHTS,))


def load(
    source: Source,
    dtype: torch.dtype = torch.float32,
    architecture: Mapping[str, Any] | None = None,
) -> nn.Module:
    """The model, in evaluation mode, computing in `dtype`.

    architecture: an entry of the table of architectures, for a model that is not in it.
    Raises ValueError naming the tensor that is not finite, or as `pretrained.load_whole`.
    """
    check_finite(source.weights)
    return load_whole(source.weights[0].parent, dtype, architecture)


def check_finite(files: tuple[Path, ...]) -> None:
    """Raises ValueError naming the first tensor that holds NaN or an infinity."""
    places = [(file, item) for file in files for item in tensor_file.read_head(file).items()]
    for file, (name, stored) in progress(places, desc="weights"):
        if stored.dtype.is_floating_point:
            for values in tensor_file.read(file, stored).flatten().split(VALUES):
                if not torch.isfinite(values).all():
                    what = "NaN" if torch.isnan(values).any() else "an infinity"
                    raise ValueError(f"{file}: {name} holds {what}; the model is damaged")
