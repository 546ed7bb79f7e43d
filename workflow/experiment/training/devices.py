"""One training on several devices: a process for each, started by torch's launcher.

The processes train as one through accelerate, which transformers' Trainer is built on. The first of
them does what a job does besides; the others only compute.
"""

import os
import signal
import sys

SECONDS_TO_SAVE = 3600  # between a signal and the end of a process that does not heed it


def n_processes() -> int:
    """Processes of this training."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def run_on(devices: int, device: str) -> None:
    """Go on as `devices` processes of the same command line, if this is not one of them already.

    Raises SystemExit if so many GPUs are not there.
    """
    if devices == 1 or n_processes() > 1:
        return
    if device == "cuda":
        import torch

        if (there := torch.cuda.device_count()) < devices:
            raise SystemExit(
                f"error: fine_tuning.devices: {devices}, but the job sees {there} GPUs"
            )
    signals = [signal.SIGTERM, signal.SIGUSR1, signal.SIGINT]  # handed on to every process
    launcher = [
        *("-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={devices}"),
        f"--signals-to-handle={','.join(number.name for number in signals)}",
        f"--shutdown-timeout={SECONDS_TO_SAVE}",
        "--",  # what follows is not the launcher's
    ]
    sys.stdout.flush()
    os.execv(sys.executable, [sys.executable, *launcher, *sys.argv])


def leave() -> None:
    """End this process, if it is one of several, when all it has to write is written.

    On Python's own way out a thread of the process group that is still alive aborts the process,
    and the launcher then takes the whole training for failed.
    """
    if n_processes() > 1:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(0)
