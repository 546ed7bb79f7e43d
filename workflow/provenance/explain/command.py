"""Say which numbers are stale, because of which change, and which jobs would run.

A dry run of Snakemake says what would run. A comparison with the records says why: which parameter,
code or input has changed. `ffmerge verify` finds what Snakemake does not notice, such as an output
that was edited by hand. With --no-plan, and in a collected folder, nothing is executed: the records
are compared with the code, inputs and outputs on disk alone.

A target is a file of the workflow, a rule (`main`, `everything`), or the name of a table, a figure
(`figure2`) or a number (`table5:7:permute`). The exit status is 1 if anything would run.
"""

import argparse
import json
import textwrap
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from graphlib import CycleError
from pathlib import Path
from typing import Any

from provenance.dag import PlannedJob, dry_run, in_order, paths
from provenance.explain.causes import Cause, causes, causes_on_disk
from provenance.hashing import digests, is_collected, omitted_files
from provenance.numbers import Ledger, Number, named, read_ledgers
from provenance.project import add_configuration_arguments, find_configuration, recorded_name
from provenance.records import Records, is_elsewhere, split_targets, upwards
from provenance.text_format import counted, tallied

N_NAMED = 4  # numbers of a table, and details of a cause, that are named and not only counted
WIDTH = 100
UNCHECKED = (
    "Not compared with the workflow, of which nothing is executed: whether it now has other "
    "parameters, rules or jobs is unchecked."
)
VERIFY = "`ffmerge verify` checks what Snakemake does not: whether files are what jobs made."


@dataclass(frozen=True)
class Staleness:
    """The jobs that Snakemake would run, each after those it waits for.

    causes: of each job, without its inputs being made again, so that only jobs where a change
    begins have one. ledgers: of the numbers on disk.
    """

    jobs: Sequence[PlannedJob]
    causes: Sequence[Sequence[Cause]]
    ledgers: Sequence[Ledger]

    @cached_property
    def by_cause(self) -> dict[Cause, set[int]]:
        """Each cause, and the jobs that it makes stale by itself; most jobs first."""
        merged: dict[tuple[str, str], tuple[set[int], dict[str, None]]] = {}
        for i, of_job in enumerate(self.causes):
            for cause in of_job:  # the same change may have other details in each job
                jobs, details = merged.setdefault((cause.kind, cause.text), (set(), {}))
                jobs.add(i)
                details.update(dict.fromkeys(cause.details))
        whole = {Cause(*key, tuple(details)): jobs for key, (jobs, details) in merged.items()}
        return dict(sorted(whole.items(), key=lambda item: -len(self.following(item[1]))))

    def following(self, roots: Collection[int]) -> set[int]:
        """Return these jobs and all that wait for them."""
        reached = set(roots)
        for i, job in enumerate(self.jobs):  # each is after those it waits for
            if reached.intersection(job.after):
                reached.add(i)
        return reached

    def numbers(self, roots: Collection[int] | None = None) -> list[Number]:
        """Return the numbers that jobs change; by default all jobs that have a cause.

        A number is stale if a file that it comes from is, or if its table's job has changed; not
        if its table is only made again because of another number.
        """
        if roots is None:
            roots = {i for i, of_job in enumerate(self.causes) if of_job}
        stale = {path for i in self.following(roots) for path in paths(self.jobs[i].outputs)}
        changed = {path for i in roots for path in paths(self.jobs[i].outputs)}
        return [
            number
            for ledger in self.ledgers
            for number in ledger.numbers
            if str(ledger.file) in changed
            or any(stale.intersection(upwards(file)) for file in number.files)
        ]


def staleness(
    configuration: dict[str, Any],
    targets: Sequence[str],
    records: Records,
    ledgers: Sequence[Ledger],
) -> Staleness:
    """Find what would run for some targets. Raises RuntimeError if Snakemake cannot plan it."""
    jobs = dry_run(configuration, *targets, forced=False, options=records.deployment())
    made_before: set[str] = set()
    of_jobs = []
    for job in jobs:
        of_jobs.append(causes(job, records, made_before))
        made_before.update(paths(job.outputs))
    return Staleness(jobs, of_jobs, ledgers)


