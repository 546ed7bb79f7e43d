"""What the tests on a cluster need of this machine, and why they are skipped where it lacks it."""

import os
import platform
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from daemons import FOLDER
from slurm_files import is_of_another_cluster

HERE = Path(__file__).parent
REPOSITORY = HERE.parents[1]
LOCK = REPOSITORY / "containers/lock.yaml"


def prepare() -> None:
    """Install SLURM and Apptainer, or skip the tests and say why."""
    system = platform.freedesktop_os_release() if sys.platform == "linux" else {}
    if (system.get("ID"), system.get("VERSION_ID")) != ("debian", "12"):
        pytest.skip(f"SLURM and Apptainer come from Debian 12, and this is {_name(system)}")
    if os.geteuid() != 0:
        pytest.skip("SLURM's daemons and Debian's packages want root")
    if is_of_another_cluster(FOLDER):
        pytest.skip("this machine belongs to a cluster, which is not for tests")
    for script in ("slurm-install.sh", "apptainer-install.sh"):
        done = subprocess.run([HERE / script], capture_output=True, text=True)
        if done.returncode:
            said = (done.stderr or done.stdout).strip().splitlines() or ["nothing"]
            pytest.skip(f"{script} failed, which said: {said[-1]}")


def image() -> Path:
    """The image of containers/lock.yaml, built if it is not there.

    A build that this machine cannot do skips the tests. One that gives other bits than the locked
    ones fails them, also where the lock has taken the new digest because the inputs are new.
    """
    locked = _locked()
    file = REPOSITORY / "containers" / locked["file"]
    if file.exists():  # every job checks its digest
        return file
    command = ["make", "--no-print-directory", "images", "ENV=cpu"]
    done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True)
    said = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    if done.returncode and "has sha256" not in done.stderr:
        pytest.skip(f"make images failed, which said: {(said or [done.stderr[-300:]])[-1]}")
    if done.returncode or _locked()["sha256"] != locked["sha256"]:
        pytest.fail(f"the image is not the locked one: {(said or done.stdout.splitlines())[-1]}")
    return file


def _locked() -> dict:
    return yaml.safe_load(LOCK.read_text())["cpu"]


def _name(system: dict[str, str]) -> str:
    return system.get("PRETTY_NAME") or platform.platform()
