"""Checks of a configuration that need more than its classes: folders, files, models and packages.

No job imports this module, so editing it reruns none.
"""

import json
import math
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from experiment.config.settings import one_line, wrong
from experiment.config.tasks import BaseModelSource, DataFile, TaskBase
from experiment.inputs import own_data
from experiment.inputs.packages import check_names
from ffmerge.models.architectures import Architecture, architecture_of
from ffmerge.models.format import STOCK_TYPE, WEIGHTS
from provenance.digest import sha256_of

OWN_FOLDERS = (
    *(".ci", ".git", ".snakemake", ".venv", "benchmarks", "config", "containers", "docs", "envs"),
    *("resources", "slurm", "tests", "workflow"),
)
"""Folders of the repository that can hold no results."""
TRAINED = "trained_base_model"  # the folder of a model that the run trains
LONGEST_FOLDER = 150  # characters
POSITIONS = ("n_positions", "max_position_embeddings")
"""Keys of a model's configuration for its number of positions."""
LENGTHS = ("context", "max_tokens", "validation.context", "test.context", "search.context")
LENGTHS += ("validation.max_length", "test.max_length")  # keys of a task that they limit
FIRST_POSITION_AFTER_PADDING = ("camembert", "roberta", "roberta-prelayernorm", "xlm-roberta")
"""Model types whose table of positions begins with rows that no token has."""
SPLITS = ("train", "validation", "test")
ADDED_TOKENS = 4  # of a row at most: special tokens, or a blank line before it
TEXT_KINDS = ("language_modeling", "translation", "sentence_retrieval")


def folder_of_results(results: str) -> str:
    """Return a folder of results. Raises ValueError unless jobs can write to it and to no other."""
    one_line(results, LONGEST_FOLDER)
    path = Path(results)
    if not all(character.isalnum() or character in "._-+/" for character in results):
        allowed = "a folder whose name has only letters, digits and the characters . _ - + /"
    elif str(path) != results or ".." in path.parts or any(p[0] == "-" for p in path.parts):
        allowed = "a folder without `..`, `//` and `/` at the end, such as results/mine"
    elif max(map(len, map(os.fsencode, path.parts)), default=0) > 100:
        allowed = "a folder with names of at most 100 bytes"
    elif _holds_other_files(path):
        allowed = "a folder of its own, such as results/mine"
    elif path.exists() and not path.is_dir():
        allowed = "a folder, and there is a file of this name"
    else:
        return results
    raise wrong("", allowed, results)


def _holds_other_files(path: Path) -> bool:
    here, path = Path.cwd().resolve(), path.resolve()
    if here.is_relative_to(path) or Path.home().is_relative_to(path) or path.parent == Path("/"):
        return True
    return path.is_relative_to(here) and path.relative_to(here).parts[0] in OWN_FOLDERS


def task_errors(name: str, task: TaskBase) -> Iterator[str]:
    """One line for each error of a task that its files, its model or its windows show."""
    found = [*_file_errors(task), *_job_errors(task)]
    if not found:  # the others read the files
        found = [*_data_errors(task), *_model_errors(task), *_token_errors(task)]
    yield from (f"tasks.{name}.{error}" for error in found)


# --- files ----------------------------------------------------------------------------------------


def _file_errors(task: TaskBase) -> Iterator[str]:
    """One line for each local file that is missing or has another digest, and for a package."""
    data, model = task.dataset, task.base_model
    local: dict[str, DataFile] = {}
    if data.devkit is not None:
        yield from _path_error("dataset.devkit", data.devkit, {"file"})
    if data.repository is None and data.url is None:
        local = {f"dataset.{split}": getattr(data, split) for split in SPLITS}
    recipe = None if model.path else model.from_scratch
    if recipe and recipe.train and Path(recipe.train.path).exists():  # a job may make it
        local["base_model.from_scratch.train"] = recipe.train
    for key, file in local.items():
        # ILSVRC's tar files have 145 GB: their jobs check the digests, not every start
        archive = data.devkit is not None and key.startswith("dataset.")
        kinds = {"file"} if archive else {"file", "folder"}
        digest = None if archive else file.sha256
        yield from _path_error(f"{key}.path", file.path, kinds, digest)
    if model.path is not None:
        yield from _path_error("base_model.path", model.path, {"folder"}, model.sha256)
    if (package := model.package) is not None:
        try:
            check_names(package.registry, package.name, package.version, package.file)
        except ValueError as error:
            yield f"base_model.package.{error}"


