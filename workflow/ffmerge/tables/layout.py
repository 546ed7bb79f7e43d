"""How a table is written, as CSV and as text for a terminal, and read again."""

import csv
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

Row = dict[str, str]


def write_table(rows: Sequence[Row], table: Path, text: Path) -> None:
    """Write rows that have the same columns as CSV, and as aligned text."""
    write_csv(rows, table)
    text.write_text(as_text(rows))


def write_csv(rows: Sequence[Mapping[str, Any]], file: Path) -> None:
    """Write rows that have the same columns as CSV."""
    with file.open("w", newline="") as stream:
        writer = csv.DictWriter(stream, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)


def read_csv(file: Path) -> list[Row]:
    """A CSV file's rows, every cell as it stands there."""
    with file.open(encoding="utf-8", newline="") as stream:
        return list(csv.DictReader(stream))


def as_text(rows: Sequence[Row]) -> str:
    """Rows as aligned columns; numbers to the right, and a Model named in its first row only."""
    columns = list(rows[0])
    lines, before = [columns], None
    for row in rows:
        repeated = "Model" in row and row["Model"] == before
        hidden = {"Model", "Metric"} if repeated else set()
        lines.append(["" if column in hidden else row[column] for column in columns])
        before = row.get("Model")
    widths = [max(len(line[i]) for line in lines) for i in range(len(columns))]
    right = [all(_is_number(row[column]) for row in rows) for column in columns]
    text = [
        "  ".join(
            cell.rjust(width) if at_right else cell.ljust(width)
            for cell, width, at_right in zip(line, widths, right, strict=True)
        ).rstrip()
        for line in lines
    ]
    rule = "  ".join("─" * width for width in widths)
    return "\n".join([text[0], rule, *text[1:]]) + "\n"


def _is_number(cell: str) -> bool:
    return re.fullmatch(r"([+-]?\d+(\.\d+)?( ?%)?|–)?", cell) is not None
