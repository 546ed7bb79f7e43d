"""Make one number again from data and base model, with nothing reused, and compare.

The jobs that the number comes from run in a folder of their own, with the present code and
configuration. Then each is compared with what its record says of the first run, as far as its rule
promises (bits, decisions, or metrics within a tolerance), and so is the number. The exit status is
1 if something is not as promised.

CELL is the name of a number (`table5:7:permute`), or a table or figure with --row and --column.
What follows `--` is for Snakemake: `ffmerge reproduce table5:7:permute -- --cores 1`.
"""

import argparse
import fcntl
import json
import os
import re
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from provenance.dag import dry_run
from provenance.explain.command import staleness
from provenance.numbers import Number, named, read_ledgers
from provenance.project import (
    PROJECT,
    add_configuration_arguments,
    find_configuration,
    recorded_name,
)
from provenance.records import Record, Records
from provenance.reproduce.agreement import (
    Compared,
    Remade,
    compare_jobs,
    counterpart,
    made_files,
    remade,
)
from provenance.text_format import duration, tallied

STDERR = 2
LOCKS = Path(".snakemake/locks")
MARKS = {True: "ok", False: "NOT", None: "?"}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of `ffmerge reproduce`."""
    help = "a number, or a table or figure"
    parser.add_argument("cell", metavar="CELL", type=recorded_name, help=help)
    parser.add_argument("--row", help="its number from 1, or words that are in no other row")
    parser.add_argument("--column", help="its name")
    add_run_arguments(parser)


def add_run_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of commands that make something again in a folder of its own."""
    folder = f"folder to make it in (default: in {PROJECT.reproductions}/)"
    add_configuration_arguments(parser)
    parser.add_argument("--in", dest="folder", type=Path, help=folder)
    parser.add_argument("--resume", action="store_true", help="go on from what is in that folder")
    parser.add_argument("--dry-run", action="store_true", help="say what would run, and stop")
    parser.add_argument("--json", action="store_true", help="the comparison for machines")


def run(options: argparse.Namespace) -> int:
    """Make a number again and print the comparison; return 1 if it is not as promised."""
    _, configuration = find_configuration(options.results, options.configfile, [options.cell])
    records = Records(Path(configuration["results"]))
    ledgers, _ = read_ledgers(records.results)
    number = named(ledgers, options.cell, options.row, options.column)
    targets, told = made_files(number, records), f"{number.id} is {number.cell['shown']}."
    again = make_again(options, configuration, records, number.id, targets, told)
    if isinstance(again, int):
        return again
    new, jobs, folders = again
    result = remade(number, jobs, folders)
    if options.json:
        print(json.dumps(_content(number, jobs, result), indent=2, ensure_ascii=False))
    else:
        print("\n".join(_lines(number, jobs, result)))
    say(f"All of it is kept in {new.results}.")
    return int(not (result.agreement.holds and all(agreement.holds for _, agreement in jobs)))


def make_again(
    options: argparse.Namespace,
    configuration: dict[str, Any],
    records: Records,
    name: str,
    targets: Sequence[str],
    told: str,
) -> tuple[Records, Compared, tuple[str, str]] | int:
    """Make targets again in a folder of their own, and compare the jobs.

    name: of the folder, unless the options choose one. told: said before it begins.
    Returns the new records, the comparison and both folders of results; or the exit status if there
    is nothing to compare. Raises ValueError in Snakemake's words if it cannot be planned.
    """
    old = configuration["results"]
    folders = (old, folder_for(name, options.folder, old, options.resume))
    again = elsewhere(configuration, folders)
    say(told)
    new_targets = [counterpart(target, folders) for target in targets]
    ancestry = records.ancestry(*targets)
    try:
        n_jobs = len(dry_run(again, *new_targets))
        say(f"To make it again in {folders[1]}: {n_jobs} jobs")
        rules = tallied(record.rule for record in ancestry)
        say(f"  ({rules}), {duration(seconds(ancestry))} of processor time in the first run.")
        stale = staleness(configuration, targets, records, [])
    except RuntimeError as error:  # with Snakemake's words
        raise ValueError(error) from None
    if stale.jobs:
        say("What is on disk is not what the present code and configuration make:")
        for cause in stale.by_cause:
            say(f"  {cause.kind}: {cause.text}")
        say("  The second run is of the present ones, so it may well differ.")
    if options.dry_run:
        return 0
    if status := run_snakemake(again, new_targets, [*records.deployment(), *options.after]):
        say(f"Snakemake ended with status {status}: nothing to compare. To go on: --resume")
        return 1
    new = Records(Path(folders[1]))
    return new, compare_jobs(targets, records, new, folders), folders


def seconds(records: Iterable[Record], key: str = "cpu_seconds") -> float:
    """Sum up a time of jobs; by default processor time, which other work hardly changes."""
    return sum(record.part("time").get(key) or 0 for record in records)


def say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def elsewhere(configuration: dict[str, Any], folders: tuple[str, str]) -> dict[str, Any]:
    """Return the configuration with its results, and all paths in them, in the second folder."""

    def moved(value: Any) -> Any:
        if isinstance(value, dict):
            return {name: moved(each) for name, each in value.items()}
        if isinstance(value, list):
            return [moved(each) for each in value]
        return counterpart(value, folders) if isinstance(value, str) else value

    return moved(configuration) | {"results": folders[1]}


