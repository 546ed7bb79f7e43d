"""Say where two runs of one configuration part, and which numbers differ by how much.

A and B are collected folders, repositories, or folders of results in one. Jobs and numbers are
compared by what their rules promise to reproduce: the same bits, the same decisions, values within
a tolerance. Nothing of either folder is executed, and files are read only in it.

    ffmerge diff mine/ theirs/                   all jobs and numbers
    ffmerge diff mine/ theirs/ table5:4:permute  why one number differs

The exit status is 1 if something differs by more than its rule allows, or is in one run only.
"""

import argparse
import json
import os
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from provenance.numbers import Number, Reach, numbers_of, read_ledgers
from provenance.project import PROJECT
from provenance.records import SHAPE, Misfit, Record, Records, a_source_file, read_json
from provenance.reproduce.agreement import (
    SAME_BITS,
    SAME_DECISIONS,
    UNJUDGED,
    Agreement,
    Pair,
    compare_jobs,
    counterpart,
    number_agreement,
)
from provenance.text_format import counted, line, tallied, wrapped

WITHIN, DIFFERENT = "within tolerance", "different"
FOLLOWS = "reads what differs"  # of a job that promises the same for the same inputs only
UNKNOWN = "cannot be judged"  # its files were not collected, or no rule declares a tolerance
ONLY = "in one run only"
KINDS = (SAME_BITS, SAME_DECISIONS, WITHIN, FOLLOWS, UNKNOWN, DIFFERENT, ONLY)
SHOWN = 12  # so many numbers and jobs are named in text; --json has all


@dataclass(frozen=True)
class Job:
    """A job of both runs. parts: its outputs differ, but nothing that it reads from other jobs."""

    pair: Pair
    agreement: Agreement
    parts: bool

    @property
    def kind(self) -> str:
        """How the two runs of the job compare."""
        return _kind(self.agreement)

    @property
    def causes(self) -> list[str]:
        """What differs between the two runs of the job, as recorded."""
        pair = self.pair
        reads = [
            f"input {path}"
            for path, digest in pair.old.inputs.items()
            if pair.new.inputs.get(counterpart(path, pair.folders), digest) != digest
            and not path.startswith(f"{pair.folders[0]}/")
        ]
        changes = pair.other_surroundings()
        hosts = [record.part("machine").get("host") for record in (pair.old, pair.new)]
        if hosts[0] != hosts[1]:
            changes = {"host": f"{hosts[0]} -> {hosts[1]}", **changes}
        named = [f"{name} {change}" for name, change in changes.items()]
        return [*reads, *pair.other_work(), *named]


@dataclass(frozen=True)
class Compared:
    """A number of both runs, as shown; None in one that lacks it.

    parts_at: the record of the first job of its chain at which the runs part.
    """

    number: str
    a: str | None
    b: str | None
    kind: str
    said: str = ""
    parts_at: str | None = None


