"""The configuration: typed, validated before any job starts, documented from the same classes.

`config/README.md` and `config/schema.json` are generated from these classes and descriptions by
`python -m ffmerge.config.reference`; a test keeps them in step. Light on purpose: Snakemake imports
it at every start, so no torch here. Imports go one way:
reference -> faults -> run -> tasks -> inputs and settings -> strict.
"""

from ffmerge.config.inputs import PACKAGE_FILE, TrainedFromScratch
from ffmerge.config.run import Config
from ffmerge.config.tasks import (
    KINDS,
    READING,
    SCORING,
    LanguageModeling,
    Task,
    TaskBase,
    part_of_task,
)
from ffmerge.config.training_settings import Training

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
