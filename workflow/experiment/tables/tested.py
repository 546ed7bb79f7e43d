"""The tests of models, as their jobs left them."""

import json
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from provenance.csv_files import read_csv

Columns = dict[str, list[str]]


def by_model(files: Iterable[Path]) -> dict[str, dict[str, Path]]:
    """Files …/TASK/models/MODEL/NAME by task and model."""
    found: dict[str, dict[str, Path]] = {}
    for file in files:
        found.setdefault(file.parts[-4], {})[file.parts[-2]] = file
    return found


class Tested(NamedTuple):
    """The test of a model: its summary and the columns of its examples, and their files."""

    task: str
    model: str
    summary: dict[str, Any]
    columns: Columns
    files: tuple[Path, Path]


def read_tests(scores: Sequence[Path], per_example: Sequence[Path]) -> Iterator[Tested]:
    """The test of each model.

    scores, per_example: …/TASK/models/MODEL/test.json and the test.csv beside it.
    """
    for files in zip(scores, per_example, strict=True):
        summary, examples = files
        task, _, model = summary.parts[-4:-1]
        rows = read_csv(examples)
        columns = {name: [row[name] for row in rows] for name in rows[0]}
        yield Tested(task, model, json.loads(summary.read_text()), columns, files)
