"""Check that all that is on disk still is what records and ledgers say, and which numbers are not.

Every file is hashed and held against the record of the job that wrote it and of those that read it;
records against their seals and each other; every number is rounded again from its raw value, and
that computed again from its sources; and each job is held against what the workflow would do now.
Modification times count for nothing.

    ffmerge verify                                 all of results/demo
    ffmerge verify results/demo/tables/table5.csv  a table and what it comes from
    ffmerge verify table5:7:permute                one number and what it comes from
"""

import argparse
import json
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import chdir
from pathlib import Path

from provenance import cells, omitted_files
from provenance.hashing import digests
from provenance.numbers import read_ledgers
from provenance.reach import Reach
from provenance.records import RESULTS, Evidence, results_of
from provenance.verify.checks import Checks, files_of
from provenance.verify.findings import Counts, Findings, Report
from provenance.verify.findings_text import as_text
from provenance.verify.scope import chosen
from provenance.verify.workflow_checks import planned

FIND = Path()  # in place of a configuration: find the one whose results these are


def verify(
    results: Path = RESULTS,
    targets: Sequence[str] = (),
    root: Path = Path(),
    configuration: Path | None = FIND,
) -> Report:
    """Rehash everything on disk against records and ledgers, and compute all numbers again.

    targets: numbers (ids), or tables, figures and other files: only what they come from; without
    any, everything. configuration: a file of config/, whose workflow the records are compared with
    (by a dry run of Snakemake at `root`); FIND one whose `results` these are; None: do not compare.
    Raises ValueError for a target that is nothing of these, or if there is nothing to verify.
    """
    began, findings = time.monotonic(), Findings()
    with chdir(root):
        cells._content.cache_clear()  # files may have changed since somebody asked last
        evidence = Evidence(results)
        ledgers, unreadable = read_ledgers(results)
        if not evidence.records and not ledgers:
            raise ValueError(f"{results} holds neither records nor ledgers: nothing to verify")
        reach = Reach(evidence, ledgers)
        scope = chosen(targets, evidence, ledgers, reach)
        left = omitted_files.read()  # without its data a workflow cannot be planned, either
        with ThreadPoolExecutor(1) as beside:  # Snakemake plans while this hashes
            file = None if configuration == FIND else configuration
            plan_to_come = beside.submit(planned, results, file, configuration == FIND and not left)
            found = digests(path for path in files_of(scope) if path not in left)
            plan = plan_to_come.result()
        if left:
            found.of.update(left)
            why = f"{len(left)} files did not come along when this was collected, and go unchecked"
            findings.remark(omitted_files.LIST, why)
        checks = Checks(scope, evidence, plan, found, reach, findings)
        checks.records()
        checks.ledgers()
        if scope.whole:
            checks.everything_else(unreadable)
        checks.workflow()
    numbers = frozenset(number.id for number in scope.numbers)
    counts = Counts(
        found.files,
        found.bytes,
        len(scope.records),
        len(scope.ledgers),
        len(numbers),
        round(time.monotonic() - began, 2),
    )
    name = str(plan.file) if plan.file else None
    return Report(findings.faults, findings.remarks, counts, numbers, name)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The command line of `ffmerge verify`."""
    parser.add_argument(
        "targets",
        metavar="TARGET",
        nargs="*",
        help="numbers, tables, figures or other files; or all",
    )
    parser.add_argument("--results", type=Path, metavar="DIR", help=f"results, or {RESULTS}")
    parser.add_argument(
        "--configfile",
        type=Path,
        default=FIND,
        metavar="FILE",
        help="the configuration to compare the jobs with, or the one in config/ with these results",
    )
    parser.add_argument("--json", action="store_true", help="the same for machines")


def run(options: argparse.Namespace) -> int:
    """Print what is wrong; 1 if anything is."""
    results = options.results or next(filter(None, map(results_of, options.targets)), RESULTS)
    targets = [each for each in options.targets if Path(each) != results]
    report = verify(results, targets, configuration=options.configfile)
    if options.json:
        print(json.dumps(report.as_json(), indent=2, ensure_ascii=False))
    else:
        print(as_text(report))
    return 1 if report.faults else 0
