"""Make one number again from data and base model, with nothing reused, and compare.

The jobs that the number comes from run in a folder of their own, with the present code and
configuration. Then each is compared with what its record says of the first run, as far as its rule
promises (bits, decisions, or metrics within a tolerance), and so is the number. The exit status is
1 if something is not as promised.

CELL is the name of a number (`table5:7:permute`), or a table or figure with --row and --column.
What follows `--` is for Snakemake: `ffmerge reproduce table5:7:permute -- --cores 1`.
"""

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from provenance import configuration
from provenance.dag import dry_run
from provenance.explain.staleness import counted, duration, staleness
from provenance.numbers import Number, named, read_ledgers
from provenance.records import Evidence
from provenance.reproduce.agreement import counterpart
from provenance.reproduce.remade import compared, made_files, remade
from provenance.reproduce.reproduction_text import content, lines
from provenance.reproduce.scratch_run import DEFAULT, elsewhere, folder_for, run_snakemake


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("cell", metavar="CELL", help="a number, or a table or figure")
    parser.add_argument("--row", help="its number from 1, or words that are in no other row")
    parser.add_argument("--column", help="its name")
    parser.add_argument("snakemake", nargs="*", metavar="-- OPTION", help="options for Snakemake")
    configuration.add_arguments(parser)
    parser.add_argument(
        "--in", dest="folder", type=Path, help=f"folder to make it in (default: in {DEFAULT}/)"
    )
    parser.add_argument("--resume", action="store_true", help="go on from what is in that folder")
    parser.add_argument("--dry-run", action="store_true", help="say what would run, and stop")
    parser.add_argument("--json", action="store_true", help="the comparison for machines")


def run(options: argparse.Namespace) -> int:
    _, chosen = configuration.find(options.results, options.configfile, [options.cell])
    old = chosen["results"]
    ledgers, _ = read_ledgers(Path(old))
    number = named(ledgers, options.cell, options.row, options.column)
    evidence = Evidence(Path(old))
    targets = made_files(number, evidence)
    folders = (old, folder_for(number.id, options.folder, old, options.resume))
    again = elsewhere(chosen, folders)
    new_targets = [counterpart(target, folders) for target in targets]
    try:
        _announce(number, evidence, targets, len(dry_run(again, *new_targets)), folders[1])
        _warn_if_stale(chosen, targets, evidence)
    except RuntimeError as error:  # Snakemake's, with its words
        raise ValueError(error) from None
    if options.dry_run:
        return 0
    given = [*configuration.deployment(evidence), *options.snakemake]
    if status := run_snakemake(again, new_targets, given):
        _say(f"Snakemake ended with status {status}: nothing to compare. To go on: --resume")
        return 1
    jobs = compared(targets, evidence, Evidence(Path(folders[1])), folders)
    result = remade(number, jobs, folders)
    if options.json:
        print(json.dumps(content(number, jobs, result), indent=2, ensure_ascii=False))
    else:
        print("\n".join(lines(number, jobs, result)))
    _say(f"All of it is kept in {folders[1]}.")
    return int(not (result.agreement.holds and all(agreement.holds for _, agreement in jobs)))


def _announce(
    number: Number, evidence: Evidence, targets: Sequence[str], n_jobs: int, folder: str
) -> None:
    records = evidence.ancestry(*targets)
    seconds = sum((record.content.get("time") or {}).get("cpu_seconds", 0) for record in records)
    rules = counted(record.content.get("rule", "?") for record in records)
    _say(f"{number.id} is {number.cell['shown']}. To make it again in {folder}: {n_jobs} jobs")
    _say(f"  ({rules}), {duration(seconds)} of processor time in the first run.")


def _warn_if_stale(chosen: dict[str, Any], targets: Sequence[str], evidence: Evidence) -> None:
    found = staleness(chosen, targets, evidence, [])
    if found.jobs:
        _say("What is on disk is not what the present code and configuration make:")
        for cause in found.by_cause:
            _say(f"  {cause.kind}: {cause.text}")
        _say("  The second run is of the present ones, so it may well differ.")


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)
