"""Storing a merged model: its weights as they were stored before, one tensor at a time."""

import shutil
from pathlib import Path

import torch
from torch import Tensor, nn

from ffmerge import checkpoint, tensor_file
from ffmerge.inputs.fetch import BESIDE
from ffmerge.merged_file import WEIGHTS
from ffmerge.own_model.original import distinct_tensors
from ffmerge.own_model.source import INDEX, Source
from ffmerge.tensor_file import Stored

NOT_COPIED = ("config.json", "generation_config.json", "source.json")


def entries(model: nn.Module, dtypes: dict[str, torch.dtype]) -> dict[str, Stored]:
    """What the file of a model will hold. dtypes: of the original's tensors, by name."""
    return {
        name: Stored(dtypes.get(name, tensor.dtype), tuple(tensor.shape))
        for name, tensor in distinct_tensors(model).items()
    }


def n_bytes(stored: dict[str, Stored]) -> int:
    """Of the tensors alone, without the file's head."""
    return sum(each.n_bytes for each in stored.values())


@torch.no_grad()
def round_to_stored(model: nn.Module, dtypes: dict[str, torch.dtype]) -> None:
    """Round the weights to what will be stored, so that the loss is of that.

    Those that were not merged do not change: they come from the same dtype.
    """
    for name, tensor in distinct_tensors(model).items():
        if name in dtypes and dtypes[name].itemsize < tensor.dtype.itemsize:
            tensor.copy_(tensor.to(dtypes[name]))


def store(model: nn.Module, form: str, dtypes: dict[str, torch.dtype], directory: Path) -> None:
    """Write configuration and weights; a merged sublayer is stored once."""
    floats = [dtype for dtype in dtypes.values() if dtype.is_floating_point]
    model.config.dtype = max(floats, key=floats.count)
    checkpoint.save_configuration(model, directory)
    tensors = distinct_tensors(model)

    def tensor(name: str) -> Tensor:
        return tensors[name]

    tensor_file.write(directory / WEIGHTS, entries(model, dtypes), tensor, {"format": "pt"})


def copy_processor(source: Source, directory: Path) -> None:
    """The tokenizer's or the processor's files, byte for byte."""
    for pattern in (*BESIDE, "*.jinja"):
        for file in sorted(source.directory.glob(pattern)):
            if file.name not in NOT_COPIED and not file.name.endswith(INDEX):
                shutil.copyfile(file, directory / file.name)
