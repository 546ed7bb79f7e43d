"""Read the ledgers of a run: its numbers, what they are called, and what they depend on."""

import re
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from types import NoneType
from typing import Any

from provenance.ledger import slug
from provenance.records import (
    FILE,
    Mapped,
    Record,
    Records,
    a_line,
    a_number,
    a_path,
    is_nested,
    read_all,
    read_json,
)


def a_rule(value: Any) -> bool:
    """Return whether a value is a rounding rule (provenance.cells.shown) of bounded width."""
    return isinstance(value, str) and not re.search(r"\{[^}]*(\d{3}|[\[!_{])", value)


SHAPE = {  # of a ledger; see provenance.ledger
    "about": Mapped(FILE),
    "files": Mapped(str, keys=a_path),
    "columns": [a_line],
    "rows": [[a_line]],
    "cells": [
        {
            **dict.fromkeys(("id", "column", "shown", "derivation"), a_line),
            "rule": a_rule,
            "row": int,
            "raw": object,
            "sources": [{"file": a_path, "pointer": str}],
            "interval": (
                NoneType,
                {**dict.fromkeys(("low", "high", "confidence"), a_number), "method": str},
            ),
            "paper": (NoneType, {"value": str, "where": str}),
        }
    ],
}


@dataclass(frozen=True)
class Ledger:
    """The ledger of a table or a figure.

    file: relative to the repository. content: of this module's SHAPE; see provenance.ledger.
    """

    file: Path
    content: dict[str, Any]

    @property
    def name(self) -> str:
        """The name of the table or figure: `table5`."""
        return name_of(self.file)

    @property
    def about(self) -> dict[str, str]:
        """Path -> sha256 of the table, or of the figure's files."""
        return {each["path"]: each["sha256"] for each in self.content["about"].values()}

    @property
    def called(self) -> set[str]:
        """The names that users may give it: its own, its path, or a path of the table or figure."""
        return {self.name, str(self.file), *self.about}

    @cached_property
    def numbers(self) -> list["Number"]:
        """Its numbers, row after row."""
        return [Number(self, cell) for cell in self.content["cells"]]

    @cached_property
    def rows(self) -> list[dict[str, str]]:
        """Its rows as shown, by column."""
        columns, rows = self.content["columns"], self.content["rows"]
        return [dict(zip(columns, row, strict=True)) for row in rows]

    @cached_property
    def by_row(self) -> dict[int, list["Number"]]:
        """Its numbers by row, counted from 1."""
        rows: dict[int, list[Number]] = defaultdict(list)
        for number in self.numbers:
            rows[number.cell["row"]].append(number)
        return rows

    @cached_property
    def by_source(self) -> dict[str, list["Number"]]:
        """Its numbers by each file that they come from."""
        sources: dict[str, list[Number]] = defaultdict(list)
        for number in self.numbers:
            for file in number.files:
                sources[file].append(number)
        return sources


@dataclass(frozen=True)
class Number:
    """A number of a ledger. cell: its entry there."""

    ledger: Ledger
    cell: dict[str, Any]

    @property
    def id(self) -> str:
        """Its short name: `table5:7:permute`."""
        return self.cell["id"]

    @property
    def files(self) -> list[str]:
        """The files that it is computed from, each once."""
        return list(dict.fromkeys(source["file"] for source in self.cell["sources"]))

    @property
    def row(self) -> dict[str, str]:
        """Its row as shown, by column."""
        return self.ledger.rows[self.cell["row"] - 1]

    @property
    def labels(self) -> list[str]:
        """The first texts beside it in its row, without empty ones."""
        texts = [text for column, text in self.row.items() if column != self.cell["column"]]
        return [text for text in texts[:4] if text]

    def __str__(self) -> str:
        where = f"{' '.join(self.labels)} · {self.cell['column']}"
        return f"{self.id:30} {self.cell['shown']:>10}   {where}"


def name_of(ledger: Path) -> str:
    """Return the name of the table or figure that a ledger file is about: `table5`."""
    return ledger.name.partition(".")[0]


def read_ledger(file: Path) -> dict[str, Any]:
    """Read the content of a ledger. Raises ValueError, in words, if the file holds none."""
    content = read_json(file, SHAPE)
    columns, rows = set(content["columns"]), content["rows"]
    if any(len(row) != len(content["columns"]) for row in rows):
        raise ValueError("a row does not have a text for each column")
    for cell in content["cells"]:
        if not (0 < cell["row"] <= len(rows) and cell["column"] in columns):
            raise ValueError(f"{cell['id']} is in no row and column")
    return content


def read_ledgers(results: Path, root: Path = Path()) -> tuple[list[Ledger], list[Path]]:
    """Return the ledgers of a folder of results, and the files that cannot be read as one.

    Without those of other results in this folder.
    """
    found, broken = read_all(results, root, "*.ledger.json", read_ledger)
    own = {file for file in (*found, *broken) if not is_nested(file, results, root)}
    ledgers = [Ledger(file, content) for file, content in found.items() if file in own]
    return ledgers, [file for file in broken if file in own]


