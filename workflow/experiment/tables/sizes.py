"""Compare merging with dropping layers, size by size, before and after tuning (our own table)."""

from collections.abc import Sequence
from dataclasses import replace
from types import SimpleNamespace

from pandas import DataFrame

from experiment.tables.layout import Row
from experiment.tables.scores import Result, read_results
from experiment.variants import BASE
from provenance.cells import JOB, Cell, Source
from provenance.job import Job

DASH = "–"
METHOD_LABELS = {
    None: "uncompressed",
    "permute": "merged, aligned",
    "vanilla": "merged, averaged",
    "drop": "layers dropped",
}


def read_untuned(job: Job) -> list[Result]:
    """Read the tests of a job's models before tuning, in the order of the tuned ones.

    Inputs and parameters: as for `read_results`, with `untuned` and `untuned_per_example`.
    """
    tasks = {
        name: {**task, "models": [BASE, *task["models"][1:]]}
        for name, task in job.params.tasks.items()
    }
    params = SimpleNamespace(**{**vars(job.params), "tasks": tasks})
    files = SimpleNamespace(scores=job.input.untuned, per_example=job.input.untuned_per_example)
    return read_results(SimpleNamespace(params=params, input=files))


def sizes(untuned: Sequence[Result], tuned: Sequence[Result]) -> DataFrame:
    """List each model's layers, size, and test score before and after tuning, with intervals.

    The interval is that of the difference from the uncompressed model, in pairs, at that model's
    score. untuned, tuned: the same models in the same order, of each task the uncompressed one
    first.
    """
    rows: list[Row] = []
    uncompressed: dict[str, Result] = {}
    for before, after in zip(untuned, tuned, strict=True):
        row = {
            **after.names,
            "How": METHOD_LABELS[after.method],
            "Layers": after.window_cell(),
            "Parameters Removed (%)": after.reduction_cell(),
        }
        for phase, result in (("Untuned", before), ("Tuned", after)):
            if result.method is None:
                uncompressed[phase] = result
            score = replace(result.score_cell(), interval=result.from_base)
            row[phase] = score
            for name, bound in (("Low", result.from_base_low), ("High", result.from_base_high)):
                files = [result.file, uncompressed[phase].file]
                sources = tuple(Source(file.with_suffix(".csv")) for file in files)
                cell = Cell(sources, score.rule, JOB, computed=bound)
                row[f"{phase} {name}"] = DASH if bound is None else cell
        rows.append(row)
    return DataFrame(rows)
