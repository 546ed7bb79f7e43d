"""Check that everything on disk is still what records and ledgers say, and which numbers are not.

Every file is hashed and compared with the record of the job that wrote it and of those that read
it; records with their seals and each other. Every number is rounded again from its raw value, and
that is computed again from its sources. Each job is compared with what the workflow would do now.
Modification times count for nothing.

    ffmerge verify                                 all of results/demo
    ffmerge verify results/demo/tables/table5.csv  a table and what it comes from
    ffmerge verify table5:7:permute                one number and what it comes from
    ffmerge verify --signers FILE                  and who signed it (see `ffmerge sign`)
"""

import argparse
import json
import time
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import chdir
from pathlib import Path

from provenance import cells
from provenance.digest import sha256_of
from provenance.hashing import OMITTED, digests, is_collected, omitted_files
from provenance.numbers import (
    Ledger,
    Number,
    Reach,
    ledger_called,
    name_of,
    named,
    numbers_of,
    read_ledgers,
)
from provenance.project import PROJECT, add_results_argument, recorded_name
from provenance.records import Records, is_elsewhere, split_targets
from provenance.text_format import counted
from provenance.verify.checks import Checks, Scope, planned
from provenance.verify.findings import BROKEN, STALE, Counts, Findings, Report, as_text

FIND = Path()  # in place of a configuration: find the one that made the results


def verify(
    results: Path = PROJECT.results,
    targets: Sequence[str] = (),
    root: Path = Path(),
    configuration: Path | None = FIND,
    signers: Path | None = None,
) -> Report:
    """Hash everything on disk against records and ledgers, and compute all numbers again.

    targets: ids of numbers, or tables, figures and other files, to check these and what they come
    from; without any, everything. configuration: the file whose workflow the records are compared
    with (by a dry run of Snakemake at `root`); FIND: the one in config/ that made the results;
    None: do not compare. signers: a file that says whose SSH keys may sign; None: do not ask who
    signed. In a collected folder nothing is compared, because that would execute it.
    Raises ValueError for a target that is none of these, or if there is nothing to verify.
    """
    began, findings = time.monotonic(), Findings()
    signers = signers and signers.resolve()
    with chdir(root):
        cells._content.cache_clear()  # files may have changed since the last call
        records = Records(results)
        ledgers, broken = read_ledgers(results)
        if not (records.by_file or records.broken or ledgers or broken):
            raise ValueError(f"{results} holds neither records nor ledgers: nothing to verify")
        reach = Reach(records, ledgers)
        scope = chosen(targets, records, ledgers, broken, reach)
        omitted, collected = omitted_files(), is_collected()
        with ThreadPoolExecutor(1) as beside:  # Snakemake plans while this hashes
            file = None if configuration == FIND else configuration
            planning = beside.submit(planned, results, file, configuration == FIND)
            files = {path for path in scope.files() if path not in omitted}
            away = {path for path in files if collected and is_elsewhere(path, Path(), results)}
            hashed = digests(sorted(files - away))
            plan = planning.result()
        hashed.of.update(dict.fromkeys(away))  # they did not come along, whatever lies there
        if omitted:
            hashed.of.update(omitted)
            n = len(omitted)
            why = f"{n} files did not come along when this was collected, and go unchecked"
            findings.remark(OMITTED, why)
        checks = Checks(scope, records, plan, hashed, reach, findings, collected)
        checks.run()
        signed = checks.check_seal(signers) if signers else []
    numbers = frozenset(number.id for number in scope.numbers)
    counts = Counts(
        hashed.n_files,
        hashed.n_bytes,
        len(scope.records),
        len(scope.ledgers),
        len(numbers),
        round(time.monotonic() - began, 2),
    )
    name = str(plan.file) if plan.file else None
    return Report(findings.faults, findings.remarks, counts, numbers, name, signed)


def on_disk(results: Path, root: Path = Path()) -> Report:
    """Verify that files are what the jobs made, not whether the workflow now says otherwise."""
    report = verify(results, root=root, configuration=None)
    faults = [fault for fault in report.faults if fault.state != STALE]
    return Report(faults, report.remarks, report.counts, report.numbers)


