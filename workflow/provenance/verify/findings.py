"""Collect what a verification finds: faults, remarks, and the state of each number."""

import re
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from provenance.text_format import counted

HOLDS, STALE, MISSING, BROKEN, UNCHECKED = "holds", "stale", "missing", "broken", "unchecked"
"""States of a number, each worse than the one before, except UNCHECKED: not asked about.

STALE: the files are what the jobs made, but the workflow would now do something else.
MISSING: something that it comes from is gone, or no record answers for it.
BROKEN: the number, or something that it comes from, is not what was made.
"""
NAMED_NUMBERS, NAMED_REMARKS = 6, 10  # so many are named in text; the rest are counted


@dataclass(frozen=True)
class Fault:
    """Something that is not as it should be.

    what: the file, or the file and the key in it. why: in a few words. reaches: ids of the numbers
    that depend on it; their state is then `state`. records: of the jobs that it is about.
    """

    what: str
    why: str
    expected: Any
    found: Any
    state: str = BROKEN
    reaches: tuple[str, ...] = ()
    records: tuple[str, ...] = ()


@dataclass(frozen=True)
class Remark:
    """Something to know that is not a fault, such as an edited comment."""

    what: str
    why: str


class Findings:
    """Faults and remarks collected during a verification, each once."""

    def __init__(self) -> None:
        self._faults: dict[tuple, tuple[Fault, set[str], set[str]]] = {}
        self._remarks: dict[Remark, None] = {}

    def fault(
        self,
        what: str | Path,
        why: str,
        expected: Any = None,
        found: Any = None,
        state: str = BROKEN,
        reaches: Iterable[str] = (),
        record: Path | None = None,
    ) -> None:
        """Add a fault; the same fault of several jobs is one that reaches all their numbers."""
        fault = Fault(_named(what), why, expected, found, state)
        key = (fault.what, why, repr(expected), repr(found), state)
        _, numbers, records = self._faults.setdefault(key, (fault, set(), set()))
        numbers.update(reaches)
        records.update([str(record)] if record else [])

    def remark(self, what: str | Path, why: str) -> None:
        """Add something that is not a fault."""
        self._remarks[Remark(_named(what), why)] = None

    @property
    def faults(self) -> list[Fault]:
        """All faults, the worst first."""
        faults = [
            replace(fault, reaches=tuple(sorted(numbers, key=natural)), records=tuple(sorted(of)))
            for fault, numbers, of in self._faults.values()
        ]
        worst = (BROKEN, MISSING, STALE)
        return sorted(faults, key=lambda fault: (worst.index(fault.state), fault.what))

    @property
    def remarks(self) -> list[Remark]:
        """All remarks, in the order in which they were added."""
        return list(self._remarks)


def _named(what: str | Path) -> str:
    """Name a file in one line, whatever its name is."""
    return str(what).replace("\n", "\\n")


def natural(name: str) -> list[tuple[str, int]]:
    """Return a key that sorts `table5:2` before `table5:10`."""
    return [(word, int(part or 0)) for word, part in re.findall(r"(\D*)(\d*)", name)]


@dataclass(frozen=True)
class Counts:
    """How much was checked, and in how many seconds."""

    files: int = 0
    bytes: int = 0
    records: int = 0
    ledgers: int = 0
    numbers: int = 0
    seconds: float = 0.0


@dataclass(frozen=True)
class Report:
    """The result of a verification.

    numbers: ids of those that were checked. configuration: the file whose workflow the records
    were compared with; None if only the files on disk were checked. signed: who signed what.
    """

    faults: Sequence[Fault]
    remarks: Sequence[Remark]
    counts: Counts
    numbers: frozenset[str] = frozenset()
    configuration: str | None = None
    signed: Sequence[str] = ()

    @cached_property
    def by_number(self) -> dict[str, list[Fault]]:
        """Id of a number -> what is wrong with it."""
        faults: dict[str, list[Fault]] = defaultdict(list)
        for fault in self.faults:
            for name in fault.reaches:
                faults[name].append(fault)
        return faults

    def state_of(self, number: str) -> str:
        """Return the state of a number: the worst of its faults."""
        if number not in self.numbers:
            return UNCHECKED
        states = {fault.state for fault in self.by_number.get(number, [])}
        return next((state for state in (BROKEN, MISSING, STALE) if state in states), HOLDS)

    def as_json(self) -> dict[str, Any]:
        """Return the report as JSON."""
        return {
            "holds": not self.faults,
            "configuration": self.configuration,
            "signed": list(self.signed),
            "counts": asdict(self.counts),
            "faults": [asdict(fault) for fault in self.faults],
            "remarks": [asdict(remark) for remark in self.remarks],
            "states": {name: self.state_of(name) for name in sorted(self.numbers)},
        }


def as_text(report: Report) -> str:
    """Format a report: faults with the numbers they reach, remarks, and what was checked."""
    blocks = ["\n".join(_fault(fault)) for fault in report.faults]
    remarks = [
        f"note      {remark.what}: {remark.why}" for remark in report.remarks[:NAMED_REMARKS]
    ]
    if (more := len(report.remarks) - NAMED_REMARKS) > 0:
        remarks.append(f"          and {more} more (--json has all)")
    blocks += ["\n".join(remarks)] * bool(remarks)
    blocks += [f"signed    {line}" for line in report.signed]
    return "\n\n".join([*blocks, _summary(report)])


def _fault(fault: Fault) -> list[str]:
    lines = [f"{fault.state:<9} {fault.what}", f"          {fault.why}"]
    expected, found = brief(fault.expected), brief(fault.found)
    lines.append(f"          expected {expected}, found {found}")
    if len(fault.records) > 1:
        lines.append(f"          of {len(fault.records)} jobs")
    lines.append(f"          reaches {_listed(fault.reaches)}")
    return lines


def _listed(numbers: tuple[str, ...]) -> str:
    """Name the numbers of tables first: readers know those."""
    if not numbers:
        return "no number"
    order = sorted(numbers, key=lambda name: not name.startswith("table"))
    more = len(order) - NAMED_NUMBERS
    return ", ".join(order[:NAMED_NUMBERS]) + (f" and {more} more" if more > 0 else "")


def brief(value: object) -> str:
    """Shorten a value; a digest to its first 12 digits."""
    if value is None:
        return "nothing"
    if isinstance(value, str) and len(value) == 64 and not value.strip("0123456789abcdef"):
        return value[:12]
    text = _named(value) if isinstance(value, str) else repr(value)
    return text if len(text) <= 200 else f"{text[:200]}…"


def _summary(report: Report) -> str:
    counts, states = report.counts, [report.state_of(name) for name in report.numbers]
    by_state = ", ".join(
        f"{states.count(state)} {word}"
        for state, word in ((HOLDS, "hold"), (STALE, STALE), (MISSING, MISSING), (BROKEN, BROKEN))
        if state in states
    )
    against = f"the jobs of {report.configuration}" if report.configuration else "no configuration"
    return (
        f"{counted(len(report.faults), 'fault')}. Checked {counted(counts.files, 'file')} "
        f"({_size(counts.bytes)}), {counted(counts.records, 'record')}, "
        f"{counted(counts.ledgers, 'ledger')}, {counted(counts.numbers, 'number')} "
        f"({by_state or 'none'}) against {against}, in {counts.seconds:.1f} s."
    )


def _size(n_bytes: int) -> str:
    return f"{n_bytes / 1e9:.1f} GB" if n_bytes >= 1e9 else f"{n_bytes / 1e6:.1f} MB"
