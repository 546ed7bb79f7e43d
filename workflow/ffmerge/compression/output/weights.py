"""Storing a merged model: weights in the dtypes that the original's files have them in."""

import shutil
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor, nn
from transformers.core_model_loading import revert_weight_conversion

from ffmerge.compression.source import INDEX
from ffmerge.models import checkpoint, tensor_file
from ffmerge.models.expanded import save_expanded
from ffmerge.models.format import BESIDE, WEIGHTS
from ffmerge.models.tensor_file import Stored
from ffmerge.models.tied_model import write_code

NOT_COPIED = ("config.json", "generation_config.json", "source.json", "ffmerge_record.json")


def keep_what_was_stored(model: nn.Module, original: Mapping[str, Stored]) -> None:
    """Let all that the original's files hold be written again.

    Transformers leaves out what it computes anew on loading, such as Marian's positions; but in a
    file they may be others, rounded to 16 bits, and the loaded model has those.
    """
    ignored = model._keys_to_ignore_on_save or ()
    model._keys_to_ignore_on_save = {name for name in ignored if name not in original}


def on_disk(model: nn.Module) -> dict[str, Tensor]:
    """The tensors of a model by the names that its file has, what is tied once.

    As `save_pretrained` has them: the names of the original's file, which transformers may change
    on loading. They are the model's own tensors, no copies.
    """
    tensors = model.state_dict(keep_vars=True)  # with what is tied as the same object
    for name in model._keys_to_ignore_on_save or ():
        tensors.pop(name, None)
    for tied, kept in model.all_tied_weights_keys.items():
        if tensors.get(tied) is tensors.get(kept):
            tensors.pop(tied, None)
    return revert_weight_conversion(model, tensors)


def entries(model: nn.Module, original: Mapping[str, Stored]) -> dict[str, Stored]:
    """What the file of a model will hold.

    original: the tensors of the original's files. One that is not there by its name gets the widest
    dtype of those, which keeps every bit.
    """
    floats = [each.dtype for each in original.values() if each.dtype.is_floating_point]
    widest = max(floats, key=lambda dtype: dtype.itemsize, default=torch.float32)
    return {
        name: Stored(
            original[name].dtype
            if name in original
            else (widest if tensor.is_floating_point() else tensor.dtype),
            tuple(tensor.shape),
        )
        for name, tensor in on_disk(model).items()
    }


@torch.no_grad()
def round_to_stored(model: nn.Module, original: Mapping[str, Stored]) -> None:
    """Round the weights to what will be stored, so that the loss is of that.

    Those that were not merged do not change: they come from the same dtype.
    """
    kept = entries(model, original)
    for name, tensor in on_disk(model).items():
        if kept[name].dtype != tensor.dtype:
            tensor.copy_(tensor.to(kept[name].dtype))


def store(model: nn.Module, form: str, original: Mapping[str, Stored], directory: Path) -> None:
    """Write configuration and weights, one tensor at a time.

    model: tied (`tied_model.become_tied`). form: `tied`; `code`, the same with the code that loads
    it; or `expanded`, as of the stock class, a merged sublayer once a layer.
    """
    kept = entries(model, original)
    floats = [each.dtype for each in kept.values() if each.dtype.is_floating_point]
    model.config.dtype = max(floats, key=floats.count)
    if form == "expanded":
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.data = parameter.data.to(model.config.dtype)
        save_expanded(model, directory)
        return
    checkpoint.save_configuration(model, directory)
    tensors = on_disk(model)
    tensor_file.write(directory / WEIGHTS, kept, tensors.__getitem__, {"format": "pt"})
    if form == "code":
        write_code(directory)


def processor_files(model: Path) -> list[Path]:
    """The tokenizer's or the processor's files in a model's directory."""
    found = {file for pattern in (*BESIDE, "*.jinja") for file in model.glob(pattern)}
    return sorted(f for f in found if f.name not in NOT_COPIED and not f.name.endswith(INDEX))


def copy_processor(model: Path, directory: Path) -> None:
    """Copy them, byte for byte."""
    for file in processor_files(model):
        shutil.copyfile(file, directory / file.name)
