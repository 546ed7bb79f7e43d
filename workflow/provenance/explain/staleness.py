"""What would run now and why, and the numbers that it reaches."""

from collections import Counter
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from provenance.configuration import deployment
from provenance.dag import PlannedJob, dry_run, paths
from provenance.explain.causes import Cause, causes
from provenance.numbers import Ledger, Number
from provenance.records import Evidence


@dataclass(frozen=True)
class Staleness:
    """Jobs that Snakemake would run, each after those that it waits for.

    causes: of each job, without what it reads being made anew; so only those where something
    begins have one. ledgers: what answers for the numbers on disk.
    """

    jobs: Sequence[PlannedJob]
    causes: Sequence[Sequence[Cause]]
    ledgers: Sequence[Ledger]

    @cached_property
    def by_cause(self) -> dict[Cause, set[int]]:
        """Each cause, and the jobs that it makes stale by itself; most jobs first."""
        found: dict[Cause, set[int]] = {}
        for i, own in enumerate(self.causes):
            for cause in own:
                found.setdefault(cause, set()).add(i)
        merged: dict[tuple[str, str], Cause] = {}
        for cause in found:  # the same change, whatever the details of each job
            known = merged.setdefault((cause.kind, cause.text), cause)
            details = tuple(dict.fromkeys([*known.details, *cause.details]))
            merged[cause.kind, cause.text] = Cause(cause.kind, cause.text, details)
        jobs = {
            whole: {i for each in found if (each.kind, each.text) == key for i in found[each]}
            for key, whole in merged.items()
        }
        return dict(sorted(jobs.items(), key=lambda item: -len(self.following(item[1]))))

    def following(self, roots: Collection[int]) -> set[int]:
        """These jobs and all that wait for them."""
        found = set(roots)
        for i, job in enumerate(self.jobs):  # each is after those it waits for
            if found.intersection(job.after):
                found.add(i)
        return found

    def numbers(self, roots: Collection[int] | None = None) -> list[Number]:
        """The numbers that jobs change: by default, all that have a cause of their own.

        A number is stale if a file that it comes from is, or if its table would be made otherwise.
        That its table is made again because of another number is nothing to it.
        """
        if roots is None:
            roots = {i for i, own in enumerate(self.causes) if own}
        following = self.following(roots)
        stale = {path for i in following for path in paths(self.jobs[i].outputs)}
        anew = {path for i in roots for path in paths(self.jobs[i].outputs)}
        return [
            number
            for ledger in self.ledgers
            for number in ledger.numbers
            if str(ledger.file) in anew or any(_within(file, stale) for file in number.files)
        ]


def _within(file: str, made: set[str]) -> bool:
    return file in made or any(str(parent) in made for parent in Path(file).parents)


def staleness(
    configuration: dict[str, Any],
    targets: Sequence[str],
    evidence: Evidence,
    ledgers: Sequence[Ledger],
) -> Staleness:
    """What would run for some targets. Raises RuntimeError where Snakemake cannot tell."""
    jobs = dry_run(configuration, *targets, forced=False, options=deployment(evidence))
    made_before: set[str] = set()
    found = []
    for job in jobs:
        found.append(causes(job, evidence, made_before))
        made_before.update(paths(job.outputs))
    return Staleness(jobs, found, ledgers)


@dataclass(frozen=True)
class Cost:
    """What jobs take. n_known: those of which a record of their own, or of their rule, tells."""

    seconds: float
    longest_chain: float
    n_known: int


def cost(jobs: Sequence[PlannedJob], evidence: Evidence) -> Cost:
    """Seconds of jobs as they were recorded; of one without a record, the mean of its rule's."""
    by_rule: dict[str, list[float]] = {}
    for record in evidence.records.values():
        by_rule.setdefault(record.content.get("rule", ""), []).append(_seconds(record.content))
    ends: list[float] = []
    total, n_known = 0.0, 0
    for job in jobs:
        record = evidence.records.get(Path(job.outputs["record"]))
        like = [_seconds(record.content)] if record else by_rule.get(job.rule, [])
        seconds = sum(like) / len(like) if like else 0.0
        total, n_known = total + seconds, n_known + bool(like)
        ends.append(seconds + max((ends[before] for before in job.after), default=0.0))
    return Cost(total, max(ends, default=0.0), n_known)


def _seconds(record: dict[str, Any]) -> float:
    time = record.get("time") or {}
    return time.get("seconds", 0.0) + time.get("start_up_seconds", 0.0)


def counted(words: Iterable[str]) -> str:
    """`9 fine_tune, 10 score_test, quantize`, in the order in which they come."""
    counts = Counter(words)
    return ", ".join(f"{n} {word}" if n > 1 else word for word, n in counts.items())


def duration(seconds: float) -> str:
    """`40 s`, `12 min` or `3.5 h`."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
