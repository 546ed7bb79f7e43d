"""Whether tables and figures are what their ledgers say, and each number what its sources say."""

import json
from pathlib import Path
from typing import Any

from provenance.cells import DERIVATIONS, JOB, Source, shown
from provenance.csv_files import read_csv
from provenance.hashing import Digests
from provenance.ledger import slug
from provenance.numbers import Ledger, Number
from provenance.records import Evidence
from provenance.verify.findings import BROKEN, MISSING, Findings


def check_ledger(ledger: Ledger, evidence: Evidence, digests: Digests, findings: Findings) -> None:
    """A ledger's job, the files it is about, and those that its numbers come from."""
    every = [number.id for number in ledger.numbers]
    maker = evidence.maker(ledger.file)
    if maker is None:
        why = "no record answers for the ledger"
        findings.fault(ledger.file, why, "a record", None, MISSING, every)
    for path, written in ledger.about.items():
        made = maker.outputs.get(path) if maker else None
        if maker and made != written:
            why = f"the ledger and its job's record disagree on {path}"
            findings.fault(ledger.file, why, made, written, BROKEN, every)
        elif not maker and (found := digests.of[path]) != written:
            state = MISSING if found is None else BROKEN
            reached = altered(ledger, path)
            findings.fault(path, "not what its ledger is about", written, found, state, reached)
    for path, read in ledger.content["files"].items():
        of_path = evidence.maker(path)
        told = (maker and maker.inputs.get(path), of_path and of_path.outputs.get(path))
        if read in told:
            continue  # then the checks of that record tell
        if (found := digests.of[path]) != read:
            reached = [number.id for number in ledger.numbers if path in number.files]
            state = MISSING if found is None else BROKEN
            findings.fault(path, f"not what {ledger.name} was made of", read, found, state, reached)


def check_number(number: Number, findings: Findings) -> None:
    """A number's text against its raw value, its row and its table; that against its sources.

    Raises nothing: what cannot be computed is a fault.
    """
    cell, where = number.cell, f"{number.ledger.file}: {number.id}"

    def differ(why: str, expected: Any, found: Any) -> None:
        findings.fault(where, why, expected, found, BROKEN, [number.id])

    try:
        text = shown(cell["raw"], cell["rule"])
        if text != cell["shown"]:
            differ("what is shown is not the raw value, rounded", text, cell["shown"])
        if cell["shown"] != number.row[cell["column"]]:
            differ("the ledger's row shows something else", cell["shown"], number.row)
        if cell["id"] != f"{number.ledger.name}:{cell['row']}:{slug(cell['column'])}":
            differ("the name is not that of its row and column", cell["column"], cell["id"])
        for file in number.files:
            if file not in number.ledger.content["files"]:
                differ("the ledger has no digest of a source", file, None)
        if cell["derivation"] != JOB:  # of those, only the digests can tell
            raw = _recomputed(cell)
            if raw != cell["raw"]:
                differ("the raw value is not what its sources give", raw, cell["raw"])
    except (KeyError, ValueError, TypeError, IndexError, ArithmeticError, OSError) as error:
        differ("cannot be computed again", cell.get("raw"), f"{type(error).__name__}: {error}")


def check_table(ledger: Ledger, findings: Findings) -> None:
    """What a table's CSV file shows against the ledger's rows, cell by cell."""
    table = ledger.content["about"].get("table")
    for row, column, expected, found in _differences(ledger, Path(table["path"])) if table else []:
        known = _at(ledger, row, column)
        what = f"{table['path']}: row {row}, {column}"
        findings.fault(what, "not what the ledger shows", expected, found, BROKEN, known)


def altered(ledger: Ledger, path: str) -> list[str]:
    """The numbers that a file of a table or figure shows otherwise; all, if that does not tell."""
    table = ledger.content["about"].get("table", {}).get("path")
    cells = _differences(ledger, Path(path)) if path == table else []
    found = [name for row, column, *_ in cells for name in _at(ledger, row, column)]
    return found or [number.id for number in ledger.numbers]


def _at(ledger: Ledger, row: int, column: str) -> list[str]:
    """The number there; where there is a label, all numbers of the row."""
    of_row = [number for number in ledger.numbers if number.cell["row"] == row]
    there = [number.id for number in of_row if number.cell["column"] == column]
    return there or [number.id for number in of_row]


def _recomputed(cell: dict[str, Any]) -> Any:
    values = [Source(Path(each["file"]), each["pointer"]).value() for each in cell["sources"]]
    return json.loads(json.dumps(DERIVATIONS[cell["derivation"]](values)))


def _differences(ledger: Ledger, table: Path) -> list[tuple[int, str, str | None, str | None]]:
    """Row, column, the ledger's text and the table's, where they differ; [] if shapes do."""
    columns, rows = ledger.content["columns"], ledger.content["rows"]
    try:
        there = [list(row.values()) for row in read_csv(table)]
    except (OSError, ValueError):
        return []
    if [len(row) for row in there] != [len(row) for row in rows]:
        return []  # no cell is to blame: the digest of the file tells
    return [
        (number, column, said, found)
        for number, (ours, theirs) in enumerate(zip(rows, there, strict=True), start=1)
        for column, said, found in zip(columns, ours, theirs, strict=True)
        if said != found
    ]
