"""Write a merged model to a new directory, which is complete or does not exist."""

import fcntl
import glob
import json
import os
import shutil
import signal
import warnings
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from transformers.core_model_loading import revert_weight_conversion

from ffmerge.models import checkpoint, tensor_file
from ffmerge.models.expanded import save_expanded
from ffmerge.models.format import BESIDE, WEIGHTS
from ffmerge.models.pretrained import INDEX, Fit
from ffmerge.models.tensor_file import Stored
from ffmerge.models.tied_model import write_code
from ffmerge.training.processes import handled
from provenance.job import shortage
from provenance.record import publish

SIGNALS = (signal.SIGTERM, signal.SIGHUP)  # Python already turns SIGINT into an exception
LOCK = ".lock"  # held by the process that writes the directory
OF_THE_ORIGINAL = (  # about its training or its adapter
    "adapter_config.json",
    "trainer_state.json",
    "all_results.json",
    "train_results.json",
    "eval_results.json",
)
NOT_COPIED = (
    *("config.json", "generation_config.json", "source.json", "ffmerge_record.json"),
    *OF_THE_ORIGINAL,
)
MODULES = "modules.json"


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
    partial = out.with_name(f".partial.{os.getpid()}.{out.name}")
    with folder_of(out):
        _remove_abandoned(out)
        partial.mkdir()
        try:
            with locked(partial), handled(SIGNALS, _stop), _disk_full_errors(n_bytes):
                check_space(partial, n_bytes, "weights")
                yield partial
                (partial / LOCK).unlink()
                check_new(out)
                publish(partial, out)
        except BaseException:
            shutil.rmtree(partial, ignore_errors=True)
            raise


@contextmanager
def folder_of(out: Path) -> Iterator[None]:
    """Make the folder that `out` is in; remove it again after an error if it is new and empty."""
    made = [parent for parent in out.parents if not parent.exists()]
    out.parent.mkdir(parents=True, exist_ok=True)
    try:
        yield
    except BaseException:
        with suppress(OSError):  # it has what another process put there
            for parent in made:
                parent.rmdir()
        raise


def check_new(out: Path) -> None:
    """Raise FileExistsError if something exists at `out`, even an empty directory."""
    if out.exists() or out.is_symlink():
        raise FileExistsError(f"{out} exists already; it is not overwritten: choose another --out")


def check_outside(out: Path, inputs: Iterable[Path]) -> None:
    """Raise ValueError if `out` would be inside one of the inputs, which stay as they are."""
    for path in inputs:
        if out.resolve().is_relative_to(path.resolve()):
            raise ValueError(
                f"{out} would be inside {path}, which is an input: choose another --out"
            )


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
        if (shortage(error) or "").startswith("the disk is full"):
            raise OSError(
                f"the disk is full: {n_bytes:,} bytes are needed for the output"
            ) from None
        raise


def _remove_abandoned(out: Path) -> None:
    for left in out.parent.glob(f".partial.*.{glob.escape(out.name)}"):
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


def _stop(number: int, _: Any) -> None:
    raise SystemExit(128 + number)  # so that the process cleans up


# --- weights, in the dtypes of the original's files -----------------------------------------------


def keep_stored_tensors(model: nn.Module, stored: Fit) -> None:
    """Make the model save the tensors that the original's files hold, and no others.

    Transformers does not save tensors that it can recompute, such as Marian's positions. But in a
    file they may have other values, rounded to 16 bits, and the loaded model has those. Tensors
    that the files lack, such as a pooler's, have no values to save.
    """
    ignored = set(model._keys_to_ignore_on_save or ()) - stored.dtypes.keys()
    model._keys_to_ignore_on_save = ignored | stored.missing


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


def entries(model: nn.Module, stored: Fit) -> dict[str, Stored]:
    """The tensors that the model's file will hold, each with its dtype in the original's files.

    A tensor that the model makes of several gets the widest of all dtypes, which keeps every bit.
    """
    dtypes: dict[int, torch.dtype] = {}  # by object, because on disk names may differ
    for name, tensor in model.state_dict(keep_vars=True).items():
        if name in stored.dtypes:
            dtypes.setdefault(id(tensor), stored.dtypes[name])
    floats = [dtype for dtype in stored.dtypes.values() if dtype.is_floating_point]
    widest = max(floats, key=lambda dtype: dtype.itemsize, default=torch.float32)
    return {
        name: Stored(
            dtypes.get(id(tensor), widest if tensor.is_floating_point() else tensor.dtype),
            tuple(tensor.shape),
        )
        for name, tensor in on_disk(model).items()
    }


