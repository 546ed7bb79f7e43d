"""What the stages of `make rehearsal` take, against their limits and against the plan's rates.

    python -m experiment.rehearsal results/rehearsal            # beside those in config/rates.yaml
    python -m experiment.rehearsal results/rehearsal --write    # and put there

The rehearsal runs the paper's models on a processor. Jobs of the paper that need a GPU are not
among what it measures. The exit status is 1 if a stage exceeded its limit, 2 without a rehearsal.
"""

import argparse
import json
import re
import sys
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from experiment.plan import RATES, Rate, Rates, find_rate, read_rates
from experiment.tables.layout import as_text
from provenance.csv_files import read_csv
from provenance.record import read_record

PART = "paper"  # of config/rates.yaml
ALONE = "alignment_alone.json"
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
"""Time to align all pairs, over the time of their matrix products and assignments alone."""

SAME_WORK = ("align_feed_forwards", "compute_cka", "compress")
"""Rules that do the same work on the same machine in the rehearsal and in config/paper.yaml."""


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
    """Compare the alignment of all pairs with their matrix products and assignments alone.

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


def text(table: Sequence[Row], alignment: Sequence[Row]) -> str:
    """Lay out both tables, the limits, and how many of them are kept."""
    judged = [row["within"] for row in (*table, *alignment) if row["within"]]
    bars = "; ".join(f"{rule} {words}" for rule, (words, _) in MEMORY_BARS.items())
    disk = sum(float(row["disk_gb"]) for row in table)
    return f"""{as_text(table)}
Bars of memory (peak of the process, 1 GB is 1e9 bytes): {bars}.
On disk: {disk:.1f} GB. Besides, fine-tuning keeps 16 bytes a parameter,
and 28 while a checkpoint is written (experiment.training.resumption).

All pairs aligned, and their matrix products and assignments alone, in seconds:
{as_text(alignment)}
{judged.count("yes")} of {len(judged)} bars are kept.
"""


def broken(files: Iterable[Path]) -> list[str]:
    """List the rows of written tables that exceed their limit, each as a line."""
    return [
        " ".join(value for value in row.values() if value)
        for file in files
        for row in read_csv(file)
        if row["within"] == "no"
    ]


def measured_rates(results: Path) -> Rates:
    """Read rates of the rules in SAME_WORK from the records of a finished run.

    Raises FileNotFoundError if the run did not measure its alignment.
    """
    alone = {file.parent.name: json.loads(file.read_text()) for file in results.glob(f"*/{ALONE}")}
    if not alone:
        raise FileNotFoundError(f"{results} has no */{ALONE}: `make rehearsal` makes it")
    steps = "seconds a pair (centring + product + assignment): " + ", ".join(
        f"{task} {' + '.join(f'{step:.3g}' for step in times['seconds_a_pair'].values())}"
        for task, times in sorted(alone.items())
    )
    rates = {}
    for file in sorted(results.rglob("*.record.json")):
        record = read_record(file)
        if record["rule"] in SAME_WORK:
            stage, machine = Stage.of(record), record["machine"]
            source = f"measured; {machine['threads']} threads of {machine['cpu'] or 'a processor'}"
            if record["rule"] == "align_feed_forwards":
                source = f"{source}, {steps}"
            seconds = stage.start_up_seconds + stage.seconds + stage.record_seconds
            rate = Rate(round(seconds, 1), round(stage.disk / GB, 4), source)
            rates[stage.rule, stage.task] = rate
    return rates


def replaced(content: str, rates: Rates) -> str:
    """Put measured rates into the file of rates; every other line stays as it is.

    Raises ValueError naming a rate that the file lacks.
    """
    before, heading, part = content.partition(f"{PART}:\n")
    for (rule, task), rate in rates.items():
        row = f"{{seconds: {rate.seconds}, gb: {rate.gb}}}"
        quoted = json.dumps(rate.source, ensure_ascii=False)  # JSON is YAML
        for key, value in (("source", quoted), (task, row)):
            pattern = rf"(?m)(^    {rule}:\n(?:      .*\n)*?      {key}: ).*$"
            part, n = re.subn(pattern, lambda line, v=value: line[1] + v, part, count=1)
            if n != 1:
                raise ValueError(f"{RATES} has no rate {rule}, {key} in its part {PART}")
    return before + heading + part


def main(arguments: Sequence[str] | None = None) -> int:
    """Print planned and measured seconds, and the stages that exceed their limits."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("results", type=Path, help="directory of a finished rehearsal's results")
    parser.add_argument("--rates", type=Path, default=RATES, help=f"by default {RATES}")
    parser.add_argument("--write", action="store_true", help="put what was measured into the file")
    options = parser.parse_args(arguments)
    try:
        rates, planned = measured_rates(options.results), read_rates(options.rates, PART)
        before = {key: find_rate(planned, *key) for key in rates}
        content = replaced(options.rates.read_text(), rates)
    except (OSError, ValueError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    for (rule, task), old in before.items():
        seconds = f"{old.seconds:g} s ({old.basis}), here {rates[rule, task].seconds:g} s"
        print(f"{rule} {task}: planned {seconds}")
    if options.write:
        options.rates.write_text(content)
        print(f"{options.rates}: {len(rates)} rates replaced by measured ones.")
    lines = broken(options.results / name for name in ("stages.csv", "stages_alignment.csv"))
    print("\n".join(f"broken: {line}" for line in lines) or "Every bar is kept.")
    return 1 if lines else 0


if __name__ == "__main__":
    sys.exit(main())
