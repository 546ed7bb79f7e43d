"""The stages of a compression: their seconds, and no memory from one to the next."""

import time
from collections.abc import Iterator
from contextlib import contextmanager

from ffmerge.models.memory import give_back


class Stopwatch:
    """seconds: by stage, in the order in which they began."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Count what happens inside to a stage."""
        begun = time.perf_counter()
        try:
            yield
        finally:
            spent = self.seconds.get(name, 0.0) + time.perf_counter() - begun
            self.seconds[name] = round(spent, 3)
            give_back()  # a stage begins with what it needs
