"""Stop a training on a signal: it saves a checkpoint, reports the step, and ends.

SLURM sends SIGTERM before it ends a job that is preempted, cancelled or over its time limit, and
the signal that `--signal` names some time before.
"""

import signal
from typing import Any

import torch
from torch import distributed

SIGNALS = (signal.SIGTERM, signal.SIGUSR1)


class Interrupted(SystemExit):
    """The training stopped at a step from which the job's next run resumes.

    All processes stop there, but only the first one exits with an error.
    """

    status_of_others = 0


class StopRequest:
    """Context manager in which SIGNALS only set a flag; callers poll it."""

    def __init__(self) -> None:
        self.name = "a signal"  # unknown if only another process received it
        self.came = False

    def __enter__(self) -> "StopRequest":
        self._before = {number: signal.signal(number, self._note) for number in SIGNALS}
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _note(self, number: int, _: object) -> None:
        self.name, self.came = signal.Signals(number).name, True

    def anywhere(self, device: torch.device) -> bool:
        """Whether any process of this training received a signal; all of them have to call this."""
        if distributed.is_initialized():
            came = torch.tensor(int(self.came), device=device)
            distributed.all_reduce(came, op=distributed.ReduceOp.MAX)
            if not came:
                return False  # a signal since the reduction counts at the next call
            self.came = True
        return self.came

    def raise_if_here(self, *_: Any) -> None:
        """Raise Interrupted if this process received a signal; a model's forward hook."""
        if self.came:
            raise Interrupted(f"stopped by {self.name}")

    def at_step(self, step: int) -> Interrupted:
        """The exception to raise when the checkpoint of a step is on disk."""
        return Interrupted(
            f"stopped by {self.name} at step {step}; the next run goes on from there"
        )
