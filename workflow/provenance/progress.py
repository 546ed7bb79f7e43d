"""Show the progress of long work: a bar on a terminal, and regular lines in the log."""

import os
import sys
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from typing import TextIO

from tqdm import tqdm

SECONDS_BETWEEN_LINES = 15.0


class _Bar(tqdm):
    """A progress bar for the terminal, if there is one, and the log, if there is one."""

    log: TextIO | None = None
    first_after = 0.0  # seconds until a bar's first line

    def __init__(self, *arguments, **options) -> None:
        self._line_due = time.monotonic() + self.first_after
        options["leave"] = False
        super().__init__(*arguments, dynamic_ncols=True, **options)

    def display(self, msg: str | None = None, pos: int | None = None) -> None:
        if sys.stderr.isatty() and os.environ.get("JOB_BARS") != "off":  # see workflow/run.py
            super().display(msg, pos)
        if self.log and self.n and time.monotonic() >= self._line_due:
            note(msg or str(self))
            self._line_due = time.monotonic() + SECONDS_BETWEEN_LINES


def log_to(stream: TextIO) -> None:
    """Write the lines of all later bars to a stream."""
    _Bar.log = stream


@contextmanager
def lines_without_terminal(first_after: float = 0.0) -> Iterator[None]:
    """Write the lines of bars to stderr if it is no terminal, for work that takes hours.

    first_after: seconds until a bar's first line, so that short work writes none.
    """
    before = _Bar.log, _Bar.first_after
    _Bar.log = _Bar.log or (None if sys.stderr.isatty() else sys.stderr)
    _Bar.first_after = first_after
    try:
        yield
    finally:
        _Bar.log, _Bar.first_after = before


def note(line: str) -> None:
    """Write a line to the log, if there is one; a full disk does not end the work for a line."""
    if _Bar.log:
        with suppress(OSError):
            print(line, file=_Bar.log, flush=True)


def progress(iterable: Iterable | None = None, total: int | None = None, desc: str = "") -> tqdm:
    """Show rate and remaining time of work over an iterable, or of `total` updates without one."""
    return _Bar(iterable, total=total, desc=desc)
