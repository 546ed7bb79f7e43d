"""Kinds of task behind one interface: batches, inputs for features, losses and scores from data.

Three are the paper's; the fourth is for sentence encoders.
"""

from collections.abc import Mapping
from importlib import import_module
from pathlib import Path
from typing import Any

from experiment.config.tasks import part_of_task
from experiment.tasks.task import Task
from provenance.job import Job

SPLITS = ("train", "validation", "test")


def task_of(job: Job) -> Task:
    """Make the task that a job's parameters describe, with the splits among its inputs."""
    data = {split: file for split, file in vars(job.input).items() if split in SPLITS}
    return task_for(job.params.task, job.input.base_model, data, job.workers)


def task_for(
    parts: Mapping[str, Any], base_model: Path, data: dict[str, Path], workers: int = 0
) -> Task:
    """Make the task of the kind that `parts` names; only that kind's module is imported.

    parts: `kind`, and the keys of the task's configuration that a job depends on.
    base_model: directory that holds the tokenizer or image processor.
    data: split (`train`, `validation`, `test`) -> Parquet file or pattern.
    workers: processes that make batches in advance.
    """
    settings = part_of_task(parts)
    module = import_module(f"experiment.tasks.{settings.kind}")  # one of the job's `imports`
    return getattr(module, type(settings).__name__)(settings, base_model, data, workers)
