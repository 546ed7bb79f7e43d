"""Data of one's own as a split of a task.

The jobs of a task read Parquet with certain columns. Such files are read as they are (`is_plain`).
Other forms that `ffmerge compress` reads are converted by a job first. `check` reads the beginning
of them before any job.
"""

import json
from collections.abc import Iterator, Mapping
from functools import cache
from itertools import islice
from pathlib import Path
from typing import Any

import pyarrow as pa
from pyarrow import parquet, types

from experiment.inputs.parquet import Row
from ffmerge.compression.pictures import opened
from ffmerge.compression.read import Example, Request, files_below, read_examples

Columns = Mapping[str, str]
"""Role (text, source, target, image, label) -> the column in which a task's jobs expect it."""
CHECKED = {"text": 1000, "pairs": 1000, "images": 32}  # rows that are read before any job
TEXTS = (pa.string(), pa.large_string(), pa.string_view())


def columns_of(task: Any) -> dict[str, str]:
    """The columns that the jobs of a task read, by role."""
    match task.kind:
        case "translation":
            return {"source": task.source, "target": task.target}
        case "image_classification":
            return {"image": "image", "label": "label"}
    return {"text": "text"}


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
    return n_rows > 0 and all(
        _fits(file, role, column) and _n_nulls(file, role, column) == 0
        for file in files
        for role, column in columns
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
    leaf, n = f"{column}.bytes" if role == "image" else column, 0
    for i in range(file.metadata.num_row_groups):
        group = file.metadata.row_group(i)
        parts = [group.column(j) for j in range(group.num_columns)]
        statistics = [part.statistics for part in parts if part.path_in_schema == leaf]
        if not statistics or not statistics[0] or not statistics[0].has_null_count:
            return None
        n += statistics[0].null_count
    return n


def check(path: str, columns: Columns) -> None:
    """Read the beginning of a split. Raises ValueError or OSError naming the first fault in it."""
    if not is_plain(path, columns):
        n_checked = CHECKED[_request(columns).wanted]
        for _ in islice(rows(Path(path), columns), n_checked):
            pass


def rows(path: Path, columns: Columns) -> Iterator[Row]:
    """The rows of a split with the columns that jobs read.

    Raises ValueError or OSError naming file, row and fault, like `read_examples`.
    """
    for example in read_examples([path], _request(columns)):
        yield {column: _cell(example, role) for role, column in columns.items()}


def schema(columns: Columns) -> pa.Schema:
    """Schema of `rows`, with the metadata by which the library `datasets` decodes images."""
    from datasets import Features, Image, Value

    kinds = {"image": Image(), "label": Value("int64")}
    return Features(
        {c: kinds.get(role, Value("string")) for role, c in columns.items()}
    ).arrow_schema


def _request(columns: Columns) -> Request:
    """What the reader looks for. Only translation names its columns in the configuration."""
    naming = "call one {}"
    if "source" in columns:
        return Request("pairs", columns, naming, complete=True)
    return Request("images" if "image" in columns else "text", {}, naming, complete=True)


def _cell(example: Example, role: str) -> Any:
    value, place = example.get(role), example["place"]
    if role == "label" and isinstance(value, str) and value.isdecimal():  # in a table of text
        return int(value)
    if role == "label" and not isinstance(value, int):
        named = f"the label is {value!r}" if value else "there is no label"
        raise ValueError(
            f"{place}: {named}; give the number of the class in a table's column label"
        )
    if role != "image":
        return value
    opened(value, place)
    content = value.read_bytes() if isinstance(value, Path) else value
    return {"bytes": content, "path": value.name if isinstance(value, Path) else None}
