"""A small workflow as Snakemake's manual writes them: scripts, parameters one by one, an image.

It has what changes are about (data, a library, a configuration, an image) and none of what ours
adds to Snakemake, so that it shows what Snakemake would have done alone.
"""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

FILES = {
    "Snakefile": """
configfile: "config.yaml"
container: "image.sif"
rule all:
    input: "table.txt", "figure.txt"
rule tune:
    input: "data.csv"
    output: "model.txt"
    params: rate=config["rate"], steps=config["steps"], seed=config["seed"]
    script: "scripts/tune.py"
rule tabulate:
    input: "model.txt"
    output: "table.txt"
    script: "scripts/tabulate.py"
rule plot:
    input: "model.txt"
    output: "figure.txt"
    script: "scripts/plot.py"
""",
    "config.yaml": "{rate: 5, steps: 8, seed: 1}\n",
    "image.sif": "",
    ".gitignore": ".snakemake/\n*.txt\n__pycache__/\n",
    **{
        f"scripts/{name}.py": (
            "import os, sys\n"
            "sys.path.insert(0, os.getcwd())\n"
            f"from {name}_library import MADE\n"
            'with open(snakemake.output[0], "w") as file:\n'
            "    file.write(MADE)\n"
        )
        for name in ("tune", "tabulate", "plot")
    },
    **{f"{name}_library.py": 'MADE = "one"\n' for name in ("tune", "tabulate", "plot")},
}
LARGE = 2 * 1024 * 1024  # bytes of the data: above 1 MB Snakemake keeps no digest
IN_AN_IMAGE = ("--software-deployment-method", "apptainer")


class Plain:
    """The workflow in a folder."""

    def __init__(self, root: Path) -> None:
        self.root = root

    @classmethod
    def finished(cls, root: Path) -> "Plain":
        """A run of it, under version control."""
        for name, text in FILES.items():
            (root / name).parent.mkdir(parents=True, exist_ok=True)
            (root / name).write_text(text)
        (root / "data.csv").write_bytes(b"1\n" * (LARGE // 2))
        who = ["-c", "user.name=test", "-c", "user.email=test@localhost"]
        for command in (["init", "-q"], ["add", "--all"], [*who, "commit", "-qm", "Begin"]):
            subprocess.run(["git", "-C", root, *command], check=True)
        made = cls(root)
        made.snakemake()
        return made

    def copy(self, root: Path) -> "Plain":
        """The same, to be changed."""
        return Plain(Path(shutil.copytree(self.root, root)))

    def snakemake(self, *options: str) -> str:
        """Run it, and return what was printed."""
        command = [sys.executable, "-m", "snakemake", "--cores", "1", *options]
        run = subprocess.run(
            command,
            cwd=self.root,
            capture_output=True,
            text=True,
            env=os.environ | {"PYTHONPATH": "", "PYTHONDONTWRITEBYTECODE": "1"},
        )
        assert run.returncode == 0, run.stdout + run.stderr
        return run.stdout + run.stderr

    def rules_to_run(self, *options: str) -> set[str]:
        """The rules of the jobs that a run would do now."""
        printed = self.snakemake("--dry-run", *options)
        return set(re.findall(r"^(?:local)?rule (\w+):$", printed, re.MULTILINE)) - {"all"}

    def edit(self, file: str, old: str, new: str) -> None:
        """Replace text in a file, which has to be there."""
        text = (self.root / file).read_text()
        assert old in text, f"{file} has no {old!r}"
        (self.root / file).write_text(text.replace(old, new))
