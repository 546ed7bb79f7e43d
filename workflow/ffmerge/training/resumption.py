"""Checkpoints of one training on disk: the last one, to resume from, and the best weights.

A marker file, written last, makes a checkpoint complete. Only then is its predecessor reduced to
its weights, if they are the best so far, or removed: after a kill at any moment, one complete
checkpoint is left. Checkpoints take 16 bytes a parameter (weights and AdamW's moments of the last
one: 12; best weights: 4), and 28 while the next one is written. For GPT-2 large these are 12.4 GB
and 21.7 GB.
"""

import os
import shutil
from pathlib import Path

from ffmerge.models.format import WEIGHTS

COMPLETE = "complete"  # the marker file
PREFIX, BEST = "checkpoint-", "best-"  # followed by the step


def checkpoint_of(directory: Path, step: int) -> Path:
    """Directory in which transformers' Trainer writes the checkpoint of a step."""
    return directory / f"{PREFIX}{step}"


def complete(checkpoint: Path) -> None:
    """Mark a checkpoint as complete once all of it has reached the disk."""
    for file in checkpoint.iterdir():
        _sync(file)
    (checkpoint / COMPLETE).touch()
    _sync(checkpoint)


def last_complete(directory: Path) -> Path | None:
    """The newest complete checkpoint."""
    marked = [path for path in directory.glob(f"{PREFIX}*") if (path / COMPLETE).exists()]
    return max(marked, key=_step, default=None)


def tidy(directory: Path, last: Path | None, best: int | None) -> None:
    """Remove all but the last complete checkpoint and the weights of the best step so far."""
    for path in [*directory.glob(f"{PREFIX}*"), *directory.glob(f"{BEST}*")]:
        if path == last:
            continue
        if _step(path) == best and (path.name.startswith(BEST) or (path / COMPLETE).exists()):
            kept = directory / f"{BEST}{best}"
            path.rename(kept)  # from here on no training resumes from it
            for file in kept.iterdir():
                if file.name != WEIGHTS:
                    file.unlink()
        else:
            shutil.rmtree(path)


def best_weights(directory: Path, best: int) -> Path:
    """The weights of the best step, in its checkpoint if that is the last one, or kept alone."""
    last = checkpoint_of(directory, best) / WEIGHTS
    return last if last.exists() else directory / f"{BEST}{best}" / WEIGHTS


def _step(path: Path) -> int:
    return int(path.name.rpartition("-")[2])


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
