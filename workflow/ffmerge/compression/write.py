"""Write a merged model to a new directory, which is complete or does not exist."""

import errno
import fcntl
import os
import shutil
import signal
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from transformers.core_model_loading import revert_weight_conversion

from ffmerge.compression.source import INDEX
from ffmerge.models import checkpoint, tensor_file
from ffmerge.models.expanded import save_expanded
from ffmerge.models.format import BESIDE, WEIGHTS
from ffmerge.models.tensor_file import Stored
from ffmerge.models.tied_model import write_code

SIGNALS = (signal.SIGTERM, signal.SIGHUP)  # Python already turns SIGINT into an exception
FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
LOCK = ".lock"  # held by the process that writes the directory
NOT_COPIED = ("config.json", "generation_config.json", "source.json", "ffmerge_record.json")


@contextmanager
def new_directory(out: Path, n_bytes: int) -> Iterator[Path]:
    """Give a directory to fill, which becomes `out` at the end, or vanishes on error or signal.

    n_bytes: size of the weights that it will hold. Leftovers of killed processes with the same
    `out` are removed.
    Raises FileExistsError if `out` exists already: nothing is ever overwritten. Raises OSError with
    the bytes needed if the disk is too full or becomes full.
    """
    check_new(out)
    out = out.absolute()
    made = [parent for parent in out.parents if not parent.exists()]
    out.parent.mkdir(parents=True, exist_ok=True)
    _remove_abandoned(out)
    partial = out.with_name(f".partial.{os.getpid()}.{out.name}")
    partial.mkdir()
    done = False
    try:
        with locked(partial), _signals_raised(), _disk_full_errors(n_bytes):
            check_space(partial, n_bytes, "weights")
            yield partial
            (partial / LOCK).unlink()
            check_new(out)
            os.rename(partial, out)
            done = True
    finally:
        if not done:
            shutil.rmtree(partial, ignore_errors=True)
            for parent in made:
                parent.rmdir()


def check_new(out: Path) -> None:
    """Raise FileExistsError if something exists at `out`, even an empty directory."""
    if out.exists() or out.is_symlink():
        raise FileExistsError(f"{out} exists already; it is not overwritten: choose another --out")


def check_space(directory: Path, n_bytes: int, what: str) -> None:
    """Raise OSError if the disk has no room for n_bytes. what: their purpose, for the message."""
    free = shutil.disk_usage(directory).free
    if free < n_bytes:
        raise OSError(
            f"the disk of {directory} has {free:,} bytes free of the {n_bytes:,} ({n_bytes:,} for "
            f"{what})"
        )


@contextmanager
def _disk_full_errors(n_bytes: int) -> Iterator[None]:
    """Turn any error of a full disk into an OSError that says how many bytes are needed."""
    try:
        yield
    except Exception as error:  # Rust libraries raise errors that are not OSErrors
        number = getattr(error, "errno", None)
        if number in FULL or any(f"os error {code}" in str(error) for code in FULL):
            raise OSError(
                f"the disk is full: {n_bytes:,} bytes are needed for the output"
            ) from None
        raise


def _remove_abandoned(out: Path) -> None:
    for left in out.parent.glob(f".partial.*.{out.name}"):
        try:
            with locked(left):
                shutil.rmtree(left)
        except OSError:  # another process is writing it
            continue


@contextmanager
def locked(directory: Path) -> Iterator[None]:
    """Hold a directory's lock. Raises BlockingIOError if another process holds it."""
    with (directory / LOCK).open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield


@contextmanager
def _signals_raised() -> Iterator[None]:
    """Raise SystemExit on SIGNALS, so that the process cleans up."""

    def stop(number: int, _: Any) -> None:
        raise SystemExit(128 + number)

    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.signal(number, stop) for number in SIGNALS}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


# --- weights, in the dtypes of the original's files -----------------------------------------------


def keep_stored_tensors(model: nn.Module, original: Mapping[str, Stored]) -> None:
    """Make the model save every tensor that the original's files hold.

    Transformers does not save tensors that it can recompute, such as Marian's positions. But in a
    file they may have other values, rounded to 16 bits, and the loaded model has those.
    """
    ignored = model._keys_to_ignore_on_save or ()
    model._keys_to_ignore_on_save = {name for name in ignored if name not in original}


def on_disk(model: nn.Module) -> dict[str, Tensor]:
    """The tensors of a model by their names in its file, tied ones once.

    These are the names that `save_pretrained` writes: those of the original's file, which
    transformers may change on loading. The tensors are the model's own, not copies.
    """
    tensors = model.state_dict(keep_vars=True)  # keeps tied tensors the same object
    for name in model._keys_to_ignore_on_save or ():
        tensors.pop(name, None)
    for tied, kept in model.all_tied_weights_keys.items():
        if tensors.get(tied) is tensors.get(kept):
            tensors.pop(tied, None)
    return revert_weight_conversion(model, tensors)


def entries(model: nn.Module, original: Mapping[str, Stored]) -> dict[str, Stored]:
    """The tensors that the model's file will hold, with their dtypes.

    original: the tensors of the original's files. A tensor that is not among them gets the widest
    of their dtypes, which keeps every bit.
    """
    floats = [stored.dtype for stored in original.values() if stored.dtype.is_floating_point]
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
    """Round weights to the dtypes of the file, so that the loss is that of the stored model.

    Weights that were not merged do not change: they come from the same dtype.
    """
    kept = entries(model, original)
    for name, tensor in on_disk(model).items():
        if kept[name].dtype != tensor.dtype:
            tensor.copy_(tensor.to(kept[name].dtype))


def store(model: nn.Module, form: str, original: Mapping[str, Stored], directory: Path) -> None:
    """Write configuration and weights, one tensor at a time.

    model: tied (`tied_model.become_tied`). form: `tied`; `code`, which adds the code that loads it;
    or `expanded`, a stock checkpoint in which every layer has its own sublayer.
    """
    kept = entries(model, original)
    floats = [stored.dtype for stored in kept.values() if stored.dtype.is_floating_point]
    model.config.dtype = max(floats, key=floats.count)
    if form == "expanded":
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.data = parameter.data.to(model.config.dtype)
        save_expanded(model, directory)
        return
    checkpoint.save_configuration(model, directory)
    tensors = on_disk(model)
    tensor_file.write(directory / WEIGHTS, kept, tensors.__getitem__)
    if form == "code":
        write_code(directory)


def processor_files(model: Path) -> list[Path]:
    """The files of the tokenizer or processor in a model's directory."""
    files = {file for pattern in (*BESIDE, "*.jinja") for file in model.glob(pattern)}
    return sorted(f for f in files if f.name not in NOT_COPIED and not f.name.endswith(INDEX))


def copy_processor(model: Path, directory: Path) -> None:
    """Copy the files of the tokenizer or processor, byte for byte."""
    for file in processor_files(model):
        shutil.copyfile(file, directory / file.name)
