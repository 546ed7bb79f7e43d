"""Compressing a user's model, from its files to a new directory."""

import shutil
import time
import warnings
from collections.abc import Iterable, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch
import yaml
from torch import nn

from ffmerge.compression import original, source
from ffmerge.compression.data import encodings
from ffmerge.compression.data.files import read_examples
from ffmerge.compression.data.parts import Data, from_batches, from_examples
from ffmerge.compression.data.text import Batch
from ffmerge.compression.forward import without_cache
from ffmerge.compression.loss import loss_for
from ffmerge.compression.outline import outline
from ffmerge.compression.output import record
from ffmerge.compression.output.card import card
from ffmerge.compression.output.directory import (
    check_new,
    check_space,
    full_disk_told,
    new_directory,
)
from ffmerge.compression.output.summary import Compressed
from ffmerge.compression.output.weights import (
    copy_processor,
    keep_what_was_stored,
    round_to_stored,
    store,
)
from ffmerge.compression.selection import Selector
from ffmerge.compression.settings import Settings
from ffmerge.compression.source import Source
from ffmerge.compression.stopwatch import Stopwatch
from ffmerge.method.merge import merge_in_model
from ffmerge.method.tie import count_parameters, count_sublayers
from ffmerge.models.architectures import Architecture
from ffmerge.models.format import GROUPS
from ffmerge.models.memory import give_back_large
from ffmerge.models.tied_model import become_tied

Given = str | Path | Sequence[str | Path] | Iterable[Batch]
"""Data as a user gives them: files, directories, or batches of one's own."""


def compress(
    model: str | Path,
    *,
    features: Given,
    out: str | Path,
    held_out: Iterable[Batch] | None = None,
    command: str | None = None,
    **options: Any,
) -> Compressed:
    """Compress a model, and write it to a new directory.

    model: a directory that transformers can load, or a name on the hub. features: files or
    directories of data; or batches, dicts of tensors as the model's forward takes them, with
    `labels` if there are any. held_out: batches for the loss; by default the last fifth of those.
    options: see `Settings`, such as remove="1/3" or layers="3-7". command: for the record.
    Raises ValueError or OSError in words for the user; then nothing is at `out`.
    """
    settings, out, started, clock = Settings(**options), Path(out), time.time(), Stopwatch()
    give_back_large()
    check_new(out)
    given = source.find(model, settings.revision)
    entry = entry_of(settings.architecture)
    files = files_of(features)
    check(outline(given, entry), given, files, settings)
    weights = {"weights": _size(given.weights)}
    with (
        new_directory(out) as directory,
        warnings.catch_warnings(record=True) as noted,
        full_disk_told(weights),
    ):
        check_space(directory, weights)
        scratch = directory / ".scratch"
        scratch.mkdir()
        with clock.stage("loading"):
            readable = original.readable(given, scratch)
            _check_dtype(settings.dtype, readable)
            loaded = original.load(readable, getattr(torch, settings.dtype), entry).to(
                settings.device
            )
            keep_what_was_stored(loaded, readable.stored)
            selector = Selector(loaded, settings, scratch)
        with clock.stage("data"):
            data = (
                from_batches(loaded, features, held_out, settings.n_tokens)
                if files is None
                else data_of_files(loaded, given, files, settings)
            )
        before = count_parameters(loaded), _size(readable.weights)
        with without_cache(loaded):
            with clock.stage("loss before"):
                tokenizer = encodings.tokenizer_if_any(given.directory)
                loss = loss_for(loaded, data.held_out, scratch, tokenizer)
                loss_before = loss.of(loaded)
            selected = selector.select(data, loss, clock)
            with clock.stage("merging"):
                merge_in_model(loaded, selected.groups, selected.permutations)
                become_tied(loaded, getattr(loaded.config, GROUPS))
                round_to_stored(loaded, readable.stored)
            with clock.stage("loss after"):
                loss_after = loss.of(loaded)
        shutil.rmtree(scratch)
        with clock.stage("writing"):
            store(loaded, settings.form, readable.stored, directory)
            copy_processor(given.directory, directory)
        result = Compressed(
            model=str(model),
            out=out,
            form=settings.form,
            method=settings.method,
            groups=selected.groups,
            sublayers=count_sublayers(loaded),
            parameters=(before[0], count_parameters(loaded)),
            bytes=(before[1], _size(directory.glob("*.safetensors"))),
            loss=loss.name,
            losses=(loss_before, loss_after),
            tried=selected.tried,
            n_tokens=data.n_tokens,
            n_held_out=data.n_held_out,
            seconds=clock.seconds,
            warnings=tuple(dict.fromkeys(str(each.message) for each in noted)),
        )
        inputs = record.inputs(given, files, data)
        digest = record.write(
            directory, inputs, asdict(settings), result.as_json(), started, command
        )
        result = replace(result, record=digest)
        text = card(result, given, inputs["model"], type(loaded).__name__)
        (directory / "README.md").write_text(text)
    return result


def entry_of(file: str | None) -> dict[str, Any] | None:
    """The entry of an architecture in a YAML file. Raises ValueError naming what is wrong in it."""
    if file is None:
        return None
    try:
        entry = yaml.safe_load(Path(file).read_text())
        return Architecture.from_entry(entry).entry()
    except (yaml.YAMLError, ValueError, TypeError, AttributeError) as error:
        reason = " ".join(str(error).split())
        raise ValueError(f"{file} is no entry of an architecture: {reason}") from None


def files_of(features: Given) -> list[Path] | None:
    """The files or directories that a user names; None for batches.

    Raises FileNotFoundError naming the first that is not there.
    """
    named = [features] if isinstance(features, str | Path) else features
    if not isinstance(named, Sequence) or not all(isinstance(each, str | Path) for each in named):
        return None
    files = [Path(each) for each in named]
    for file in files:
        if not file.exists():
            raise FileNotFoundError(f"there is no file or directory {file}")
    return files


def check(model: nn.Module, given: Source, files: list[Path] | None, settings: Settings) -> None:
    """Refuse what can be refused before any weight is read: layers, processor, files, columns.

    model: as `outline` gives it.
    """
    Selector(model, settings, Path())
    if files is not None:
        encoding = encodings.encoding_for(model, given.directory, settings.max_length)
        for file in files:
            next(read_examples([file], encoding.wanted, settings.columns), None)


def data_of_files(model: nn.Module, given: Source, files: list[Path], settings: Settings) -> Data:
    """The data in a user's files, in two parts."""
    encoding = encodings.encoding_for(model, given.directory, settings.max_length)
    examples = read_examples(files, encoding.wanted, settings.columns)
    return from_examples(
        model, encoding, examples, settings.n_tokens, settings.n_held_out, settings.batch_size
    )


def _check_dtype(dtype: str, given: Source) -> None:
    """Raises ValueError if computing in a dtype would lose bits of what is not merged."""
    computed = getattr(torch, dtype)
    for name, each in given.stored.items():
        kept = each.dtype
        if kept.is_floating_point and torch.promote_types(kept, computed) != computed:
            raise ValueError(
                f"--dtype {dtype}: the model is stored in {str(kept).removeprefix('torch.')} "
                f"({name}), bits of which would be lost; leave the option out"
            )


def _size(files: Iterable[Path]) -> int:
    return sum(file.stat().st_size for file in files)
