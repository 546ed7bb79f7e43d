"""Go on after Snakemake was killed while its jobs ran on: `python slurm/resume.py TARGET OPTION …`.

A killed Snakemake leaves jobs in the queue that nobody waits for, and its lock. To unlock and start
again while such an orphan runs is to give its outputs a second writer. So this cancels the orphans,
waits until SLURM says that they are gone, removes the lock, and then starts

    snakemake --profile slurm TARGET … OPTION …

which makes again what the orphans left, or what they finished and Snakemake did not see. A
fine-tuning that was not finished goes on from its last checkpoint.

Orphans are this user's jobs that were submitted from this folder and carry the name that the
profile gives. Nothing is cancelled while the Snakemake that submitted them lives; whether one does
can be told only on the machine where it was started, so this has to run there too.
"""

import os
import platform
import re
import shlex
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import yaml

FOLDER = Path.cwd()
PROFILE = yaml.safe_load((Path(__file__).parent / "config.yaml").read_text())
sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from run import remove_locks_of_killed_run  # noqa: E402 (workflow/run.py)


def submitted_from() -> str | None:
    """The machine where the last run of Snakemake in this folder was started."""
    logs = sorted(
        Path(".snakemake/log").glob("*.snakemake.log"), key=lambda log: log.stat().st_mtime
    )
    for log in reversed(logs):
        text = log.read_text(errors="replace")
        if "SLURM run ID:" in text and (host := re.search(r"^ *Host: (\S+)", text, re.MULTILINE)):
            return host[1]
    return None


def living(program: str) -> Iterator[int]:
    """This folder's processes of a program; a Snakemake inside of a job is none."""
    for process in Path("/proc").glob("[0-9]*"):
        try:
            words = (process / "cmdline").read_text().split("\0")
            here = (process / "cwd").resolve() == FOLDER
            ended = (process / "stat").read_text().rpartition(")")[2].split()[0] == "Z"
        except OSError:  # it has ended, or is somebody else's
            continue
        named = any(Path(word).name == program for word in words)
        if here and named and not ended and "remote" not in words:  # --mode remote
            yield int(process.name)


def orphans() -> list[str]:
    """The SLURM jobs of this folder that wait, run or are just ending."""
    prefix = f"{PROFILE['slurm-jobname-prefix']}_"
    asked = ["squeue", "--me", "--noheader", "--format=%A|%j|%Z"]
    said = subprocess.run(asked, stdout=subprocess.PIPE, text=True, check=True).stdout
    jobs = [line.split("|") for line in said.splitlines()]
    return [
        job for job, name, at in jobs if name.startswith(prefix) and Path(at).resolve() == FOLDER
    ]


def cancel(jobs: list[str]) -> None:
    """Cancel jobs and wait until they are gone, however long their nodes take to say so."""
    print(f"Cancelling {len(jobs)} jobs of the run that was killed: {' '.join(jobs)}", flush=True)
    since = time.monotonic()
    while jobs := orphans():
        subprocess.run(["scancel", *jobs], check=True)
        time.sleep(1)
        if time.monotonic() - since > 60:
            since = time.monotonic()
            print(f"Still waiting for SLURM to end {' '.join(jobs)}", flush=True)


def main() -> None:
    if alive := list(living("snakemake")):
        sys.exit(f"error: Snakemake still runs here, as process {', '.join(map(str, alive))}.")
    while list(living("sbatch")):  # which was submitting when Snakemake was killed
        time.sleep(0.5)
    if (host := submitted_from()) not in (None, platform.node()):
        sys.exit(f"error: the last run was started on {host}: go there, for it may still run.")
    if jobs := orphans():
        cancel(jobs)
    remove_locks_of_killed_run(shlex.join(sys.argv[1:]), Path(PROFILE["configfile"]))
    profile = Path(__file__).parent
    command = [sys.executable, "-m", "snakemake", "--profile", str(profile), *sys.argv[1:]]
    os.execv(sys.executable, command)


if __name__ == "__main__":
    main()
