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


def printed_score(reported: Reported, table: int, quantity: str, **names: str) -> Printed | None:
    """Look up a quantity of a model in a table of scores; None where the paper prints nothing.

    names: task, method, ratio, anchor, window and int8 (yes or no), as in scores.csv; an empty
    cell there matches any name.
    """
    rows = _rows_with(reported["scores"], table=str(table), quantity=quantity)
    for key, name in names.items():
        rows = rows[rows[key].isin(["", name])]
    return _first_value(rows, table)


def printed_setting(reported: Reported, table: str, name: str) -> Printed | None:
    """Look up a setting in a table of hyperparameters, as the configuration writes it."""
    return _first_value(_rows_with(reported["hyperparameters"], table=table, name=name), table)


def tolerances(reported: Reported, name: str) -> dict[str, float]:
    """unit -> printed value plus tolerance, of close, similar, equal or reproduction."""
    rows = _rows_with(reported["tolerances"], name=name)
    sums = rows["printed"].astype(float) + rows["tolerance"].astype(float)
    return dict(zip(rows["unit"], sums.round(6), strict=True))


def _rows_with(rows: DataFrame, **values: str) -> DataFrame:
    for column, value in values.items():
        rows = rows[rows[column] == value]
    return rows


def _first_value(rows: DataFrame, table: int | str) -> Printed | None:
    return None if rows.empty else Printed(rows["value"].iloc[0], f"Table {table}")
