"""The jobs of the workflow, as Snakemake itself would run them: read from a dry run."""

import json
import os
import re
import shlex
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

COMMAND = "Shell command: "
REASON = "    reason: "
NOTHING = "Nothing to be done"
SCRIPTS = "workflow/scripts/"
TEMPORARY = "Would remove temporary output "
CORES = 1000  # more than any rule asks for: a dry run cuts `threads` at the cores there are


@dataclass(frozen=True)
class PlannedJob:
    """A job of a dry run: its rule, and what its command line says.

    inputs, outputs: name -> path or paths. after: the jobs whose outputs it reads, by their index.
    temporary: those of its outputs that Snakemake removes when nobody needs them any more.
    code: digest of the code its script can reach. reproduces: its class of determinism.
    reason: why Snakemake would run it, in its words.
    """

    rule: str
    wildcards: dict[str, str]
    params: dict[str, Any]
    inputs: dict[str, str | list[str]]
    outputs: dict[str, str | list[str]]
    threads: int = 1
    after: tuple[int, ...] = ()
    temporary: frozenset[str] = frozenset()
    code: str = ""
    reproduces: str | dict[str, float] = "bits"
    reason: str = ""

    @property
    def n_gpus(self) -> int:
        """GPUs it asks for: of training, `fine_tuning.devices`."""
        if self.params.get("device", "cpu") == "cpu":
            return 0
        return self.params.get("task", {}).get("fine_tuning", {}).get("devices", 1)

    def __str__(self) -> str:
        chosen = [value for name, value in self.wildcards.items() if name != "results"]
        return " ".join([self.rule, *chosen])


def dry_run(
    configuration: dict[str, Any],
    *targets: str,
    forced: bool = True,
    options: Sequence[str] = (),
    root: Path = Path(),
) -> list[PlannedJob]:
    """All jobs that make some targets (`everything`), as if nothing were there yet.

    configuration: of the workflow, as in a file of config/; root: the repository, whose rules and
    code it is. Nothing is locked, so that a job of a running Snakemake may ask.
    forced: if not, only the jobs that Snakemake would run now. options: further ones for it.
    Raises RuntimeError with Snakemake's own words where the dry run fails.
    """
    with tempfile.TemporaryDirectory() as scratch:
        file = Path(scratch, "config.json")
        file.write_text(json.dumps(configuration))
        command = [sys.executable, "-m", "snakemake", *(targets or ["everything"]), "--dry-run"]
        command += ["--forceall"] * forced
        command += ["--rerun-incomplete", "--nolock", "--printshellcmds", "--quiet", "host"]
        command += ["--cores", str(CORES), "--scheduler", "greedy", "--nocolor"]
        command += ["--workflow-profile", "none", "--profile", "none", "--configfile", str(file)]
        run = subprocess.run(
            [*command, *options],
            capture_output=True,
            text=True,
            cwd=root,
            env=os.environ | {"XDG_CACHE_HOME": scratch, "SNAKEMAKE_PROFILE": ""},
        )
    if run.returncode:
        raise RuntimeError(
            f"the dry run of {' '.join(targets) or 'everything'} failed:\n"
            f"{run.stdout[-2000:]}{run.stderr[-2000:]}"
        )
    if NOTHING in run.stdout + run.stderr:
        return []
    return in_order(_parsed(run.stdout))


def _parsed(printed: str) -> list[PlannedJob]:
    """The jobs that a dry run prints, without the rules that only name targets.

    Raises RuntimeError if Snakemake announces another number of jobs than it prints.
    """
    jobs, temporary, rule, reason, n_printed = [], set(), "", "", 0
    for line in printed.splitlines():
        if found := re.match(r"(?:local)?rule (\w+):$", line):
            rule, reason = found[1], ""
        elif line.startswith(REASON):
            reason = line.removeprefix(REASON)
        elif line.startswith(COMMAND):
            n_printed += 1
            if line != COMMAND + "None":  # of a rule that only names targets
                jobs.append(_job(rule, reason, shlex.split(line.removeprefix(COMMAND))))
        elif line.startswith(TEMPORARY):
            temporary.add(line.removeprefix(TEMPORARY).strip().rstrip("."))
    announced = re.search(r"^total +(\d+)$", printed, re.MULTILINE)
    if announced is None or int(announced[1]) != n_printed:
        said = announced[1] if announced else "no"
        raise RuntimeError(f"the dry run announces {said} jobs and prints {n_printed}")
    return [
        replace(job, temporary=frozenset(temporary.intersection(paths(job.outputs))))
        for job in jobs
    ]


def _job(rule: str, reason: str, command: Sequence[str]) -> PlannedJob:
    """The job of a command `… workflow/scripts/NAME.py JOB FILES --threads N …`.

    Raises RuntimeError naming a rule whose command is of another form.
    """
    script = next((i for i, word in enumerate(command) if word.startswith(SCRIPTS)), None)
    if script is None:
        raise RuntimeError(f"the command of rule {rule} runs none of {SCRIPTS}: {command}")
    job, files = json.loads(command[script + 1]), json.loads(command[script + 2])
    threads = int(command[command.index("--threads") + 1])
    return PlannedJob(
        rule,
        job["wildcards"],
        job["params"],
        files["input"],
        files["output"],
        threads,
        code=job["code"],
        reproduces=job["reproduces"],
        reason=reason,
    )


def in_order(jobs: Sequence[PlannedJob]) -> list[PlannedJob]:
    """The jobs, each after those that make what it reads and knowing which these are.

    Snakemake prints them in another order every time; here it is by depth, rule and outputs.
    """
    jobs = _with_edges(jobs)
    depths: list[int | None] = [None] * len(jobs)

    def depth(i: int) -> int:
        if depths[i] is None:
            depths[i] = 1 + max((depth(before) for before in jobs[i].after), default=-1)
        return depths[i]

    def place(i: int) -> tuple[int, str, list[str]]:
        return depth(i), jobs[i].rule, list(paths(jobs[i].outputs))

    order = sorted(range(len(jobs)), key=place)
    return _with_edges([jobs[i] for i in order])


def _with_edges(jobs: Sequence[PlannedJob]) -> list[PlannedJob]:
    maker = {path: i for i, job in enumerate(jobs) for path in paths(job.outputs)}
    makers = [{maker[path] for path in paths(job.inputs) if path in maker} for job in jobs]
    return [replace(job, after=tuple(sorted(of))) for job, of in zip(jobs, makers, strict=True)]


def paths(files: dict[str, str | list[str]]) -> Iterator[str]:
    """All paths of a job's inputs or outputs."""
    for value in files.values():
        yield from [value] if isinstance(value, str) else value
