"""Processes of a training: one for each device, all of which a signal stops.

torch's launcher starts several processes, which transformers' Trainer coordinates through
accelerate. Only the first one writes the job's outputs, log and record.

On a signal, a training saves a checkpoint, reports the step, and ends. SLURM sends SIGTERM before
it ends a job that is preempted, cancelled or over its time limit, and the signal that `--signal`
names some time before.
"""

import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import distributed

from ffmerge.models.memory import check_device

SECONDS_TO_SAVE = 3600  # between a signal and the launcher's kill
SIGNALS = (signal.SIGTERM, signal.SIGUSR1)


def n_processes() -> int:
    """Number of processes of this training."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def is_first() -> bool:
    """Whether this process writes the results."""
    return os.environ.get("RANK", "0") == "0"


def run_on(devices: int, device: str) -> None:
    """Replace this process by `devices` processes of the same command line, unless it is one.

    Raises SystemExit if the machine has no such device, or fewer GPUs or processor cores.
    """
    try:
        check_device(device)
    except ValueError as error:
        raise SystemExit(f"error: {error}") from None
    if devices == 1 or n_processes() > 1:
        return
    on_gpus = device == "cuda"
    there = torch.cuda.device_count() if on_gpus else max(2, os.cpu_count() or 1)
    if there < devices:
        what = "GPUs" if on_gpus else "processor cores"
        raise SystemExit(f"error: devices: {devices}, but there are {there} {what}")
    forwarded = ",".join(number.name for number in (*SIGNALS, signal.SIGINT))
    launcher = [
        *("-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={devices}"),
        f"--signals-to-handle={forwarded}",
        f"--shutdown-timeout={SECONDS_TO_SAVE}",
        "--",  # end of the launcher's own options
    ]
    sys.stdout.flush()
    os.execv(sys.executable, [sys.executable, *launcher, *sys.argv])


def leave() -> None:
    """End this process at once if it is one of several; call it after all files are written.

    In Python's regular shutdown, a live thread of the process group would abort the process, and
    the launcher would report the whole training as failed.
    """
    if n_processes() > 1:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(0)


class Interrupted(SystemExit):
    """The training stopped at a step from which the job's next run resumes.

    All processes stop there, but only the first one exits with an error.
    """

    status_of_others = 0


@contextmanager
def handled(
    signals: Sequence[signal.Signals], handler: Callable[[int, Any], None]
) -> Iterator[None]:
    """Handle signals; outside the main thread, where Python sets no handlers, none is caught."""
    in_main_thread = threading.current_thread() is threading.main_thread()
    before = {n: signal.signal(n, handler) for n in (signals if in_main_thread else ())}
    try:
        yield
    finally:
        for number, earlier in before.items():
            signal.signal(number, earlier)


class StopRequest:
    """Whether a signal has come that asks to stop: `note` handles signals, others poll it."""

    def __init__(self) -> None:
        self.name = "a signal"  # unknown if only another process received it
        self.came = False

    def note(self, number: int, _: object) -> None:
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
