"""Table 5: full numerical results at varying compression ratios (Appendix A)."""

from collections.abc import Sequence

from experiment.evaluation.metrics import metric_named
from experiment.tables.layout import Row
from experiment.tables.printing import Printing
from experiment.tables.scores import Result


def table5(results: Sequence[Result], printing: Printing) -> list[Row]:
    """The rows of Table 5, in its columns and rounding.

    results: of each task the uncompressed model first, then its variants by ratio; methods of the
    same window share a row. A method that was not run has an empty cell.
    """
    rows: dict[tuple, Row] = {}
    for result in results:
        window = result.window_cell(printing(result, "merged_indices"))
        row = rows.setdefault(
            (result.task, str(window)),
            {
                "Model": result.model,
                "Metric": metric_named(result.metric).label,
                "Merged Indices": window,
                "FFs Removed": result.removed_cell(printing(result, "ffs_removed")),
                "Vanilla": "",
                "Permute": "",
            },
        )
        for method in [result.method] if result.method else ["vanilla", "permute"]:
            row[method.capitalize()] = result.score_cell(printing(result, "score"))
    return list(rows.values())
