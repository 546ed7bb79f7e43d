"""Which of our numbers stands beside a printed one, and how near is near enough."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from ffmerge.against_paper.paper_reported import Row
from ffmerge.against_paper.recomputed import Recomputed
from ffmerge.tables.results import Result

EXACT, AT_LEAST = "exact", "at least"  # instead of a tolerance
OF_SCORES, OF_PERCENT = "of scores", "percent"  # which tolerance of tolerances.csv
METRICS = {"%": "accuracy", "perplexity": "perplexity", "BLEU": "bleu"}  # by a score's unit


@dataclass(frozen=True)
class Ours:
    """A recomputed number; low and high: its interval, where it has one."""

    value: float | str
    low: float | None = None
    high: float | None = None


Number = Callable[[Recomputed, Row], Ours | None]  # of a task, for a printed row


def _of_table(number: Callable[[Recomputed, Result], Ours]) -> Number:
    """A number of the model that a row of scores.csv is about."""

    def of_row(task: Recomputed, row: Row) -> Ours | None:
        names = row["method"], row["ratio"], row["anchor"], row["window"]
        result = task.find(*names, int8=row["int8"] == "yes")
        return number(task, result) if result else None

    return of_row


def _against_base(ratio: str, number: Callable[[Result, Result], float]) -> Number:
    """A number made of our method's result at a ratio and the uncompressed model's."""

    def of_task(task: Recomputed, row: Row) -> Ours | None:
        result = task.find("permute", ratio)
        return Ours(number(result, task.base)) if result else None

    return of_task


def _setting(name: str) -> Number:
    """A number of the set-up."""
    return lambda task, row: given(task.settings.get(name))


def given(value: Any) -> Ours | None:
    """A number as it is; None is unknown."""
    return None if value is None else Ours(value)


TABLES: dict[str, tuple[str, Number]] = {  # quantity of scores.csv -> tolerance, our number
    "score": (OF_SCORES, _of_table(lambda task, r: Ours(r.score, r.low, r.high))),
    "storage_percent": (
        OF_PERCENT,
        _of_table(
            lambda task, r: Ours(task.storage["measured_percent" if r.int8 else "merged_percent"])
        ),
    ),
    "merged_indices": (EXACT, _of_table(lambda task, r: Ours(r.merged_indices))),
    "ffs_removed": (EXACT, _of_table(lambda task, r: Ours(f"{r.sublayers_removed}/{r.sublayers}"))),
}
SETTINGS = (
    *("n_layers", "d_ff", "feature_tokens", "feature_patches", "max_steps", "batch_size"),
    *("context", "test_window", "resolution", "patch_size", "classes", "anchors"),
    "validation_sentences",
)
TEXT: dict[str, tuple[str, Number]] = {  # quantity of text.csv -> tolerance, our number
    "parameters_removed": (AT_LEAST, _against_base("third", lambda r, base: r.reduction_percent)),
    "parameters_removed_at_half": (
        AT_LEAST,
        _against_base("half", lambda r, base: r.reduction_percent),
    ),
    "performance_kept": (
        OF_PERCENT,
        _against_base("third", lambda r, base: 100 * r.score / base.score),
    ),
    "score_drop_at_third": (
        OF_SCORES,
        _against_base("third", lambda r, base: base.score - r.score),
    ),
    "score_rise_at_third": (
        OF_SCORES,
        _against_base("third", lambda r, base: r.score - base.score),
    ),
    "storage_with_quantization": (
        OF_PERCENT,
        lambda task, row: Ours(task.storage["measured_percent"]),
    ),
    **{name: (EXACT, _setting(name)) for name in SETTINGS},
}
