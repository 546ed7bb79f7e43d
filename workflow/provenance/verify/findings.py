"""What a verification finds: faults, remarks, and the state of each number."""

import re
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

HOLDS, STALE, MISSING, BROKEN, UNCHECKED = "holds", "stale", "missing", "broken", "unchecked"
"""States of a number, each worse than the one before; UNCHECKED: it was not asked about.

STALE: what is there is what the jobs made, but the workflow would now do something else.
MISSING: something that it comes from is gone, or no record answers for it.
BROKEN: something that it comes from, or the number itself, is not what was made.
"""


@dataclass(frozen=True)
class Fault:
    """Something that is not as it should be.

    what: the file, or the file and the key in it; why: in a few words; state: that of the numbers
    it `reaches` (their ids), STALE, MISSING or BROKEN; records: of the jobs that it is about.
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
    """Something to know that is no fault, such as an edited comment."""

    what: str
    why: str


class Findings:
    """Faults and remarks while they are looked for; what is said twice is kept once."""

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
        """Note a fault; the same one of several jobs is one that reaches all their numbers."""
        fault = Fault(str(what), why, expected, found, state)
        key = (fault.what, why, repr(expected), repr(found), state)
        _, numbers, records = self._faults.setdefault(key, (fault, set(), set()))
        numbers.update(reaches)
        records.update([str(record)] if record else [])

    def remark(self, what: str | Path, why: str) -> None:
        """Note something that is no fault."""
        self._remarks[Remark(str(what), why)] = None

    @property
    def faults(self) -> list[Fault]:
        """The worst first."""
        found = [
            replace(fault, reaches=tuple(sorted(numbers, key=natural)), records=tuple(sorted(of)))
            for fault, numbers, of in self._faults.values()
        ]
        worst = (BROKEN, MISSING, STALE)
        return sorted(found, key=lambda fault: (worst.index(fault.state), fault.what))

    @property
    def remarks(self) -> list[Remark]:
        """In the order in which they were made."""
        return list(self._remarks)


def natural(name: str) -> list[tuple[str, int]]:
    """A key that sorts `table5:2` before `table5:10`."""
    return [(word, int(part or 0)) for word, part in re.findall(r"(\D*)(\d*)", name)]


@dataclass(frozen=True)
class Counts:
    """What was checked: files and their bytes, records, ledgers, numbers; and in how long."""

    files: int = 0
    bytes: int = 0
    records: int = 0
    ledgers: int = 0
    numbers: int = 0
    seconds: float = 0.0


@dataclass(frozen=True)
class Report:
    """What a verification found.

    numbers: the ids of those that were checked. configuration: the file whose workflow the records
    were compared with; None if they were compared with none, and so only what is on disk is known.
    """

    faults: Sequence[Fault]
    remarks: Sequence[Remark]
    counts: Counts
    numbers: frozenset[str] = frozenset()
    configuration: str | None = None
    _of: dict[str, list[Fault]] = field(default_factory=dict, repr=False, compare=False)

    def __post_init__(self) -> None:
        for fault in self.faults:
            for name in fault.reaches:
                self._of.setdefault(name, []).append(fault)

    def faults_of(self, number: str) -> list[Fault]:
        """What is wrong with a number, by its id."""
        return self._of.get(number, [])

    def state_of(self, number: str) -> str:
        """The state of a number, by its id: the worst of its faults."""
        if number not in self.numbers:
            return UNCHECKED
        states = {fault.state for fault in self.faults_of(number)}
        return next((state for state in (BROKEN, MISSING, STALE) if state in states), HOLDS)

    def as_json(self) -> dict[str, Any]:
        """The same for machines."""
        return {
            "holds": not self.faults,
            "configuration": self.configuration,
            "counts": asdict(self.counts),
            "faults": [asdict(fault) for fault in self.faults],
            "remarks": [asdict(remark) for remark in self.remarks],
            "states": {name: self.state_of(name) for name in sorted(self.numbers)},
        }
