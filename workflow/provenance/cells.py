"""Define the numbers of tables and figures by where they stand in files and how they are shown.

A cell holds no value. It names values in files, how a number is derived from them, and how that
becomes text, so that a table and its ledger cannot differ.
"""

import json
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache, cached_property
from pathlib import Path
from typing import Any

from provenance.csv_files import read_csv

JOB = "job"  # derivation of a number that only the code of its job can compute


@dataclass(frozen=True)
class Source:
    """A value in a file, by JSON pointer (RFC 6901); a CSV file counts as the list of its rows."""

    file: Path
    pointer: str = ""

    def value(self) -> Any:
        """Read the value. Raises ValueError naming file and pointer if there is none."""
        value = _content(self.file)
        for step in self.pointer.split("/")[1:]:
            step = step.replace("~1", "/").replace("~0", "~")
            try:
                value = value[int(step) if isinstance(value, list) else step]
            except (KeyError, IndexError, ValueError, TypeError):
                raise ValueError(f"{self.file}: nothing is at {self.pointer}") from None
        return value


@dataclass(frozen=True)
class Interval:
    """A confidence interval. method: how it was computed, and over what."""

    low: float
    high: float
    confidence: float
    method: str


@dataclass(frozen=True)
class Printed:
    """The same number as printed in a paper, and where."""

    value: str
    where: str


@dataclass(frozen=True)
class Cell:
    """A number that a table or a figure shows.

    sources: the values it is derived from, all in inputs of the job that shows it. derivation: a
    key of DERIVATIONS, or JOB: then `computed` is the number and the sources are whole files.
    rule: a format string, or a key of RULES; `counted of 3` where not all of 3 have a value.
    """

    sources: tuple[Source, ...]
    rule: str = "{}"
    derivation: str = "value"
    interval: Interval | None = None
    printed: Printed | None = None
    computed: Any = None

    @cached_property
    def raw(self) -> Any:
        """The number before rounding; a list where the rule shows several."""
        if self.derivation == JOB:
            return self.computed
        return DERIVATIONS[self.derivation]([source.value() for source in self.sources])

    def __str__(self) -> str:
        return shown(self.raw, self.rule)


def of(file: Path, pointer: str, rule: str = "{}", **more: Any) -> Cell:
    """Return the cell of a single value in a file."""
    return Cell((Source(file, pointer),), rule, **more)


def in_row(file: Path, column: str, **where: Any) -> Source:
    """Return a value in the only row of a CSV file that has these values in these columns.

    Raises ValueError naming file and values unless exactly one row has them.
    """
    rows = [n for n, row in enumerate(_content(file)) if where.items() <= row.items()]
    if len(rows) != 1:
        raise ValueError(f"{file}: {len(rows)} rows have {where}")
    return Source(file, f"/{rows[0]}/{column}")


def shown(raw: Any, rule: str) -> str:
    """Format a number. Raises KeyError for a rule that is neither in RULES nor a format string."""
    if "{" not in rule:
        name, _, n = rule.partition(" of ")
        return RULES[name](raw, *([int(n)] if n else []))
    return rule.format(*raw) if isinstance(raw, list) else rule.format(raw)


@cache
def _content(file: Path) -> Any:
    if not file.is_file():  # a pipe would never end
        raise FileNotFoundError(f"{file} is no file")
    if file.suffix == ".csv":
        return [{name: _number(cell) for name, cell in row.items()} for row in read_csv(file)]
    return json.loads(file.read_bytes())


def _number(cell: str) -> int | float | str:
    for kind in (int, float):
        try:
            return kind(cell)
        except ValueError:
            continue
    return cell


def _window(layers: Sequence[Sequence[int]]) -> str:
    """Format the window of each tower by its first and last layer: `3-7`, or `2-4/2-4`."""
    return "/".join(f"{window[0]}-{window[-1]}" for window in layers)


def _groups(towers: Mapping[str, Sequence[Sequence[int]]]) -> str:
    """Format the groups of layers of each tower: `0-2, 5+8`, with `/` between towers."""

    def group(layers: Sequence[int]) -> str:
        adjacent = list(layers) == list(range(layers[0], layers[-1] + 1))
        return f"{layers[0]}-{layers[-1]}" if adjacent else "+".join(map(str, layers))

    return "/".join(", ".join(map(group, groups)) for groups in towers.values())


def _span(start_and_k: Sequence[int]) -> str:
    """Format a window of k layers by its first and last layer."""
    start, k = start_and_k
    return f"{start}-{start + k - 1}"


def _counted(values: Sequence[Any], n_all: int | None = None) -> str:
    """Format a common value; or else each value with how many (of n_all) have it."""
    texts = [f"{value:.4g}" if isinstance(value, float) else str(value) for value in values]
    counts, n_all = Counter(texts), n_all or len(texts)
    if list(counts.values()) == [n_all]:
        return texts[0]
    return ", ".join(f"{text} ({n} of {n_all})" for text, n in counts.most_common())


def _common(values: Sequence[Any]) -> Any:
    """Return the common value. Raises ValueError if there is none."""
    if any(value != values[0] for value in values):
        raise ValueError(f"{values[0]!r} is not what all have: {values!r}")
    return values[0]


DERIVATIONS: dict[str, Callable[[list], Any]] = {
    "value": lambda values: values[0],
    "values": list,
    "difference": lambda values: values[0] - values[1],
    "ratio": lambda values: values[0] / values[1],
    "percent": lambda values: 100 * values[0] / values[1],
    "reduction_percent": lambda values: 100 * (1 - values[0] / values[1]),
    "mean": lambda values: sum(values) / len(values),
    "sum": sum,
    "count": len,
    "entries": lambda values: len(values[0]),
    "common": _common,
}
RULES: dict[str, Callable[..., str]] = {
    "window": _window,
    "span": _span,
    "groups": _groups,
    "counted": _counted,
}
