"""Table 5: full numerical results at varying compression ratios (Appendix A)."""

from collections.abc import Sequence

from ffmerge.evaluation import metric_named
from ffmerge.tables.layout import Row
from ffmerge.tables.results import Result


def table5(results: Sequence[Result]) -> list[Row]:
    """The rows of Table 5, in its columns and rounding.

    results: of each task the uncompressed model first, then its variants by ratio; methods of the
    same window share a row. A method that was not run has an empty cell.
    """
    rows: dict[tuple, Row] = {}
    for result in results:
        metric = metric_named(result.metric)
        row = rows.setdefault(
            (result.task, result.merged_indices),
            {
                "Model": result.model,
                "Metric": metric.label,
                "Merged Indices": result.merged_indices,
                "FFs Removed": f"{result.sublayers_removed}/{result.sublayers}",
                "Vanilla": "",
                "Permute": "",
            },
        )
        shown = f"{result.score:.{metric.decimals}f}"
        for method in [result.method] if result.method else ["vanilla", "permute"]:
            row[method.capitalize()] = shown
    return list(rows.values())
