"""How a table is written: as CSV, as text for a terminal, and as a ledger of its numbers."""

import re
from collections.abc import Mapping, Sequence

from provenance.cells import Cell
from provenance.csv_files import write_csv
from provenance.job import Job
from provenance.ledger import write_ledger

Row = dict[str, str | Cell]


def write_table(job: Job, rows: Sequence[Row]) -> None:
    """Write rows that have the same columns as a job's `table`, `text` and `ledger`."""
    write_csv(rows, job.output.table)
    job.output.text.write_text(as_text(rows))
    write_ledger(job, rows)


def as_text(rows: Sequence[Mapping[str, str | Cell]]) -> str:
    """Rows as aligned columns; numbers to the right, and a Model named in its first row only."""
    rows = [{column: str(value) for column, value in row.items()} for row in rows]
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
