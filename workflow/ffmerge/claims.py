"""The paper's findings as statements with a test each (Sections 5.1 to 5.5, Appendix C).

A claim holds if its test is significant after correcting for all tests of the table; it fails if
the interval of the difference lies on the other side; else the examples do not decide it.
"""

from collections.abc import Iterator, Sequence
from typing import Any

from ffmerge.evidence import Evidence, TaskClaims
from ffmerge.paired_tests import holm

RATIOS = ("third", "half", "all")
STATEMENTS = {  # name -> section, statement
    "permuting_beats_averaging": ("5.1", "aligned merging scores better than averaging alone"),
    "gap_grows": ("5.1", "what aligning gains is more with all merged than at 1/3"),
    "third_stays_close": ("5.1", "1/3 of the FF sublayers removed costs at most {bound}"),
    "matches_layer_drop": (
        "5.1",
        "merging is at most {bound} worse than layer drop at its parameter reduction",
    ),
    "window_matters_untuned": ("5.2", "windows differ more before tuning than after it"),
    "window_hardly_matters_tuned": ("5.2", "after tuning, windows differ by at most {bound}"),
    "anchor_hardly_matters": ("5.3", "anchors differ by at most {bound}"),
    "int8_costs_nothing": ("5.4", "LLM.int8() costs at most {bound} further"),
    "ff_more_similar_than_attention": ("5.5", "FF outputs are more similar than attention's"),
}


def about_task(
    examined: TaskClaims,
    models: dict[str, Any],
    reductions: dict[str, float],
    untuned: Sequence[float],
) -> Iterator[Evidence]:
    """All claims about one task's models, but for CKA.

    models: names of the tested models: `base`, the uncompressed one; `permute` and, if it was run,
    `vanilla`, by ratio (third, half, all); `merged`, our method at third and half; `dropped`,
    layer drop from the smaller to the larger; `windows` of Table 2, `anchors` of Table 3; `int8`.
    reductions: model -> parameters removed, %; untuned: validation score of each of `windows`.
    """
    merged = models["merged"]
    if "permute" in models and "vanilla" in models:
        pairs = {ratio: (models["permute"][ratio], models["vanilla"][ratio]) for ratio in RATIOS}
        for pair in pairs.values():
            yield examined.better("permuting_beats_averaging", *pair)
        yield examined.gap_grows(pairs["all"], pairs["third"])
    yield examined.not_worse("third_stays_close", merged["third"], models["base"], "close")
    for model in merged.values():
        yield examined.matches_layer_drop(model, [models["base"], *models["dropped"]], reductions)
    yield examined.spread_shrinks(models["windows"], untuned)
    yield examined.spread_below("window_hardly_matters_tuned", models["windows"])
    yield examined.spread_below("anchor_hardly_matters", models["anchors"])
    yield examined.not_worse("int8_costs_nothing", models["int8"], merged["third"], "equal")


def judged(evidence: Sequence[Evidence], confidence: float) -> Iterator[dict[str, Any]]:
    """Every claim as a row, with its corrected p-value and its verdict."""
    corrected = holm([entry.p for entry in evidence])
    for entry, p in zip(evidence, corrected, strict=True):
        section, statement = STATEMENTS[entry.claim]
        yield {
            "claim": entry.claim,
            "section": section,
            "statement": statement.format(bound=entry.bound),
            "task": entry.task,
            "compared": entry.compared,
            "on_its_side_by": entry.difference,
            "low": entry.low,
            "high": entry.high,
            "unit": entry.unit,
            "n": entry.n,
            "p": entry.p,
            "p_corrected": p,
            "verdict": _verdict(entry, p, confidence),
        }


def _verdict(entry: Evidence, p_corrected: float, confidence: float) -> str:
    if p_corrected <= 1 - confidence and entry.difference > 0:
        return "holds"
    return "fails" if entry.high < 0 else "undecided"