def folder_for(name: str, chosen: Path | None, results: str, resume: bool) -> str:
    """Return the folder to make a number in again, relative to the repository.

    Raises ValueError if the folder is not empty, unless it is to be resumed, and for a folder in
    `results`, where the new records would count as the first run's.
    """
    folder = Path(os.path.relpath(chosen or PROJECT.reproductions / re.sub(r"\W+", "-", name)))
    if Path(results).resolve() in [folder.resolve(), *folder.resolve().parents]:
        raise ValueError(f"{folder} is in {results}, whose numbers it is to be compared with")
    if folder.exists() and any(folder.iterdir()) and not resume:
        raise ValueError(f"{folder} is not empty: remove it, or go on from there (--resume)")
    return folder.as_posix()


def run_snakemake(
    configuration: dict[str, Any], targets: Sequence[str], options: Sequence[str]
) -> int:
    """Make targets of a configuration, with progress on standard error; return the exit status.

    Another run may be going on in this repository: Snakemake locks files, and these are different
    ones. Snakemake's lock on this folder is from a run that was killed, since all processes of a
    run that goes on hold a lock of the folder itself: it is their standard input.
    Raises ValueError if there is such a run.
    """
    folder = Path(configuration["results"])
    folder.mkdir(parents=True, exist_ok=True)
    held = (folder / ".lock").open("a+")  # open until this process ends
    try:
        fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise ValueError(
            f"{folder} is in use by another run, or by jobs of one that was killed: wait until "
            "they have ended, or choose another folder (--in)"
        ) from None
    for lock in LOCKS.glob("*.lock"):
        with suppress(FileNotFoundError):  # a run that ends removes its own
            paths = map(os.path.normpath, lock.read_text().splitlines())
            if any(path.startswith(f"{folder.as_posix()}/") for path in paths):
                lock.unlink()
    file = folder / "configuration.json"
    file.write_text(json.dumps(configuration, indent=2))
    command = [sys.executable, "-m", "snakemake", *targets, "--configfile", str(file)]
    command += ["--workflow-profile", str(PROJECT.profile), "--quiet", "host", *options]
    # The rules say `python …` and mean this one, whether or not its environment is activated.
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', os.defpath)}"
    environment = os.environ | {"PATH": path, "PYTHONUTF8": "1"}
    snakemake = subprocess.Popen(command, stdin=held, stdout=STDERR, env=environment)
    # Ctrl-C reaches Snakemake by itself; it stops its jobs, and this waits for that.
    handler = signal.signal(signal.SIGINT, lambda *_: None)
    try:
        return snakemake.wait()
    finally:
        signal.signal(signal.SIGINT, handler)


def _lines(number: Number, compared: Compared, result: Remade) -> Iterator[str]:
    """Format a table of jobs, what else differs between the runs, and the number."""
    rows = [("", "job", "promises", "gives")]
    for pair, agreement in compared:
        job, promised = (str(pair.new), _promise(pair.promised)) if pair else ("", "")
        rows.append((MARKS[agreement.holds], job, promised, agreement.reason))
    widths = [max(len(row[i]) for row in rows) for i in range(3)]
    for row in rows:
        columns = [text.ljust(width) for text, width in zip(row, widths, strict=False)]
        yield "  ".join([*columns, row[3]])
    yield ""
    for difference, n_jobs in _differences(compared).items():
        yield f"differs from the first run: {difference} ({n_jobs} jobs)"
    same = "" if result.before != result.after else ", to the last bit"
    yield f"{number.id}: {result.shown_before} then, {result.shown_after} now{same}"
    yield f"  unrounded {result.before!r} then, {result.after!r} now"
    yield f"{MARKS[result.agreement.holds]}: {result.agreement.reason}"


def _differences(compared: Compared) -> dict[str, int]:
    """Count in how many jobs something else differs from the first run.

    Machine and environment only count in jobs with other bits, which they may explain.
    """
    counts: Counter[str] = Counter()
    for pair, agreement in compared:
        if pair is None:
            continue
        other = [f"{work} of {pair.new.rule}" for work in pair.other_work()]
        if not agreement.bits:
            other += [f"{name} {change}" for name, change in pair.other_surroundings().items()]
        counts.update(other)
    return counts


def _promise(promised: str | dict[str, float]) -> str:
    """Format what a rule promises: `score ±0.05`."""
    if isinstance(promised, str):
        return promised
    return ", ".join(f"{name} ±{tolerance:g}" for name, tolerance in promised.items())


def _content(number: Number, compared: Compared, result: Remade) -> dict[str, Any]:
    return {
        "cell": number.id,
        "jobs": [
            {
                "job": str(pair.new) if pair else None,
                "record": str(pair.new.file) if pair else None,
                "reproduces": pair.promised if pair else None,
                "holds": agreement.holds,
                "said": agreement.reason,
            }
            for pair, agreement in compared
        ],
        "differences": _differences(compared),
        "before": {"raw": result.before, "shown": result.shown_before},
        "after": {"raw": result.after, "shown": result.shown_after},
        "holds": result.agreement.holds,
        "said": result.agreement.reason,
    }
