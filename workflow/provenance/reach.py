"""Which numbers come from a file or a job: by these a fault is told."""

from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path

from provenance.numbers import Ledger, Number
from provenance.records import Evidence, Record


class Reach:
    """What lies behind each number, and the numbers that lie before each file and record."""

    def __init__(self, evidence: Evidence, ledgers: Iterable[Ledger] = ()) -> None:
        self._evidence = evidence
        self._makers: dict[str, Record | None] = {}
        self._behind_path: dict[str, frozenset[str]] = {}
        self._reached: dict[str, set[str]] = defaultdict(set)
        self.behind: dict[str, frozenset[str]] = {}  # id -> paths of files and of records
        for ledger in ledgers:
            for number in ledger.numbers:
                self.behind[number.id] = found = self.behind_number(number)
                for path in found:
                    self._reached[path].add(number.id)

    def of(self, *paths: str | Path) -> set[str]:
        """The ids of all numbers that have to do with any of these files or records."""
        return set().union(*(self._reached.get(str(path), ()) for path in paths))

    def behind_path(self, path: str) -> frozenset[str]:
        """All files and records that a file comes from, itself included."""
        if path not in self._behind_path:
            self._behind_path[path] = frozenset([path])  # if it should come from itself
            found, record = {path}, self._maker(path)
            if record:
                folders = {str(each) for each in Path(path).parents}
                found |= {str(record.file), *folders.intersection(record.outputs)}
                found.update(*(self.behind_path(each) for each in record.inputs))
            self._behind_path[path] = frozenset(found)
        return self._behind_path[path]

    def behind_number(self, number: Number) -> frozenset[str]:
        """Its own sources and what they come from; the table, its job, and what that read besides.

        The job reads, too, what other numbers of the table come from: that is left out.
        """
        found = {str(number.ledger.file), *number.ledger.about}
        found.update(*(self.behind_path(file) for file in number.files))
        if maker := self._maker(str(number.ledger.file)):
            found.add(str(maker.file))
            makers = {path: self._maker(path) for path in maker.inputs}
            found |= {path for path, of in makers.items() if of is None or str(of.file) in found}
        return frozenset(found)

    def _maker(self, path: str) -> Record | None:
        """Asked many times of the same file."""
        if path not in self._makers:
            self._makers[path] = self._evidence.maker(path)
        return self._makers[path]