def ledger_called(ledgers: Iterable[Ledger], name: str) -> Ledger | None:
    """Return the ledger with a name: its own, its path, or a path of its table or figure."""
    return next((each for each in ledgers if str(Path(name)) in each.called), None)


def numbers_of(ledgers: Iterable[Ledger]) -> list[Number]:
    """Return the numbers of all tables and figures."""
    return [number for ledger in ledgers for number in ledger.numbers]


def named(
    ledgers: Iterable[Ledger], name: str, row: str | None = None, column: str | None = None
) -> Number:
    """Return the number with a short name; or that of a table or figure, a row and a column.

    name: `table5:7:permute`, or the path of a table, a figure or its ledger. row: its number, or
    words that are in no other row. column: its name, in capitals or not.
    Raises ValueError listing the candidates if no number fits, or more than one.
    """
    ledgers = list(ledgers)
    if not ledgers:
        raise ValueError("there are no ledgers here, so nothing answers for any number")
    if ":" in name:
        numbers = numbers_of(ledgers)
        table = name.partition(":")[0]
        near = [number for number in numbers if number.ledger.name == table] or numbers
        return _only([number for number in numbers if number.id == name], near, name)
    ledger = ledger_called(ledgers, name)
    if ledger is None:
        known = ", ".join(ledger.name for ledger in ledgers)
        raise ValueError(f"{name} has no ledger; there are ledgers of {known}")
    chosen = [number for number in ledger.numbers if row is None or _in_row(number, row)]
    if column is not None:
        in_rows, wanted = chosen, slug(column)
        chosen = [number for number in in_rows if slug(number.cell["column"]) == wanted]
        return _only(chosen, in_rows or ledger.numbers, f"{row or 'any row'}, {column}")
    return _only(chosen, chosen or ledger.numbers, row or name)


def _in_row(number: Number, wanted: str) -> bool:
    """Return whether a number's row has this number, or all of these words."""
    if wanted.isdecimal():
        return number.cell["row"] == int(wanted)
    words = {word.lower() for text in number.row.values() for word in text.split()}
    return all(word.lower() in words for word in wanted.split())


def _only(fitting: Sequence[Number], near: Sequence[Number], wanted: str) -> Number:
    if len(fitting) == 1:
        return fitting[0]
    why = "is not one of the numbers" if not fitting else f"is {len(fitting)} numbers"
    candidates = fitting or near
    listed = "\n  ".join(str(number) for number in candidates[:40])
    more = len(candidates) - 40
    listed += f"\n  … and {more} more" if more > 0 else ""
    raise ValueError(f"{wanted!r} {why}; there are\n  {listed}")


class Reach:
    """The dependencies of numbers on files and records, in both directions.

    behind: id of a number -> paths of the files and records that it depends on.
    """

    def __init__(self, records: Records, ledgers: Iterable[Ledger] = ()) -> None:
        self._records = records
        self._makers: dict[str, Record | None] = {}
        self._behind_path: dict[str, frozenset[str]] = {}
        self._reached: dict[str, set[str]] = defaultdict(set)
        self.behind: dict[str, frozenset[str]] = {}
        for ledger in ledgers:
            for number in ledger.numbers:
                self.behind[number.id] = behind = self.behind_number(number)
                for path in behind:
                    self._reached[path].add(number.id)

    def numbers(self, *paths: str | Path) -> set[str]:
        """Return the ids of all numbers that depend on any of these files or records."""
        return set().union(*(self._reached.get(str(path), ()) for path in paths))

    def behind_path(self, path: str) -> frozenset[str]:
        """Return all files and records that a file comes from, itself included."""
        if path not in self._behind_path:
            self._behind_path[path] = frozenset([path])  # in case it comes from itself
            behind, record = {path}, self._maker(path)
            if record:
                folders = {str(each) for each in Path(path).parents}
                behind |= {str(record.file), *folders.intersection(record.outputs)}
                behind.update(*(self.behind_path(each) for each in record.inputs))
            elif silent := self._records.silent_record(path):
                behind.add(str(silent))
            self._behind_path[path] = frozenset(behind)
        return self._behind_path[path]

    def behind_number(self, number: Number) -> frozenset[str]:
        """Return a number's sources and all behind them, its table, and that table's job.

        Of what that job read, only this number's part counts, and what all its numbers share.
        """
        shown = (str(number.ledger.file), *number.ledger.about)
        behind = set(shown)
        behind.update(*(self.behind_path(file) for file in number.files))
        behind.update(str(file) for file in map(self._records.silent_record, shown) if file)
        if maker := self._maker(str(number.ledger.file)):
            behind.add(str(maker.file))
            for path in maker.inputs:
                made_by = self._maker(path)
                if made_by is None or str(made_by.file) in behind:
                    behind.add(path)
        return frozenset(behind)

    def _maker(self, path: str) -> Record | None:
        if path not in self._makers:  # looked up often
            self._makers[path] = self._records.maker(path)
        return self._makers[path]
