"""Compress a user's model, from its files to a new directory: `ffmerge.compress`."""

import shutil
import time
import warnings
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

from ffmerge.compression import record, source
from ffmerge.compression.batches import Batch, Data, from_batches, from_examples, without_cache
from ffmerge.compression.card import card
from ffmerge.compression.drop import Dropper, dropped
from ffmerge.compression.encodings import encoding_for, tokenizer_if_any
from ffmerge.compression.loss import Divergence, check_finite, loss_for
from ffmerge.compression.read import Request, read_examples, read_yaml
from ffmerge.compression.select import Collected, Selected, Selector, massive_text
from ffmerge.compression.settings import DROP, LOW_RANK, Settings
from ffmerge.compression.source import SourceModel
from ffmerge.compression.summary import Compressed
from ffmerge.compression.write import (
    check_new,
    check_outside,
    copy_processor,
    keep_stored_tensors,
    new_directory,
    round_to_stored,
    store,
)
from ffmerge.extensions.relax import corrections
from ffmerge.method.declared import check_declared
from ffmerge.models.architectures import Architecture
from ffmerge.models.format import GROUPS
from ffmerge.models.memory import check_device, check_room, give_back, give_back_large
from ffmerge.models.pretrained import Fit, fit, quiet
from ffmerge.models.size import count_parameters, count_sublayers
from ffmerge.models.tied_model import become_tied
from provenance.progress import note

UserData = str | Path | Sequence[str | Path] | Iterable[Batch]
"""Data from the user: files, directories, or batches."""


@quiet()
def compress(
    model: str | Path,
    *,
    features: UserData,
    out: str | Path,
    held_out: UserData | None = None,
    command: str | None = None,
    **options: Any,
) -> Compressed:
    """Compress a model and write it to a new directory.

    model: a directory that transformers can load, or a name on the hub. features: files or
    directories of data; or batches, dicts of tensors as the model's forward takes them, with
    `labels` if there are any. held_out: data for the loss, of the same form; by default the first
    part of the files, or the last fifth of the batches. options: see `Settings`, such as
    remove="1/3" or layers="3-7". command: for the record.
    Raises ValueError or OSError with a message for the user; then nothing is at `out`.
    """
    settings, out, started, clock = Settings(**options), Path(out), time.time(), Stopwatch()
    original, entry, named = checked(model, (features, held_out), out, settings)
    with (
        new_directory(out, size_of(original.weights)) as directory,
        warnings.catch_warnings(record=True) as noted,
    ):
        scratch = directory / ".scratch"
        scratch.mkdir()
        with clock.stage("loading"):
            readable = source.with_safetensors(original, scratch)
            settings = replace(settings, dtype=_dtype(settings.dtype, readable))
            loaded, stored = loaded_with_fit(readable, settings.dtype, settings.device, entry)
            warn_of_missing(stored)
            selector = selector_for(settings)(loaded, settings)
        with clock.stage("data"):
            data = read_data(loaded, original, (features, held_out), settings)
        before = count_parameters(loaded), size_of(readable.weights)
        n_sublayers, _ = count_sublayers(loaded)
        with without_cache(loaded):
            first = data.features[0]
            check_declared(loaded, lambda: Divergence.outputs(loaded.base_model, first))
            with clock.stage("loss before"):
                tokenizer = tokenizer_if_any(original.directory)
                loss = loss_for(loaded, data.held_out, scratch, tokenizer, stored.missing)
                loss_before = loss.of(loaded)
                check_finite({loss.name: torch.tensor(loss_before)})
            note(selector.plan(data.n_tokens, clock.seconds["loss before"]))
            clock.tells = True
            collected = Collected(loaded, data, selector.collected, scratch)
            selected = selector.select(collected, loss, clock.stage)
            if settings.method not in (DROP, LOW_RANK) and collected.massive:
                warnings.warn(massive_text(collected.massive, settings.skip_massive), stacklevel=2)
        with clock.stage("dropping" if settings.method == DROP else "merging"):
            loaded, stored = compressed(loaded, stored, settings.method, selected)
        with without_cache(loaded):
            errors = []
            if selected.reconstruction:
                with clock.stage("reconstruction"):
                    errors = selected.reconstruction.fit(
                        loaded, selected.groups, settings.reconstruct
                    )
                    round_to_stored(loaded, stored)
            with clock.stage("loss after"):
                loss_after = loss.of(loaded)
        shutil.rmtree(scratch)
        form = "stock" if settings.method == DROP else settings.form
        with clock.stage("writing"):
            store(loaded, form, stored, directory)
            copy_processor(original.directory, directory)
        result = Compressed(
            model=str(model),
            out=out,
            form=form,
            method=settings.method,
            reconstruction=errors,
            corrections=corrections(loaded),
            groups=selected.groups,
            sublayers=(n_sublayers, count_sublayers(loaded)[1]),
            parameters=(before[0], count_parameters(loaded)),
            bytes=(before[1], size_of(directory.glob("*.safetensors"))),
            loss=loss.name,
            losses=(loss_before, loss_after),
            fault=loss.fault(loss_before, loss_after),
            tried=selected.tried,
            n_tokens=data.n_tokens,
            n_held_out=data.n_held_out,
            sequences=data.sequences,
            seconds=clock.seconds,
            warnings=tuple(dict.fromkeys(str(warning.message) for warning in noted)),
        )
        inputs = record.inputs(original, named, data)
        digest = record.write(
            directory, inputs, asdict(settings), result.as_json(), started, command, "compress"
        )
        result = replace(result, record=digest)
        text = card(result, original, inputs["model"], type(loaded).__name__)
        (directory / "README.md").write_text(text)
    return result


