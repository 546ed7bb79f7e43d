"""Signals that ask a training to stop: it saves where it is, says so, and ends.

SLURM sends SIGTERM before it ends a job that is preempted, cancelled or over its time, and whatever
`--signal` names some time before that.
"""

import signal
from typing import Any

import torch
from torch import distributed

SIGNALS = (signal.SIGTERM, signal.SIGUSR1)


class Interrupted(SystemExit):
    """The training stopped at a step from which another run of the job goes on.

    All of its processes stop there; that the job has failed is for the first of them to say.
    """

    status_of_others = 0


class StopRequest:
    """Whether one of SIGNALS has come; a context manager, outside of which they end the process.

    Nothing is interrupted by a signal, not even by a second one: who holds this asks.
    """

    def __init__(self) -> None:
        self.name = "a signal"  # a process hears of one that only another of the training's got
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
        """Whether a signal has come to any process of this training; all of them have to ask."""
        if distributed.is_initialized():
            came = torch.tensor(int(self.came), device=device)
            distributed.all_reduce(came, op=distributed.ReduceOp.MAX)
            if not came:
                return False  # a signal that came since is for the next time, and not forgotten
            self.came = True
        return self.came

    def raise_if_here(self, *_: Any) -> None:
        """Raises Interrupted if a signal has come to this process; a model's forward hook."""
        if self.came:
            raise Interrupted(f"stopped by {self.name}")

    def at_step(self, step: int) -> Interrupted:
        """What to raise when the checkpoint of a step is on disk."""
        return Interrupted(
            f"stopped by {self.name} at step {step}; the next run goes on from there"
        )
