"""Table 5: full numerical results at varying compression ratios (Appendix A)."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass

from ffmerge.evaluation import Metric

COLUMNS = ("Model", "Metric", "Merged Indices", "FFs Removed", "Vanilla", "Permute")
NO_WINDOW = "–"


@dataclass(frozen=True)
class Result:
    """One tested model, unrounded.

    first_layer, last_layer: of the merged window, None for an uncompressed model.
    low, high: bounds of the confidence interval of the score.
    reduction_percent: parameters removed, embeddings included, of the base model's.
    """

    task: str
    model: str
    metric: str
    variant: str
    method: str | None
    k: int | None
    first_layer: int | None
    last_layer: int | None
    n_towers: int
    sublayers_removed: int
    sublayers: int
    score: float
    low: float
    high: float
    loss: float
    n_parameters: int
    reduction_percent: float

    @property
    def merged_indices(self) -> str:
        """The window as Table 5 prints it: `3-7`, or `2-4/2-4` for encoder and decoder."""
        if self.first_layer is None:
            return NO_WINDOW
        return "/".join([f"{self.first_layer}-{self.last_layer}"] * self.n_towers)

    def as_row(self) -> dict:
        """Fields by name, for a CSV file."""
        return asdict(self)


def table5(results: Sequence[Result], metrics: dict[str, Metric]) -> list[dict[str, str]]:
    """The rows of Table 5, in its columns and rounding.

    results: of each task the uncompressed model first, then its variants by ratio; methods of the
    same window share a row. metrics: task -> metric. A method that was not run has an empty cell.
    """
    rows: dict[tuple, dict[str, str]] = {}
    for result in results:
        metric = metrics[result.task]
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


def as_text(rows: Sequence[dict[str, str]]) -> str:
    """The rows as aligned columns, for a terminal; a model is named in its first row only."""
    lines, before = [list(COLUMNS)], None
    for row in rows:
        named = [row["Model"], row["Metric"]] if row["Model"] != before else ["", ""]
        lines.append([*named, *(row[column] for column in COLUMNS[2:])])
        before = row["Model"]
    widths = [max(len(line[i]) for line in lines) for i in range(len(COLUMNS))]
    rule = "  ".join("─" * width for width in widths)
    text = [
        "  ".join(
            cell.ljust(width) if i < 4 else cell.rjust(width)
            for i, (cell, width) in enumerate(zip(line, widths, strict=True))
        ).rstrip()
        for line in lines
    ]
    return "\n".join([text[0], rule, *text[1:]]) + "\n"
