"""Run Snakemake in this folder, one run at a time: `python workflow/run.py TARGET … OPTION …`.

Snakemake's own lock is a file. A killed run leaves it behind, and the next one refuses to start
until somebody unlocks; to unlock while jobs of the killed run still write is to give their outputs
a second writer. So `make demo` takes turns by a lock that the system gives back when its last
holder ends, and every process of the run holds it: it is their standard input, which is the one
file that Snakemake hands down to a job. Who comes second waits for the first and for its jobs, and
after a kill nothing has to be unlocked. Snakemake's lock stays as well, against a `snakemake` that
somebody starts without this program.
"""

import fcntl
import os
import shlex
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import TextIO

import yaml

STATE = Path(".snakemake")  # Snakemake's own folder
DEFAULT = Path("config/demo.yaml")  # as in workflow/Snakefile


def take_turn() -> TextIO:
    """The lock: an open file that names its holder, or is empty if the last one came to its end."""
    STATE.mkdir(exist_ok=True)
    turn = open(STATE / "turn", "a+")  # noqa: SIM115 (open as long as this process lives)
    try:
        fcntl.flock(turn, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        turn.seek(0)
        holder = turn.read() or "somebody"
        print(f"Waiting for the run in this folder to end, jobs included: {holder}", flush=True)
        fcntl.flock(turn, fcntl.LOCK_EX)
    turn.seek(0)
    return turn


def results_of(arguments: list[str], default: Path) -> str:
    """The folder of results that a run with these arguments of Snakemake writes to.

    default: the configuration that a file among the arguments replaces.
    """
    from snakemake.cli import get_argument_parser  # takes seconds; needed only after a kill

    options, _ = get_argument_parser().parse_known_args(arguments)
    configuration = {}
    for file in [default, *(options.configfile or [])]:
        configuration |= yaml.safe_load(Path(file).read_bytes())
    named = dict(word.split("=", 1) for word in options.config or [])
    return str(Path((configuration | named)["results"])) + "/"


def remove_locks_of_killed_run(arguments: str, default: Path = DEFAULT) -> None:
    """Remove Snakemake's locks on the results of a run; those of a run with other results stay.

    arguments: of that run, as in a shell. default: see `results_of`.
    """
    try:
        results = results_of(shlex.split(arguments), default)
    except (OSError, ValueError, KeyError, TypeError, yaml.YAMLError) as error:
        print(f"What it wrote to cannot be told ({error}); if it is locked: snakemake --unlock")
        return
    for lock in STATE.glob("locks/*.lock"):
        with suppress(FileNotFoundError):  # a run that ends removes its own
            paths = map(os.path.normpath, lock.read_text().splitlines())
            if any(path.startswith(results) for path in paths):
                lock.unlink()


def main() -> int:
    turn = take_turn()
    if killed := turn.read():
        print("The last run here was killed. Going on from what it finished.", flush=True)
        remove_locks_of_killed_run(killed.partition(": ")[2])
    turn.truncate(0)
    now = time.strftime("%H:%M:%S")
    turn.write(f"process {os.getpid()}, since {now}: {shlex.join(sys.argv[1:])}")
    turn.flush()

    # The rules say `python …` and mean this one, whether or not its environment is activated.
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', os.defpath)}"
    command = [sys.executable, "-m", "snakemake", *sys.argv[1:]]
    environment = os.environ | {"PATH": path, "PYTHONUTF8": "1"}  # whatever the locale
    if sys.stdout.isatty() and not {"-n", "--dry-run", "--logger"}.intersection(sys.argv):
        command += ["--logger", "rich"]  # one display of all rules; bars of jobs would break it up
        environment["JOB_BARS"] = "off"
    run = subprocess.Popen(command, stdin=turn, env=environment)
    # Ctrl-C reaches Snakemake by itself; it stops its jobs, and this waits for that.
    signal.signal(signal.SIGINT, lambda *_: None)
    signal.signal(signal.SIGTERM, lambda *_: run.terminate())
    status = run.wait()
    if status < 0:
        return 128 - status  # killed: the file keeps saying so
    turn.truncate(0)
    return status


if __name__ == "__main__":
    sys.exit(main())
