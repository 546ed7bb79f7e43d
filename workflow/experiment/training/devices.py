"""Train on several devices with a process for each, started by torch's launcher.

transformers' Trainer coordinates the processes through accelerate. Only the first one writes the
job's outputs, log and record.
"""

import os
import signal
import sys

SECONDS_TO_SAVE = 3600  # between a signal and the launcher's kill


def n_processes() -> int:
    """Number of processes of this training."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def run_on(devices: int, device: str) -> None:
    """Replace this process by `devices` processes of the same command line, unless it is one.

    Raises SystemExit if the machine has fewer GPUs.
    """
    if devices == 1 or n_processes() > 1:
        return
    if device == "cuda":
        import torch

        if (visible := torch.cuda.device_count()) < devices:
            raise SystemExit(
                f"error: fine_tuning.devices: {devices}, but the job sees {visible} GPUs"
            )
    signals = [signal.SIGTERM, signal.SIGUSR1, signal.SIGINT]  # forwarded to every process
    launcher = [
        *("-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={devices}"),
        f"--signals-to-handle={','.join(number.name for number in signals)}",
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
