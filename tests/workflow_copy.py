"""A copy of the repository to run Snakemake in."""

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import yaml

REPOSITORY = Path(__file__).parent.parent
CEILING = 3600  # seconds to wait for what has to happen, however busy the machine
COPIED = ("Snakefile", "workflow", "config", "containers", "docs", "envs", "resources")


class Copy:
    """A repository of its own at `root`, with a configuration that tests may change.

    tasks: those that are kept of it, by default all.
    """

    def __init__(
        self, root: Path, tasks: Sequence[str] = (), configuration: str = "config/pico.yaml"
    ) -> None:
        self.root = root
        root.mkdir(exist_ok=True)
        for name in COPIED:
            source = REPOSITORY / name
            ignored = shutil.ignore_patterns("__pycache__", "*.sif")
            if source.is_dir():
                shutil.copytree(source, root / name, ignore=ignored)
            else:
                shutil.copy(source, root / name)
        self.config = yaml.safe_load((root / configuration).read_text())
        self.config["tasks"] = {
            name: task for name, task in self.config["tasks"].items() if not tasks or name in tasks
        }
        self.write_config()

    @classmethod
    def at(cls, root: Path) -> "Copy":
        """The copy that is at `root` already."""
        copy = cls.__new__(cls)
        copy.root, copy.config = root, yaml.safe_load((root / "config/run.yaml").read_text())
        return copy

    def write_config(self) -> None:
        """Write the configuration as it now is."""
        (self.root / "config/run.yaml").write_text(yaml.safe_dump(self.config, sort_keys=False))

    def commit(self) -> None:
        """Put it under version control as it is, but for what runs write."""
        (self.root / ".gitignore").write_text("results/\n__pycache__/\n.snakemake/\n.cache/\n")
        who = ["-c", "user.name=test", "-c", "user.email=test@localhost"]
        for command in (["init", "-q"], ["add", "--all"], [*who, "commit", "-qm", "A copy"]):
            subprocess.run(["git", "-C", self.root, *command], check=True)

    @property
    def results(self) -> Path:
        """Where its results land."""
        return self.root / self.config["results"]

    def start(self, *options: str, target: str = "everything") -> subprocess.Popen:
        """Start a run as `make demo-all` does, in a process group of its own."""
        command = [sys.executable, "workflow/run.py", target, "--cores", "2", "--configfile"]
        return subprocess.Popen(
            [*command, "config/run.yaml", "--rerun-incomplete", *options],
            cwd=self.root,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
            env=os.environ | {"PYTHONPATH": ""},
        )

    def run(self, *options: str, target: str = "everything") -> str:
        """Run to the end and return what was printed; fails with it if the run fails."""
        process = self.start(*options, target=target)
        printed = process.communicate(timeout=CEILING)[0]
        assert process.returncode == 0, printed
        return printed

    def jobs_to_run(self, *options: str) -> list[str]:
        """The rules of the jobs that a run would do now, one entry a job."""
        printed = self.run("--dry-run", "--quiet", "host", *options)
        return sorted(
            rule for rule in re.findall(r"^(?:local)?rule (\w+):$", printed, re.MULTILINE)
        )

    def edit(self, file: str, old: str, new: str) -> None:
        """Replace text in a file, which has to be there."""
        path = self.root / file
        text = path.read_text()
        assert old in text, f"{file} has no {old!r}"
        path.write_text(text.replace(old, new))