def require_unbroken(results: Path, root: Path = Path()) -> None:
    """Raise ValueError if anything on disk is not what the jobs made. Files may be missing."""
    broken = [fault for fault in on_disk(results, root).faults if fault.state == BROKEN]
    if broken:
        n, first = counted(len(broken), "fault"), f"{broken[0].what}: {broken[0].why}"
        raise ValueError(f"not signed, since `ffmerge verify` finds {n}, such as {first}")


def chosen(
    targets: Iterable[str],
    records: Records,
    ledgers: Sequence[Ledger],
    broken: Sequence[Path],
    reach: Reach,
) -> Scope:
    """Return what some targets come from; everything without any.

    broken: ledger files that cannot be read.
    Raises ValueError for a target that is neither a number nor a table nor a recorded file.
    """
    targets, unreadable = list(targets), [*broken, *records.broken]
    if not targets:
        return Scope(list(records.by_file.values()), ledgers, numbers_of(ledgers), unreadable)
    numbers: dict[str, Number] = {}
    paths: set[str] = set()
    for target in targets:
        try:
            if ":" in target:
                of_target = [named(ledgers, target)]
            else:
                ledger = ledger_called(ledgers, target)
                of_target = ledger.numbers if ledger else []
        except ValueError:
            altered = _altered_ledgers(target, records, ledgers, broken)
            if not altered:
                raise
            paths.update(*(_behind(str(file), records, reach) for file in altered))
            continue
        numbers |= {number.id: number for number in of_target}
        paths.update(*(reach.behind[number.id] for number in of_target))
        if not of_target:
            paths |= _behind(target, records, reach)
    return Scope(
        [record for file, record in records.by_file.items() if str(file) in paths],
        [ledger for ledger in ledgers if str(ledger.file) in paths],
        list(numbers.values()),
        [file for file in unreadable if str(file) in paths],
        frozenset(paths),
    )


def _altered_ledgers(
    number: str, records: Records, ledgers: Sequence[Ledger], broken: Sequence[Path]
) -> list[Path]:
    """List the ledger files that should have a number and are not as recorded."""
    name = number.partition(":")[0]
    files = [file for file in broken if name_of(file) == name]
    for ledger in ledgers:
        maker = records.maker(ledger.file)
        recorded = maker.outputs.get(str(ledger.file)) if maker else None
        if ledger.name == name and recorded != sha256_of(ledger.file):
            files.append(ledger.file)
    return files


def _behind(target: str, records: Records, reach: Reach) -> set[str]:
    """Return the paths of what a file, or all in a folder, comes from, and what its job made."""
    path, silent = Path(target), records.silent_record(target)
    if maker := records.maker(path):
        return {*reach.behind_path(str(path)), *maker.outputs}
    below = [file for file in records.by_file if path in file.parents]
    if not below and silent is None:
        why = f"no record says what made {target}, and it is neither number nor table"
        raise ValueError(why)
    behind = set(reach.behind_path(str(path))) if silent else set()
    for file in below:
        behind |= {*reach.behind_path(str(file)), *records.by_file[file].outputs}
    return behind


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of `ffmerge verify`."""
    parser.add_argument(
        "targets",
        metavar="TARGET",
        nargs="*",
        type=recorded_name,
        help="numbers, tables, figures or other files; or all",
    )
    add_results_argument(parser)
    parser.add_argument(
        "--configfile",
        type=Path,
        default=FIND,
        metavar="FILE",
        help="the configuration to compare the jobs with, or the one in config/ with these results",
    )
    text = "check who signed the results: OpenSSH's file of allowed signers"
    parser.add_argument("--signers", type=Path, metavar="FILE", help=text)
    parser.add_argument(
        "--no-plan",
        dest="configfile",
        action="store_const",
        const=None,
        help="do not run this folder's Snakefile: compare with nothing but what is on disk",
    )
    parser.add_argument("--json", action="store_true", help="the same for machines")


def run(options: argparse.Namespace) -> int:
    """Print what is wrong; return 1 if anything is."""
    results, targets = split_targets(options.targets, options.results)
    report = verify(results, targets, configuration=options.configfile, signers=options.signers)
    if options.json:
        print(json.dumps(report.as_json(), indent=2, ensure_ascii=False))
    else:
        print(as_text(report))
    return 1 if report.faults else 0