class Diff:
    """Two runs, job by job and number by number."""

    def __init__(self, a: Records, b: Records) -> None:
        self.a, self.b = a, b
        self.folders = (a.results.as_posix(), b.results.as_posix())
        outputs = [path for record in a.by_file.values() for path in record.outputs]
        self._compared, self._reach = compare_jobs(outputs, a, b, self.folders), Reach(b)

    @cached_property
    def jobs(self) -> dict[Path, Job]:
        """Record in the second run -> job of both, each after those it builds on."""
        jobs: dict[Path, Job] = {}
        for pair, agreement in self._compared:
            if pair is None:
                continue
            makers = {each.file for each in map(self.b.maker, pair.new.inputs) if each}
            before = [jobs[file] for file in makers if file in jobs]
            if agreement.reason == UNJUDGED and pair.promised == "decisions":
                with suppress(Exception):  # a file that is not there, or was altered
                    agreement = pair.decisions()
            apart = not agreement.bits and all(each.agreement.bits for each in before)
            jobs[pair.new.file] = Job(pair, agreement, apart)
        return jobs

    @cached_property
    def alone(self) -> list[Record]:
        """The jobs that only one run has."""
        known = {job.pair.old.file for job in self.jobs.values()}
        in_a = [record for file, record in self.a.by_file.items() if file not in known]
        return in_a + [each for file, each in self.b.by_file.items() if file not in self.jobs]

    @cached_property
    def _by_name(self) -> list[dict[str, Number]]:
        sides = [read_ledgers(each.results, each.root)[0] for each in (self.a, self.b)]
        return [{number.id: number for number in numbers_of(ledgers)} for ledgers in sides]

    def chain(self, name: str) -> list[Job]:
        """Return the jobs behind a number of the second run, each after those it builds on."""
        behind = self._reach.behind_number(self._by_name[1][name])
        return [job for file, job in self.jobs.items() if str(file) in behind]

    @cached_property
    def numbers(self) -> list[Compared]:
        """All numbers, in the order of the tables."""
        before, after = self._by_name
        numbers = [self._number(number, after.get(name)) for name, number in before.items()]
        new = [number for name, number in after.items() if name not in before]
        return numbers + [Compared(n.id, None, n.cell["shown"], ONLY) for n in new]

    def _number(self, number: Number, other: Number | None) -> Compared:
        if other is None:
            return Compared(number.id, number.cell["shown"], None, ONLY)
        known = number.id, number.cell["shown"], other.cell["shown"]
        if (raw := other.cell["raw"]) == number.cell["raw"]:
            return Compared(*known, SAME_BITS, "the same number")
        roots = self.a.root, self.b.root
        try:
            judged = number_agreement(number.cell, raw, self._compared, self.folders, roots)
        except TypeError as error:  # of a value that somebody altered
            judged = Agreement(None, str(error))
        parting = (str(job.pair.new.file) for job in self.chain(number.id) if job.parts)
        return Compared(*known, _kind(judged), judged.reason, next(parting, None))


def _kind(agreement: Agreement) -> str:
    """Name how two runs of a job compare."""
    if agreement.reason == UNJUDGED:
        return FOLLOWS
    if agreement.holds and agreement.reason in (SAME_BITS, SAME_DECISIONS):
        return agreement.reason
    return {True: WITHIN, False: DIFFERENT, None: UNKNOWN}[agreement.holds]


def opened(folder: Path) -> Records:
    """Read the records of a collected folder, a repository, or a folder of results.

    Raises ValueError if there are none, or if it is not where they say.
    """
    for base in (folder / PROJECT.results, folder):
        for file in _record_files(base):
            try:
                results = read_json(file, SHAPE)["wildcards"]["results"]
            except (Misfit, KeyError, TypeError):
                continue
            n = len(Path(results).parts)
            for parent in Path(os.path.abspath(file)).parents:
                if a_source_file(results) and parent.parts[-n:] == Path(results).parts:
                    return Records(Path(results), parent.parents[n - 1])
    raise ValueError(f"{folder} holds no records: name a collected folder, or one of results")


