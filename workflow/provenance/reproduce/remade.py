"""A number that was made again, and the jobs behind it, beside the first ones."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from provenance.cells import DERIVATIONS, JOB, Source, shown
from provenance.numbers import Number, read_ledgers
from provenance.records import Evidence, Record, embedded
from provenance.reproduce.agreement import Agreement, Pair, counterpart

Compared = Sequence[tuple[Pair | None, Agreement]]  # no pair where the first run has no record


def made_files(number: Number, evidence: Evidence) -> list[str]:
    """What has to be made again: the outputs that a number is read from, or the table itself.

    Raises ValueError if no job makes it: a number that is copied from the repository.
    """
    if number.cell["derivation"] == JOB:  # only the table's own job can compute it
        return [*number.ledger.about, str(number.ledger.file)]
    files = [file for file in number.files if not embedded(file)]
    makers = {file: evidence.maker(file) for file in files}
    if not files:
        raise ValueError(f"{number.id} stands in {', '.join(number.files)}: no job makes that")
    outputs = [_output_with(file, maker) for file, maker in makers.items()]
    return list(dict.fromkeys(outputs))


def _output_with(file: str, maker: Record | None) -> str:
    """The output that a file is, or is in: Snakemake knows a directory only as a whole."""
    within = [str(each) for each in (Path(file), *Path(file).parents)]
    return next((path for path in within if maker and path in maker.outputs), file)


def compared(
    targets: Sequence[str], old: Evidence, new: Evidence, folders: tuple[str, str]
) -> Compared:
    """Each job of the second run beside the first's, each after those it builds on."""
    found: list[tuple[Pair | None, Agreement]] = []
    tolerances: dict[Path, dict[str, float]] = {}
    back = (folders[1], folders[0])
    for record in new.ancestry(*(counterpart(target, folders) for target in targets)):
        before = [new.maker(path) for path in record.inputs]
        inherited: dict[str, float] = {}
        for each in (maker for maker in before if maker):
            for name, tolerance in tolerances.get(each.file, {}).items():
                inherited[name] = max(inherited.get(name, 0.0), tolerance)
        first = old.records.get(Path(counterpart(str(record.file), back)))
        if first is None:
            found.append((None, Agreement(None, f"the first run has no record of {record}")))
            continue
        pair = Pair(first, record, folders, inherited)
        tolerances[record.file] = pair.tolerances
        found.append((pair, pair.agreement()))
    return found


@dataclass(frozen=True)
class Remade:
    """A number of two runs, unrounded and as shown; agreement: whether it may differ so."""

    before: Any
    after: Any
    shown_before: str
    shown_after: str
    agreement: Agreement


def remade(number: Number, compared: Compared, folders: tuple[str, str]) -> Remade:
    """The number as it comes from the files of the second run."""
    cell = number.cell
    if cell["derivation"] == JOB:
        ledgers, _ = read_ledgers(Path(folders[1]))
        again = next(each for ledger in ledgers for each in ledger.numbers if each.id == number.id)
        after, text = again.cell["raw"], again.cell["shown"]
    else:
        sources = [
            Source(Path(counterpart(source["file"], folders)), source["pointer"])
            for source in cell["sources"]
        ]
        after = DERIVATIONS[cell["derivation"]]([source.value() for source in sources])
        text = shown(after, cell["rule"])
    agreement = _agreement(cell, after, compared, folders)
    return Remade(cell["raw"], after, cell["shown"], text, agreement)


def _agreement(
    cell: dict[str, Any], after: Any, compared: Compared, folders: tuple[str, str]
) -> Agreement:
    if cell["raw"] == after:
        return Agreement(True, "the same number")
    if cell["derivation"] == JOB:
        return Agreement(None, "another number; what it may differ by, no rule declares")
    for source in cell["sources"]:
        first = Source(Path(source["file"]), source["pointer"])
        second = Source(Path(counterpart(source["file"], folders)), source["pointer"])
        try:
            old, new = first.value(), second.value()
        except (OSError, ValueError) as error:
            return Agreement(None, f"another number, and what it came from is gone: {error}")
        metric = source["pointer"].rpartition("/")[2]
        tolerance = _tolerance(metric, source["file"], compared)
        if old != new and (tolerance is None or not abs(old - new) <= tolerance):
            allowed = f"may differ by {tolerance:g}" if tolerance else "may not differ"
            return Agreement(False, f"another number: {metric} {old!r} -> {new!r} {allowed}")
    return Agreement(True, "within the tolerance that rules declare")


def _tolerance(metric: str, file: str, compared: Compared) -> float | None:
    pairs = (pair for pair, _ in compared if pair and file in pair.old.outputs)
    return next((pair.tolerances.get(metric) for pair in pairs), None)
