"""The table in docs/performance.md: a section for each benchmark, which running it replaces."""

import re
from collections.abc import Sequence
from pathlib import Path

from timing import Measured

BEGIN, END = "<!-- benchmarks/run.py: begin -->", "<!-- benchmarks/run.py: end -->"
HEAD = (
    "| what | ratio | spread | processor time | goal | met | times |",
    "|---|---|---|---|---|---|---|",
)


class Table:
    """What stands between two comments of a Markdown file."""

    def __init__(self, file: Path) -> None:
        self.file = file

    def replace(self, name: str, lines: Sequence[Measured], machine: str) -> None:
        """Put a benchmark's lines in, in place of those of an earlier run of it."""
        before, sections, after = self._parts()
        sections[name] = [f"**{name}** ({machine})", "", *HEAD, *map(_row, lines)]
        text = "\n\n".join("\n".join(rows) for rows in sections.values())
        self.file.write_text(f"{before}{BEGIN}\n\n{text}\n\n{END}{after}")

    def rows(self, name: str) -> list[str]:
        """A benchmark's lines of the table."""
        return self._parts()[1][name][4:]

    def _parts(self) -> tuple[str, dict[str, list[str]], str]:
        before, begin, rest = self.file.read_text().partition(BEGIN)
        text, end, after = rest.partition(END)
        if not (begin and end):
            raise ValueError(f"{self.file} lacks the line {BEGIN} or {END}")
        found = re.split(r"^(?=\*\*[\w ]+\*\* \()", text.strip(), flags=re.MULTILINE)
        sections = [section.strip().splitlines() for section in found if section.strip()]
        return before, {rows[0].split("**")[1]: rows for rows in sections}, after


def _row(line: Measured) -> str:
    low, high = min(line.ratios), max(line.ratios)
    spread = f"{low:.3g}–{high:.3g}, n = {len(line.ratios)}" if len(line.ratios) > 1 else "once"
    processor = "" if line.cpu_ratio is None else f"{line.cpu_ratio:.3g}"
    goal = "" if line.goal is None else f"{line.goal[0]} {line.goal[1]:g}"
    met = {True: "yes", False: "no", None: ""}[line.met]
    cells = (line.what, f"{line.ratio:.3g}", spread, processor, goal, met, line.detail)
    return "| " + " | ".join(cells) + " |"
