"""Check ledgers against the tables that they are about, and numbers against their sources."""

import csv
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from provenance.cells import DERIVATIONS, JOB, Source, shown
from provenance.csv_files import read_csv
from provenance.hashing import MAX_BYTES
from provenance.ledger import slug
from provenance.numbers import Ledger, Number
from provenance.verify.findings import Findings


def check_table(ledger: Ledger, findings: Findings) -> None:
    """Check what a table's CSV file shows against the ledger's rows, cell by cell."""
    table = ledger.content["about"].get("table")
    for row, column, expected, there in _differing_cells(ledger, table and table["path"]):
        what, why = f"{table['path']}: row {row}, {column}", "not what the ledger shows"
        findings.fault(what, why, expected, there, reaches=_numbers_at(ledger, row, column))


def check_number(number: Number, findings: Findings) -> None:
    """Check a number's text against its raw value, its row and name; that against its sources.

    Raises nothing: a number that cannot be computed again is a fault.
    """
    cell, ledger = number.cell, number.ledger

    def fault(why: str, expected: Any, there: Any) -> None:
        findings.fault(f"{ledger.file}: {number.id}", why, expected, there, reaches=[number.id])

    try:
        if (text := shown(cell["raw"], cell["rule"])) != cell["shown"]:
            fault("what is shown is not the raw value, rounded", text, cell["shown"])
        if cell["shown"] != number.row[cell["column"]]:
            fault("the ledger's row shows something else", cell["shown"], number.row)
        if number.id != f"{ledger.name}:{cell['row']}:{slug(cell['column'])}":
            fault("the name is not that of its row and column", cell["column"], number.id)
        for file in number.files:
            if file not in ledger.content["files"]:
                fault("the ledger has no digest of a source", file, None)
        if cell["derivation"] != JOB:  # only its job can compute such a number
            raw = _recomputed(cell)
            if raw != cell["raw"]:
                fault("the raw value is not what its sources give", raw, cell["raw"])
    except Exception as error:  # a cell that somebody altered may raise anything
        why, reason = "cannot be computed again", f"{type(error).__name__}: {error}"
        fault(why, cell.get("raw"), reason)


def _recomputed(cell: dict[str, Any]) -> Any:
    sources = [Source(Path(each["file"]), each["pointer"]) for each in cell["sources"]]
    if any(source.file.stat().st_size > MAX_BYTES for source in sources):
        raise ValueError(f"it comes from a file of more than {MAX_BYTES:,} bytes")
    values = [source.value() for source in sources]
    return json.loads(json.dumps(DERIVATIONS[cell["derivation"]](values)))


def altered_numbers(ledger: Ledger, path: str) -> list[str]:
    """Return the numbers that an altered file shows otherwise; all, if that cannot be told."""
    table = ledger.content["about"].get("table", {}).get("path")
    cells = _differing_cells(ledger, path) if path == table else []
    numbers = [name for row, column, *_ in cells for name in _numbers_at(ledger, row, column)]
    return numbers or [number.id for number in ledger.numbers]


def _numbers_at(ledger: Ledger, row: int, column: str) -> Iterable[str]:
    """Return the number in a cell; for a label, all numbers of its row."""
    in_row = ledger.by_row[row]
    there = [number.id for number in in_row if number.cell["column"] == column]
    return there or [number.id for number in in_row]


def _differing_cells(
    ledger: Ledger, table: str | None
) -> list[tuple[int, str, str | None, str | None]]:
    """List row, column, the ledger's text and the table's, where they differ; [] if shapes do."""
    columns, rows = ledger.content["columns"], ledger.content["rows"]
    try:
        if table and Path(table).stat().st_size > MAX_BYTES:
            return []
        there = [list(row.values()) for row in read_csv(Path(table))] if table else []
    except (OSError, ValueError, csv.Error):
        return []
    if [len(row) for row in there] != [len(row) for row in rows]:
        return []  # no single cell is altered: the digest of the file tells
    return [
        (n, column, expected, found)
        for n, (ours, theirs) in enumerate(zip(rows, there, strict=True), start=1)
        for column, expected, found in zip(columns, ours, theirs, strict=False)
        if expected != found
    ]
