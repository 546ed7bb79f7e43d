"""Find and read the tests of models that the jobs of a run wrote."""

import json
import math
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import pandas
from pandas import DataFrame


def by_model(files: Iterable[Path]) -> dict[str, dict[str, Path]]:
    """Files …/TASK/models/MODEL/NAME by task and model."""
    grouped: dict[str, dict[str, Path]] = {}
    for file in files:
        grouped.setdefault(file.parts[-4], {})[file.parts[-2]] = file
    return grouped


class Tested(NamedTuple):
    """The test of a model: its summary, a row for each test example, and the files of both."""

    task: str
    model: str
    summary: dict[str, Any]
    examples: DataFrame
    files: tuple[Path, Path]


def in_nats(summary: dict[str, Any]) -> dict[str, Any]:
    """A test's summary with a perplexity replaced by its logarithm, the loss that it comes from.

    Ratios of perplexities, unlike differences, mean the same at any level.
    """
    if summary["metric"] != "perplexity":
        return summary
    return {**summary, "metric": "loss", "score": math.log(summary["score"])}


def read_tests(scores: Sequence[Path], per_example: Sequence[Path]) -> Iterator[Tested]:
    """Read the test of each model.

    scores, per_example: …/TASK/models/MODEL/test.json and the test.csv beside it.
    """
    for files in zip(scores, per_example, strict=True):
        summary, examples = files
        task, _, model = summary.parts[-4:-1]
        yield Tested(task, model, json.loads(summary.read_text()), pandas.read_csv(examples), files)
