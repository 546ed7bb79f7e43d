"""What a verification is about: everything, or what some targets come from."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from provenance.numbers import Ledger, Number, named
from provenance.reach import Reach
from provenance.records import Evidence, Record


@dataclass(frozen=True)
class Scope:
    """The records, ledgers and numbers to check. paths: the files behind them; None: all."""

    records: Sequence[Record]
    ledgers: Sequence[Ledger]
    numbers: Sequence[Number]
    paths: frozenset[str] | None = None

    @property
    def whole(self) -> bool:
        """Whether it is everything."""
        return self.paths is None

    def holds(self, path: str) -> bool:
        """Whether a file of one of its records is to be checked."""
        return self.paths is None or path in self.paths


def chosen(
    targets: Iterable[str], evidence: Evidence, ledgers: Sequence[Ledger], reach: Reach
) -> Scope:
    """What targets come from; everything without any.

    Raises ValueError for one that is neither number nor table nor a file of which a record speaks.
    """
    targets = list(targets)
    if not targets:
        every = [number for ledger in ledgers for number in ledger.numbers]
        return Scope(list(evidence.records.values()), ledgers, every)
    numbers: dict[str, Number] = {}
    paths: set[str] = set()
    for target in targets:
        of_target = _numbers(target, ledgers)
        numbers |= {number.id: number for number in of_target}
        paths.update(*(reach.behind[number.id] for number in of_target))
        if not of_target:
            paths |= _behind(target, evidence, reach)
    about = {number.ledger.file for number in numbers.values()}
    return Scope(
        [record for file, record in evidence.records.items() if str(file) in paths],
        [ledger for ledger in ledgers if ledger.file in about],
        list(numbers.values()),
        frozenset(paths),
    )


def _numbers(target: str, ledgers: Sequence[Ledger]) -> list[Number]:
    """The number of a name, or those of a table or figure; none for another file."""
    if ":" in target:
        return [named(ledgers, target)]
    for ledger in ledgers:
        known = {ledger.name, str(ledger.file), *ledger.about}
        if str(Path(target)) in known:
            return ledger.numbers
    return []


def _behind(target: str, evidence: Evidence, reach: Reach) -> frozenset[str]:
    path = Path(target)
    if evidence.maker(path):
        return reach.behind_path(str(path))
    below = [file for file in evidence.records if path in file.parents]
    if below:
        return frozenset().union(*(reach.behind_path(str(file)) for file in below)) | {
            output for file in below for output in evidence.records[file].outputs
        }
    raise ValueError(f"no record says what made {target}, and it is neither number nor table")
