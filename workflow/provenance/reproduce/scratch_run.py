"""A run of part of the workflow in a folder of its own, with nothing reused."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from provenance.reproduce.agreement import counterpart

DEFAULT = Path(".cache/reproduced")
PROFILE = "workflow/profiles/default"
STDERR = 2
LOCKS = Path(".snakemake/locks")
CONFIGURATION = "configuration.json"


def elsewhere(configuration: dict[str, Any], folders: tuple[str, str]) -> dict[str, Any]:
    """The same configuration with its results, and whatever it names in them, in another folder."""

    def moved(value: Any) -> Any:
        if isinstance(value, dict):
            return {name: moved(each) for name, each in value.items()}
        if isinstance(value, list):
            return [moved(each) for each in value]
        return counterpart(value, folders) if isinstance(value, str) else value

    return moved(configuration) | {"results": folders[1]}


def folder_for(name: str, chosen: Path | None, results: str, resume: bool) -> str:
    """The folder that a number is made in again, relative to the repository.

    Raises ValueError if something is there, unless it is to be resumed, and for a folder in
    `results`, where the new records would be taken for the run's own.
    """
    folder = Path(os.path.relpath(chosen or DEFAULT / name.replace(":", "-")))
    if Path(results).resolve() in [folder.resolve(), *folder.resolve().parents]:
        raise ValueError(f"{folder} is in {results}, whose numbers it is to be compared with")
    if folder.exists() and any(folder.iterdir()) and not resume:
        raise ValueError(f"{folder} is not empty: remove it, or go on from there (--resume)")
    return folder.as_posix()


def run_snakemake(
    configuration: dict[str, Any], targets: Sequence[str], options: Sequence[str]
) -> int:
    """Make targets of a configuration, with progress on standard error; Snakemake's exit status.

    Another run may be going on in this repository: Snakemake locks files, and these are others.
    Locks on this folder are of a run that was killed, or the folder would be empty.
    """
    folder = Path(configuration["results"])
    folder.mkdir(parents=True, exist_ok=True)
    for lock in LOCKS.glob("*.lock"):
        if f"{folder.as_posix()}/" in lock.read_text():
            lock.unlink()
    file = folder / CONFIGURATION
    file.write_text(json.dumps(configuration, indent=2))
    command = [sys.executable, "-m", "snakemake", *targets, "--configfile", str(file)]
    command += ["--workflow-profile", PROFILE, "--quiet", "host", *options]
    # The rules say `python …` and mean this one, whether or not its environment is activated.
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', os.defpath)}"
    run = subprocess.Popen(command, stdout=STDERR, env=os.environ | {"PATH": path})
    # Ctrl-C reaches Snakemake by itself; it stops its jobs, and this waits for that.
    ours = signal.signal(signal.SIGINT, lambda *_: None)
    try:
        return run.wait()
    finally:
        signal.signal(signal.SIGINT, ours)
