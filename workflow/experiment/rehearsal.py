"""Compare time, memory and disk of the rehearsal's stages with their limits (`make rehearsal`)."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from experiment.tables.layout import as_text

GB = 1e9
Row = dict[str, str]

MEMORY_BARS: dict[str, tuple[str, Callable[[float], float]]] = {
    "collect_features": ("the weights and 2 GB", lambda weights: weights + 2 * GB),
    "collect_outputs": ("the weights and 2 GB", lambda weights: weights + 2 * GB),
    "align_feed_forwards": ("3 GB", lambda weights: 3 * GB),
    "compress": ("1.3 × the weights", lambda weights: 1.3 * weights),
}
"""Rule -> the most memory it may use, in words and from the bytes of the base model's weights."""

TIME_BAR = 1.4
"""Time to align a task's pairs, over the time of their matrix products and assignments alone."""


@dataclass(frozen=True)
class Stage:
    """A job of a finished run, read from its record.

    seconds: without start_up_seconds and record_seconds, which digesting inputs and outputs takes.
    peak_memory, disk: bytes.
    """

    task: str
    rule: str
    model: str
    seconds: float
    start_up_seconds: float
    record_seconds: float
    peak_memory: float
    disk: float

    @classmethod
    def of(cls, record: dict[str, Any]) -> "Stage":
        """Read a record, and the size of the outputs that still exist."""
        wildcards, spent = record["wildcards"], record["time"]
        return cls(
            wildcards.get("task", ""),
            record["rule"],
            wildcards.get("model") or wildcards.get("variant") or wildcards.get("part") or "",
            spent["seconds"] - spent["record_seconds"],
            spent["start_up_seconds"],
            spent["record_seconds"],
            spent["peak_memory_bytes"],
            sum(
                size_on_disk(Path(file["path"]))
                for value in record["output"].values()
                for file in (value if isinstance(value, list) else [value])
            ),
        )


def size_on_disk(path: Path) -> int:
    """Add up the bytes of a file, or of all files in a directory."""
    files = path.rglob("*") if path.is_dir() else [path]
    return sum(file.stat().st_size for file in files if file.is_file())


def rows(stages: Sequence[Stage], weights: dict[str, float]) -> list[Row]:
    """Make a table of stages. weights: bytes of the base model, by task."""
    table = []
    for stage in stages:
        bar = None
        if stage.rule in MEMORY_BARS:
            bar = MEMORY_BARS[stage.rule][1](weights.get(stage.task, 0))
        table.append(
            {
                "task": stage.task,
                "stage": stage.rule,
                "of": stage.model,
                "seconds": f"{stage.seconds:.1f}",
                "record_seconds": f"{stage.record_seconds:.1f}",
                "memory_gb": f"{stage.peak_memory / GB:.2f}",
                "memory_bar_gb": "" if bar is None else f"{bar / GB:.2f}",
                "disk_gb": f"{stage.disk / GB:.3f}",
                "within": "" if bar is None else "yes" if stage.peak_memory <= bar else "no",
            }
        )
    return table


def alignment_row(task: str, seconds: float, alone: dict[str, Any]) -> Row:
    """Compare the alignment of a task's pairs with their matrix products and assignments alone.

    seconds: of the job that aligned them. alone: output of scripts/measure_alignment.py.
    """
    steps = alone["seconds_a_pair"]
    least = alone["n_pairs"] * (steps["product"] + steps["assignment"])
    return {
        "task": task,
        "pairs": str(alone["n_pairs"]),
        "seconds": f"{seconds:.1f}",
        "alone": f"{least:.1f}",
        "ratio": f"{seconds / least:.2f}",
        "bar": f"{TIME_BAR}",
        "within": "yes" if seconds <= TIME_BAR * least else "no",
    }


def stages_text(table: Sequence[Row], alignment: Sequence[Row]) -> str:
    """Lay out both tables, the limits, and how many of them are kept."""
    judged = [row["within"] for row in (*table, *alignment) if row["within"]]
    bars = "; ".join(f"{rule} {words}" for rule, (words, _) in MEMORY_BARS.items())
    disk = sum(float(row["disk_gb"]) for row in table)
    return f"""{as_text(table)}
Bars of memory (peak of the process, 1 GB is 1e9 bytes): {bars}.
On disk: {disk:.1f} GB. Besides, fine-tuning keeps 16 bytes a parameter,
and 28 while a checkpoint is written (ffmerge.training.resumption).

Pairs of layers aligned, and their matrix products and assignments alone, in seconds:
{as_text(alignment)}
{judged.count("yes")} of {len(judged)} bars are kept.
"""
