"""Processes that make batches in advance, so that a GPU does not wait for images or tokens."""

import gc
import signal
from collections.abc import Callable
from typing import Any

START = "spawn"  # how workers start: a fork of a process with torch's threads can hang
IGNORED_SIGNALS = (signal.SIGTERM, signal.SIGUSR1, signal.SIGINT)


class BadExample(ValueError):
    """An example that a worker cannot read; its message is that of the error, without a traceback.

    torch raises an error of a worker again with the traceback as its only argument.
    """

    def __init__(self, text: str) -> None:
        super().__init__(text.rpartition(f"{BadExample.__name__}: ")[2].strip())


class InWorker:
    """A task's `collate` for a worker of torch's DataLoader.

    A worker ignores the signals that end a job, which SLURM sends to all its processes: the process
    that trains still needs batches until it has saved its state. Workers end with that process.
    """

    def __init__(self, collate: Callable[[list], Any]) -> None:
        self.collate = collate

    def __call__(self, examples: list) -> Any:
        """Put examples into one batch. Raises BadExample for those that cannot be read."""
        gc.enable()  # the script that a worker imports begins without (provenance.job)
        for number in IGNORED_SIGNALS:
            signal.signal(number, signal.SIG_IGN)
        try:
            return self.collate(examples)
        except (ValueError, OSError) as error:
            raise BadExample(str(error)) from None
