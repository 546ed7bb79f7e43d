"""Tables 2 to 5: the tables of test scores (Sections 5.2 to 5.4, Appendix A)."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from pandas import DataFrame

from experiment.reported import printed_number, read_reported
from experiment.tables.layout import Row
from experiment.tables.scores import Result
from experiment.variants import BASE
from provenance import cells
from provenance.cells import Printed
from provenance.job import Job

Printing = Callable[[Result, str], Printed | None]  # what the paper prints for a quantity

WINDOWS = {
    "best": "Best pre-tune",
    "random1": "Random 1",
    "random2": "Random 2",
    "random3": "Random 3",
}
ANCHOR_LABELS = {"first": "Anchor First", "middle": "Anchor Middle", "last": "Anchor Last"}
STORED = {  # whether quantized -> keys of storage.json: measured on disk, and computed
    False: ("merged_percent", "merged_computed_percent"),
    True: ("measured_percent", "computed_percent"),
}


def score_table(job: Job, results: Sequence[Result]) -> DataFrame:
    """Make the table that the wildcard `n` of a job names."""
    number = int(job.wildcards.n)
    printing = printing_of(job, number)
    if number == 4:
        storage = dict(zip(job.params.tasks, job.input.storage, strict=True))
        return table4(results, storage, printing)
    return {2: table2, 3: table3, 5: table5}[number](results, printing)


def printing_of(job: Job, table: int) -> Printing:
    """Look up what a table of the paper prints for the results of a job that makes it."""
    reported, tasks = read_reported(job.input.reported), job.params.tasks

    def printing(result: Result, quantity: str) -> Printed | None:
        ratios = {k: name for name, k in tasks[result.task]["ratios"].items()}
        return printed_number(
            reported,
            "scores",
            table,
            quantity=quantity,
            task=result.task,
            method=result.method or BASE,
            ratio=ratios.get(result.k, ""),
            anchor=result.anchor or "",
            window=result.role or "",
            int8="yes" if result.int8 else "no",
        )

    return printing


def table2(results: Sequence[Result], printing: Printing) -> DataFrame:
    """Table 2: a row for each model, a column for each role of the merged window."""
    return _scores_by("role", WINDOWS, results, printing)


def table3(results: Sequence[Result], printing: Printing) -> DataFrame:
    """Table 3: a row for each model, a column for each anchor."""
    return _scores_by("anchor", ANCHOR_LABELS, results, printing)


def _scores_by(
    field: str, columns: Mapping[str, str], results: Sequence[Result], printing: Printing
) -> DataFrame:
    """Pivot scores by a field of the results. A column that a model lacks has an empty cell."""
    scores = DataFrame(
        {
            **{"task": result.task, **result.names},
            "column": columns[getattr(result, field)],
            "score": result.score_cell(printing(result, "score"), decimals=1),
        }
        for result in results
    )
    table = scores.pivot_table(
        index=["task", "Model", "Metric"],
        columns="column",
        values="score",
        aggfunc="first",
        sort=False,
    )
    return table.reindex(columns=columns.values()).fillna("").droplevel("task").reset_index()


def table4(results: Sequence[Result], storage: Mapping[str, Path], printing: Printing) -> DataFrame:
    """Table 4: our method at 1/3, without and with LLM.int8().

    Compression is what is left of the float32 original's file, in %. storage: task -> storage.json
    of the quantized model, with what was measured on disk and what the architecture implies.
    """
    rows: dict[str, Row] = {}
    for result in sorted(results, key=lambda result: result.int8):
        file, prefix = storage[result.task], "+LLM.int8() " * result.int8
        measured, computed = STORED[result.int8]
        compression = printing(result, "storage_percent")
        rows.setdefault(result.task, {**result.names}).update(
            {
                f"{prefix}Compression": cells.of(
                    file, f"/{measured}", "{:.1f} %", printed=compression
                ),
                f"{prefix}Performance": result.score_cell(printing(result, "score"), decimals=1),
                f"{prefix}Computed": cells.of(file, f"/{computed}", "{:.1f} %"),
            }
        )
    return DataFrame([rows[task] for task in storage])


def table5(results: Sequence[Result], printing: Printing) -> DataFrame:
    """Table 5: full results at each ratio.

    results: of each task the uncompressed model first, then its variants by ratio; methods of the
    same window share a row. A method that was not run has an empty cell.
    """
    rows: dict[tuple, Row] = {}
    for result in results:
        window = result.window_cell(printing(result, "merged_indices"))
        row = rows.setdefault(
            (result.task, str(window)),
            {
                **result.names,
                "Merged Indices": window,
                "FFs Removed": result.removed_cell(printing(result, "ffs_removed")),
                "Vanilla": "",
                "Permute": "",
            },
        )
        for method in [result.method] if result.method else ["vanilla", "permute"]:
            row[method.capitalize()] = result.score_cell(printing(result, "score"))
    return DataFrame(rows.values())
