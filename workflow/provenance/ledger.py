"""Write the ledger of a table or figure: for each number, what is shown and where it comes from.

The ledger lies beside its table (`table5.ledger.json`) and has the same rows; for a figure, a row
is a point. A number is named by its table, its row from 1 and its column: `table5:7:permute`.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from provenance.cells import Cell
from provenance.digest import sha256_of
from provenance.job import Job
from provenance.record import as_text, write_atomically

FORMAT = 1  # of the ledger; raised when a field changes its meaning
Rows = Sequence[Mapping[str, str | Cell]]


def write_ledger(job: Job, rows: Rows) -> None:
    """Write a job's `ledger` output, about its other outputs.

    rows: as shown, all with the same columns; a cell for each number, text for the rest.
    Raises ValueError for a source that is not an input of the job, and for two numbers of one name.
    """
    about = {name: path for name, path in vars(job.destination).items() if name != "ledger"}
    name = job.destination.ledger.name.partition(".")[0]
    cells = [
        {
            "id": f"{name}:{number}:{slug(column)}",
            "row": number,
            "column": column,
            "shown": str(cell),
            **_entry(cell),
        }
        for number, row in enumerate(rows, start=1)
        for column, cell in row.items()
        if isinstance(cell, Cell)
    ]
    names = [cell["id"] for cell in cells]
    if repeated := sorted({each for each in names if names.count(each) > 1}):
        raise ValueError(f"numbers of the same name: {', '.join(repeated)}")
    files = {source["file"] for cell in cells for source in cell["sources"]}
    content = {
        "format": FORMAT,
        "about": {
            key: {"path": str(path), "sha256": sha256_of(getattr(job.output, key))}
            for key, path in about.items()
        },
        "files": {file: _digest(job, file) for file in sorted(files)},
        "columns": list(rows[0]),
        "rows": [[str(value) for value in row.values()] for row in rows],
        "cells": cells,
    }
    write_atomically(job.output.ledger, as_text(content).encode())


def slug(column: str) -> str:
    """Return a column's name as it is used in names of numbers."""
    return re.sub(r"[^a-z0-9]+", "-", column.lower()).strip("-")


def _entry(cell: Cell) -> dict[str, Any]:
    return {
        "rule": cell.rule,
        "raw": cell.raw,
        "derivation": cell.derivation,
        "sources": [
            {"file": str(source.file), "pointer": source.pointer} for source in cell.sources
        ],
        "interval": asdict(cell.interval) if cell.interval else None,
        "paper": asdict(cell.printed) if cell.printed else None,
    }


def _digest(job: Job, file: str) -> str:
    """Return the sha256 of an input, or of a file in a directory that is an input."""
    if file in job.input_digests:
        return job.input_digests[file]
    if any(str(parent) in job.input_digests for parent in Path(file).parents):
        return sha256_of(Path(file))
    raise ValueError(f"{file} is no input of this job, so no number may come from it")
