"""Table 1: compression methods, each entry of ours beside what was measured (Section 2).

The words are the paper's assessment; the numbers are ours. Distillation is not part of this work.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from experiment.evaluation.metrics import Metric, metric_named
from experiment.tables.layout import Row
from experiment.variants import BASE, INT8, TUNED_BASE, Variant
from provenance.cells import Cell, Source, in_row
from provenance.csv_files import read_csv

SAID = {  # motivation, training required, run time savings
    "Quantization": ("reduce precision", "no", "no"),
    "Pruning": ("remove unimportant parameters", "generally fine-tuning", "depends"),
    "Distillation": ("train smaller student from teacher", "yes", "yes"),
    "Merging": ("combine redundant parameters", "fine-tuning", "no"),
}
METHODS = {"permute": "Merging", "vanilla": "Merging", "drop": "Pruning"}
NUMBERS = ("Measured on", "Run Time", "Memory", "Score Untuned", "Score Tuned")


@dataclass(frozen=True)
class Measured:
    """Where the measurements of a task's compressed models stand.

    label: of the task; models: names of variants. cost: cost.csv; windows, layer_drops: the
    validation scores without fine-tuning. tests, curves: model -> test.json, and learning_curve.csv
    of what was fine-tuned, of the base model, too, if it was.
    """

    label: str
    models: Sequence[str]
    cost: Path
    windows: Path
    layer_drops: Path
    tests: dict[str, Path]
    curves: dict[str, Path]

    @property
    def metric(self) -> Metric:
        """What the scores are."""
        return metric_named(Source(self.tests[self.models[0]], "/metric").value())

    def numbers(self, model: str) -> Row:
        """Run time and memory as ratios to the model before, scores as differences.

        Merging and pruning are compared with the base model, on validation data, tuned with tuned;
        quantization with the model that was quantized, on test data.
        """
        int8 = Variant.parse(model).int8
        before = model.removesuffix(INT8) if int8 else BASE
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
        file, key = self.windows, "merged"
        if variant.method == "drop":
            file, key = self.layer_drops, "dropped"
        start = Source(self.tests[model], f"/{key}/0/layers/0").value()
        return in_row(file, "score", method=variant.method, k=variant.k, start=start)

    def _tuned(self, model: str) -> Source:
        """The best validation score of its fine-tuning; of a base model that had none, its own."""
        if model == BASE and TUNED_BASE not in self.curves:
            return self._untuned(BASE)
        curve = self.curves[TUNED_BASE if model == BASE else model]
        scores = {n: float(row["score"]) for n, row in enumerate(read_csv(curve)) if row["score"]}
        best = self.metric.best(scores.values())
        return Source(curve, f"/{next(n for n in scores if scores[n] == best)}/score")


def table1(tasks: Sequence[Measured]) -> list[Row]:
    """The rows of Table 1: a method's for each model it was measured on."""
    measured: dict[str, list[Row]] = {method: [] for method in SAID}
    for task in tasks:
        for model in task.models:
            variant = Variant.parse(model)
            method = "Quantization" if variant.int8 else METHODS[variant.method]
            measured[method].append(task.numbers(model))
    return [
        {
            "Method": method,
            "Motivation": motivation,
            "Training Required": training,
            "Run Time Savings": savings,
            **numbers,
        }
        for method, (motivation, training, savings) in SAID.items()
        for numbers in measured[method] or [dict.fromkeys(NUMBERS, "–")]
    ]
