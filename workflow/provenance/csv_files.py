"""Read and write CSV files with a header, as dicts by column."""

import csv
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

Row = dict[str, str]


def read_csv(file: Path) -> list[Row]:
    """Read the rows, with all cells as text. Raises FileNotFoundError for a pipe, too."""
    if not file.is_file():
        raise FileNotFoundError(f"{file} is no file")
    with file.open(encoding="utf-8", newline="") as stream:
        return list(csv.DictReader(stream))


def write_csv(
    rows: Iterable[Mapping[str, Any]], file: Path, columns: Sequence[str] | None = None
) -> None:
    """Write rows that all have the same columns, by default those of the first row."""
    rows = list(rows)
    with file.open("w", encoding="utf-8", newline="") as stream:
        writer = csv.DictWriter(stream, columns or list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
