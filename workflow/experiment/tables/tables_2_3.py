"""Tables 2 and 3: a row a model, a column a window or an anchor (Sections 5.2 and 5.3)."""

from collections.abc import Callable, Sequence

from experiment.evaluation.metrics import metric_named
from experiment.tables.layout import Row
from experiment.tables.printing import Printing
from experiment.tables.scores import Result

WINDOWS = {
    "best": "Best pre-tune",
    "random1": "Random 1",
    "random2": "Random 2",
    "random3": "Random 3",
}
ANCHORS = {"first": "Anchor First", "middle": "Anchor Middle", "last": "Anchor Last"}


def table2(results: Sequence[Result], printing: Printing) -> list[Row]:
    """Table 2: merged models by the role of their window."""
    return _rows(results, printing, WINDOWS, lambda result: result.role)


def table3(results: Sequence[Result], printing: Printing) -> list[Row]:
    """Table 3: merged models by their anchor."""
    return _rows(results, printing, ANCHORS, lambda result: result.anchor)


def _rows(
    results: Sequence[Result],
    printing: Printing,
    columns: dict[str, str],
    column: Callable[[Result], str],
) -> list[Row]:
    rows: dict[str, Row] = {}
    for result in results:
        row = rows.setdefault(
            result.task,
            {
                "Model": result.model,
                "Metric": metric_named(result.metric).label,
                **dict.fromkeys(columns.values(), ""),
            },
        )
        row[columns[column(result)]] = result.score_cell(printing(result, "score"), decimals=1)
    return list(rows.values())
