"""What was tested: one result a model, with its interval, behind all tables of scores."""

import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from ffmerge.intervals import bootstrap_interval
from ffmerge.job import Job
from ffmerge.tables.layout import read_csv, write_csv
from ffmerge.variants import BASE, Variant

NO_WINDOW = "–"


@dataclass(frozen=True)
class Result:
    """One tested model, unrounded.

    variant: its name in the DAG; method, k, anchor, role, int8: what that name says, empty for an
    uncompressed model. first_layer, last_layer: of the window that was merged or dropped.
    low, high: bounds of the confidence interval of the score. loss: nats.
    sublayers_removed, sublayers: FF sublayers that share another's weights, and all that compute.
    reduction_percent: parameters removed, embeddings included, of the base model's.
    """

    task: str
    model: str
    metric: str
    variant: str
    method: str | None
    k: int | None
    anchor: str | None
    role: str | None
    int8: bool
    first_layer: int | None
    last_layer: int | None
    n_towers: int
    sublayers_removed: int
    sublayers: int
    score: float
    low: float
    high: float
    loss: float
    n_parameters: int
    reduction_percent: float

    @property
    def merged_indices(self) -> str:
        """The window as Table 5 prints it: `3-7`, or `2-4/2-4` for encoder and decoder."""
        if self.first_layer is None:
            return NO_WINDOW
        return "/".join([f"{self.first_layer}-{self.last_layer}"] * self.n_towers)


Columns = dict[str, list[str]]


def read_tests(
    scores: Sequence[Path], per_example: Sequence[Path]
) -> Iterator[tuple[str, str, dict[str, Any], Columns]]:
    """Task, model, summary and per-example columns of each tested model.

    scores, per_example: …/TASK/models/MODEL/test.json and the test.csv beside it.
    """
    for summary_file, columns_file in zip(scores, per_example, strict=True):
        task, _, model = summary_file.parts[-4:-1]
        rows = read_csv(columns_file)
        columns = {name: [row[name] for row in rows] for name in rows[0]}
        yield task, model, json.loads(summary_file.read_text()), columns


def read_results(
    scores: Sequence[Path],
    per_example: Sequence[Path],
    tasks: dict[str, dict[str, Any]],
    intervals: dict[str, Any],
    seed: int,
) -> list[Result]:
    """The results of each task's `models`, in the order of the files.

    scores, per_example: see read_tests; each task's base model is among them, for its size.
    tasks: name -> `label` in tables, and names of the `models` to show; intervals: `resamples` and
    `confidence`.
    """
    base_parameters, results = {}, []
    tests = list(read_tests(scores, per_example))
    for task, model, test, _ in tests:
        if model == BASE:
            base_parameters[task] = test["n_parameters"]
    for task, model, test, columns in tests:
        if model not in tasks[task]["models"]:
            continue
        low, high = bootstrap_interval(
            test["metric"],
            columns,
            intervals["resamples"],
            intervals["confidence"],
            seed,
            test.get("average"),
        )
        windows = test["merged"] or test["dropped"]
        layers = windows[0]["layers"] if windows else None
        variant = Variant.parse(model) if windows else None
        results.append(
            Result(
                task=task,
                model=tasks[task]["label"],
                metric=test["metric"],
                variant=model,
                method=variant.method if variant else None,
                k=variant.k if variant else None,
                anchor=variant.anchor if variant else None,
                role=variant.role if variant else None,
                int8=variant.int8 if variant else False,
                first_layer=layers[0] if layers else None,
                last_layer=layers[-1] if layers else None,
                n_towers=max(1, len(windows)),
                sublayers_removed=test["n_sublayers_removed"],
                sublayers=test["n_sublayers"],
                score=test["score"],
                low=low,
                high=high,
                loss=test["loss"],
                n_parameters=test["n_parameters"],
                reduction_percent=100 * (1 - test["n_parameters"] / base_parameters[task]),
            )
        )
    return results


def results_of(job: Job) -> list[Result]:
    """The results of a job whose inputs and parameters are those of a table of scores."""
    return read_results(
        job.input.scores,
        job.input.per_example,
        job.params.tasks,
        job.params.intervals,
        job.params.seed,
    )


def write_results(results: Sequence[Result], file: Path) -> None:
    """Write results as CSV, unrounded, a row each."""
    write_csv([asdict(result) for result in results], file)