def _record_files(folder: Path) -> Iterator[Path]:
    """Yield the record files below a folder, but not in hidden folders, without following links."""
    for path, folders, files in os.walk(folder):
        folders[:] = sorted(each for each in folders if not each.startswith("."))
        yield from (Path(path, file) for file in sorted(files) if file.endswith(".record.json"))


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of `ffmerge diff`."""
    for name in ("A", "B"):
        parser.add_argument(name.lower(), metavar=name, type=Path, help="a folder with a run")
    text = "numbers, tables or figures; or all"
    parser.add_argument("targets", metavar="NUMBER", nargs="*", help=text)
    parser.add_argument("--json", action="store_true", help="all of it, for machines")


def run(options: argparse.Namespace) -> int:
    """Print where the runs part; return 1 if anything differs by more than its rule allows."""
    diff = Diff(opened(options.a), opened(options.b))
    numbers = diff.numbers
    for target in options.targets:
        if not any(target in _names(each) for each in numbers):
            known = ", ".join(dict.fromkeys(_names(each)[1] for each in numbers)) or "none"
            raise ValueError(f"{target} is no number, table or figure of these; there are {known}")
    if options.targets:
        numbers = [each for each in numbers if {*options.targets} & {*_names(each)}]
    if options.json:
        print(json.dumps(_content(diff, numbers), indent=2, ensure_ascii=False))
    else:
        print("\n".join(_lines(diff, numbers, bool(options.targets))))
    kinds = {each.kind for each in numbers}
    if not options.targets:
        kinds |= {job.kind for job in diff.jobs.values()} | ({ONLY} if diff.alone else set())
    return int(bool(kinds & {DIFFERENT, ONLY}))


def _names(number: Compared) -> tuple[str, str]:
    """Return the names of a number and of its table or figure."""
    return number.number, number.number.partition(":")[0]


def _lines(diff: Diff, numbers: Sequence[Compared], chosen: bool) -> Iterator[str]:
    for name, records in (("A", diff.a), ("B", diff.b)):
        altered = sum(record.altered for record in records.by_file.values()) + len(records.broken)
        note = f", of which {altered} ALTERED" if altered else ""
        yield line(name, f"{records.root}: {counted(len(records.by_file), 'record')}{note}")
    kinds = [job.kind for job in diff.jobs.values()] + [ONLY] * len(diff.alone)
    yield line("jobs", _counts(kinds))
    yield line("numbers", _counts([each.kind for each in numbers]))
    parting = [job for job in diff.jobs.values() if job.parts]
    if chosen:
        at = {each.parts_at for each in numbers}
        parting = [job for job in parting if str(job.pair.new.file) in at]
    for n, job in enumerate(parting[:SHOWN]):
        if n < 2:
            others = "Others that give something else, though what they read of jobs is the same"
            yield f"\n{others if n else 'The first job at which they part'}"
        said = "" if job.agreement.reason == job.kind else f" ({job.agreement.reason})"
        yield f"  {job.pair.new}: {job.kind}{said}"
        if n == 0:
            yield from wrapped("differs", ", ".join(job.causes or ["nothing that is recorded"]), 4)
            yield line("record", str(job.pair.new.file), 4)
    yield from _more(len(parting))
    if len(numbers) == 1 and numbers[0].kind != ONLY:
        yield "\nIts jobs, each after those it builds on"
        yield from (line(job.kind, str(job.pair.new)) for job in diff.chain(numbers[0].number))
    yield from _one_run_only(diff, numbers, chosen)
    differing = [each for each in numbers if each.kind not in (SAME_BITS, ONLY)]
    differing.sort(key=lambda each: -KINDS.index(each.kind))  # stable: tables stay in order
    if differing:
        yield "\nNumbers that differ: in A, in B, and where their chains part"
    for each in differing[:SHOWN]:
        at = f", at {diff.jobs[Path(each.parts_at)].pair.new}" if each.parts_at else ""
        same = " (the same as shown)" if each.a == each.b else ""
        yield f"  {each.number:30} {each.a[:12]:>12} {each.b[:12]:>12}   {each.kind}{same}{at}"
        if chosen and each.said:
            yield line("", each.said)
    yield from _more(len(differing))


def _one_run_only(diff: Diff, numbers: Sequence[Compared], chosen: bool) -> Iterator[str]:
    """Name what only A or only B has: jobs, by rule where they are many, and numbers by table."""
    lines: list[str] = []
    for name, records in (("A", diff.a), ("B", diff.b)):
        jobs = [
            each for each in diff.alone if records.by_file.get(each.file) is each and not chosen
        ]
        named = [str(job) if len(jobs) <= SHOWN else job.rule for job in jobs]
        other = [
            each for each in numbers if each.kind == ONLY and (each.b is None) == (name == "A")
        ]
        tables = Counter(_names(each)[1] for each in other)
        shown = [f"{counted(n, 'number')} of {table}" for table, n in tables.items()]
        if jobs or other:
            lines += wrapped(name, ", ".join([tallied(named)] * bool(jobs) + shown))
    yield from ["\nIn one run only (--json has all)", *lines] if lines else []


def _counts(kinds: Sequence[str]) -> str:
    n = Counter(kinds)
    return ", ".join(f"{n[kind]} {kind}" for kind in KINDS if n[kind]) or "none"


def _more(n: int) -> Iterator[str]:
    if n > SHOWN:
        yield f"  … and {n - SHOWN} more (--json has all)"


def _content(diff: Diff, numbers: Sequence[Compared]) -> dict[str, Any]:
    return {
        "jobs": [
            {
                "job": str(job.pair.new),
                "record": str(job.pair.new.file),
                "kind": job.kind,
                "said": job.agreement.reason,
                "parts": job.parts,
                "differs": job.causes if not job.agreement.bits else [],
            }
            for job in diff.jobs.values()
        ],
        "in_one_run_only": [str(record.file) for record in diff.alone],
        "numbers": [vars(each) for each in numbers],
    }
