"""The records of a run as evidence: which job made a file, and out of what.

What is missing or altered is data here, for those who ask to show: nothing of it is an error.
"""

import json
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from provenance.record import read_record

RESULTS = Path("results/demo")  # of the default configuration


@dataclass(frozen=True)
class Record:
    """A job's record. file: relative to the repository; altered: it is not what the job wrote."""

    file: Path
    content: dict[str, Any]
    altered: bool = False

    def __str__(self) -> str:
        """The job in words: its rule, and its wildcards but for the folder of results."""
        wildcards = self.content.get("wildcards", {})
        chosen = [value for name, value in wildcards.items() if name != "results"]
        return " ".join([self.content.get("rule", "?"), *chosen])

    @cached_property
    def inputs(self) -> dict[str, str]:
        """Path -> sha256, as they were when the job ran."""
        return _digests(self.content.get("input", {}))

    @cached_property
    def outputs(self) -> dict[str, str]:
        """Path -> sha256, as the job left them."""
        return _digests(self.content.get("output", {}))


class Evidence:
    """All records below a folder of results.

    results: relative to root, as are all paths in records; root: the repository, or a folder into
    which records were collected. broken: record files that hold nothing that can be read.
    """

    def __init__(self, results: Path = RESULTS, root: Path = Path()) -> None:
        self.results, self.root = results, root
        self.records: dict[Path, Record] = {}
        self.broken: list[Path] = []
        for file in sorted((root / results).rglob("*.record.json")):
            self._add(file)
        self._makers = {path: record for record in self.records.values() for path in record.outputs}

    def _add(self, file: Path) -> None:
        name = file.relative_to(self.root)
        try:
            self.records[name] = Record(name, read_record(file))
        except ValueError:
            try:
                content = json.loads(file.read_text())
            except ValueError:
                content = None
            if isinstance(content, dict):
                self.records[name] = Record(name, content, altered=True)
            else:
                self.broken.append(name)

    def maker(self, path: str | Path) -> Record | None:
        """The record of the job that made a file, or the directory that it is in."""
        path = Path(path)
        found = (self._makers.get(str(each)) for each in (path, *path.parents))
        return next((record for record in found if record), self._of_record(path))

    def _of_record(self, path: Path) -> Record | None:
        """A record that is read as a file (Tables 6 to 8 are made of records) speaks for itself."""
        return self.records.get(path)

    def ancestry(self, *paths: str | Path) -> list[Record]:
        """The records of all jobs that had a part in some files, each after those it builds on."""
        found: dict[Path, Record] = {}

        def visit(path: str | Path) -> None:
            record = self.maker(path)
            if record and record.file not in found:
                found[record.file] = record  # before its inputs: no loop is endless
                for each in record.inputs:
                    visit(each)
                found[record.file] = found.pop(record.file)  # and behind them

        for path in paths:
            visit(path)
        return list(found.values())

    def origins(self, *paths: str | Path) -> dict[str, str]:
        """Path -> sha256 of what the ancestry began with: inputs that no record speaks of.

        They are data and models of the repository, or something whose record is missing.
        """
        return {
            path: digest
            for record in self.ancestry(*paths)
            for path, digest in record.inputs.items()
            if self.maker(path) is None
        }


def results_of(target: str, root: Path = Path()) -> Path | None:
    """The folder of results that a file or folder is in, as the records in and above it say.

    None for what is in none, such as the short name of a number.
    """
    path = Path(target)
    for folder in [path, *path.parents][:-1]:
        records = ["**/*.record.json"] if folder == path else ["*.record.json", "*/*.record.json"]
        for file in (file for pattern in records for file in (root / folder).glob(pattern)):
            with suppress(ValueError, KeyError, TypeError, OSError):
                found = Path(json.loads(file.read_text())["wildcards"]["results"])
                if path.is_relative_to(found):
                    return found
    above = (parent.parent for parent in path.parents if parent.name in ("tables", "figures"))
    return next(above, None)


def configuration_files(root: Path = Path()) -> list[Path]:
    """The configurations of a repository, and the files beside them that end as these do."""
    folder = root / "config"
    return [*sorted(folder.glob("*.yaml")), *sorted(folder.glob("examples/*.yaml"))]


def embedded(path: str) -> bool:
    """Whether an input is part of the repository, and so needs no record."""
    return path.startswith(("resources/", "config/", "docs/"))


def _digests(named: dict[str, Any]) -> dict[str, str]:
    return {entry["path"]: entry["sha256"] for entry in _entries(named)}


def _entries(named: dict[str, Any]) -> Iterator[dict[str, str]]:
    for value in named.values():
        for entry in value if isinstance(value, list) else [value]:
            if isinstance(entry, dict) and {"path", "sha256"} <= entry.keys():
                yield entry
