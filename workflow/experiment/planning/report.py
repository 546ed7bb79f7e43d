"""The plan as a table, a row a rule, and as a text to read."""

import csv
import textwrap
from collections.abc import Sequence
from pathlib import Path

from experiment.planning.plan import Costed, Plan
from experiment.planning.rates import Rates
from experiment.tables.layout import as_text

GB, HOUR, DAY = 1e9, 3600.0, 86400.0
Row = dict[str, str | int | float]


def rule_row(rule: str, jobs: Sequence[Costed], process_memory: float) -> Row:
    """What the jobs of a rule take.

    seconds are of one job, hours and disk_gb of all; scratch and memory of the largest.
    gpu_waiting_hours: of the GPU hours, those in which the GPU waits for the processor or a disk.
    core_hours: of jobs without a GPU.
    """
    total = sum(job.seconds for job in jobs)
    on_gpu = sum(job.seconds * job.job.n_gpus for job in jobs)
    waiting = sum(
        (job.seconds - job.estimate.seconds + job.estimate.waiting) * job.job.n_gpus for job in jobs
    )
    cores = sum(job.seconds * job.job.threads for job in jobs if not job.job.n_gpus)
    return {
        "rule": rule,
        "jobs": len(jobs),
        "runs_on": "GPU" if on_gpu else "CPU",
        "mean_seconds": round(total / len(jobs)),
        "longest_seconds": round(max(job.seconds for job in jobs)),
        "gpu_hours": round(on_gpu / HOUR, 2),
        "gpu_waiting_hours": round(waiting / HOUR, 2),
        "core_hours": round(cores / HOUR, 2),
        "disk_gb": round(sum(job.disk + job.estimate.cache for job in jobs) / GB, 3),
        "scratch_gb": round(max(job.estimate.scratch for job in jobs) / GB, 1),
        "memory_gb": round((process_memory + max(job.estimate.memory for job in jobs)) / GB, 1),
        "gpu_memory_gb": round(max(job.estimate.gpu_memory for job in jobs) / GB, 1),
    }


def rows(plan: Plan) -> list[Row]:
    """The table: a row a rule, in the order in which Snakemake names them."""
    memory = plan.rates["process_memory"]
    return [rule_row(rule, jobs, memory) for rule, jobs in plan.by_rule().items()]


def write_csv(table: Sequence[Row], file: Path) -> None:
    """Write the table."""
    with file.open("w", newline="") as stream:
        writer = csv.DictWriter(stream, list(table[0]))
        writer.writeheader()
        writer.writerows(table)


def text(plan: Plan) -> str:
    """Totals, times, the longest path, the bill for disk, each rule, and the rates behind it."""
    table = rows(plan)
    total = {key: sum(row[key] for row in table) for key in table[0] if key.endswith("hours")}
    n_gpu = sum(row["jobs"] for row in table if row["runs_on"] == "GPU")
    path = plan.longest_path()
    seconds = sum(job.seconds for job in path)
    sections = [
        f"{len(plan.jobs)} jobs, {n_gpu} of them on a GPU: {total['gpu_hours']:.0f} GPU hours and "
        f"{total['core_hours']:.0f} core hours. In {total['gpu_waiting_hours']:.0f} of the GPU "
        "hours the GPU waits: for a job to start, for a disk, and most of all for a processor core "
        "that decodes images or tokenizes sentences. 1 GB is 1e9 bytes.",
        _times(plan),
        f"The longest path takes {duration(seconds)}, however many GPUs there are:\n" + _path(path),
        _disk(plan),
        "By rule: seconds of one job, hours and disk of all, scratch and memory of the largest\n"
        + as_text([{key: str(value) for key, value in row.items()} for row in table]).rstrip(),
        "Reckoned with (config/planning/rates.yaml)\n" + _rates(plan.rates),
    ]
    filled = [textwrap.fill(sections[0], 100), *sections[1:]]
    return "\n\n".join(filled) + "\n"


def duration(seconds: float) -> str:
    """Seconds as a person says them."""
    if seconds >= 2 * DAY:
        return f"{seconds / DAY:.1f} days"
    return f"{seconds / HOUR:.1f} h" if seconds >= HOUR else f"{seconds / 60:.1f} min"


def _times(plan: Plan) -> str:
    most = max(job.job.n_gpus for job in plan.jobs)  # with fewer, it could not run at all
    runs = [plan.run(n) for n in plan.rates.machine["gpus"] if n >= most]
    table = [
        {
            "GPUs": str(run.n_gpus),
            "time": duration(run.seconds),
            "most on disk": f"{run.peak / GB:.1f} GB",
            "if nothing were removed": f"{run.peak_kept / GB:.1f} GB",
        }
        for run in runs
    ]
    cores = plan.rates.machine["cores"]
    return (
        "Time if a free GPU takes the ready job with the longest path behind it, and the most\n"
        f"that is on disk meanwhile. Jobs without a GPU share {cores} cores.\n"
        + as_text(table).rstrip()
    )


def _path(path: Sequence[Costed]) -> str:
    lines = [{"time": duration(job.seconds), "job": str(job.job)} for job in path]
    return as_text(lines).rstrip()


def _disk(plan: Plan) -> str:
    kinds = plan.disk()
    removed = sum(job.bytes_of[path] for job in plan.jobs for path in job.job.temporary)
    scratch = max(job.estimate.scratch for job in plan.jobs)
    table = [{"GB": f"{size / GB:.1f}", "of": kind} for kind, size in kinds.items()]
    table += [
        {"GB": f"{sum(kinds.values()) / GB:.1f}", "of": "everything that is made"},
        {
            "GB": f"{removed / GB:.1f}",
            "of": "of it temporary: removed when the last job has read it",
        },
        {"GB": f"{(sum(kinds.values()) - removed) / GB:.1f}", "of": "what stays"},
        {"GB": f"{scratch / GB:.1f}", "of": "besides, checkpoints of a job while it runs, at most"},
    ]
    return "The bill for disk\n" + as_text(table).rstrip()


def _rates(rates: Rates) -> str:
    lines = [
        f"{name} = {_number(entry['value'])} {entry['unit']}: {entry['source']}"
        for name, entry in rates.entries.items()
    ] + [f"{name}: {entry['source'].strip()}" for name, entry in rates.data.items()]
    wrapped = [textwrap.fill(line, 100, subsequent_indent="    ") for line in lines]
    return "\n".join(wrapped)


def _number(value: float | dict[int, float]) -> str:
    return f"{value:g}" if isinstance(value, int | float) else str(value)
