"""Time the start of jobs, and compute the share of the demo's core time that is computation."""

import json
import os
import subprocess
import sys
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path

from subjects import REPOSITORY
from timing import Measured, compared, in_turns

MODEL_CLASS = "import torch; from transformers import ViTForImageClassification"
STARTS = {  # kind of job -> one of its scripts, and what that imports later, before it computes
    "with a model": (
        "score_windows",
        "import experiment.tasks.image_classification, datasets; "
        "from transformers import ViTForImageClassification",
    ),
    "of alignment": ("align_feed_forwards", "import scipy.optimize"),
    "of a table": ("make_tables_2_to_5", ""),
}


@dataclass(frozen=True)
class Size:
    """Kinds of jobs to start, and the results of a finished run."""

    scripts: tuple[str, ...]
    rounds: int
    records: Path


FULL = Size(tuple(STARTS), 3, REPOSITORY / "results/demo")
TOY = Size(("of a table",), 1, REPOSITORY / "results/demo")


def measure(size: Size = FULL) -> list[Measured]:
    """Measure one line for each kind of job, and one for the records of a run if there are any."""
    lines = [_start_up(kind, size.rounds) for kind in size.scripts]
    records = [json.loads(file.read_text()) for file in sorted(size.records.rglob("*.record.json"))]
    return lines + ([computation(records)] if records else [])


def _start_up(kind: str, rounds: int) -> Measured:
    script, later = STARTS[kind]
    file = f"workflow/scripts/{script}.py"
    # As a job imports it; it does not run as __main__, so it runs no job.
    imports = f"import runpy, sys; sys.argv = ['{file}']; runpy.run_path('{file}'); {later}"
    samples = in_turns(
        rounds,
        job=lambda: _python(imports),
        classes=lambda: _python(MODEL_CLASS),
    )
    what = f"start of a job {kind} / torch and a model class"
    return compared(what, samples["job"], samples["classes"], None)


def computation(records: list[dict]) -> Measured:
    """Compute the share of core time that is neither start-up nor writing records.

    Core time is processor time. Start-up counts its wall-clock seconds, since imports use one core.
    """
    overhead, whole = defaultdict(float), defaultdict(float)
    for record in records:
        spent = record["time"]
        whole[record["rule"]] += max(spent["cpu_seconds"], spent["start_up_seconds"])
        overhead[record["rule"]] += min(
            spent["start_up_seconds"] + spent["record_seconds"], spent["cpu_seconds"]
        )
    share = 1 - sum(overhead.values()) / sum(whole.values())
    worst = sorted(overhead, key=overhead.get, reverse=True)[:3]
    detail = f"{len(records)} records, {sum(whole.values()):.4g} s; most overhead: "
    detail += ", ".join(f"{rule} {overhead[rule]:.3g} s" for rule in worst)
    return Measured(
        "computation's share of the demo's core time", [share], ("at least", 0.8), detail=detail
    )


def _python(code: str) -> None:
    environment = os.environ | {"PYTHONPATH": "workflow", "TRANSFORMERS_VERBOSITY": "error"}
    subprocess.run(
        [sys.executable, "-c", code],
        cwd=REPOSITORY,
        env=environment,
        stdout=subprocess.DEVNULL,
        check=True,
    )
