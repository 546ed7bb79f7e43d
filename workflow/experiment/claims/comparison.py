"""Set every number that the paper prints beside ours, with a verdict.

The paper's numbers and the tolerances are in config/paper_reported/. A number is compared only if
the run's base model is the paper's.
"""

import re
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import replace

from pandas import DataFrame

from experiment.claims.recomputed import Recomputed
from experiment.reported import Reported, tolerances
from experiment.tables.layout import Row, as_text
from experiment.tables.scores import Result, bound_cell
from provenance import cells
from provenance.cells import Cell, Printed, Source

WITHIN, DIFFERS = "within tolerance", "differs"
OTHER_MODEL = "not comparable: another base model"
MISSING = "not computed"
NO_RESULT = "not a result"
EXACT, AT_LEAST = "exact", "at least"  # instead of a tolerance
OF_SCORES, OF_PERCENT = "of scores", "percent"  # which tolerance of tolerances.csv

PrintedRow = dict[str, str]  # of a file of config/paper_reported/
OurNumber = Callable[[Recomputed, PrintedRow], Cell | None]  # unrounded, for a printed row


def _of_table(number: Callable[[Recomputed, Result], Cell]) -> OurNumber:
    """Look up the model of a row of scores.csv, and take a number of it."""

    def number_of(task: Recomputed, row: PrintedRow) -> Cell | None:
        names = row["method"], row["ratio"], row["anchor"], row["window"]
        result = task.find(*names, int8=row["int8"] == "yes")
        return number(task, result) if result else None

    return number_of


def _stored(task: Recomputed, result: Result) -> Cell:
    """The bytes left, in % of the original's."""
    return cells.of(task.storage, f"/{'measured' if result.int8 else 'merged'}_percent")


def _removed(ratio: str) -> OurNumber:
    """The parameters that our method removes at a ratio, in %."""

    def number_of(task: Recomputed, row: PrintedRow) -> Cell | None:
        result = task.find("permute", ratio)
        return replace(result.reduction_cell(), rule="{}") if result else None

    return number_of


def _from_scores(derivation: str, *models: tuple[str, str]) -> OurNumber:
    """Derive a number from the scores of models, each given as (method, ratio)."""

    def number_of(task: Recomputed, row: PrintedRow) -> Cell | None:
        results = [task.find(*model) for model in models]
        if None in results:
            return None
        return Cell(tuple(Source(r.file, "/score") for r in results), derivation=derivation)

    return number_of


TABLES: dict[str, tuple[str, OurNumber]] = {  # quantity of scores.csv -> tolerance, our number
    "score": (OF_SCORES, _of_table(lambda task, r: replace(r.score_cell(), rule="{}"))),
    "storage_percent": (OF_PERCENT, _of_table(_stored)),
    "merged_indices": (EXACT, _of_table(lambda task, r: r.window_cell())),
    "ffs_removed": (EXACT, _of_table(lambda task, r: r.removed_cell())),
}
COMPARED_SETTINGS = (
    *("n_layers", "d_ff", "feature_tokens", "feature_patches", "max_steps", "batch_size"),
    *("context", "test_window", "resolution", "patch_size", "classes", "anchors"),
    "validation_sentences",
)
UNCOMPRESSED_MODEL, THIRD = ("base", ""), ("permute", "third")
TEXT: dict[str, tuple[str, OurNumber]] = {  # quantity of text.csv -> tolerance, our number
    "parameters_removed": (AT_LEAST, _removed("third")),
    "parameters_removed_at_half": (AT_LEAST, _removed("half")),
    "performance_kept": (OF_PERCENT, _from_scores("percent", THIRD, UNCOMPRESSED_MODEL)),
    "score_drop_at_third": (OF_SCORES, _from_scores("difference", UNCOMPRESSED_MODEL, THIRD)),
    "score_rise_at_third": (OF_SCORES, _from_scores("difference", THIRD, UNCOMPRESSED_MODEL)),
    "storage_with_quantization": (
        OF_PERCENT,
        lambda task, row: cells.of(task.storage, "/measured_percent"),
    ),
    **{
        name: (EXACT, lambda task, row: task.settings.get(row["quantity"]))
        for name in COMPARED_SETTINGS
    },
}


