"""Merge feed-forward sublayers of your own model, and audit the numbers of a run."""

import sys
from contextlib import redirect_stdout
from pathlib import Path

from ffmerge.__main__ import COMMANDS as TOOL
from ffmerge.__main__ import main as run
from ffmerge.__main__ import use_utf8
from provenance.project import PROJECT
from provenance.text_format import Printable

ABOUT_NUMBERS = {
    "trace": "show where a number comes from: the chain of jobs from data and base model to it",
    "verify": "check that the files on disk still match the records and ledgers",
    "explain": "show which numbers are stale, because of which change, and which jobs will run",
    "reproduce": "compute one number again from data and base model, and compare",
    "report": "make one page with all tables and figures, each number with its lineage",
    "collect": "put records, tables and figures in one folder, as a Workflow Run RO-Crate",
    "audit": "make a random sample of the numbers again, and say what follows for all",
    "diff": "say where two runs of one configuration part, and which numbers differ",
    "sign": "sign the digests of all records, ledgers and tables with an SSH key",
}
PACKAGES = {"report": "page"}  # of provenance, where they have another name than the command
COMMANDS = TOOL | {
    name: (f"provenance.{PACKAGES.get(name, name)}.command", words)
    for name, words in ABOUT_NUMBERS.items()
}
ANYWHERE = {*TOOL, "diff"}  # commands that need no run in the current folder
HELP = {"-h", "--help"}


def main(arguments: list[str] | None = None) -> int:
    """Run a command of the tool, or one about a run's numbers. Returns the exit status."""
    if arguments is None:
        use_utf8()
        arguments = sys.argv[1:]
    command = next(iter(arguments), "")
    here = Path(PROJECT.results.parts[0]).is_dir() or PROJECT.scripts.is_dir()
    if command in COMMANDS and command not in ANYWHERE and not (here or HELP & set(arguments)):
        print(
            f"error: {Path.cwd()} holds no run; `ffmerge {command}` has to run at the top of the "
            "repository or of a collected folder",
            file=sys.stderr,
        )
        return 2
    if command in TOOL:
        return run(arguments, COMMANDS, __doc__)
    with redirect_stdout(Printable(sys.stdout)):
        return run(arguments, COMMANDS, __doc__)


if __name__ == "__main__":
    sys.exit(main())
