"""Read the numbers that the paper prints, from config/paper_reported/ (see its README.md)."""

from collections.abc import Iterable
from pathlib import Path

import pandas
from pandas import DataFrame

from provenance.cells import Printed

Reported = dict[str, DataFrame]  # by file name without suffix; all cells are strings, as printed


def read_reported(files: Iterable[Path]) -> Reported:
    """Read each file, its cells as strings and empty ones as such."""
    return {file.stem: pandas.read_csv(file, dtype=str, keep_default_na=False) for file in files}


def printed_number(reported: Reported, file: str, table: int | str, **names: str) -> Printed | None:
    """Look up a number in a printed table; None where the paper prints nothing.

    file: `scores` or `hyperparameters`. names: of its columns; an empty cell matches any name.
    """
    rows = reported[file]
    for key, name in {"table": str(table), **names}.items():
        rows = rows[rows[key].isin(["", name])]
    return None if rows.empty else Printed(rows["value"].iloc[0], f"Table {table}")


def tolerances(reported: Reported, name: str) -> dict[str, float]:
    """unit -> printed value plus tolerance, of close, similar, equal or reproduction."""
    rows = reported["tolerances"]
    rows = rows[rows["name"] == name]
    sums = rows["printed"].astype(float) + rows["tolerance"].astype(float)
    return dict(zip(rows["unit"], sums.round(6), strict=True))
