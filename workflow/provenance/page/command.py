"""Put all tables and figures of a run on one page, each number with its lineage.

The page is one HTML file that opens without a server or a network. A click on a number shows where
it comes from, job by job, and the commands that trace it and make it again. What `ffmerge verify`
finds is found when the page is made, and stands in it.
"""

import argparse
from pathlib import Path

from provenance.page.gather import PAGE, gather
from provenance.page.render import captions, render
from provenance.record import write_atomically
from provenance.records import RESULTS
from provenance.verify.command import verify
from provenance.verify.findings import STALE, Report


def write_page(
    out: Path, results: Path = RESULTS, check: Report | None = None, root: Path = Path()
) -> None:
    """Write the page of a run. check: what a verification found, None if there was none.

    Raises ValueError if there are no ledgers below `results`.
    """
    page = gather(results, captions(root), check, root)
    write_atomically(out, render(page, root).encode())


def checked_on_disk(results: Path) -> Report:
    """What a verification finds while the workflow runs: of what is on disk alone.

    Snakemake has just made again what was out of date, and knows better than a file that is edited.
    """
    found = verify(results, configuration=None)
    faults = [fault for fault in found.faults if fault.state != STALE]
    return Report(faults, found.remarks, found.counts, found.numbers)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The command line of `ffmerge report`."""
    parser.add_argument("--results", type=Path, default=RESULTS, help="folder of results")
    parser.add_argument("--out", type=Path, help=f"file to write, by default {PAGE} in the results")
    parser.add_argument("--no-check", action="store_true", help="do not verify anything first")


def run(options: argparse.Namespace) -> int:
    """Write the page and say where; 1 if something is wrong with what it shows."""
    out = options.out or options.results / PAGE
    if out == options.results / PAGE and out.with_suffix(".record.json").exists():
        raise ValueError(f"{out} has a record of the job that made it: name another file by --out")
    check = None if options.no_check else verify(options.results)
    write_page(out, options.results, check)
    print(f"{out}: {out.stat().st_size / 1e6:.1f} MB")
    if check and check.faults:
        print(f"{len(check.faults)} faults were found: the page and `ffmerge verify` say which")
        return 1
    return 0
