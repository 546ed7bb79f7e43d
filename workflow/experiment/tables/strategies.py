"""Compare strategies that select the sublayers to merge (our own table, not the paper's)."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from pandas import DataFrame

from experiment.tables.layout import Row
from experiment.tables.scores import Result
from experiment.variants import RATIO_LABELS
from ffmerge.evaluation.metrics import metric_named
from provenance import cells
from provenance.cells import Cell, in_row

ROLE_OF_STRATEGY = {"window": "best", "correlation": "correlation", "cka": "cka"}
STRATEGY_LABELS = {
    "window": "window search",
    "correlation": "clusters by aligned correlation",
    "cka": "clusters by CKA",
}
DASH = "–"


def strategies(
    results: Sequence[Result],
    files: Mapping[str, tuple[Path, Path]],
    ratios: Mapping[str, Mapping[str, int]],
) -> DataFrame:
    """List groups and scores, before and after tuning, by task, ratio and strategy.

    Strategies of a ratio remove equally many sublayers. results: of each task the uncompressed
    model and the tuned ones, which are of 1/3. files: task -> groups.json and groups.csv.
    ratios: task -> k of each ratio.
    """
    tuned = {(result.task, result.k, result.role): result for result in results}
    rows: list[Row] = []
    for task, (groups, untuned) in files.items():
        base = tuned[task, None, None]
        decimals = metric_named(base.metric).decimals
        nothing = dict.fromkeys(("FFs Removed", "Strategy", "Merged", "Untuned"), DASH)
        rows.append({**base.names, **nothing, "Tuned": base.score_cell()})
        for ratio, removed in RATIO_LABELS.items():
            if ratio == "all" or (k := ratios[task].get(ratio)) is None:
                continue
            for strategy, label in STRATEGY_LABELS.items():
                result = tuned.get((task, k, ROLE_OF_STRATEGY[strategy]))
                score = in_row(untuned, "score", strategy=strategy, k=k)
                rows.append(
                    {
                        **base.names,
                        "FFs Removed": removed,
                        "Strategy": label,
                        "Merged": cells.of(groups, f"/{k}/{strategy}", "groups"),
                        "Untuned": Cell((score,), f"{{:.{decimals}f}}"),
                        "Tuned": result.score_cell() if result else DASH,
                    }
                )
    return DataFrame(rows)
