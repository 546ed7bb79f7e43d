"""Tables 6 to 8: the hyperparameters that fine-tuning ran with (Appendix B).

They come from the records of the jobs, not from the configuration: what is shown is what was done.
"""

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

from experiment.tables.layout import Row
from provenance.cells import Cell, Printed, Source
from provenance.csv_files import read_csv

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
SETTINGS = "/params/task/fine_tuning"  # in a record


def hyperparameters(
    records: Sequence[Path], curves: Sequence[Path], printing: Callable[[str], Printed | None]
) -> list[Row]:
    """Name and value of every setting of the runs; a value that not all have says how many do.

    records: of the fine-tuning jobs of one kind of task; curves: their learning curves; printing:
    what the paper prints for a setting.
    """
    rule = f"counted of {len(records)}"
    rows = {
        name: Cell(_used(key, records), rule, "values", printed=printing(key))
        for key, name in NAMES.items()
    }
    rows |= {
        name: Cell(tuple(sources), rule, "values")
        for name, sources in (
            ("seed", [Source(record, "/seed") for record in records]),
            ("device", [Source(record, "/params/device") for record in records]),
            ("steps done", [_last("step", curve) for curve in curves]),
            ("learning rate at the last step", [_last("learning_rate", c) for c in curves]),
        )
    }
    rows["models tuned"] = Cell(tuple(map(Source, records)), derivation="count")
    return [{"Hyperparameter": name, "Value": cell} for name, cell in rows.items() if cell.sources]


def _used(key: str, records: Iterable[Path]) -> tuple[Source, ...]:
    """A setting in the record of every run whose schedule uses it."""
    found = []
    for record in records:
        settings = Source(record, SETTINGS).value()
        if settings["schedule"] in OF_SCHEDULE.get(key, (settings["schedule"],)):
            over_all = key == "decay_steps" and settings[key] is None
            found.append(Source(record, f"{SETTINGS}/{'max_steps' if over_all else key}"))
    return tuple(found)


def _last(column: str, curve: Path) -> Source:
    """The last value that a learning curve has in a column."""
    rows = [n for n, row in enumerate(read_csv(curve)) if row[column]]
    return Source(curve, f"/{rows[-1]}/{column}")
