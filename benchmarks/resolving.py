"""Time Snakemake itself: resolving configurations, and runs with nothing to do."""

import os
import subprocess
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import yaml

from subjects import REPOSITORY
from timing import Measured, Sample, compared, in_turns, median_seconds

SHARED = ("Snakefile", "workflow", "config", "containers", "docs", "envs", "resources")


@dataclass(frozen=True)
class Size:
    """How often to time each run, and how many copies of the demo's tasks the large run has."""

    rounds: int
    copies: int


FULL = Size(3, 10)
TOY = Size(1, 2)


def measure(size: Size = FULL) -> list[Measured]:
    """Measure four lines: resolving the paper and many tasks against the demo, and no-op runs."""
    with tempfile.TemporaryDirectory() as directory:
        copy = _Copy(Path(directory), size.copies)
        resolved = in_turns(
            size.rounds,
            demo=copy.resolve("config/demo.yaml"),
            paper=copy.resolve("config/paper.yaml"),
            many=copy.resolve("many.yaml"),
            start=lambda: copy.snakemake("--version"),
        )
        for file in ("config/demo.yaml", "many.yaml"):
            copy.pretend_to_run(file)
        idle = in_turns(
            size.rounds,
            demo=copy.resolve("config/demo.yaml", nothing_to_do=True),
            many=copy.resolve("many.yaml", nothing_to_do=True),
        )
    n = 3 * size.copies

    def line(what: str, samples: dict[str, list[Sample]], over: str, goal=None) -> Measured:
        return compared(what, samples[over], samples["demo"], goal)

    start = median_seconds(resolved["start"])
    return [
        line("resolving the paper / the demo", resolved, "paper"),
        line(f"resolving {n} tasks / 3", resolved, "many", ("at most", 1.2 * size.copies)),
        line(f"no-op run of {n} tasks / 3", idle, "many", ("at most", 1.2 * size.copies)),
        compared(
            f"no-op run of the demo / `snakemake --version` ({start:.2g} s)",
            idle["demo"],
            resolved["start"],
            None,
        ),
    ]


class _Copy:
    """A copy of the workflow without results, with copies of the demo's tasks in `many.yaml`."""

    def __init__(self, root: Path, copies: int) -> None:
        self.root = root
        for name in SHARED:
            (root / name).symlink_to(REPOSITORY / name)
        config = yaml.safe_load((REPOSITORY / "config/demo.yaml").read_text())
        tasks = config["tasks"].items()
        config["tasks"] = {
            f"{name}_{i}": task | {"label": f"{task['label']} {i}"}
            for i in range(copies)
            for name, task in tasks
        }
        config["results"] = "results/many"
        (root / "many.yaml").write_text(yaml.safe_dump(config, sort_keys=False))

    def snakemake(self, *arguments: str) -> str:
        """Run Snakemake and return its output. Raises CalledProcessError if it fails."""
        return subprocess.run(
            [sys.executable, "-m", "snakemake", *arguments],
            cwd=self.root,
            env=os.environ | {"PYTHONPATH": ""},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=True,
        ).stdout

    def resolve(self, file: str, nothing_to_do: bool = False) -> Callable[[], None]:
        """Make a function that dry-runs everything, and checks whether there is nothing to do."""

        def run() -> None:
            printed = self.snakemake(
                *("everything", "--dry-run", "--cores", "2", "--configfile", file)
            )
            assert ("Nothing to be done" in printed) == nothing_to_do, printed[-2000:]

        return run

    def pretend_to_run(self, file: str) -> None:
        """Write a placeholder for every output, and have Snakemake treat it as finished."""
        options = ("--cores", "2", "--configfile", file)
        summary = self.snakemake("everything", "--detailed-summary", *options)
        for row in summary.splitlines():
            path = row.split("\t")[0]
            if path.startswith("results/"):
                made = self.root / path
                if made.suffix:
                    made.parent.mkdir(parents=True, exist_ok=True)
                    made.write_text(f"{path}\n")
                else:  # a model's directory
                    made.mkdir(parents=True, exist_ok=True)
        self.snakemake("everything", "--touch", *options)
