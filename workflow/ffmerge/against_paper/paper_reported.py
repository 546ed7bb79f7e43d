"""What the paper prints, as data: config/paper_reported/ (its README.md describes the files)."""

import csv
from collections.abc import Iterable
from pathlib import Path

Row = dict[str, str]


def read_reported(files: Iterable[Path]) -> dict[str, list[Row]]:
    """Rows of each file, by its name without suffix."""
    reported = {}
    for file in files:
        with file.open(encoding="utf-8", newline="") as stream:
            reported[file.stem] = list(csv.DictReader(stream))
    return reported


def tolerances(reported: dict[str, list[Row]], tolerance: str) -> dict[str, float]:
    """metric -> value of one kind of tolerance: close, similar, equal or reproduction."""
    return {
        row["metric"]: float(row["value"])
        for row in reported["tolerances"]
        if row["tolerance"] == tolerance
    }
