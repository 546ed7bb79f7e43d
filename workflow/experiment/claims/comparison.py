"""Every number that the paper prints beside the one recomputed here, with a verdict.

What the paper prints is in config/paper_reported/, and how near is near enough. A number of a run
whose base model is not the paper's has the same meaning, but need not have the same value.
"""

import re
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import replace

from experiment.claims.counterparts import AT_LEAST, EXACT, METRICS, OF_SCORES, TABLES, TEXT, Number
from experiment.claims.recomputed import Recomputed
from experiment.reported import Row, tolerances
from experiment.tables.layout import Row as Compared
from experiment.tables.layout import as_text
from experiment.tables.scores import bound_cell
from provenance.cells import Cell, Printed

WITHIN, DIFFERS = "within tolerance", "differs"
OTHER_MODEL = "not comparable: another base model"
MISSING = "not computed"
NO_RESULT = "not a result"


def compared(reported: dict[str, list[Row]], tasks: dict[str, Recomputed]) -> Iterator[Compared]:
    """A row for every printed number: the paper's, ours with its interval, and a verdict.

    reported: see read_reported; tasks: by name. Raises KeyError for a quantity of a table that is
    not known.
    """
    near = tolerances(reported, "reproduction")
    for row in reported["scores"]:
        names = [row[key] for key in ("method", "ratio", "anchor", "window")]
        names += ["int8"] if row["int8"] == "yes" else []
        setting = ", ".join(name for name in names if name)
        known = TABLES[row["quantity"]]
        yield _row({**row, "setting": setting}, f"Table {row['table']}", known, near, tasks)
    for row in reported["hyperparameters"]:
        named = {**row, "quantity": row["name"], "setting": "fine-tuning"}
        known = EXACT, lambda task, row: task.hyperparameters.get(row["name"])
        yield _row(named, f"Table {row['table']}", known, near, tasks)
    for row in reported["text"]:
        where = re.sub(r"^(?=\d)", "Section ", row["section"])
        where = re.sub(r"^(?=[A-C](\.\d)?$)", "Appendix ", where)
        yield _row(row, where, TEXT.get(row["quantity"]) if row["task"] else None, near, tasks)


def _row(
    row: Row,
    where: str,
    known: tuple[str, Number] | None,
    near: dict[str, float],
    tasks: dict[str, Recomputed],
) -> Compared:
    """known: tolerance and our number, of a row that is a result or a setting of a task."""
    kind, number = known or ("", None)
    task = tasks.get(row["task"])
    ours = number(task, row) if number and task else None
    if kind == OF_SCORES:
        kind = METRICS[row["unit"]]
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
    """Whether a printed number is ours within a tolerance, or within the interval of ours.

    A printed number stands for all that round to it. tolerance: in the number's unit; or EXACT; or
    AT_LEAST, where the paper says "more than".
    """
    try:
        paper, value = float(printed), float(str(ours))
    except ValueError:
        return printed == str(ours)
    if tolerance == EXACT:
        return paper == value
    if tolerance == AT_LEAST:
        return value >= paper
    low, high = (ours.interval.low, ours.interval.high) if ours.interval else (value, value)
    slack = 0.5 * 10.0 ** -len(printed.partition(".")[2]) + 1e-9  # half a digit, and rounding
    return min(low, value - tolerance) - slack <= paper <= max(high, value + tolerance) + slack


def summary(rows: Iterable[Compared]) -> str:
    """How many numbers have each verdict, as text, and below them those that differ."""
    rows = list(rows)
    counts = Counter(row["verdict"] for row in rows)
    text = as_text([{"Verdict": name, "Numbers": str(n)} for name, n in counts.most_common()])
    differing = [
        {
            "Where": row["where"],
            "Task": row["task"],
            "Quantity": ", ".join(filter(None, [row["quantity"], row["setting"]])),
            "Paper": row["paper"],
            "Ours": _short(row["ours"]),
            "Unit": row["unit"],
        }
        for row in rows
        if row["verdict"] == DIFFERS
    ]
    return "\n".join([text, as_text(differing)] if differing else [text])


def _short(ours: Cell) -> str:
    return f"{ours.raw:.4g}" if isinstance(ours.raw, float) else str(ours)
