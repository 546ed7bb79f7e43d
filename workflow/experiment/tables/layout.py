"""Write a table as CSV, as text for a terminal, and as a ledger of its numbers."""

import re
from collections.abc import Iterable, Mapping

from pandas import DataFrame

from provenance.cells import Cell
from provenance.csv_files import write_csv
from provenance.job import Job
from provenance.ledger import write_ledger

Row = dict[str, str | Cell]


def write_table(job: Job, table: DataFrame, text: str | None = None) -> None:
    """Write a table of strings and cells as a job's `table`, `text` and `ledger`.

    text: for a terminal; by default the table in aligned columns.
    """
    rows = table.to_dict("records")
    write_csv(rows, job.output.table)
    job.output.text.write_text(as_text(table) if text is None else text)
    write_ledger(job, rows)


def as_text(rows: DataFrame | Iterable[Mapping[str, str | Cell]]) -> str:
    """Align columns, numbers to the right; show a Model and its Metric in their first row only."""
    table = DataFrame(rows, dtype=object).map(str)
    right = [table[column].map(_is_number).all() for column in table]
    if "Model" in table:
        repeated = table["Model"] == table["Model"].shift()
        table.loc[repeated, table.columns.intersection(["Model", "Metric"])] = ""
    lines = [tuple(table), *table.itertuples(index=False, name=None)]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    heading, *text = (
        "  ".join(
            cell.rjust(width) if at_right else cell.ljust(width)
            for cell, width, at_right in zip(line, widths, right, strict=True)
        ).rstrip()
        for line in lines
    )
    rule = "  ".join("─" * width for width in widths)
    return "\n".join([heading, rule, *text]) + "\n"


def _is_number(cell: str) -> bool:
    return re.fullmatch(r"([+-]?\d+(\.\d+)?( ?%)?|–)?", cell) is not None
