"""Which of our numbers stands beside a printed one, and how near is near enough."""

from collections.abc import Callable
from dataclasses import replace

from experiment.claims.recomputed import Recomputed
from experiment.reported import Row
from experiment.tables.scores import Result
from provenance import cells
from provenance.cells import Cell, Source

EXACT, AT_LEAST = "exact", "at least"  # instead of a tolerance
OF_SCORES, OF_PERCENT = "of scores", "percent"  # which tolerance of tolerances.csv
METRICS = {"%": "accuracy", "perplexity": "perplexity", "BLEU": "bleu"}  # by a score's unit


Number = Callable[[Recomputed, Row], Cell | None]  # of a task, for a printed row; unrounded


def _of_table(number: Callable[[Recomputed, Result], Cell]) -> Number:
    """A number of the model that a row of scores.csv is about."""

    def of_row(task: Recomputed, row: Row) -> Cell | None:
        names = row["method"], row["ratio"], row["anchor"], row["window"]
        result = task.find(*names, int8=row["int8"] == "yes")
        return number(task, result) if result else None

    return of_row


def _stored(task: Recomputed, result: Result) -> Cell:
    """What is left of the original's bytes, %."""
    return cells.of(task.storage, f"/{'measured' if result.int8 else 'merged'}_percent")


def _removed(ratio: str) -> Number:
    """Parameters that our method removes at a ratio, %."""

    def of_task(task: Recomputed, row: Row) -> Cell | None:
        result = task.find("permute", ratio)
        return replace(result.reduction_cell(), rule="{}") if result else None

    return of_task


def _from_scores(derivation: str, *models: tuple[str, str]) -> Number:
    """A number made of the scores of models, each a method and a ratio."""

    def of_task(task: Recomputed, row: Row) -> Cell | None:
        results = [task.find(*model) for model in models]
        if None in results:
            return None
        return Cell(tuple(Source(r.file, "/score") for r in results), derivation=derivation)

    return of_task


TABLES: dict[str, tuple[str, Number]] = {  # quantity of scores.csv -> tolerance, our number
    "score": (OF_SCORES, _of_table(lambda task, r: replace(r.score_cell(), rule="{}"))),
    "storage_percent": (OF_PERCENT, _of_table(_stored)),
    "merged_indices": (EXACT, _of_table(lambda task, r: r.window_cell())),
    "ffs_removed": (EXACT, _of_table(lambda task, r: r.removed_cell())),
}
SETTINGS = (
    *("n_layers", "d_ff", "feature_tokens", "feature_patches", "max_steps", "batch_size"),
    *("context", "test_window", "resolution", "patch_size", "classes", "anchors"),
    "validation_sentences",
)
UNCOMPRESSED, THIRD = ("base", ""), ("permute", "third")
TEXT: dict[str, tuple[str, Number]] = {  # quantity of text.csv -> tolerance, our number
    "parameters_removed": (AT_LEAST, _removed("third")),
    "parameters_removed_at_half": (AT_LEAST, _removed("half")),
    "performance_kept": (OF_PERCENT, _from_scores("percent", THIRD, UNCOMPRESSED)),
    "score_drop_at_third": (OF_SCORES, _from_scores("difference", UNCOMPRESSED, THIRD)),
    "score_rise_at_third": (OF_SCORES, _from_scores("difference", THIRD, UNCOMPRESSED)),
    "storage_with_quantization": (
        OF_PERCENT,
        lambda task, row: cells.of(task.storage, "/measured_percent"),
    ),
    **{name: (EXACT, lambda task, row: task.settings.get(row["quantity"])) for name in SETTINGS},
}
