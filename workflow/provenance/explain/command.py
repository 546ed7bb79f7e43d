"""Which numbers are stale, because of which change, and which jobs would run: before anything does.

What would run is what Snakemake says (a dry run). Why is told by comparison with the records:
which parameter was what, whose code is another, which input has another content. What Snakemake
does not notice, such as an output that was edited by hand, is found by `ffmerge verify`.

A target is a file of the workflow, a rule (`main`, `everything`), or the name of a table, a figure
(`figure2`) or a number (`table5:7:permute`). The exit status is 1 if anything would run.
"""

import argparse
import json
import textwrap
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from provenance import configuration
from provenance.dag import PlannedJob
from provenance.explain.staleness import Staleness, cost, counted, duration, staleness
from provenance.numbers import Ledger, Number, named, read_ledgers
from provenance.records import Evidence

N_NAMED = 4  # numbers of a table, and details of a cause, that are named and not only counted
WIDTH = 100
VERIFY = "`ffmerge verify` checks what Snakemake does not: whether files are what jobs made."


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("targets", nargs="*", metavar="TARGET", help="default: everything")
    configuration.add_arguments(parser)
    parser.add_argument("--json", action="store_true", help="the same for machines")


def run(options: argparse.Namespace) -> int:
    file, chosen = configuration.find(options.results, options.configfile, options.targets)
    results = Path(chosen["results"])
    evidence = Evidence(results)
    ledgers, _ = read_ledgers(results)
    targets = [_file(target, ledgers) for target in options.targets or ["everything"]]
    try:
        found = staleness(chosen, targets, evidence, ledgers)
    except RuntimeError as error:
        raise ValueError(error) from None
    if options.json:
        print(json.dumps(_content(found, evidence, file, targets), indent=2, ensure_ascii=False))
    else:
        print("\n".join(_lines(found, evidence, file, targets)))
    return int(bool(found.jobs))


def _file(target: str, ledgers: Iterable[Ledger]) -> str:
    """What Snakemake is asked for, where a target is the name of a table, a figure or a number."""
    by_name = {ledger.name: ledger for ledger in ledgers}
    ledger = named(ledgers, target).ledger if ":" in target else by_name.get(target)
    return next(iter(ledger.about)) if ledger else target


def _lines(found: Staleness, evidence: Evidence, file: Path, targets: list[str]) -> Iterator[str]:
    if not found.jobs:
        n = sum(len(ledger.numbers) for ledger in found.ledgers)
        yield f"Nothing is stale: {' '.join(targets)} by {file}. Numbers on disk: {n}."
        yield VERIFY
        return
    for cause, roots in found.by_cause.items():
        yield f"{cause.kind}: {cause.text}"
        yield from (f"    {line}" for line in cause.details[:N_NAMED])
        if len(cause.details) > N_NAMED:
            yield f"    … and {len(cause.details) - N_NAMED} more"
        following = found.following(roots)
        yield _wrapped("  begins with ", _rules(found.jobs[i] for i in sorted(roots)))
        if len(following) > len(roots):
            yield f"  reruns      {len(following)} jobs, with all that follows"
        yield _wrapped("  reaches     ", _per_table(found.numbers(roots)))
        yield ""
    n_jobs = "1 job" if len(found.jobs) == 1 else f"{len(found.jobs)} jobs"
    yield _wrapped(f"{n_jobs} would run: ", _rules(found.jobs), indent=4)
    yield _cost(found.jobs, evidence)
    yield from _summary(found)
    yield VERIFY


def _summary(found: Staleness) -> Iterator[str]:
    """How many numbers of each table are stale, and some of them by name if not all."""
    stale = found.numbers()
    if not stale:
        yield "No number on disk is stale."
        return
    yield f"{len(stale)} numbers are stale:"
    for ledger in found.ledgers:
        own = [number.id for number in stale if number.ledger is ledger]
        if own:
            more = f", … {len(own) - N_NAMED} more" if len(own) > N_NAMED else ""
            which = ", ".join(own[:N_NAMED]) + more if len(own) < len(ledger.numbers) else "all"
            yield f"  {ledger.name:11} {len(own):3} of {len(ledger.numbers):3}   {which}"


def _rules(jobs: Iterable[PlannedJob]) -> str:
    return counted(job.rule for job in jobs)


def _wrapped(begin: str, text: str, indent: int = 14) -> str:
    return textwrap.fill(
        text, WIDTH, initial_indent=begin, subsequent_indent=" " * indent, break_on_hyphens=False
    )


def _per_table(numbers: list[Number]) -> str:
    if not numbers:
        return "no number on disk"
    tables = [number.ledger.name for number in numbers]
    each = (f"{table} ({tables.count(table)})" for table in dict.fromkeys(tables))
    return f"{len(numbers)} numbers: {', '.join(each)}"


def _cost(jobs: Sequence[PlannedJob], evidence: Evidence) -> str:
    spent = cost(jobs, evidence)
    if not spent.n_known:
        return "No record tells how long that takes."
    unknown = len(jobs) - spent.n_known
    without = f", without {unknown} jobs that nothing is known of" if unknown else ""
    return (
        f"By their records that takes {duration(spent.seconds)} one after the other, and at least "
        f"{duration(spent.longest_chain)} on any number of cores{without}."
    )


def _content(found: Staleness, evidence: Evidence, file: Path, targets: list[str]) -> dict:
    spent = cost(found.jobs, evidence)
    return {
        "targets": targets,
        "configuration": str(file),
        "causes": [
            {
                "kind": cause.kind,
                "text": cause.text,
                "details": list(cause.details),
                "begins_with": [str(found.jobs[i]) for i in sorted(roots)],
                "reruns": [str(found.jobs[i]) for i in sorted(found.following(roots))],
                "numbers": [number.id for number in found.numbers(roots)],
            }
            for cause, roots in found.by_cause.items()
        ],
        "jobs": [
            {"rule": job.rule, "wildcards": job.wildcards, "snakemake": job.reason}
            for job in found.jobs
        ],
        "numbers": [number.id for number in found.numbers()],
        "seconds": spent.seconds,
        "seconds_of_longest_chain": spent.longest_chain,
        "jobs_without_estimate": len(found.jobs) - spent.n_known,
    }
