"""Read the jobs of the workflow from a dry run of Snakemake."""

import json
import os
import re
import shlex
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from graphlib import TopologicalSorter
from pathlib import Path
from typing import Any

from provenance.project import PROJECT

COMMAND = "Shell command: "
REASON = "    reason: "
NOTHING = "Nothing to be done"
SCRIPTS = f"{PROJECT.scripts}/"
MAX_ERROR = 500  # characters of Snakemake's words
TEMPORARY = "Would remove temporary output "


@dataclass(frozen=True)
class PlannedJob:
    """A job of a dry run, parsed from the command that Snakemake prints.

    inputs, outputs: name -> path or paths. after: indices of the jobs whose outputs it reads.
    temporary: outputs that Snakemake removes after the last job that reads them.
    code: digest of the code that its script can reach. reproduces: its class of determinism.
    reason: Snakemake's reason for running it.
    """

    rule: str
    wildcards: dict[str, str]
    params: dict[str, Any]
    inputs: dict[str, str | list[str]]
    outputs: dict[str, str | list[str]]
    after: tuple[int, ...] = ()
    temporary: frozenset[str] = frozenset()
    code: str = ""
    reproduces: str | dict[str, float] = "bits"
    reason: str = ""

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
    """List the jobs that make some targets, by default `everything`, from scratch.

    configuration: a configuration of the workflow, as in a file of config/. root: the repository
    whose rules and code run. forced: if False, list only the jobs that Snakemake would run now.
    options: further command-line options of Snakemake. The dry run takes no lock, so a job of a
    running Snakemake can call this. Raises RuntimeError with Snakemake's words if it fails.
    """
    with tempfile.TemporaryDirectory() as scratch:
        file = Path(scratch, "config.json")
        file.write_text(json.dumps(configuration))
        command = [sys.executable, "-m", "snakemake", *(targets or ["everything"]), "--dry-run"]
        command += ["--forceall"] * forced
        command += ["--rerun-incomplete", "--nolock", "--printshellcmds", "--quiet", "host"]
        command += ["--cores", "1", "--scheduler", "greedy", "--nocolor"]
        command += ["--workflow-profile", "none", "--profile", "none", "--configfile", str(file)]
        run = subprocess.run(
            [*command, *options],
            capture_output=True,
            text=True,
            cwd=root,
            env=os.environ
            | {"XDG_CACHE_HOME": scratch, "SNAKEMAKE_PROFILE": "", "PYTHONUTF8": "1"},
        )
    if run.returncode:
        said = (run.stdout + run.stderr).strip()
        begin = re.search(r"^.*(error:|Error|Exception).*$", said, re.MULTILINE)
        line = " ".join(said[begin.start() if begin else -MAX_ERROR :].split())[:MAX_ERROR]
        raise RuntimeError(f"the dry run of {' '.join(targets) or 'everything'} failed: {line}")
    if NOTHING in run.stdout + run.stderr:
        return []
    return in_order(_parsed(run.stdout))


def _parsed(printed: str) -> list[PlannedJob]:
    """Parse the output of a dry run, leaving out rules that only name targets.

    Raises RuntimeError if the number of jobs printed differs from the total that Snakemake states.
    """
    jobs, temporary, rule, reason, n_printed = [], set(), "", "", 0
    for line in printed.splitlines():
        if heading := re.match(r"(?:local)?rule (\w+):$", line):
            rule, reason = heading[1], ""
        elif line.startswith(REASON):
            reason = line.removeprefix(REASON)
        elif line.startswith(COMMAND):
            n_printed += 1
            if line != COMMAND + "None":  # a rule that only names targets has no command
                jobs.append(_job(rule, reason, shlex.split(line.removeprefix(COMMAND))))
        elif line.startswith(TEMPORARY):
            temporary.add(line.removeprefix(TEMPORARY).strip().rstrip("."))
    announced = re.search(r"^total +(\d+)$", printed, re.MULTILINE)
    if announced is None or int(announced[1]) != n_printed:
        total = announced[1] if announced else "no"
        raise RuntimeError(f"the dry run announces {total} jobs and prints {n_printed}")
    return [
        replace(job, temporary=frozenset(temporary.intersection(paths(job.outputs))))
        for job in jobs
    ]


def _job(rule: str, reason: str, command: Sequence[str]) -> PlannedJob:
    """Parse a command `… workflow/scripts/NAME.py JOB FILES …`.

    Raises RuntimeError naming a rule whose command has another form.
    """
    script = next((i for i, word in enumerate(command) if word.startswith(SCRIPTS)), None)
    if script is None:
        raise RuntimeError(f"the command of rule {rule} runs none of {SCRIPTS}: {command}")
    job, files = json.loads(command[script + 1]), json.loads(command[script + 2])
    return PlannedJob(
        rule,
        job["wildcards"],
        job["params"],
        files["input"],
        files["output"],
        code=job["code"],
        reproduces=job["reproduces"],
        reason=reason,
    )


def in_order(jobs: Sequence[PlannedJob]) -> list[PlannedJob]:
    """Sort jobs by depth in the DAG, rule and outputs, and fill in `after`.

    Snakemake prints jobs in a different order every time.
    """
    jobs = _with_edges(jobs)
    sorter = TopologicalSorter({i: job.after for i, job in enumerate(jobs)})
    sorter.prepare()
    ordered = []
    while generation := sorter.get_ready():  # jobs of the same depth
        sorter.done(*generation)
        ready = [jobs[i] for i in generation]
        ordered += sorted(ready, key=lambda job: (job.rule, *paths(job.outputs)))
    return _with_edges(ordered)


def _with_edges(jobs: Sequence[PlannedJob]) -> list[PlannedJob]:
    maker = {path: i for i, job in enumerate(jobs) for path in paths(job.outputs)}
    makers = [{maker[path] for path in paths(job.inputs) if path in maker} for job in jobs]
    return [
        replace(job, after=tuple(sorted(before))) for job, before in zip(jobs, makers, strict=True)
    ]


def paths(files: dict[str, str | list[str]]) -> Iterator[str]:
    """Iterate over all paths of a job's inputs or outputs."""
    for value in files.values():
        yield from [value] if isinstance(value, str) else value
