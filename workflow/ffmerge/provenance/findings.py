"""What a verification finds: faults, remarks, and the state of each number."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
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

    what: the file, or the file and the key in it; state: that of the numbers it `reaches` (their
    ids), STALE, MISSING or BROKEN; why: in a few words.
    """

    what: str
    why: str
    expected: Any
    found: Any
    state: str = BROKEN
    reaches: tuple[str, ...] = ()


@dataclass(frozen=True)
class Remark:
    """Something to know that is no fault, such as an edited comment."""

    what: str
    why: str


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
