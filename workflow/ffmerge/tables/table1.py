"""Table 1: compression methods, each entry of ours beside what was measured (Section 2).

The words are the paper's assessment; the numbers are ours. Distillation is not part of this work.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from ffmerge.evaluation import metric_named
from ffmerge.tables.layout import Row
from ffmerge.variants import BASE, INT8, TUNED_BASE, Variant


@dataclass(frozen=True)
class Compressed:
    """One model compressed by one method, against what it was before.

    method: Quantization, Pruning or Merging. model, unit: for the reader. run_time, memory: ratios
    to the model before (of one forward pass; of the weights). untuned, tuned: change of the score
    without and with recovery fine-tuning, `unit`; tuned is None where a method does not train.
    """

    method: str
    model: str
    unit: str
    run_time: float
    memory: float
    untuned: float
    tuned: float | None


SAID = {  # motivation, training required, run time savings
    "Quantization": ("reduce precision", "no", "no"),
    "Pruning": ("remove unimportant parameters", "generally fine-tuning", "depends"),
    "Distillation": ("train smaller student from teacher", "yes", "yes"),
    "Merging": ("combine redundant parameters", "fine-tuning", "no"),
}


METHODS = {"permute": "Merging", "vanilla": "Merging", "drop": "Pruning"}


def measured(
    label: str,
    models: Sequence[str],
    cost: dict[str, dict[str, float]],
    untuned: dict[tuple[str, int, int], float],
    tuned: dict[str, float],
    tests: dict[str, dict[str, Any]],
) -> list[Compressed]:
    """What was measured on one task's compressed models.

    label: of the task; models: names of variants. cost: model -> `ratio`, `weight_bytes`.
    untuned: (method, k, start) -> validation score; tuned: model -> best validation score of its
    fine-tuning, of the tuned base too, if there is one. tests: model -> test.json.
    Merging and pruning are compared with the base model, on validation data, tuned with tuned;
    quantization with the model that was quantized, on test data.
    """
    base = untuned[BASE, 0, 0]
    entries = []
    for name in models:
        variant, test = Variant.parse(name), tests[name]
        before = name.removesuffix(INT8) if variant.int8 else BASE
        ratios = {key: cost[name][key] / cost[before][key] for key in ("ratio", "weight_bytes")}
        start = (test["merged"] or test["dropped"])[0]["layers"][0]
        if variant.int8:
            changes = (test["score"] - tests[before]["score"], None)
        else:
            changes = (
                untuned[variant.method, variant.k, start] - base,
                tuned[name] - tuned.get(TUNED_BASE, base),
            )
        method = "Quantization" if variant.int8 else METHODS[variant.method]
        unit = metric_named(test["metric"]).short_unit
        entries.append(
            Compressed(method, label, unit, ratios["ratio"], ratios["weight_bytes"], *changes)
        )
    return entries


def table1(measured: Sequence[Compressed]) -> list[Row]:
    """The rows of Table 1: a method's for each model it was measured on."""
    rows = []
    for method, said in SAID.items():
        words = dict(
            zip(("Motivation", "Training Required", "Run Time Savings"), said, strict=True)
        )
        own = [entry for entry in measured if entry.method == method]
        for entry in own:
            rows.append({"Method": method, **words, **_numbers(entry)})
        if not own:
            numbers = ("Measured on", "Run Time", "Memory", "Score Untuned", "Score Tuned")
            rows.append({"Method": method, **words, **dict.fromkeys(numbers, "–")})
    return rows


def _numbers(entry: Compressed) -> Row:
    return {
        "Measured on": entry.model,
        "Run Time": f"×{entry.run_time:.2f}",
        "Memory": f"×{entry.memory:.2f}",
        "Score Untuned": _change(entry.untuned, entry.unit),
        "Score Tuned": "–" if entry.tuned is None else _change(entry.tuned, entry.unit),
    }


def _change(value: float, unit: str) -> str:
    return f"{round(value, 2) + 0.0:+.2f} {unit}"  # no negative zero