def checked(
    model: str | Path,
    data: tuple[UserData, UserData | None],
    out: Path,
    settings: Settings,
    tuned_on: UserData | None = None,
) -> tuple[SourceModel, dict[str, Any] | None, list[Path] | None]:
    """Check a request as far as that takes no weights, and change nothing.

    data: for features, and held out. tuned_on: for a tuning that follows. Returns the original, the
    entry of its architecture, and the files of `data`. Raises ValueError or OSError.
    """
    check_device(settings.device)
    give_back_large()
    check_new(out)
    original = source.find(model, settings.revision)
    entry = read_entry(settings.architecture)
    named, more = all_files(*data), files_of(tuned_on)
    check_outside(out, [original.directory, *(named or ()), *(more or ())])
    _check(source.outline(original, entry), original, [*(named or ()), *(more or ())], settings)
    return original, entry, named


def loaded_with_fit(
    readable: SourceModel, dtype: str, device: str, entry: dict[str, Any] | None
) -> tuple[nn.Module, Fit]:
    """Load a model, and say how its files, safetensors, fill it. entry: see `read_entry`."""
    loaded = source.load_original(readable, getattr(torch, dtype), entry).to(device)
    stored = fit(loaded, readable.stored, readable.directory)
    keep_stored_tensors(loaded, stored)
    return loaded, stored


def warn_of_missing(stored: Fit) -> None:
    """Warn of tensors that a model's files lack."""
    if stored.missing:
        lacking = ", ".join(sorted(stored.missing))
        warnings.warn(f"the model has no {lacking}; the result has none either", stacklevel=2)


def read_data(
    model: nn.Module,
    original: SourceModel,
    of: tuple[UserData, UserData | None],
    settings: Settings,
    n_parts: int = 1,
) -> Data:
    """Read the user's data for features and for the loss, from files or batches.

    n_parts: how often as many examples are held out as the settings say.
    """
    files, held_out = map(files_of, of)
    if files is None:
        return from_batches(model, *of, settings.n_tokens)
    encoding = encoding_for(model, original.directory, settings.max_length, settings.pack)
    request = Request(encoding.wanted, settings.columns)
    return from_examples(
        model,
        encoding,
        read_examples(files, request),
        settings.n_tokens,
        settings.n_held_out,
        settings.batch_size,
        None if held_out is None else read_examples(held_out, request),
        n_parts,
    )


def selector_for(settings: Settings) -> type[Selector] | type[Dropper]:
    """The class that selects layers for a method."""
    return Dropper if settings.method == DROP else Selector


