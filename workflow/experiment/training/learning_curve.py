"""The learning curve of a training: a CSV with the losses and validation scores by step."""

from pathlib import Path
from typing import Any

from provenance.csv_files import write_csv

CURVE = ("step", "loss", "learning_rate", "score", "validation_loss")  # columns
NAMES = {"eval_score": "score", "eval_loss": "validation_loss"}  # what the Trainer calls them


def learning_curve(log: list[dict[str, Any]]) -> list[dict[str, float]]:
    """The points of a Trainer's log: `step` and `loss`, or `score` and `validation_loss`."""
    named = [{NAMES.get(key, key): value for key, value in entry.items()} for entry in log]
    points = [entry for entry in named if "loss" in entry or "score" in entry]
    return [{key: point[key] for key in CURVE if key in point} for point in points]


def write_curve(curve: list[dict], file: Path) -> None:
    """Write a learning curve as CSV, a column for each of CURVE."""
    write_csv(curve, file, CURVE)


def best_step(log: list[dict[str, Any]], higher_is_better: bool) -> int | None:
    """The step with the best validation score of a Trainer's log, the first one of equals."""
    scores = {entry["step"]: entry["eval_score"] for entry in log if "eval_score" in entry}
    best = max if higher_is_better else min
    return best(scores, key=scores.__getitem__, default=None)
