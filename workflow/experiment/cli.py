"""Merge feed-forward sublayers of your own model, and audit the numbers of a run."""

import sys

from ffmerge.__main__ import COMMANDS as TOOL
from ffmerge.__main__ import main as run

COMMANDS = {
    **TOOL,
    "trace": (
        "provenance.trace.command",
        "show where a number comes from: the chain of jobs from data and base model to it",
    ),
    "verify": (
        "provenance.verify.command",
        "check that the files on disk still match the records and ledgers",
    ),
    "explain": (
        "provenance.explain.command",
        "show which numbers are stale, because of which change, and which jobs will run",
    ),
    "reproduce": (
        "provenance.reproduce.command",
        "compute one number again from data and base model, and compare",
    ),
    "report": (
        "provenance.page.command",
        "make one page with all tables and figures, each number with its lineage",
    ),
    "collect": (
        "provenance.collect.command",
        "put records, tables and figures in one folder, as a Workflow Run RO-Crate",
    ),
    "audit": (
        "provenance.audit.command",
        "make a random sample of the numbers again, and say what follows for all",
    ),
    "diff": (
        "provenance.diff.command",
        "say where two runs of one configuration part, and which numbers differ",
    ),
    "sign": (
        "provenance.sign.command",
        "sign the digests of all records, ledgers and tables with an SSH key",
    ),
}


def main(arguments: list[str] | None = None) -> int:
    """Run a command of the tool, or one about a run's numbers. Returns the exit status."""
    return run(arguments, COMMANDS, __doc__)


if __name__ == "__main__":
    sys.exit(main())
