"""Times of two ways to do the same, taken in turns, so that a busy machine hits both alike."""

import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from statistics import median
from typing import Any


@dataclass(frozen=True)
class Sample:
    """One run: what it returned, its seconds, and those of processors (children's included)."""

    returned: Any
    seconds: float
    cpu_seconds: float


def timed(work: Callable[[], Any]) -> Sample:
    """Run `work` once."""
    cpu, begun = _cpu_seconds(), time.perf_counter()
    returned = work()
    return Sample(returned, time.perf_counter() - begun, _cpu_seconds() - cpu)


def in_turns(rounds: int, **ways: Callable[[], Any]) -> dict[str, list[Sample]]:
    """Run every way `rounds` times: all of them once, then all of them again in reverse order."""
    samples: dict[str, list[Sample]] = {name: [] for name in ways}
    for n in range(rounds):
        for name in list(ways) if n % 2 == 0 else reversed(ways):
            samples[name].append(timed(ways[name]))
    return samples


@dataclass(frozen=True)
class Measured:
    """A line of the table: a ratio of two times, its goal, and what it was made from.

    ratios: of each round. goal: `at least` or `at most` a number; None for what has no goal.
    cpu_ratio: the same of processor time, which other processes disturb less.
    """

    what: str
    ratios: list[float]
    goal: tuple[str, float] | None
    cpu_ratio: float | None = None
    detail: str = ""

    @property
    def ratio(self) -> float:
        """Median over the rounds."""
        return median(self.ratios)

    @property
    def met(self) -> bool | None:
        """Whether the goal is met."""
        if self.goal is None:
            return None
        return (
            self.ratio >= self.goal[1] if self.goal[0] == "at least" else self.ratio <= self.goal[1]
        )


def compared(
    what: str,
    above: list[Sample],
    below: list[Sample],
    goal: tuple[str, float] | None,
    detail: str = "",
) -> Measured:
    """The ratio of two ways' times, round by round."""
    pairs = list(zip(above, below, strict=True))
    return Measured(
        what,
        [a.seconds / b.seconds for a, b in pairs],
        goal,
        median([a.cpu_seconds / b.cpu_seconds for a, b in pairs]),
        detail or f"{median_seconds(above):.3g} s : {median_seconds(below):.3g} s",
    )


def median_seconds(samples: list[Sample]) -> float:
    """Median of the samples' seconds."""
    return median(sample.seconds for sample in samples)


def _cpu_seconds() -> float:
    """Of this process and of children that have ended."""
    return time.process_time() + sum(os.times()[2:4])
