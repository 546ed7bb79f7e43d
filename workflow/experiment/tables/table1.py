"""Table 1: compression methods, as the paper assesses them and as measured here (Section 2).

Distillation is not part of this work.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pandas
from pandas import DataFrame

from experiment.tables.layout import Row
from experiment.tables.tested import by_model
from experiment.variants import BASE, INT8_SUFFIX, TUNED_BASE, Variant
from ffmerge.evaluation.metrics import Metric, metric_named
from provenance.cells import Cell, Source, in_row
from provenance.job import Job

ASSESSMENT = {  # motivation, training required, run time savings
    "Quantization": ("reduce precision", "no", "no"),
    "Pruning": ("remove unimportant parameters", "generally fine-tuning", "depends"),
    "Distillation": ("train smaller student from teacher", "yes", "yes"),
    "Merging": ("combine redundant parameters", "fine-tuning", "no"),
}
KIND_OF_METHOD = {"permute": "Merging", "vanilla": "Merging", "drop": "Pruning"}
NUMBERS = ("Measured on", "Run Time", "Memory", "Score Untuned", "Score Tuned")


@dataclass(frozen=True)
class Measured:
    """The files with the measurements of a task's compressed models.

    label: of the task; models: names of variants. cost: cost.csv; windows, layer_drops: validation
    scores before fine-tuning. tests: model -> test.json; curves: fine-tuned model ->
    learning_curve.csv, including the base model's if it was tuned. select_by: `score` or `loss`,
    whose best validation decides which weights are kept.
    """

    label: str
    models: Sequence[str]
    cost: Path
    windows: Path
    layer_drops: Path
    tests: dict[str, Path]
    curves: dict[str, Path]
    select_by: str

    @property
    def metric(self) -> Metric:
        """The metric of the task's scores."""
        return metric_named(Source(self.tests[self.models[0]], "/metric").value())

    def numbers(self, model: str) -> Row:
        """Compare a model with the one before compression: ratios of cost, differences of scores.

        Merging and pruning are compared with the base model on validation data, tuned with tuned.
        Quantization is compared with the model that was quantized, on test data.
        """
        int8 = Variant.parse(model).int8
        before = model.removesuffix(INT8_SUFFIX) if int8 else BASE
        scores = [self._tested, self._tested] if int8 else [self._untuned, self._tuned]
        untuned, tuned = ((score(model), score(before)) for score in scores)
        change = f"{{:+z.2f}} {self.metric.short_unit}"  # z: no negative zero
        return {
            "Measured on": self.label,
            **{
                column: Cell(
                    tuple(in_row(self.cost, key, model=name) for name in (model, before)),
                    "×{:.2f}",
                    "ratio",
                )
                for column, key in (("Run Time", "ratio"), ("Memory", "weight_bytes"))
            },
            "Score Untuned": Cell(untuned, change, "difference"),
            "Score Tuned": "–" if int8 else Cell(tuned, change, "difference"),
        }

    def _tested(self, model: str) -> Source:
        return Source(self.tests[model], "/score")

    def _untuned(self, model: str) -> Source:
        if model == BASE:
            return in_row(self.layer_drops, "score", method=BASE)
        variant = Variant.parse(model)
        drops = variant.method == "drop"
        file, key = (self.layer_drops, "dropped") if drops else (self.windows, "merged")
        start = Source(self.tests[model], f"/{key}/0/layers/0").value()
        return in_row(file, "score", method=variant.method, k=variant.k, start=start)

    def _tuned(self, model: str) -> Source:
        """The validation score of the weights kept; the untuned one of a base model never tuned."""
        if model == BASE and TUNED_BASE not in self.curves:
            return self._untuned(BASE)
        curve = self.curves[TUNED_BASE if model == BASE else model]
        points = pandas.read_csv(curve)  # validations are empty in the rows of training steps
        if self.select_by == "score" and self.metric.higher_is_better:
            best = points["score"].idxmax()
        else:
            best = points["score" if self.select_by == "score" else "validation_loss"].idxmin()
        return Source(curve, f"/{best}/score")


def measured_tasks(job: Job) -> list[Measured]:
    """Sort the inputs of a job by task."""
    tests, curves = by_model(job.input.tests), by_model(job.input.curves)
    files = zip(job.input.costs, job.input.windows, job.input.layer_drops, strict=True)
    return [
        Measured(
            task["label"], task["models"], *paths, tests[name], curves[name], task["select_by"]
        )
        for (name, task), paths in zip(job.params.tasks.items(), files, strict=True)
    ]


def table1(tasks: Sequence[Measured]) -> DataFrame:
    """Table 1: a row for each method and each model that it was measured on."""
    rows: dict[str, list[Row]] = {method: [] for method in ASSESSMENT}
    for task in tasks:
        for model in task.models:
            variant = Variant.parse(model)
            method = "Quantization" if variant.int8 else KIND_OF_METHOD[variant.method]
            rows[method].append(task.numbers(model))
    return DataFrame(
        {
            "Method": method,
            "Motivation": motivation,
            "Training Required": training,
            "Run Time Savings": savings,
            **numbers,
        }
        for method, (motivation, training, savings) in ASSESSMENT.items()
        for numbers in rows[method] or [dict.fromkeys(NUMBERS, "–")]
    )
