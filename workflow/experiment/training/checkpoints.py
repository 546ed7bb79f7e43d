"""The checkpoints of one training on disk: the last one, to go on from, and the best weights.

A checkpoint is whole when it says so, which it does last. Only then is the one before it cut down
to its weights if they are the best so far, and removed if not: a kill at any moment leaves one to
go on from. On disk are 16 bytes a parameter (weights and AdamW's moments of the last one: 12; best
weights: 4), and 28 while the next one is written. For GPT-2 large that is 12.4 GB and 21.7 GB.
"""

import os
import shutil
from pathlib import Path

from ffmerge.models.format import WEIGHTS

COMPLETE = "complete"  # a checkpoint without this file was cut off while it was written
PREFIX, BEST = "checkpoint-", "best-"  # followed by the step


def checkpoint_of(directory: Path, step: int) -> Path:
    """Where transformers' Trainer writes the checkpoint of a step."""
    return directory / f"{PREFIX}{step}"


def complete(checkpoint: Path) -> None:
    """Say that a checkpoint is whole, once all of it has reached the disk."""
    for file in checkpoint.iterdir():
        _sync(file)
    (checkpoint / COMPLETE).touch()
    _sync(checkpoint)


def last_complete(directory: Path) -> Path | None:
    """The newest whole checkpoint."""
    whole = [path for path in directory.glob(f"{PREFIX}*") if (path / COMPLETE).exists()]
    return max(whole, key=_step, default=None)


def tidy(directory: Path, last: Path | None, best: int | None) -> None:
    """Remove what is neither the last whole checkpoint nor the weights of the best step so far."""
    for path in [*directory.glob(f"{PREFIX}*"), *directory.glob(f"{BEST}*")]:
        if path == last:
            continue
        if _step(path) == best and (path.name.startswith(BEST) or (path / COMPLETE).exists()):
            kept = directory / f"{BEST}{best}"
            path.rename(kept)  # from here on nobody goes on from it
            for file in kept.iterdir():
                if file.name != WEIGHTS:
                    file.unlink()
        else:
            shutil.rmtree(path)


def best_weights(directory: Path, best: int) -> Path:
    """The weights of the best step: of the last checkpoint if that is it, or what was kept."""
    whole = checkpoint_of(directory, best) / WEIGHTS
    return whole if whole.exists() else directory / f"{BEST}{best}" / WEIGHTS


def _step(path: Path) -> int:
    return int(path.name.rpartition("-")[2])


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