def _data_errors(task: TaskBase) -> Iterator[str]:
    """One line for each local split whose beginning jobs could not read, or convert."""
    if not task.dataset.is_local:
        return
    splits = {f"dataset.{split}": getattr(task.dataset, split).path for split in SPLITS}
    if (recipe := task.base_model.from_scratch) and recipe.train and not task.base_model.path:
        splits["base_model.from_scratch.train"] = recipe.train.path
    for key, path in splits.items():
        if os.access(path, os.R_OK):
            try:
                own_data.check(path, own_data.columns_of(task), classes_of(task))
            except (OSError, ValueError) as error:
                yield f"{key}.path: {error}"


def classes_of(task: TaskBase) -> own_data.Classes:
    """The classes of a task's model, if it has any and is here or described here."""
    if task.kind != "image_classification":
        return None
    return own_data.classes_of(configuration_of(task.base_model)[1])


def _path_error(
    key: str, name: str, allowed: set[str], expected: str | None = None
) -> Iterator[str]:
    path = Path(name)
    kind = "folder" if path.is_dir() else "file" if path.is_file() else "device, pipe or socket"
    if not path.exists():
        yield f"{key}: {name} does not exist, seen from {Path.cwd()}"
    elif kind not in allowed:
        yield f"{key}: has to be a {' or '.join(sorted(allowed))}, {name} is a {kind}"
    elif not os.access(path, os.R_OK):
        yield f"{key}: {name} cannot be read; give yourself the permission"
    elif kind == "file" and not path.stat().st_size:
        yield f"{key}: {name} is empty"
    elif kind == "folder" and Path.cwd().resolve().is_relative_to(path.resolve()):
        yield f"{key}: {name} holds this repository; name a folder of this data only"
    elif expected is not None:
        try:
            if (actual := sha256_of(path)) != expected:
                group = key.removesuffix(".path")
                yield f"{group}.sha256: has to be that of {name}, {actual} (is {expected!r})"
        except OSError as error:
            yield f"{key}: {error.filename or name} cannot be read: {error.strerror}"


# --- models ---------------------------------------------------------------------------------------


def _model_errors(task: TaskBase) -> Iterator[str]:
    """One line for each value that contradicts the base model's own configuration."""
    source = task.base_model
    try:
        if source.architecture is not None:
            Architecture.from_entry(source.architecture)
    except (ValueError, TypeError, AttributeError) as error:
        yield f"base_model.architecture: {error}"
    if source.path and Path(source.path).is_dir() and not (Path(source.path) / WEIGHTS).is_file():
        yield (
            f"base_model.path: {source.path} has no {WEIGHTS}; save the model as one file of "
            "safetensors, with max_shard_size above its size"
        )
    if source.from_scratch and not source.path:
        yield from _recipe_errors(task)
    try:
        where, config = configuration_of(source)
    except ValueError as error:
        yield f"base_model.path: {error}"
    else:
        if config:
            yield from _geometry_errors(task, where, config)


def configuration_of(source: BaseModelSource) -> tuple[str, dict[str, Any]]:
    """Where the keys of a base model's configuration are, and the keys; none if it is not here.

    Raises ValueError naming a config.json that cannot be read.
    """
    file = Path(source.path or "", "config.json")
    if source.path and file.parent.is_dir():
        try:
            return str(file), dict(json.loads(file.read_text()))
        except (OSError, ValueError, TypeError) as error:
            fault = error.strerror if isinstance(error, OSError) else error
            raise ValueError(f"{file} is not a model's configuration: {fault}") from None
    if source.from_scratch and not source.path:
        return "base_model.from_scratch.architecture", source.from_scratch.architecture
    return "", {}


def _recipe_errors(task: TaskBase) -> Iterator[str]:
    """One line for each key that the recipe of a base model lacks or has too much of."""
    recipe, kind = task.base_model.from_scratch, task.kind
    here, vocabulary = "base_model.from_scratch", recipe.vocabulary
    needed = {
        "image_classification": "image_size",
        "translation": "max_position_embeddings",
        "sentence_retrieval": "max_position_embeddings",
    }
    if (key := needed.get(kind)) and not isinstance(recipe.architecture.get(key), int):
        yield f"{here}.architecture.{key}: is missing, allowed: whole number above 0"
    if kind in TEXT_KINDS and vocabulary is None:
        yield f"{here}.vocabulary: is missing, allowed: whole number above 0"
    if kind not in TEXT_KINDS and vocabulary is not None:
        yield f"{here}.vocabulary: is for text only (is {vocabulary})"
    rows = recipe.architecture.get("vocab_size")
    if vocabulary and isinstance(rows, int) and vocabulary > rows:
        allowed = f"has to be at most architecture.vocab_size, {rows}"
        yield f"{here}.vocabulary: {allowed} (is {vocabulary})"


