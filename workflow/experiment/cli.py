"""Merge feed-forward sublayers of a model of your own, and audit the numbers of a run."""

import sys

from ffmerge.__main__ import COMMANDS as OWN_MODEL
from ffmerge.__main__ import main as run

COMMANDS = {
    **OWN_MODEL,
    "trace": (
        "provenance.trace.command",
        "where a number comes from: the chain of jobs from data and base model to it",
    ),
    "verify": (
        "provenance.verify.command",
        "whether all that is on disk still is what the records and ledgers say",
    ),
    "explain": (
        "provenance.explain.command",
        "which numbers are stale, because of which change, and which jobs will run",
    ),
    "reproduce": (
        "provenance.reproduce.command",
        "make one number again from data and base model, and compare",
    ),
    "report": (
        "provenance.page.command",
        "one page with all tables and figures, each number with its lineage",
    ),
    "collect": (
        "provenance.collect.command",
        "records, tables and figures in one folder, as a Workflow Run RO-Crate",
    ),
}


def main(arguments: list[str] | None = None) -> int:
    """Run a command of the tool or one about a run's numbers; returns the exit status."""
    return run(arguments, COMMANDS, __doc__)


if __name__ == "__main__":
    sys.exit(main())
