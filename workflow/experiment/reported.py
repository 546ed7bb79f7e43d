"""What the paper prints, as data: config/paper_reported/ (its README.md describes the files)."""

from collections.abc import Iterable
from pathlib import Path

from provenance.cells import Printed
from provenance.csv_files import Row, read_csv


def read_reported(files: Iterable[Path]) -> dict[str, list[Row]]:
    """Rows of each file, by its name without suffix."""
    return {file.stem: read_csv(file) for file in files}


def printed_score(
    reported: dict[str, list[Row]], table: int, quantity: str, **names: str
) -> Printed | None:
    """What a table of scores prints for a quantity of a model; None where it prints nothing.

    names: task, method, ratio, anchor, window and int8 (yes or no), as scores.csv has them, where
    an empty one stands for any.
    """
    for row in reported["scores"]:
        about = (row["table"], row["quantity"]) == (str(table), quantity)
        if about and all(row[key] in ("", name) for key, name in names.items()):
            return Printed(row["value"], f"Table {table}")
    return None


def printed_setting(reported: dict[str, list[Row]], table: str, name: str) -> Printed | None:
    """What a table of hyperparameters prints for a setting, in our form; None for nothing."""
    for row in reported["hyperparameters"]:
        if (row["table"], row["name"]) == (table, name):
            return Printed(row["value"], f"Table {table}")
    return None


def tolerances(reported: dict[str, list[Row]], tolerance: str) -> dict[str, float]:
    """metric -> value of one kind of tolerance: close, similar, equal or reproduction."""
    return {
        row["metric"]: float(row["value"])
        for row in reported["tolerances"]
        if row["tolerance"] == tolerance
    }
