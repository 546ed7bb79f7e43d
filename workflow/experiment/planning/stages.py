"""What the stages of a finished run took, from their records, against what they may take."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from experiment.tables.layout import as_text
from ffmerge.models.format import WEIGHTS
from provenance.csv_files import read_csv

GB = 1e9
Row = dict[str, str]

MEMORY_BARS: dict[str, tuple[str, Callable[[float], float]]] = {
    "collect_features": ("the weights and 2 GB", lambda weights: weights + 2 * GB),
    "collect_outputs": ("the weights and 2 GB", lambda weights: weights + 2 * GB),
    "align_feed_forwards": ("3 GB", lambda weights: 3 * GB),
    "compress": ("1.3 × the weights", lambda weights: 1.3 * weights),
}
"""Rule -> the most memory it may hold, in words and from the bytes of the base model's weights."""

TIME_BAR = 1.4
"""All pairs aligned, over the time that their matrix products and assignments take alone."""


@dataclass(frozen=True)
class Stage:
    """A job of a run, by its record: seconds of work, bytes at the peak and on disk.

    seconds: without the digests of inputs and outputs that its record takes (`record_seconds`).
    """

    task: str
    rule: str
    model: str
    seconds: float
    record_seconds: float
    peak_memory: float
    disk: float

    @classmethod
    def of(cls, record: dict[str, Any]) -> "Stage":
        """The stage of a record; its outputs are measured where they lie, 0 if they are gone."""
        of, time = record["wildcards"], record["time"]
        return cls(
            of.get("task", ""),
            record["rule"],
            of.get("model") or of.get("variant") or of.get("part") or "",
            time["seconds"] - time["record_seconds"],
            time["record_seconds"],
            time["peak_memory_bytes"],
            sum(size_on_disk(path) for path in paths_of(record["output"])),
        )

    def memory_bar(self, weights: float) -> float | None:
        """Bytes that it may hold. weights: bytes of its task's base model."""
        return MEMORY_BARS[self.rule][1](weights) if self.rule in MEMORY_BARS else None


def paths_of(files: dict[str, Any]) -> Iterable[Path]:
    """The paths of a record's inputs or outputs."""
    for value in files.values():
        for each in value if isinstance(value, list) else [value]:
            yield Path(each["path"])


def size_on_disk(path: Path) -> int:
    """Bytes of a file, or of all files in a directory."""
    files = path.rglob("*") if path.is_dir() else [path]
    return sum(file.stat().st_size for file in files if file.is_file())


def rows(stages: Sequence[Stage], weights: dict[str, float]) -> list[Row]:
    """The table: a row a job, in the order of its task and its record."""
    table = []
    for stage in stages:
        bar = stage.memory_bar(weights.get(stage.task, 0))
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
                "within": "" if bar is None else _yes(stage.peak_memory <= bar),
            }
        )
    return table


def alignment_row(task: str, seconds: float, alone: dict[str, Any]) -> Row:
    """All pairs of a task aligned, against their matrix products and assignments alone.

    seconds: of the job that aligned them; alone: what experiment.planning.alone measured.
    """
    a_pair = alone["seconds_a_pair"]
    least = alone["n_pairs"] * (a_pair["product"] + a_pair["assignment"])
    return {
        "task": task,
        "pairs": str(alone["n_pairs"]),
        "seconds": f"{seconds:.1f}",
        "alone": f"{least:.1f}",
        "ratio": f"{seconds / least:.2f}",
        "bar": f"{TIME_BAR}",
        "within": _yes(seconds <= TIME_BAR * least),
    }


def weight_bytes(base_model: Path) -> int:
    """Bytes of a base model's file, which is float32 here."""
    return size_on_disk(base_model / WEIGHTS)


def text(table: Sequence[Row], alignment: Sequence[Row]) -> str:
    """Both tables to read, what the bars are, and how many are kept."""
    judged = [row["within"] for row in (*table, *alignment) if row["within"]]
    bars = "; ".join(f"{rule} {words}" for rule, (words, _) in MEMORY_BARS.items())
    disk = sum(float(row["disk_gb"]) for row in table)
    return "\n".join(
        [
            as_text(table),
            f"Bars of memory (peak of the process, 1 GB is 1e9 bytes): {bars}.",
            f"On disk: {disk:.1f} GB. Besides, fine-tuning keeps 16 bytes a parameter,",
            "and 28 while a checkpoint is written (experiment.training.checkpoints).",
            "",
            "All pairs aligned, and their matrix products and assignments alone, in seconds:",
            as_text(alignment),
            f"{judged.count('yes')} of {len(judged)} bars are kept.",
            "",
        ]
    )


def broken(files: Iterable[Path]) -> list[str]:
    """The rows of written tables whose bar is not kept, each as a line."""
    return [
        " ".join(value for value in row.values() if value)
        for file in files
        for row in read_csv(file)
        if row["within"] == "no"
    ]


def _yes(kept: bool) -> str:
    return "yes" if kept else "no"
