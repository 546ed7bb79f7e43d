"""Table 4: our method at 1/3, without and with LLM.int8() (Section 5.4)."""

from collections.abc import Sequence
from pathlib import Path

from experiment.evaluation.metrics import metric_named
from experiment.tables.layout import Row
from experiment.tables.printing import Printing
from experiment.tables.scores import Result
from provenance import cells

KEYS = {  # of storage.json, what is left of the original's bytes: measured on disk, and computed
    False: ("merged_percent", "merged_computed_percent"),
    True: ("measured_percent", "computed_percent"),
}


def table4(results: Sequence[Result], storage: dict[str, Path], printing: Printing) -> list[Row]:
    """The rows of Table 4; compression is what is left of the file of the float32 original.

    results: of each task the merged model and its quantized form. storage: task -> storage.json of
    that form: what was measured on disk, and what follows from the architecture alone.
    """
    rows: dict[str, Row] = {}
    for result in sorted(results, key=lambda result: result.int8):
        names = {"Model": result.model, "Metric": metric_named(result.metric).label}
        rows.setdefault(result.task, names).update(_columns(result, storage[result.task], printing))
    return [rows[task] for task in storage]


def _columns(result: Result, storage: Path, printing: Printing) -> Row:
    """What the table says of one form of a model."""
    measured, computed = (f"/{key}" for key in KEYS[result.int8])
    of_paper, prefix = printing(result, "storage_percent"), "+LLM.int8() " * result.int8
    return {
        f"{prefix}Compression": cells.of(storage, measured, "{:.1f} %", printed=of_paper),
        f"{prefix}Performance": result.score_cell(printing(result, "score"), decimals=1),
        f"{prefix}Computed": cells.of(storage, computed, "{:.1f} %"),
    }
