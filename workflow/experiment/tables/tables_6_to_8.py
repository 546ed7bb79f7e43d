"""Tables 6 to 8: the hyperparameters of fine-tuning (Appendix B).

They come from the records of the jobs rather than from the configuration.
"""

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import pandas
from pandas import DataFrame

from provenance.cells import Cell, Printed, Source

ROW_NAMES = {  # those of the paper as it prints them, then the others
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
    "select_by": "best validation by",
}
SCHEDULES = {  # keys that only some schedules use
    "decay_steps": ("linear_to_minimum", "cosine"),
    "minimum_learning_rate": ("linear_to_minimum", "cosine"),
    "timescale": ("inverse_sqrt",),
}
IN_RECORD = "/params/task/fine_tuning"  # in a record


def hyperparameters(
    records: Sequence[Path], curves: Sequence[Path], printing: Callable[..., Printed | None]
) -> DataFrame:
    """List every setting of the runs; a value that only some of them have is counted.

    records: of the fine-tuning jobs of one kind of task; curves: their learning curves; printing:
    looks up what the paper prints for a setting.
    """
    rule = f"counted of {len(records)}"
    rows = {
        name: Cell(_used(key, records), rule, "values", printed=printing(name=key))
        for key, name in ROW_NAMES.items()
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
    return DataFrame(
        [(name, cell) for name, cell in rows.items() if cell.sources],
        columns=["Hyperparameter", "Value"],
    )


def _used(key: str, records: Iterable[Path]) -> tuple[Source, ...]:
    """The setting in the record of every run whose schedule uses it."""
    sources = []
    for record in records:
        settings = Source(record, IN_RECORD).value()
        if settings["schedule"] in SCHEDULES.get(key, (settings["schedule"],)):
            all_steps = key == "decay_steps" and settings[key] is None
            sources.append(Source(record, f"{IN_RECORD}/{'max_steps' if all_steps else key}"))
    return tuple(sources)


def _last(column: str, curve: Path) -> Source:
    """The last value in a column of a learning curve."""
    return Source(curve, f"/{pandas.read_csv(curve)[column].last_valid_index()}/{column}")
