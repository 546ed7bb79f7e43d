"""Plan a run before it starts: jobs, hours, disk and the longest path.

A dry run names the jobs. config/rates.yaml has their seconds and the gigabytes that they write.
"""

import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import pandas as pd
import yaml
from pydantic import Field, ValidationError
from pydantic.dataclasses import dataclass

from experiment.tables.layout import as_text
from provenance.dag import PlannedJob

RATES = Path("config/rates.yaml")
HOUR = 3600.0


@dataclass(frozen=True)
class Rate:
    """One job: seconds from start to end, gigabytes (1e9 bytes) left on disk, and their source."""

    seconds: float
    gb: float
    source: Annotated[str, Field(pattern="^(measured|assumed); ")]

    @property
    def basis(self) -> str:
        """`measured` or `assumed`."""
        return self.source.split(";")[0]


Rates = dict[tuple[str, str], Rate]
"""Rule, and a task, a task and split, or `all` -> rate. The file names tasks by base model."""


def rates_for(configuration: dict[str, Any], file: Path = RATES) -> Rates:
    """Read the part of the file of rates for a configuration's base models, by its names of tasks.

    Raises ValueError naming base models that are in no part, or a rate that is at fault.
    """
    bases = {name: task["base_model"] for name, task in configuration["tasks"].items()}
    bases = {name: str(base.get("repository") or base.get("path")) for name, base in bases.items()}
    for part, content in yaml.safe_load(file.read_text()).items():
        if set(bases.values()) <= set(names := content["base_models"]):
            rates = read_rates(file, part)
            for_all = {key: rate for key, rate in rates.items() if key[1] == "all"}
            return for_all | {
                (rule, " ".join([task, *split])): rate
                for (rule, key), rate in rates.items()
                for model, *split in [key.split()]
                for task, base in bases.items()
                if names[base] == model
            }
    unknown = ", ".join(sorted(set(bases.values())))
    raise ValueError(f"{file} has no part for base models {unknown}: add one")


def read_rates(file: Path, part: str) -> Rates:
    """Read one part of the file of rates. Raises ValueError naming a rate that is at fault."""
    rates = {}
    for rule, rows in yaml.safe_load(file.read_text())[part]["rules"].items():
        source = rows.pop("source", "")
        for key, row in rows.items():
            try:
                rates[rule, key] = Rate(**row, source=source)
            except ValidationError as error:
                raise ValueError(f"{file}: {part}, {rule}, {key}: {error}") from None
    return rates


def find_rate(rates: Rates, rule: str, task: str = "", split: str = "") -> Rate:
    """Look up a rule's rate for a task and split, for a task, or for all its jobs.

    Raises ValueError naming a rule and task without a rate.
    """
    for key in (f"{task} {split}", task, "all"):
        if (rule, key) in rates:
            return rates[rule, key]
    raise ValueError(f"rule {rule} has no rate for {task or 'all'}: add one to {RATES}")


def job_table(jobs: Sequence[PlannedJob], rates: Rates) -> pd.DataFrame:
    """Make a table with one row a job, in their order."""
    rows = []
    for job in jobs:
        task, split = (job.wildcards.get(key, "") for key in ("task", "split"))
        rate = find_rate(rates, job.rule, task, split)
        rows.append(
            {
                "rule": job.rule,
                "task": task,
                "runs_on": "CPU" if job.params.get("device", "cpu") == "cpu" else "GPU",
                "seconds": rate.seconds,
                "gb": rate.gb,
                "temporary_gb": rate.gb if job.temporary else 0.0,
                "basis": rate.basis,
                "source": rate.source,
            }
        )
    return pd.DataFrame(rows)


def summarize(table: pd.DataFrame, by: Sequence[str]) -> pd.DataFrame:
    """Group jobs: mean seconds of one, hours and GB of all, in the order of the first of each."""
    return (
        table.groupby(list(by), sort=False)
        .agg(
            jobs=("seconds", "size"),
            runs_on=("runs_on", "first"),
            mean_seconds=("seconds", "mean"),
            hours=("seconds", lambda seconds: seconds.sum() / HOUR),
            gb=("gb", "sum"),
            basis=("basis", "first"),
        )
        .round({"mean_seconds": 1, "hours": 3, "gb": 3})
        .reset_index()
    )


def longest_path(jobs: Sequence[PlannedJob], seconds: Sequence[float]) -> list[int]:
    """Find the jobs that take longest one after the other: no number of machines is faster.

    jobs: each after those it waits for, as from `dag.in_order`. Returns their indices, in order.
    """
    ends: list[float] = []  # earliest end of each job
    previous: list[int | None] = []  # the last of the jobs that it waits for
    for job, duration in zip(jobs, seconds, strict=True):
        last = max(job.after, key=ends.__getitem__, default=None)
        previous.append(last)
        ends.append(duration + (0.0 if last is None else ends[last]))
    path = [max(range(len(ends)), key=ends.__getitem__)]
    while (before := previous[path[-1]]) is not None:
        path.append(before)
    return path[::-1]


def plan_text(jobs: Sequence[PlannedJob], rates: Rates) -> str:
    """Describe a run: totals, the longest path, each rule, and the sources of all numbers."""
    table = job_table(jobs, rates)
    gpu, cpu, measured, assumed = (
        f"{table.seconds[table[column] == value].sum() / HOUR:.1f}"
        for column, values in (("runs_on", ("GPU", "CPU")), ("basis", ("measured", "assumed")))
        for value in values
    )
    path = longest_path(jobs, table.seconds)
    steps = [f"{minutes_or_hours(table.seconds[i]):>9}  {jobs[i]}" for i in path]
    sources = [
        textwrap.fill(f"{', '.join(rules)}: {source}", 100, subsequent_indent="    ")
        for source, rules in table.groupby("source", sort=False).rule.unique().items()
    ]
    sections = [
        f"{len(jobs)} jobs, {sum(table.runs_on == 'GPU')} of them on a GPU: {gpu} GPU hours and "
        f"{cpu} CPU hours.\nOf these hours {measured} are measured and {assumed} are assumed.",
        f"{table.gb.sum():.1f} GB are written (1 GB is 1e9 bytes). Of these, "
        f"{table.temporary_gb.sum():.1f} GB are removed\nwhen every job that reads them has ended.",
        f"The longest path takes {minutes_or_hours(table.seconds[path].sum())}, on any number of "
        "machines:\n" + "\n".join(steps),
        "By rule: mean seconds of a job, hours and GB of all jobs\n"
        + as_text(summarize(table, ["rule"])).rstrip(),
        "Sources (config/rates.yaml)\n" + "\n".join(sources),
    ]
    return "\n\n".join(sections) + "\n"


def minutes_or_hours(seconds: float) -> str:
    """Format seconds as minutes or hours."""
    return f"{seconds / HOUR:.1f} h" if seconds >= HOUR else f"{seconds / 60:.1f} min"
