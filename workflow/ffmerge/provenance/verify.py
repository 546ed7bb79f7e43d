"""Check that all that is on disk still is what the records and ledgers say, and what they reach."""

import argparse
from collections.abc import Sequence
from pathlib import Path

from ffmerge.provenance.evidence import RESULTS
from ffmerge.provenance.findings import Report

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
    Raises ValueError for a target that is nothing of these.
    """
    raise NotImplementedError


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The command line of `ffmerge verify`."""


def run(options: argparse.Namespace) -> int:
    """Print what is wrong; 1 if anything is."""
    raise NotImplementedError
