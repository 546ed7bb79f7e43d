"""The configuration: typed, validated before any job starts, documented from the same classes.

`python -m experiment.config.reference` generates `config/README.md` and `config/schema.json` from
these classes and descriptions; a test keeps them in step. Snakemake imports this package at every
start, so it does without torch. Imports go one way:
reference -> faults -> run -> tasks -> inputs and settings -> strict.
"""

from experiment.config.inputs import PACKAGE_FILE, TrainedFromScratch
from experiment.config.run import Config
from experiment.config.tasks import (
    KINDS,
    READING,
    SCORING,
    LanguageModeling,
    Task,
    TaskBase,
    part_of_task,
)
from experiment.config.training_settings import Training

__all__ = [
    "KINDS",
    "PACKAGE_FILE",
    "READING",
    "SCORING",
    "Config",
    "LanguageModeling",
    "Task",
    "TaskBase",
    "TrainedFromScratch",
    "Training",
    "part_of_task",
]