def compressed(
    model: nn.Module, stored: Fit, method: str, selected: Selected
) -> tuple[nn.Module, Fit]:
    """The model with the selected layers merged, in place, or without them; and its fit.

    Its weights are rounded to the dtypes in which they are stored.
    """
    if method == DROP:
        model, stored = dropped(model, stored, selected.groups)
    else:
        selected.merge(model, selected.groups)
        become_tied(model, getattr(model.config, GROUPS))
    round_to_stored(model, stored)
    return model, stored


class Stopwatch:
    """Times the stages of a compression. seconds: by stage, in the order in which they began.

    tells: whether the log gets a line at a stage's end.
    """

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self.tells = False

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Add the time spent inside to a stage, then return freed memory to the system."""
        begun = time.perf_counter()
        try:
            yield
        finally:
            spent = self.seconds.get(name, 0.0) + time.perf_counter() - begun
            self.seconds[name] = round(spent, 3)
            if self.tells:
                note(f"{name}: {spent:.1f} s")
            give_back()


def read_entry(file: str | None) -> dict[str, Any] | None:
    """Read the entry of an architecture from a YAML file; None without a file.

    Raises ValueError naming the fault in the entry.
    """
    if file is None:
        return None
    try:
        return Architecture.from_entry(read_yaml(Path(file))).entry()
    except (ValueError, TypeError, AttributeError) as error:
        reason = " ".join(str(error).split())
        raise ValueError(f"{file} is not an entry of an architecture: {reason}") from None


def files_of(features: UserData | None) -> list[Path] | None:
    """The files and directories that the user names; None for batches, or for nothing.

    Raises FileNotFoundError naming the first that does not exist.
    """
    named = [features] if isinstance(features, str | Path) else features
    if not isinstance(named, Sequence) or not all(isinstance(item, str | Path) for item in named):
        return None
    if "" in named:  # which would be the current folder
        raise ValueError("the name of a file or directory of data is empty")
    files = [Path(item) for item in named]
    for file in files:
        if not file.exists():
            raise FileNotFoundError(f"there is no file or directory {file}")
    return files


def all_files(data: UserData, held_out: UserData | None) -> list[Path] | None:
    """All files and directories of both parts of the data; None for batches.

    Raises ValueError if one part is of files and the other of batches, or as `files_of` does.
    """
    files, others = files_of(data), files_of(held_out)
    if held_out is not None and (files is None) != (others is None):
        raise ValueError("held-out data have to be files if the other data are, else batches")
    return None if files is None else [*files, *(others or ())]


def _check(
    outline: nn.Module, original: SourceModel, files: list[Path], settings: Settings
) -> None:
    """Check sizes, layers, processor, files and columns before any weights are read."""
    size = getattr(torch, settings.dtype or "float32").itemsize
    n_bytes = size * sum(parameter.numel() for parameter in outline.parameters())
    check_room(n_bytes, f"{original.directory}: the weights that config.json describes")
    selector_for(settings)(outline, settings)
    if files:
        encoding = encoding_for(outline, original.directory, settings.max_length)
        with warnings.catch_warnings(action="ignore"):  # they come again when the data are read
            for file in files:
                next(read_examples([file], Request(encoding.wanted, settings.columns)), None)


def _dtype(chosen: str | None, original: SourceModel) -> str:
    """The dtype to compute in. Raises ValueError if layers that are not merged would lose bits."""
    is_double = any(stored.dtype == torch.float64 for stored in original.stored.values())
    dtype = chosen or ("float64" if is_double else "float32")
    computed = getattr(torch, dtype)
    for name, stored in original.stored.items():
        kept = stored.dtype
        if kept.itemsize == 1 or not kept.is_floating_point:  # every 8-bit float fits
            continue
        if torch.promote_types(kept, computed) != computed:
            raise ValueError(
                f"--dtype {dtype}: the model is stored in {str(kept).removeprefix('torch.')} "
                f"({name}) and would lose bits; leave the option out"
            )
    return dtype


def size_of(files: Iterable[Path]) -> int:
    return sum(file.stat().st_size for file in files)
