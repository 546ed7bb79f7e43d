"""Processes that make batches in advance, so that a GPU does not wait for images or tokens."""

import gc
import signal
from collections.abc import Callable
from multiprocessing import popen_spawn_posix
from multiprocessing.context import SpawnContext, SpawnProcess
from typing import Any

BLOCKED = (signal.SIGTERM, signal.SIGUSR1, signal.SIGINT)


class _Popen(popen_spawn_posix.Popen):
    """Start a worker that is blind to the signals that end a job, and end it by SIGKILL.

    SLURM sends those signals to all processes of a job, and the one that trains still needs batches
    until it has saved its state. A worker inherits the mask, so that none of them reaches it while
    it still imports. Python ends workers at its own exit by SIGTERM, and would wait for ever.
    """

    def _launch(self, process_obj: Any) -> None:
        before = signal.pthread_sigmask(signal.SIG_BLOCK, BLOCKED)
        try:
            super()._launch(process_obj)
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)

    def terminate(self) -> None:
        self.kill()


class _Process(SpawnProcess):
    _Popen = _Popen


class _Context(SpawnContext):
    Process = _Process


CONTEXT = _Context()
"""How torch's DataLoader starts workers: a fork of a process with torch's threads can hang."""


class BadExample(ValueError):
    """An example that a worker cannot read; its message is that of the error, without a traceback.

    torch raises an error of a worker again with the traceback as its only argument.
    """

    def __init__(self, text: str) -> None:
        super().__init__(text.rpartition(f"{BadExample.__name__}: ")[2].strip())


class InWorker:
    """A task's `collate` for a worker of torch's DataLoader."""

    def __init__(self, collate: Callable[[list], Any]) -> None:
        self.collate = collate

    def __call__(self, examples: list) -> Any:
        """Put examples into one batch. Raises BadExample for those that cannot be read."""
        gc.enable()  # the script that a worker imports begins without (provenance.job)
        try:
            return self.collate(examples)
        except (ValueError, OSError) as error:
            raise BadExample(str(error)) from None
