"""Rows of a user's tables (jsonl, csv, tsv, parquet), and which of their columns is what."""

import csv
import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

Row = dict[str, Any]
Columns = Mapping[str, str | None]
"""Role of a column -> its name as the user gave it, `translation.en` within a nested one."""

GUESSES = {  # names of columns by what they hold, if the user gives none
    "text": ("text", "content", "sentence", "caption"),
    "source": ("source", "src", "input", "document", "article"),
    "target": ("target", "tgt", "output", "summary", "highlights"),
    "image": ("image", "img", "picture", "jpg", "png"),
    "label": ("label", "labels", "fine_label", "class"),
}
ROWS_A_BATCH = 64


def read_rows(
    file: Path, wanted: Sequence[str], columns: Columns, optional: Sequence[str] = ()
) -> Iterator[Row]:
    """The rows of a table, by the roles of its columns.

    wanted: roles that a row needs; optional: those that it may have. Rows in which a wanted value
    is missing are passed over.
    Raises ValueError naming the file, with its columns, if one is not there.
    """
    rows = READERS[file.suffix](file)
    first = next(rows, None)
    if first is None:
        raise ValueError(f"{file} has no rows")
    names = {role: _column(file, first, role, columns.get(role)) for role in wanted}
    for role in optional:
        guess = next((name for name in GUESSES[role] if name in first), None)
        if columns.get(role) or guess:
            names[role] = _column(file, first, role, columns.get(role))
    for row in _with_first(first, rows):
        found = {role: _value(row, name) for role, name in names.items()}
        if all(found[role] not in (None, "") for role in wanted):
            yield found


def _column(file: Path, row: Row, role: str, given: str | None) -> str:
    there = ", ".join(_names(row))
    if given is not None:
        if _value(row, given) is None and given not in _names(row):
            raise ValueError(f"{file} has no column {given!r} (it has: {there})")
        return given
    for name in GUESSES[role]:
        if name in row:
            return name
    raise ValueError(
        f"{file} has no column for the {role}: name one with --{role} (it has: {there})"
    )


def _names(row: Row) -> list[str]:
    nested = [f"{k}.{inner}" for k, v in row.items() if isinstance(v, dict) for inner in v]
    return [*row, *nested]


def _value(row: Row, name: str) -> Any:
    value: Any = row
    for part in [name] if name in row else name.split("."):
        value = value.get(part) if isinstance(value, dict) else None
    return value


def _with_first(first: Row, rows: Iterator[Row]) -> Iterator[Row]:
    yield first
    yield from rows


def _json_lines(file: Path) -> Iterator[Row]:
    for number, line in enumerate(text_lines(file), start=1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except ValueError as error:
            raise ValueError(f"{file}, line {number} is no JSON: {error}") from None
        if not isinstance(row, dict):
            raise ValueError(f"{file}, line {number} is no JSON object, with a key for each column")
        yield row


def _separated(file: Path) -> Iterator[Row]:
    csv.field_size_limit(sys.maxsize)
    delimiter = "\t" if file.suffix == ".tsv" else ","
    yield from csv.DictReader(text_lines(file), delimiter=delimiter)


def _parquet(file: Path) -> Iterator[Row]:
    import pyarrow
    from pyarrow import parquet

    try:
        for batch in parquet.ParquetFile(file).iter_batches(batch_size=ROWS_A_BATCH):
            yield from batch.to_pylist()
    except pyarrow.ArrowInvalid as error:
        raise ValueError(f"{file} is no Parquet file: {error}") from None


def text_lines(file: Path) -> Iterator[str]:
    """The lines of a text. Raises ValueError naming the file if it is not UTF-8."""
    try:
        with file.open(encoding="utf-8-sig", newline="") as stream:
            yield from stream
    except UnicodeDecodeError as error:
        raise ValueError(f"{file} is no UTF-8 text: {error}") from None


READERS = {".jsonl": _json_lines, ".csv": _separated, ".tsv": _separated, ".parquet": _parquet}
