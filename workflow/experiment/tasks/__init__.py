"""Kinds of task behind one interface: data in, batches, features' inputs, losses and scores out.

Three are the paper's; the fourth is for encoders of sentences.
"""

from collections.abc import Mapping
from importlib import import_module
from pathlib import Path
from typing import Any

from experiment.config import part_of_task
from experiment.tasks.task import Task


def task_for(parts: Mapping[str, Any], base_model: Path, data: dict[str, Path]) -> Task:
    """The task of the kind that `parts` names; only that kind's module is imported.

    parts: `kind`, and the keys of the task's configuration that a job depends on.
    base_model: directory that holds the tokenizer or image processor.
    data: split (`train`, `validation`, `test`) -> Parquet file or pattern.
    """
    settings = part_of_task(parts)
    module = import_module(f"experiment.tasks.{settings.kind}")  # among the job's `imports`
    return getattr(module, type(settings).__name__)(settings, base_model, data)