def recipe_errors(tasks: Mapping[str, TaskBase], results: Path) -> Iterator[str]:
    """One line for each model to be trained from scratch that transformers cannot build.

    Each is built without its weights. That imports torch, so a dry run goes without this check.
    """
    for name, task in tasks.items():
        source = task.base_model
        if source.from_scratch is None or source.path or (results / name / TRAINED).exists():
            continue
        import torch

        from ffmerge.models import checkpoint

        architecture, here = source.from_scratch.architecture, f"tasks.{name}.base_model"
        try:
            with torch.device("meta"):
                model = checkpoint.from_scratch(architecture)
            checkpoint.check_layers(model, source.n_layers)
        except Exception as error:  # of any kind, as transformers' classes check little
            fault = " ".join(f"{type(error).__name__}: {error}".split())
            named = " ".join(architecture["architectures"])
            yield f"{here}.from_scratch.architecture: {named} cannot be built: {fault}"


def _geometry_errors(task: TaskBase, where: str, config: Mapping[str, Any]) -> Iterator[str]:
    n_layers = task.base_model.n_layers
    try:
        towers = architecture_of(config).towers
    except (ValueError, TypeError, AttributeError, KeyError) as error:
        yield f"base_model: {where}: {error}"
        return
    for tower, forms in towers.items():
        found = _nested(config, forms[0].count)
        if isinstance(found, int) and found != n_layers:
            yield (
                f"base_model.n_layers: has to be {found}, {forms[0].count} of the {tower} in "
                f"{where} (is {n_layers})"
            )
    positions = next((config[key] for key in POSITIONS if isinstance(config.get(key), int)), None)
    model_type = str(config.get(STOCK_TYPE) or config.get("model_type"))
    if positions and positions > 0 and not model_type.endswith("t5"):  # T5's positions are relative
        if model_type in FIRST_POSITION_AFTER_PADDING:
            positions -= (config.get("pad_token_id") or 0) + 1
        for key in LENGTHS:
            length = _nested(task, key)
            if isinstance(length, int) and length > positions:
                allowed = f"has to be at most {positions}, the model's positions in {where}"
                yield f"{key}: {allowed} (is {length})"


def _nested(values: Any, path: str | None) -> Any:
    """A value by its dotted key; None if there is none."""
    for key in path.split(".") if path else ():
        values = values.get(key) if isinstance(values, Mapping) else getattr(values, key, None)
    return values if path else None


def _token_errors(task: TaskBase) -> Iterator[str]:
    """One line if the validation split has fewer positions than features are wanted of."""
    data, wanted = task.dataset, task.features.n_tokens
    path = Path(data.validation.path)
    if not (data.is_local and own_data.is_plain(str(path), own_data.columns_of(task))):
        return
    if (available := _most_positions(task, path)) < wanted:
        yield (
            f"features.n_tokens: has to be at most {available}, dataset.validation holds no "
            f"more positions (is {wanted})"
        )


def _most_positions(task: TaskBase, path: Path) -> float:
    """An upper limit of the positions in a split: a byte of text makes at most one token.

    Text is read only until there is enough of it.
    """
    import pyarrow.compute as pc
    from pyarrow.parquet import ParquetFile

    files = sorted(path.rglob("*.parquet")) if path.is_dir() else [path]
    if task.kind not in TEXT_KINDS:
        _, config = configuration_of(task.base_model)
        side, patch = config.get("image_size"), config.get("patch_size")
        rows = sum(ParquetFile(file).metadata.num_rows for file in files)
        known = isinstance(side, int) and isinstance(patch, int) and patch > 0
        return rows * ((side // patch) ** 2 + 1) if known else math.inf
    column, found = getattr(task, "source", "text"), 0
    for file in map(ParquetFile, files):
        if column not in file.schema_arrow.names:
            return math.inf
        for i in range(file.num_row_groups):
            text = file.read_row_group(i, [column]).column(column)
            found += (pc.sum(pc.binary_length(text)).as_py() or 0) + ADDED_TOKENS * len(text)
            if found >= task.features.n_tokens:
                return found
    return found


# --- jobs -----------------------------------------------------------------------------------------


def _job_errors(task: TaskBase) -> Iterator[str]:
    """One line for each number of jobs above the number of windows that they share."""
    n_layers, only, drop = task.base_model.n_layers, task.windows.only, task.layer_drop
    merged = [
        len(getattr(only, ratio)) if only else n_layers - k + 1
        for ratio, k in task.merge.k.ratios().items()
    ]
    dropped = [n_layers - k + 1 for k in drop.sizes()] if drop else []
    for key, settings, n in (
        ("windows", task.windows, len(task.merge.methods) * sum(merged)),
        ("layer_drop", drop, 1 + sum(dropped)),  # and the uncompressed model
    ):
        if settings and settings.jobs is not None and settings.jobs > n:
            yield f"{key}.jobs: has to be at most {n}, the number of windows (is {settings.jobs})"
