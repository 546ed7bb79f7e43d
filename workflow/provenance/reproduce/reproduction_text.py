"""What a reproduction found, for persons and for machines."""

from collections.abc import Iterator
from typing import Any

from provenance.numbers import Number
from provenance.reproduce.agreement import Class
from provenance.reproduce.remade import Compared, Remade

MARKS = {True: "ok", False: "NOT", None: "?"}


def lines(number: Number, compared: Compared, result: Remade) -> Iterator[str]:
    """A table of jobs, what else differs between the runs, and the number."""
    rows = [("", "job", "promises", "gives")]
    for pair, agreement in compared:
        job, promised = (str(pair.new), class_text(pair.promised)) if pair else ("", "")
        rows.append((MARKS[agreement.holds], job, promised, agreement.said))
    widths = [max(len(row[i]) for row in rows) for i in range(3)]
    for row in rows:
        yield "  ".join(text.ljust(width) for text, width in zip(row, widths, strict=False)) + (
            f"  {row[3]}"
        )
    yield ""
    for what, n_jobs in differences(compared).items():
        yield f"differs from the first run: {what} ({n_jobs} jobs)"
    same = "" if result.before != result.after else ", to the last bit"
    yield f"{number.id}: {result.shown_before} then, {result.shown_after} now{same}"
    yield f"  unrounded {result.before!r} then, {result.after!r} now"
    yield f"{MARKS[result.agreement.holds]}: {result.agreement.said}"


def differences(compared: Compared) -> dict[str, int]:
    """What else is not as in the first run, and in how many jobs.

    Machine and environment only of jobs with other bits, which they may be the cause of.
    """
    found: dict[str, int] = {}
    for pair, agreement in compared:
        if pair is None:
            continue
        other = [f"{work} of {pair.new.content['rule']}" for work in pair.other_work()]
        if not agreement.bits:
            other += [f"{name} {change}" for name, change in pair.other_surroundings().items()]
        for what in other:
            found[what] = found.get(what, 0) + 1
    return found


def class_text(promised: Class) -> str:
    """A class of determinism in words: `score ±0.05`."""
    if isinstance(promised, str):
        return promised
    return ", ".join(f"{name} ±{tolerance:g}" for name, tolerance in promised.items())


def content(number: Number, compared: Compared, result: Remade) -> dict[str, Any]:
    """The same for machines."""
    return {
        "cell": number.id,
        "jobs": [
            {
                "job": str(pair.new) if pair else None,
                "record": str(pair.new.file) if pair else None,
                "reproduces": pair.promised if pair else None,
                "holds": agreement.holds,
                "said": agreement.said,
            }
            for pair, agreement in compared
        ],
        "differences": differences(compared),
        "before": {"raw": result.before, "shown": result.shown_before},
        "after": {"raw": result.after, "shown": result.shown_after},
        "holds": result.agreement.holds,
        "said": result.agreement.said,
    }
