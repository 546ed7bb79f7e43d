"""A directory that is there whole or not at all."""

import errno
import fcntl
import os
import shutil
import signal
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

SIGNALS = (signal.SIGTERM, signal.SIGHUP)  # SIGINT is an exception as it is
FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
LOCK = ".lock"  # held by whoever writes the directory


@contextmanager
def new_directory(out: Path) -> Iterator[Path]:
    """A directory to fill, which becomes `out` on leaving; after an error or a signal it is gone.

    What a process that was killed left of the same `out` is removed.
    Raises FileExistsError if `out` is there already: nothing is ever overwritten.
    """
    check_new(out)
    out = out.absolute()
    made = [parent for parent in out.parents if not parent.exists()]
    out.parent.mkdir(parents=True, exist_ok=True)
    _remove_abandoned(out)
    partial = out.with_name(f".partial.{os.getpid()}.{out.name}")
    partial.mkdir()
    done = False
    try:
        with _locked(partial), _signals_raised():
            yield partial
            (partial / LOCK).unlink()
            check_new(out)
            os.rename(partial, out)
            done = True
    finally:
        if not done:
            shutil.rmtree(partial, ignore_errors=True)
            for parent in made:
                parent.rmdir()


def check_new(out: Path) -> None:
    """Raises FileExistsError if something is there already, even an empty directory."""
    if out.exists() or out.is_symlink():
        raise FileExistsError(f"{out} exists already; it is not overwritten: choose another --out")


def check_space(directory: Path, needed: Mapping[str, int]) -> None:
    """Raises OSError unless the disk has room. needed: what for -> bytes, at the same time."""
    free, total = shutil.disk_usage(directory).free, sum(needed.values())
    if free < total:
        what = ", ".join(f"{n:,} for {name}" for name, n in needed.items())
        raise OSError(f"the disk of {directory} has {free:,} bytes free of the {total:,} ({what})")


@contextmanager
def full_disk_told(needed: Mapping[str, int]) -> Iterator[None]:
    """A disk that gets full after all, as an error that says how much is needed."""
    try:
        yield
    except Exception as error:  # of Rust code, too, which knows no OSError
        number = getattr(error, "errno", None)
        if number in FULL or any(f"os error {code}" in str(error) for code in FULL):
            total = sum(needed.values())
            raise OSError(f"the disk is full: {total:,} bytes are needed for the output") from None
        raise


def _remove_abandoned(out: Path) -> None:
    for left in out.parent.glob(f".partial.*.{out.name}"):
        try:
            with _locked(left):
                shutil.rmtree(left)
        except OSError:  # another process writes it
            continue


@contextmanager
def _locked(directory: Path) -> Iterator[None]:
    with (directory / LOCK).open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield


@contextmanager
def _signals_raised() -> Iterator[None]:
    """Signals that end a process raise SystemExit, so that it tidies up."""

    def stop(number: int, _: Any) -> None:
        raise SystemExit(128 + number)

    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.signal(number, stop) for number in SIGNALS}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