def staleness_on_disk(
    targets: Sequence[str], records: Records, ledgers: Sequence[Ledger]
) -> Staleness:
    """Find what is stale by records and files alone, without executing anything of the folder.

    targets: files that jobs made; without any, everything. An output that is gone counts if no
    other job reads it: Snakemake would not make the others again, either.
    Raises ValueError for a target that no record says what made.
    """
    if unknown := [target for target in targets if records.maker(target) is None]:
        raise ValueError(
            f"no record says what made {unknown[0]}: without the workflow, name a number, a table, "
            "a figure or a file that a job made"
        )
    chosen = records.ancestry(*targets) if targets else list(records.by_file.values())
    try:
        planned = in_order(
            [  # as its record has it, with the record among its outputs
                PlannedJob(
                    record.rule,
                    record.part("wildcards"),
                    {},
                    {path: path for path in record.inputs},
                    {path: path for path in record.outputs} | {"record": str(record.file)},
                )
                for record in chosen
            ]
        )
    except CycleError:
        raise ValueError("the records say that jobs wait for each other in a circle") from None
    read = {path for record in records.by_file.values() for path in record.inputs}
    made = {
        path: each for record in records.by_file.values() for path, each in record.outputs.items()
    }
    origins = {path for record in chosen for path in record.inputs if not records.maker(path)}
    left = {*omitted_files()}
    if is_collected():  # what is elsewhere did not come along, whatever lies there
        left |= {path for path in origins if is_elsewhere(path, records.root, records.results)}
    now = made | digests(sorted(origins - left)).of
    found = {}
    for record in chosen:
        gone = {path for path in record.outputs if not Path(path).exists()} - read - left
        found[str(record.file)] = causes_on_disk(record, now, gone)
    of_jobs = [found[str(job.outputs["record"])] for job in planned]
    roots = {n for n, of_job in enumerate(of_jobs) if of_job}
    reached = sorted(Staleness(planned, of_jobs, ledgers).following(roots))
    jobs = in_order([planned[n] for n in reached])
    return Staleness(jobs, [found[str(job.outputs["record"])] for job in jobs], ledgers)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of `ffmerge explain`."""
    help = "default: everything"
    parser.add_argument("targets", nargs="*", metavar="TARGET", type=recorded_name, help=help)
    add_configuration_arguments(parser)
    text = "do not run this folder's Snakefile: compare the records with what is on disk"
    parser.add_argument("--no-plan", action="store_true", help=text)
    parser.add_argument("--json", action="store_true", help="the same for machines")


def run(options: argparse.Namespace) -> int:
    """Print what is stale; return 1 if anything is."""
    planning, targets = not (options.no_plan or is_collected()), options.targets
    if planning:
        file, content = find_configuration(options.results, options.configfile, targets)
        results = Path(content["results"])
    else:
        results, targets = split_targets(targets, options.results)
        file = None
    records = Records(results)
    ledgers, _ = read_ledgers(results)
    if not planning and not records.by_file:
        raise ValueError(f"{results} holds no records: nothing to explain")
    targets = [_file(target, ledgers) for target in targets or ["everything"]]
    try:
        if planning:
            stale = staleness(content, targets, records, ledgers)
        else:
            named = [] if targets == ["everything"] else targets
            stale = staleness_on_disk(named, records, ledgers)
    except RuntimeError as error:
        raise ValueError(error) from None
    if options.json:
        print(json.dumps(_content(stale, file, targets), indent=2, ensure_ascii=False))
    else:
        print("\n".join(_lines(stale, file, targets)))
    return int(bool(stale.jobs))


def _file(target: str, ledgers: Iterable[Ledger]) -> str:
    """Return the file of a target that is the name of a table, a figure or a number."""
    by_name = {ledger.name: ledger for ledger in ledgers}
    ledger = named(ledgers, target).ledger if ":" in target else by_name.get(target)
    return next(iter(ledger.about)) if ledger else target


def _lines(stale: Staleness, file: Path | None, targets: list[str]) -> Iterator[str]:
    if not stale.jobs:
        n = sum(len(ledger.numbers) for ledger in stale.ledgers)
        by = file or "the records"
        yield f"Nothing is stale: {' '.join(targets)} by {by}. Numbers on disk: {n}."
        yield VERIFY if file else UNCHECKED
        return
    for cause, roots in stale.by_cause.items():
        yield f"{cause.kind}: {cause.text}"
        yield from (f"    {line}" for line in cause.details[:N_NAMED])
        if len(cause.details) > N_NAMED:
            yield f"    … and {len(cause.details) - N_NAMED} more"
        following, tables = stale.following(roots), Counter()
        tables.update(number.ledger.name for number in stale.numbers(roots))
        yield _wrapped("  begins with ", tallied(stale.jobs[i].rule for i in sorted(roots)))
        if len(following) > len(roots):
            yield f"  reruns      {len(following)} jobs, with all that follows"
        counts = ", ".join(f"{table} ({n})" for table, n in tables.items())
        reached = f"{tables.total()} numbers: {counts}" if tables else "no number on disk"
        yield _wrapped("  reaches     ", reached)
        yield ""
    yield _wrapped(
        f"{counted(len(stale.jobs), 'job')} would run: ",
        tallied(job.rule for job in stale.jobs),
        indent=4,
    )
    yield from _summary(stale)
    yield VERIFY if file else UNCHECKED


def _summary(stale: Staleness) -> Iterator[str]:
    """Count the stale numbers of each table, and name some of them if not all are stale."""
    numbers = stale.numbers()
    if not numbers:
        yield "No number on disk is stale."
        return
    yield f"{len(numbers)} numbers are stale:"
    for ledger in stale.ledgers:
        ids = [number.id for number in numbers if number.ledger is ledger]
        if ids:
            more = f", … {len(ids) - N_NAMED} more" if len(ids) > N_NAMED else ""
            which = ", ".join(ids[:N_NAMED]) + more if len(ids) < len(ledger.numbers) else "all"
            yield f"  {ledger.name:11} {len(ids):3} of {len(ledger.numbers):3}   {which}"


def _wrapped(begin: str, text: str, indent: int = 14) -> str:
    return textwrap.fill(
        text, WIDTH, initial_indent=begin, subsequent_indent=" " * indent, break_on_hyphens=False
    )


def _content(stale: Staleness, file: Path | None, targets: list[str]) -> dict:
    return {
        "targets": targets,
        "configuration": str(file) if file else None,
        "unchecked": None if file else UNCHECKED,
        "causes": [
            {
                "kind": cause.kind,
                "text": cause.text,
                "details": list(cause.details),
                "begins_with": [str(stale.jobs[i]) for i in sorted(roots)],
                "reruns": [str(stale.jobs[i]) for i in sorted(stale.following(roots))],
                "numbers": [number.id for number in stale.numbers(roots)],
            }
            for cause, roots in stale.by_cause.items()
        ],
        "jobs": [
            {"rule": job.rule, "wildcards": job.wildcards, "snakemake": job.reason}
            for job in stale.jobs
        ],
        "numbers": [number.id for number in stale.numbers()],
    }
