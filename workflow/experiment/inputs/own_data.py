"""Data of one's own as a split of a task.

The jobs of a task read Parquet with certain columns. Such files are read as they are (`is_plain`).
Other forms that `ffmerge compress` reads are converted by a job first. `check` reads the beginning
of them before any job.
"""

import json
import textwrap
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import cache
from itertools import islice
from pathlib import Path
from typing import Any

import pyarrow as pa
from pyarrow import parquet, types

from experiment.inputs.parquet import Row
from ffmerge.compression.pictures import opened
from ffmerge.compression.read import Example, Request, files_below, is_read, read_examples

Columns = Mapping[str, str]
"""Role (text, source, target, image, label) -> the column in which a task's jobs expect it."""
CHECKED = {"text": 1000, "pairs": 1000, "images": 32}  # rows that are read before any job
TEXTS = (pa.string(), pa.large_string(), pa.string_view())
CLUSTERS = ("article", "page")  # columns that `experiment.evaluation.clusters` reads
Classes = Sequence[str] | None
"""Names of the model's classes in the order of their numbers; None if they are not known yet."""


def columns_of(task: Any) -> dict[str, str]:
    """The columns that the jobs of a task read, by role."""
    match task.kind:
        case "translation":
            return {"source": task.source, "target": task.target}
        case "image_classification":
            return {"image": "image", "label": "label"}
    return {"text": "text"}


def classes_of(config: Mapping[str, Any]) -> Classes:
    """The names of a model's classes by the keys of its configuration."""
    match config:
        case {"id2label": {**names}} if names and all(str(i).isdecimal() for i in names):
            return [str(name) for _, name in sorted((int(i), name) for i, name in names.items())]
        case {"num_labels": int(n)} if n > 0:
            return [f"LABEL_{i}" for i in range(n)]
    return None


def is_plain(path: str, columns: Columns) -> bool:
    """Whether jobs can read a split as it is: Parquet with these columns, and no nulls in them."""
    return _is_plain(path, tuple(columns.items()))


@cache
def _is_plain(path: str, columns: tuple[tuple[str, str], ...]) -> bool:
    try:
        files = [parquet.ParquetFile(file) for file in _parquet_files(Path(path))]
    except (pa.ArrowException, OSError):
        return False
    n_rows = sum(file.metadata.num_rows for file in files)
    clusters = {name for name in CLUSTERS for file in files if name in file.schema_arrow.names}
    return n_rows > 0 and all(
        (role == "cluster" or _fits(file, role, column)) and _n_nulls(file, role, column) == 0
        for file in files
        for role, column in (*columns, *(("cluster", name) for name in clusters))
    )


def _parquet_files(path: Path) -> list[Path]:
    """The files that jobs would read; none if some are in linked folders, which jobs skip."""
    if not path.is_dir():
        return [path]
    files = {file for file in files_below(path) if file.suffix == ".parquet"}
    return sorted(files) if files <= set(path.rglob("*.parquet")) else []


def _fits(file: parquet.ParquetFile, role: str, column: str) -> bool:
    schema = file.schema_arrow
    if schema.names.count(column) != 1:
        return False
    kind = schema.field(column).type
    if role == "image":  # only with these metadata are its bytes decoded
        written = json.loads((schema.metadata or {}).get(b"huggingface", b"{}"))
        feature = written.get("info", {}).get("features", {}).get(column, {})
        return types.is_struct(kind) and feature.get("_type") == "Image"
    return types.is_integer(kind) if role == "label" else kind in TEXTS


def _n_nulls(file: parquet.ParquetFile, role: str, column: str) -> int | None:
    """Nulls in a column by the file's statistics; None if it has none of them."""
    found = _statistics(file, f"{column}.bytes" if role == "image" else column)
    known = all(part is not None and part.has_null_count for part in found)
    return sum(part.null_count for part in found) if known else None


