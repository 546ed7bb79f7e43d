"""Table 4: our method at 1/3, without and with LLM.int8() (Section 5.4)."""

from collections.abc import Sequence
from typing import Any

from ffmerge.evaluation import metric_named
from ffmerge.tables.layout import Row
from ffmerge.tables.results import Result


def table4(results: Sequence[Result], storage: dict[str, dict[str, Any]]) -> list[Row]:
    """The rows of Table 4; compression is what is left of the file of the float32 original.

    results: of each task the merged model and its quantized form. storage: task -> storage.json of
    that form: what was measured on disk, and what follows from the architecture alone.
    """
    scores = {(result.task, result.int8): result for result in results}
    rows = []
    for task, sizes in storage.items():
        merged, quantized = scores[task, False], scores[task, True]
        rows.append(
            {
                "Model": merged.model,
                "Metric": metric_named(merged.metric).label,
                "Compression": f"{sizes['merged_percent']:.1f} %",
                "Performance": f"{merged.score:.1f}",
                "Computed": f"{sizes['merged_computed_percent']:.1f} %",
                "+LLM.int8() Compression": f"{sizes['measured_percent']:.1f} %",
                "+LLM.int8() Performance": f"{quantized.score:.1f}",
                "+LLM.int8() Computed": f"{sizes['computed_percent']:.1f} %",
            }
        )
    return rows