def compared(reported: Reported, tasks: dict[str, Recomputed]) -> DataFrame:
    """List every printed number beside ours, its interval, and a verdict.

    reported: see read_reported; tasks: by name. Raises KeyError for an unknown quantity of a table.
    """
    return DataFrame(_rows(reported, tasks))


def _rows(reported: Reported, tasks: dict[str, Recomputed]) -> Iterator[Row]:
    near = tolerances(reported, "reproduction")
    for row in reported["scores"].to_dict("records"):
        names = [row[key] for key in ("method", "ratio", "anchor", "window")]
        names += ["int8"] if row["int8"] == "yes" else []
        setting = ", ".join(name for name in names if name)
        known = TABLES[row["quantity"]]
        yield _row({**row, "setting": setting}, f"Table {row['table']}", known, near, tasks)
    for row in reported["hyperparameters"].to_dict("records"):
        named = {**row, "quantity": row["name"], "setting": "fine-tuning"}
        known = EXACT, lambda task, row: task.hyperparameters.get(row["name"])
        yield _row(named, f"Table {row['table']}", known, near, tasks)
    for row in reported["text"].to_dict("records"):
        where = re.sub(r"^(?=\d)", "Section ", row["section"])
        where = re.sub(r"^(?=[A-C](\.\d)?$)", "Appendix ", where)
        yield _row(row, where, TEXT.get(row["quantity"]) if row["task"] else None, near, tasks)


def _row(
    row: PrintedRow,
    where: str,
    known: tuple[str, OurNumber] | None,
    near: dict[str, float],
    tasks: dict[str, Recomputed],
) -> Row:
    """known: tolerance and our number; None where the row is no result or setting of a task."""
    kind, number = known or ("", None)
    task = tasks.get(row["task"])
    ours = number(task, row) if number and task else None
    if kind == OF_SCORES:
        kind = row["unit"]
    tolerance = near.get(kind, kind)
    if number is None:
        verdict = NO_RESULT
    elif ours is None:
        verdict = MISSING
    elif not task.comparable:
        verdict = OTHER_MODEL
    else:
        verdict = WITHIN if agrees(row["value"], ours, tolerance) else DIFFERS
    interval = ours.interval if ours else None
    return {
        "where": where,
        "task": row["task"],
        "quantity": row["quantity"],
        "setting": row.get("setting", ""),
        "paper": row["value"],
        "ours": replace(ours, printed=Printed(row["value"], where)) if ours else "",
        "low": bound_cell(ours, interval.low) if interval else "",
        "high": bound_cell(ours, interval.high) if interval else "",
        "unit": row.get("unit", ""),
        "tolerance": str(tolerance),
        "verdict": verdict,
        "note": row.get("note", ""),
    }


def agrees(printed: str, ours: Cell, tolerance: float | str) -> bool:
    """Whether a printed number is within a tolerance of ours.

    A printed number stands for all numbers that round to it. tolerance: in the number's unit; or
    EXACT; or AT_LEAST, where the paper says "more than".
    """
    try:
        paper, value = float(printed), float(str(ours))
    except ValueError:
        return printed == str(ours)
    if tolerance == EXACT:
        return paper == value
    if tolerance == AT_LEAST:
        return value >= paper
    slack = 0.5 * 10.0 ** -len(printed.partition(".")[2]) + 1e-9  # half a digit, and rounding
    return abs(value - paper) <= tolerance + slack


def summary(table: DataFrame) -> str:
    """Count the numbers with each verdict, and list those that differ, as text."""
    counts = Counter(table["verdict"])
    text = as_text({"Verdict": name, "Numbers": n} for name, n in counts.most_common())
    differing = [
        {
            "Where": row["where"],
            "Task": row["task"],
            "Quantity": ", ".join(filter(None, [row["quantity"], row["setting"]])),
            "Paper": row["paper"],
            "Ours": _short(row["ours"]),
            "Unit": row["unit"],
        }
        for row in table[table["verdict"] == DIFFERS].to_dict("records")
    ]
    return "\n".join([text, as_text(differing)] if differing else [text])


def _short(ours: Cell) -> str:
    return f"{ours.raw:.4g}" if isinstance(ours.raw, float) else str(ours)
