"""A repository as somebody has it who cloned this one, and what its runs leave in it."""

import csv
import json
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import yaml
from machine import HERE, REPOSITORY, image
from slurm_files import ACCOUNT, PARTITION

TARGET = "results/pico/tables/table5.csv"


class Clone:
    """A repository as somebody has it who cloned this one and adapted it."""

    def __init__(self, root: Path) -> None:
        self.root = root
        listed = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
        said = subprocess.run(listed, cwd=REPOSITORY, stdout=subprocess.PIPE, check=True).stdout
        for name in filter(None, said.decode().split("\0")):
            if os.path.lexists(REPOSITORY / name):
                (root / name).parent.mkdir(parents=True, exist_ok=True)
                shutil.copy2(REPOSITORY / name, root / name, follow_symlinks=False)
        config = yaml.safe_load((root / "config/pico.yaml").read_text())
        config["tasks"] = {"vit": config["tasks"]["vit"]}
        # some seconds long, so that it can be struck
        config["tasks"]["vit"]["fine_tuning"] |= {"max_steps": 1000, "evaluate_every": 100}
        self.configure("config/run.yaml", config)
        shutil.copy(HERE / "tracer.py", root / "workflow/sitecustomize.py")
        self.git("init", "--quiet")
        self.git("add", "--all")
        self.git("commit", "--quiet", "--message=as cloned")

    def git(self, *arguments: str) -> str:
        """What git says here."""
        command = ["git", "-c", "user.name=test", "-c", "user.email=test@localhost", *arguments]
        done = subprocess.run(command, cwd=self.root, capture_output=True, text=True, check=True)
        return done.stdout.strip()

    def configure(self, file: str, config: dict) -> None:
        """Write a configuration here."""
        (self.root / file).write_text(yaml.safe_dump(config, sort_keys=False))

    def environment(self) -> dict[str, str]:
        """What a shell has where `.venv` is active; root in a sandbox has to tell Apptainer."""
        path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
        outer = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
        return outer | {"PATH": path, "APPTAINER_NO_PRIVS": "1"}

    def start(self, *command: str) -> subprocess.Popen:
        """Start a command here; what it says goes to a file."""
        with (self.root / "said.txt").open("a") as said:
            return subprocess.Popen(
                command, cwd=self.root, env=self.environment(), stdout=said, stderr=said
            )

    def run(self, *command: str) -> str:
        """Run a command here to its end and return what it says, whatever its status."""
        done = subprocess.run(
            command, cwd=self.root, env=self.environment(), text=True, timeout=600,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        )  # fmt: skip
        return done.stdout

    def said(self) -> str:
        return (self.root / "said.txt").read_text()

    def rows(self, file: str) -> list[dict[str, str]]:
        """A table that a job has written."""
        with (self.root / file).open(newline="") as opened:
            return list(csv.DictReader(opened))

    def of_model(self, model: str, file: str) -> str:
        """A file of one model."""
        return f"results/pico/vit/models/{model}/{file}"

    def records(self) -> dict[str, dict]:
        files = sorted((self.root / "results/pico").rglob("*record.json"))
        return {str(file.relative_to(self.root)): json.loads(file.read_text()) for file in files}

    def processes(self) -> list["Trace"]:
        """Every process of a job that ever lived here."""
        return [trace for file in (self.root / "trace").glob("*") if (trace := Trace.read(file))]

    def at_work(self, job: str = "", but: Sequence[str] = ()) -> "Trace | None":
        """A SLURM job's process that is at work now, but none of these SLURM jobs'.

        job: how its rule and wildcards begin.
        """
        found = [trace for trace in self.processes() if trace.job.startswith(job) and trace.node]
        found = [trace for trace in found if trace.slurm_job not in but]
        return next((trace for trace in found if time.time() - trace.last < 1), None)


@dataclass
class Trace:
    """When a process of a job lived, in which SLURM job and on which node."""

    job: str
    slurm_job: str | None
    node: str | None
    offline: bool
    gpus: str | None
    first: float
    last: float

    @property
    def model(self) -> str:
        """The last wildcard of a job that handles one model."""
        return self.job.split()[-1]

    @classmethod
    def read(cls, file: Path) -> "Trace | None":
        lines = file.read_text().splitlines()
        if len(lines) < 2:
            return None
        named = json.loads(lines[0])
        times = [float(line) for line in lines[1:] if re.fullmatch(r"\d+\.\d+", line)]
        return cls(**named, first=times[0], last=times[-1])


def adapted(root: Path) -> Clone:
    """A clone with the image, adapted to the cluster in the lines that the profile marks."""
    clone = Clone(root)
    built = image()
    try:
        os.link(built, clone.root / "containers" / built.name)
    except OSError:  # on another disk
        shutil.copy(built, clone.root / "containers")
    profile = clone.root / "slurm/config.yaml"
    text = profile.read_text()
    for key, value in (("slurm_account", ACCOUNT), ("slurm_partition", PARTITION)):
        text, found = re.subn(rf'# {key}: "…"( *# HERE)', rf'{key}: "{value}"\1', text)
        assert found >= 1, f"the profile has no line for {key}"
    profile.write_text(text)
    return clone
