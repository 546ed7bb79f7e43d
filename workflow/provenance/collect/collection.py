"""Select what belongs together: tables, figures, the records behind them, and the files to copy."""

import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from provenance.hashing import has_holes
from provenance.numbers import Ledger, read_ledgers
from provenance.project import PROJECT
from provenance.records import Record, Records, a_source_file, is_elsewhere, is_inside

READABLE = {".csv", ".html", ".json", ".md", ".patch", ".pdf", ".png", ".txt", ".yaml"}
"""Suffixes of small files that hold or explain numbers; other files hold weights or data."""
NOT_COLLECTED = ("__pycache__", ".sif", ".partial", ".pyc")  # endings of caches and images


@dataclass(frozen=True)
class Collection:
    """Tables and figures with all that answers for them.

    targets: their paths, relative to the repository as all paths here. ancestry: the records of
    all jobs behind them, each after those it builds on. weights: whether to copy models and data.
    """

    records: Records
    ledgers: Sequence[Ledger]
    targets: Sequence[str]
    ancestry: Sequence[Record]
    weights: bool = False

    @cached_property
    def recorded(self) -> dict[str, str]:
        """Path -> sha256 of every file that a job read or wrote, or a number comes from.

        Where they disagree, the job that made the file is right.
        """
        known: dict[str, str] = {}
        for ledger in self.ledgers:
            known |= ledger.content["files"]  # some are in a directory that a job made
        for record in self.ancestry:
            known |= record.inputs
        for record in self.ancestry:
            known |= record.outputs
        return known

    @property
    def _patches(self) -> set[str]:
        return {record.patch for record in self.ancestry if record.patch}

    @cached_property
    def files(self) -> list[str]:
        """The paths to copy: files, and directories with weights."""
        return [path for path in self._existing if path not in self.outside]

    @cached_property
    def outside(self) -> set[str]:
        """The paths outside the repository, which stay where they are.

        They are absolute, begin with `..`, or are behind a link. The folder of results may itself
        be a link, as to a cluster's large disk.
        """
        root, results = self.records.root, self.records.results
        return {path for path in self._existing if is_elsewhere(path, root, results)}

    @cached_property
    def _existing(self) -> list[str]:
        wanted = {str(record.file) for record in self.ancestry} | self._patches
        wanted |= {path for path in self.recorded if self.weights or _is_readable(path)}
        wanted |= {str(ledger.file) for ledger in self.ledgers}
        wanted |= set(_workflow_files(self.records.root))
        return sorted(path for path in wanted if self._is_there(path))

    def _is_there(self, path: str) -> bool:
        """Return whether a path is a file or folder that can be copied: no pipe, nor endless."""
        file = self.records.root / path
        return (file.is_file() or file.is_dir()) and not has_holes(file)

    @cached_property
    def missing(self) -> list[str]:
        """The files that should be in the collection and do not exist, or have no record."""
        wanted = {path for path in self.recorded if _is_readable(path)} | self._patches
        gone = {path for path in wanted if not self._is_there(path)}
        unanswered = {
            f"{path} (no record says how it was made)"
            for path in self.records.origins(*self.targets)
            if Path(path).is_relative_to(self.records.results)
        }
        shown = {path for ledger in self.ledgers for path in ledger.content["files"]}
        beyond = {
            f"{path} (a number comes from it, and it is outside the repository)"
            for path in self.outside & shown
        }
        return sorted(gone | unanswered | beyond)


def collection(records: Records, targets: Iterable[str] = (), weights: bool = False) -> Collection:
    """Select tables and figures with all that they come from.

    Without targets, all that have a ledger, and the report page if there is one.
    targets: names (`table5`), or paths of tables, figures, or anything that a job made.
    Raises ValueError for a target that no job made, listing what there is.
    """
    if not records.by_file:
        raise ValueError(f"{records.root / records.results} holds no records")
    if not a_source_file(str(records.results)):
        raise ValueError(f"{records.results} is outside the repository, so it cannot be collected")
    snakefile = records.root / PROJECT.snakefile
    if not (snakefile.is_file() and is_inside(snakefile, [records.root])):
        raise ValueError(f"{records.root.resolve()} has no {PROJECT.snakefile} to collect")
    ledgers, _ = read_ledgers(records.results, records.root)
    shown = {ledger.name: list(ledger.about) for ledger in ledgers}
    paths = [path for target in targets for path in _paths(target, shown, records)]
    if not targets and not ledgers:
        raise ValueError(f"{records.results} has no table or figure with a ledger; name a target")
    if not targets:
        page = str(records.results / PROJECT.page)
        paths = [path for about in shown.values() for path in about]
        paths += [page] if records.maker(page) else []
    ancestry = records.ancestry(*paths)
    made = {path for record in ancestry for path in record.outputs}
    included = [ledger for ledger in ledgers if str(ledger.file) in made]
    return Collection(records, included, list(dict.fromkeys(paths)), ancestry, weights)


def _paths(target: str, shown: dict[str, list[str]], records: Records) -> list[str]:
    """Return the outputs that a target names: those of a table or figure, or one path."""
    path, name = os.path.normpath(target), target.partition(":")[0]
    if name in shown:
        return shown[name]
    table = next((about for about in shown.values() if path in about), None)
    if table or records.maker(path):
        return table or [path]
    known = ", ".join(sorted(shown)) or "none"
    raise ValueError(f"no record says how {target} was made; tables and figures here: {known}")


def _is_readable(path: str) -> bool:
    return Path(path).suffix in READABLE


def _workflow_files(root: Path) -> Iterator[str]:
    for name in PROJECT.collected:
        for folder, folders, files in os.walk(root / name):
            folders[:] = [each for each in folders if not each.endswith(NOT_COLLECTED)]
            for file in files:
                if not file.endswith(NOT_COLLECTED):
                    yield str((Path(folder) / file).relative_to(root))
        if (root / name).is_file():
            yield name
