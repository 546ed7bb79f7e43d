"""Tables 6 to 8: the hyperparameters that fine-tuning ran with (Appendix B).

They come from the records of the jobs, not from the configuration: what is shown is what was done.
"""

from collections import Counter
from collections.abc import Sequence
from typing import Any

from ffmerge.tables.layout import Row

NAMES = {  # as the paper prints them, then what it leaves out
    "learning_rate": "Start LR",
    "schedule": "LR Schedule",
    "decay_steps": "decay_steps",
    "minimum_learning_rate": "Min LR",
    "precision": "precision",
    "batch_size": "batch size",
    "max_steps": "n_steps",
    "warmup_steps": "warm-up steps",
    "timescale": "timescale (steps)",
    "weight_decay": "weight decay",
    "adam_epsilon": "AdamW ε",
    "adam_beta2": "AdamW β₂",
    "max_gradient_norm": "gradient clip (norm)",
    "group_by_length": "grouped by length",
    "evaluate_every": "validated every (steps)",
}
OF_SCHEDULE = {  # keys that only some schedules use
    "decay_steps": ("linear_to_minimum", "cosine"),
    "minimum_learning_rate": ("linear_to_minimum", "cosine"),
    "timescale": ("inverse_sqrt",),
}


def hyperparameters(
    records: Sequence[dict[str, Any]], curves: Sequence[list[dict[str, str]]]
) -> list[Row]:
    """Name and value of every setting of the runs; a value that not all have says how many do.

    records: of the fine-tuning jobs of one kind of task; curves: rows of their learning curves.
    """
    used = [record["params"]["task"]["fine_tuning"] for record in records]
    rows = [
        (name, [_value(key, settings) for settings in used if _applies(key, settings)])
        for key, name in NAMES.items()
    ]
    rows += [
        ("seed", [record["seed"] for record in records]),
        ("device", [record["params"]["device"] for record in records]),
        ("steps done", [max(int(row["step"]) for row in curve) for curve in curves]),
        ("learning rate at the last step", [_last_rate(curve) for curve in curves]),
    ]
    shown = [(name, _shared(values, len(records))) for name, values in rows if values]
    shown.append(("models tuned", str(len(records))))
    return [{"Hyperparameter": name, "Value": value} for name, value in shown]


def shared_settings(records: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """The settings of fine-tuning that all of these runs share."""
    used = [record["params"]["task"]["fine_tuning"] for record in records]
    return {key: used[0][key] for key in used[0] if all(each[key] == used[0][key] for each in used)}


def _applies(key: str, settings: dict[str, Any]) -> bool:
    return settings["schedule"] in OF_SCHEDULE.get(key, (settings["schedule"],))


def _value(key: str, settings: dict[str, Any]) -> Any:
    if key == "decay_steps" and settings[key] is None:
        return settings["max_steps"]
    return settings[key]


def _last_rate(curve: list[dict[str, str]]) -> float:
    return float([row["learning_rate"] for row in curve if row["learning_rate"]][-1])


def _shared(values: Sequence[Any], n_runs: int) -> str:
    counts = Counter(_shown(value) for value in values)
    if list(counts.values()) == [n_runs]:
        return next(iter(counts))
    return ", ".join(f"{value} ({n} of {n_runs})" for value, n in counts.most_common())


def _shown(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)
