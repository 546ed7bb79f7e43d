"""What belongs together: tables and figures, the records behind them, and the files to go along."""

import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from provenance.numbers import Ledger, read_ledgers
from provenance.records import Evidence, Record

WORKFLOW = (
    *(
        "Snakefile",
        "workflow",
        "config",
        "envs",
        "containers",
        "docs",
        "Makefile",
        "pyproject.toml",
    ),
    *("README.md", "LICENSE", "CITATION.cff", ".snakemake-workflow-catalog.yml"),
    *("resources/demo/README.md", "resources/demo/sources.yaml"),
)
READABLE = {".csv", ".html", ".json", ".md", ".patch", ".pdf", ".png", ".txt", ".yaml"}
"""Endings of what is small and holds numbers or their story; all else is weights and data."""
LEFT_OUT = ("__pycache__", ".sif", ".partial", ".pyc")  # caches and images, by how they end


@dataclass(frozen=True)
class Collection:
    """Tables and figures with all that answers for them.

    targets: their paths, relative to the repository as all paths here. records: of their whole
    ancestry, each after those it builds on. weights: whether models and data go along.
    """

    evidence: Evidence
    ledgers: Sequence[Ledger]
    targets: Sequence[str]
    records: Sequence[Record]
    weights: bool = False

    @cached_property
    def recorded(self) -> dict[str, str]:
        """Path -> sha256 of every file that a job read or wrote, or a number comes from.

        Where they disagree, the job that made the file has the last word.
        """
        known: dict[str, str] = {}
        for ledger in self.ledgers:
            known |= ledger.content["files"]  # some are in a directory that a job made
        for record in self.records:
            known |= record.inputs
        for record in self.records:
            known |= record.outputs
        return known

    @cached_property
    def files(self) -> list[str]:
        """What is to be copied, as far as it is there: files, and directories with weights."""
        wanted = {str(record.file) for record in self.records}
        wanted |= {path for path in self.recorded if self.weights or _is_readable(path)}
        wanted |= {record.content["git"]["patch"] for record in self.records if _has_patch(record)}
        wanted |= {str(ledger.file) for ledger in self.ledgers}
        wanted |= set(_workflow(self.evidence.root))
        return sorted(path for path in wanted if (self.evidence.root / path).exists())

    @cached_property
    def missing(self) -> list[str]:
        """What should be in the collection and is nowhere, and what no record answers for."""
        named = {path for path in self.recorded if _is_readable(path)}
        named |= {record.content["git"]["patch"] for record in self.records if _has_patch(record)}
        gone = {path for path in named if not (self.evidence.root / path).exists()}
        unanswered = {
            f"{path} (no record says how it was made)"
            for path in self.evidence.origins(*self.targets)
            if Path(path).is_relative_to(self.evidence.results)
        }
        return sorted(gone | unanswered)


def collection(
    evidence: Evidence, targets: Iterable[str] = (), weights: bool = False
) -> Collection:
    """Tables and figures with all that they come from.

    Without targets all that have a ledger, and the report page if there is one.
    targets: names (`table5`), or paths of tables, figures, or anything that a job made.
    Raises ValueError for a target that no job made, listing what there is.
    """
    if not evidence.records:
        raise ValueError(f"{evidence.root / evidence.results} holds no records")
    if not (evidence.root / "workflow/Snakefile").is_file():
        raise ValueError(f"{evidence.root.resolve()} has no workflow/Snakefile to collect")
    ledgers, _ = read_ledgers(evidence.results, evidence.root)
    shown = {ledger.name: list(ledger.about) for ledger in ledgers}
    paths = [path for target in targets for path in _paths(target, shown, evidence)]
    if not targets and not ledgers:
        raise ValueError(f"{evidence.results} has no table or figure with a ledger; name a target")
    if not targets:
        page = str(evidence.results / "report.html")
        paths = [path for about in shown.values() for path in about]
        paths += [page] if evidence.maker(page) else []
    records = evidence.ancestry(*paths)
    made = {path for record in records for path in record.outputs}
    own = [ledger for ledger in ledgers if str(ledger.file) in made]
    return Collection(evidence, own, list(dict.fromkeys(paths)), records, weights)


def _paths(target: str, shown: dict[str, list[str]], evidence: Evidence) -> list[str]:
    """The outputs that a target names: those of a table or figure, or one path."""
    path = os.path.normpath(target)
    of_table = next((about for about in shown.values() if path in about), None)
    if target.partition(":")[0] in shown:
        return shown[target.partition(":")[0]]
    if of_table:
        return of_table
    if evidence.maker(path):
        return [path]
    known = ", ".join(sorted(shown)) or "none"
    raise ValueError(f"no record says how {target} was made; tables and figures here: {known}")


def _is_readable(path: str) -> bool:
    return Path(path).suffix in READABLE


def _has_patch(record: Record) -> bool:
    return bool((record.content.get("git") or {}).get("patch"))


def _workflow(root: Path) -> Iterator[str]:
    """The files of the workflow as they are."""
    for name in WORKFLOW:
        for folder, folders, files in os.walk(root / name):
            folders[:] = [each for each in folders if not each.endswith(LEFT_OUT)]
            for file in files:
                if not file.endswith(LEFT_OUT):
                    yield str((Path(folder) / file).relative_to(root))
        if (root / name).is_file():
            yield name