def _statistics(file: parquet.ParquetFile, leaf: str) -> list[Any]:
    """The statistics of a column in each part of a file; None in place of those it lacks."""
    groups = (file.metadata.row_group(i) for i in range(file.metadata.num_row_groups))
    return [
        next((part.statistics for part in parts if part.path_in_schema == leaf), None)
        for group in groups
        for parts in [[group.column(j) for j in range(group.num_columns)]]
    ]


def check(path: str, columns: Columns, classes: Classes = None) -> None:
    """Read the beginning of a split. Raises ValueError or OSError naming the first fault in it."""
    below = sorted(filter(is_read, files_below(Path(path)))) if Path(path).is_dir() else []
    if len({file.suffix == ".parquet" for file in below}) > 1:  # jobs would read these alone
        other = next(file for file in below if file.suffix != ".parquet")
        raise ValueError(f"{other} is beside Parquet files: put data of one form in a folder")
    if not is_plain(path, columns):
        n_checked = CHECKED[_request(columns).wanted]
        for _ in islice(rows(Path(path), columns, classes), n_checked):
            pass
    elif classes is not None:
        for file in _parquet_files(Path(path)):
            for part in _statistics(parquet.ParquetFile(file), columns["label"]):
                for label in (part.min, part.max) if part.has_min_max else ():
                    _number(label, classes, f"{file}, in the column {columns['label']}")


def rows(path: Path, columns: Columns, classes: Classes = None) -> Iterator[Row]:
    """The rows of a split with the columns that jobs read, and CLUSTERS if it has them.

    Raises ValueError or OSError naming file, row and fault, like `read_examples`.
    """
    named = None
    for example in read_examples([path], _request(columns)):
        row = {column: _cell(example, role, classes) for role, column in columns.items()}
        clusters = {name: str(v) for name in CLUSTERS if (v := example.get(name)) is not None}
        named = clusters.keys() if named is None else named
        if odd := sorted(named ^ clusters.keys()):
            raise ValueError(
                f"{example['place']}: some rows have no {odd[0]}: fill that column in, or take it "
                "out"
            )
        yield clusters | row
    if named is None:
        raise ValueError(f"{path} holds no text: nothing but white space is in it")


def schema(columns: Columns, names: Iterable[str]) -> pa.Schema:
    """Schema of `rows`, with the metadata by which the library `datasets` decodes images.

    names: of all columns in a row.
    """
    from datasets import Features, Image, Value

    kinds = {"image": Image(), "label": Value("int64")}
    roles = {column: role for role, column in columns.items()}
    return Features({c: kinds.get(roles.get(c), Value("string")) for c in names}).arrow_schema


def _request(columns: Columns) -> Request:
    """What the reader looks for. Only translation names its columns in the configuration."""
    wanted = "pairs" if "source" in columns else "images" if "image" in columns else "text"
    more = tuple(name for name in CLUSTERS if name not in columns.values())
    named = columns if wanted == "pairs" else {}
    return Request(wanted, named, "call one {}", complete=True, more=more)


def _cell(example: Example, role: str, classes: Classes) -> Any:
    value, place = example.get(role), example["place"]
    if role == "label":
        return _number(value, classes, place)
    if role != "image":
        return value
    opened(value, place)
    content = value.read_bytes() if isinstance(value, Path) else value
    return {"bytes": content, "path": value.name if isinstance(value, Path) else None}


def _number(label: int | str | None, classes: Classes, place: str) -> int:
    """The number of a class that is given by it or by its name.

    Raises ValueError if the model has no such class, or several of that name.
    """
    known = "give the number of the class in a table's column label"
    if classes is not None:
        names = textwrap.shorten(", ".join(classes), 150, placeholder="…")
        known = f"the model's classes are 0 to {len(classes) - 1}: {names}"
        if list(classes).count(label) == 1:
            return list(classes).index(label)
    number = int(label) if isinstance(label, str) and label.isdecimal() else label
    if isinstance(number, int) and (classes is None or 0 <= number < len(classes)):
        return number
    named = "there is no label" if label is None else f"the label is {label!r}"
    raise ValueError(f"{place}: {named}; {known}")
