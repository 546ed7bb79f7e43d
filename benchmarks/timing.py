"""Time two ways to do the same, and put their ratio into the table of docs/performance.md.

The ways run in turns, so that other processes slow down both alike.
"""

import os
import re
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

BEGIN, END = "<!-- benchmarks/run.py: begin -->", "<!-- benchmarks/run.py: end -->"
HEAD = (
    "| what | ratio | spread | processor time | goal | met | times |",
    "|---|---|---|---|---|---|---|",
)


@dataclass(frozen=True)
class Sample:
    """One run: its result, wall-clock seconds, and processor seconds including children."""

    returned: Any
    seconds: float
    cpu_seconds: float


def timed(work: Callable[[], Any]) -> Sample:
    """Run `work` once and time it."""
    cpu, begun = _cpu_seconds(), time.perf_counter()
    returned = work()
    return Sample(returned, time.perf_counter() - begun, _cpu_seconds() - cpu)


def in_turns(rounds: int, **ways: Callable[[], Any]) -> dict[str, list[Sample]]:
    """Run every way `rounds` times, in turns: a, b, b, a, a, b, …"""
    samples: dict[str, list[Sample]] = {name: [] for name in ways}
    for n in range(rounds):
        for name in list(ways) if n % 2 == 0 else reversed(ways):
            samples[name].append(timed(ways[name]))
    return samples


@dataclass(frozen=True)
class Measured:
    """A line of the table: a ratio of two times and its goal.

    ratios: one for each round. goal: `at least` or `at most` a number, if there is a goal.
    cpu_ratio: the ratio of processor times, which other processes affect less.
    detail: the two times.
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
        """Whether the goal is met; None without a goal."""
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
    """Divide the times of one way by those of another, round by round."""
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
    """Processor time of this process and of its children that have ended."""
    return time.process_time() + sum(os.times()[2:4])


class Table:
    """A section for each benchmark, between two comments of a Markdown file."""

    def __init__(self, file: Path) -> None:
        self.file = file

    def replace(self, name: str, lines: Sequence[Measured], machine: str) -> None:
        """Write a benchmark's section, in place of the section of an earlier run."""
        before, sections, after = self._parts()
        sections[name] = [f"**{name}** ({machine})", "", *HEAD, *map(_row, lines)]
        text = "\n\n".join("\n".join(rows) for rows in sections.values())
        self.file.write_text(f"{before}{BEGIN}\n\n{text}\n\n{END}{after}")

    def rows(self, name: str) -> list[str]:
        """Read the lines of a benchmark's section."""
        return self._parts()[1][name][4:]

    def _parts(self) -> tuple[str, dict[str, list[str]], str]:
        before, begin, rest = self.file.read_text().partition(BEGIN)
        text, end, after = rest.partition(END)
        if not (begin and end):
            raise ValueError(f"{self.file} lacks the line {BEGIN} or {END}")
        parts = re.split(r"^(?=\*\*[\w ]+\*\* \()", text.strip(), flags=re.MULTILINE)
        sections = [section.strip().splitlines() for section in parts if section.strip()]
        return before, {rows[0].split("**")[1]: rows for rows in sections}, after


def _row(line: Measured) -> str:
    low, high = min(line.ratios), max(line.ratios)
    spread = f"{low:.3g}–{high:.3g}, n = {len(line.ratios)}" if len(line.ratios) > 1 else "once"
    processor = "" if line.cpu_ratio is None else f"{line.cpu_ratio:.3g}"
    goal = "" if line.goal is None else f"{line.goal[0]} {line.goal[1]:g}"
    met = {True: "yes", False: "no", None: ""}[line.met]
    cells = (line.what, f"{line.ratio:.3g}", spread, processor, goal, met, line.detail)
    return "| " + " | ".join(cells) + " |"
