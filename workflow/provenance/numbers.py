"""The numbers that ledgers answer for, and how a person names one of them."""

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from provenance.ledger import slug


@dataclass(frozen=True)
class Ledger:
    """What a table or a figure shows. file: relative to the repository; content: see ledger.py."""

    file: Path
    content: dict[str, Any]

    @property
    def name(self) -> str:
        """`table5`, as the names of its numbers begin."""
        return self.file.name.partition(".")[0]

    @property
    def about(self) -> dict[str, str]:
        """Path -> sha256 of the table, or of the figure's files."""
        return {each["path"]: each["sha256"] for each in self.content["about"].values()}

    @cached_property
    def numbers(self) -> list["Number"]:
        """Its numbers, row after row."""
        return [Number(self, cell) for cell in self.content["cells"]]


@dataclass(frozen=True)
class Number:
    """One number of a ledger; cell: its entry there."""

    ledger: Ledger
    cell: dict[str, Any]

    @property
    def id(self) -> str:
        """Its short name: `table5:7:permute`."""
        return self.cell["id"]

    @property
    def files(self) -> list[str]:
        """The files that it comes from, each once."""
        return list(dict.fromkeys(source["file"] for source in self.cell["sources"]))

    @property
    def row(self) -> dict[str, str]:
        """Its row as it is shown, by column."""
        shown = self.ledger.content["rows"][self.cell["row"] - 1]
        return dict(zip(self.ledger.content["columns"], shown, strict=True))

    def __str__(self) -> str:
        words = [value for column, value in self.row.items() if column != self.cell["column"]]
        where = " ".join(word for word in words[:4] if word)
        return f"{self.id:30} {self.cell['shown']:>10}   {where} · {self.cell['column']}"


def read_ledgers(results: Path, root: Path = Path()) -> tuple[list[Ledger], list[Path]]:
    """All ledgers below a folder of results, and the files that hold none that can be read."""
    ledgers, broken = [], []
    for file in sorted((root / results).rglob("*.ledger.json")):
        name = file.relative_to(root)
        try:
            ledger = Ledger(name, json.loads(file.read_text()))
            _ = ledger.about, ledger.numbers, ledger.content["rows"], ledger.content["files"]
            ledgers.append(ledger)
        except (ValueError, KeyError, TypeError, AttributeError):
            broken.append(name)
    return ledgers, broken


def named(
    ledgers: Iterable[Ledger], name: str, row: str | None = None, column: str | None = None
) -> Number:
    """The number of a short name; or of a table or figure, a row and a column.

    name: `table5:7:permute`, or the path of a table, a figure or its ledger. row: its number, or
    words that stand in no other row. column: its name, in capitals or not.
    Raises ValueError listing the candidates if it is none or more than one.
    """
    ledgers = list(ledgers)
    if not ledgers:
        raise ValueError("there are no ledgers here, so nothing answers for any number")
    if ":" in name:
        numbers = [number for ledger in ledgers for number in ledger.numbers]
        table = name.partition(":")[0]
        near = [number for number in numbers if number.ledger.name == table] or numbers
        return _only([number for number in numbers if number.id == name], near, name)
    (ledger,) = [ledger for ledger in ledgers if _is_about(ledger, Path(name))] or [None]
    if ledger is None:
        known = ", ".join(ledger.name for ledger in ledgers)
        raise ValueError(f"{name} has no ledger; there are ledgers of {known}")
    chosen = [number for number in ledger.numbers if row is None or _in_row(number, row)]
    if column is not None:
        of_rows, wanted = chosen, slug(column)
        chosen = [number for number in of_rows if slug(number.cell["column"]) == wanted]
        return _only(chosen, of_rows or ledger.numbers, f"{row or 'any row'}, {column}")
    return _only(chosen, chosen or ledger.numbers, row or name)


def _is_about(ledger: Ledger, path: Path) -> bool:
    return str(path) in (ledger.name, str(ledger.file)) or any(
        Path(about) == path for about in ledger.about
    )


def _in_row(number: Number, wanted: str) -> bool:
    """Whether a row has this number, or all of these words."""
    if wanted.isdecimal():
        return number.cell["row"] == int(wanted)
    words = {word.lower() for text in number.row.values() for word in text.split()}
    return all(word.lower() in words for word in wanted.split())


def _only(found: Sequence[Number], near: Sequence[Number], wanted: str) -> Number:
    if len(found) == 1:
        return found[0]
    said = "is not one of the numbers" if not found else f"is {len(found)} numbers"
    listed = "\n  ".join(str(number) for number in (found or near)[:40])
    more = len(found or near) - 40
    listed += f"\n  … and {more} more" if more > 0 else ""
    raise ValueError(f"{wanted!r} {said}; there are\n  {listed}")