@torch.no_grad()
def round_to_stored(model: nn.Module, stored: Fit) -> None:
    """Round weights to the dtypes of the file, so that the loss is that of the stored model.

    Weights that were not merged do not change: they come from the same dtype.
    """
    kept = entries(model, stored)
    for name, tensor in on_disk(model).items():
        if kept[name].dtype != tensor.dtype:
            tensor.copy_(tensor.to(kept[name].dtype))


@torch.no_grad()
def to_stored_dtypes(model: nn.Module, stored: Fit) -> None:
    """Give the tensors in memory the dtypes of the file."""
    kept = entries(model, stored)
    for name, tensor in on_disk(model).items():
        tensor.data = tensor.data.to(kept[name].dtype)


def store(model: nn.Module, form: str, stored: Fit, directory: Path) -> None:
    """Write configuration and weights, one tensor at a time.

    model: tied (`tied_model.become_tied`). form: `tied`; `code`, which adds the code that loads it;
    or `expanded`, a stock checkpoint in which every layer has its own sublayer.
    """
    kept = entries(model, stored)
    floats = [each.dtype for each in kept.values() if each.dtype.is_floating_point]
    computing = [dtype for dtype in floats if dtype.itemsize > 1] or [torch.float32]
    model.config.dtype = max(computing, key=computing.count)
    if form == "expanded":
        to_stored_dtypes(model, stored)
        save_expanded(model, directory)
        return
    checkpoint.save_configuration(model, directory)
    tensors = on_disk(model)
    tensor_file.write(directory / WEIGHTS, kept, tensors.__getitem__)
    if form == "code":
        write_code(directory)


def processor_files(model: Path) -> list[Path]:
    """The files of the tokenizer or processor in a model's directory, and of the modules behind it.

    Sentence-transformers lists those in MODULES, each in a directory of its own.
    """
    files = {file for pattern in (*BESIDE, "*.jinja") for file in model.glob(pattern)}
    kept = {f for f in files if f.name not in NOT_COPIED and not f.name.endswith(INDEX)}
    if (model / MODULES) in kept:
        modules = _modules(model)
        if not all(module.is_dir() and module.parent == model for module in modules):
            kept.remove(model / MODULES)
        else:
            kept |= {file for module in modules for file in module.rglob("*")}
    return sorted(file for file in kept if file.is_file())


def _modules(model: Path) -> list[Path]:
    """The directories that MODULES names, other than the model's own; one that is not there if
    the file is damaged."""
    try:
        paths = [module["path"] for module in json.loads((model / MODULES).read_text())]
        return [model / path for path in paths if path]
    except (ValueError, KeyError, TypeError):
        return [model / MODULES]


def copy_processor(model: Path, directory: Path) -> None:
    """Copy the files of the tokenizer or processor, byte for byte.

    What cannot hold for the merged model is left out and named in a warning: files about the
    original's training or adapter, a list of modules that are not there, and names of code
    (`auto_map`), which is neither run nor copied.
    """
    copied = processor_files(model)
    left_out = [name for name in OF_THE_ORIGINAL if (model / name).exists()]
    if (model / MODULES).exists() and model / MODULES not in copied:
        left_out.append(f"{MODULES} (a module that it names is not there)")
    for file in copied:
        target = directory / file.relative_to(model)
        target.parent.mkdir(exist_ok=True, parents=True)
        shutil.copyfile(file, target)
        values = _values(file) if file.name.endswith("_config.json") else {}
        if "auto_map" in values:
            del values["auto_map"]
            target.write_text(json.dumps(values, indent=2) + "\n")
            left_out.append(f"auto_map of {file.name} (code, which is not run)")
    if "auto_map" in _values(model / "config.json"):
        left_out.append("auto_map of config.json (code, which is not run)")
    if left_out:
        warnings.warn(f"not copied from {model}: {', '.join(left_out)}", stacklevel=2)


def _values(file: Path) -> dict[str, Any]:
    """The keys of a configuration; none if the file is missing or no JSON object."""
    try:
        return dict(json.loads(file.read_text()))
    except (OSError, ValueError, TypeError):
        return {}
