"""The numbers of tables and figures: each is where it stands in which file, and how it is shown.

A cell holds no value of its own. It names values in files, how a number is derived from them, and
how that becomes text; so what a table shows and what its ledger says of it cannot differ.
"""

import json
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache, cached_property
from pathlib import Path
from typing import Any

from provenance.csv_files import read_csv

JOB = "job"  # the derivation of a number that only its job's code can compute from its files


@dataclass(frozen=True)
class Source:
    """A value in a file, by JSON pointer (RFC 6901); a CSV file counts as the list of its rows."""

    file: Path
    pointer: str = ""

    def value(self) -> Any:
        """The value. Raises ValueError naming file and pointer if nothing is there."""
        found = _content(self.file)
        for step in self.pointer.split("/")[1:]:
            step = step.replace("~1", "/").replace("~0", "~")
            try:
                found = found[int(step) if isinstance(found, list) else step]
            except (KeyError, IndexError, ValueError, TypeError):
                raise ValueError(f"{self.file}: nothing is at {self.pointer}") from None
        return found


@dataclass(frozen=True)
class Interval:
    """A confidence interval, and what it speaks of."""

    low: float
    high: float
    confidence: float
    method: str


@dataclass(frozen=True)
class Printed:
    """What the paper prints for the same number, and where."""

    value: str
    where: str


@dataclass(frozen=True)
class Cell:
    """A number that a table or a figure shows.

    sources: the values it is made of, all of inputs of the job that shows it. derivation: a key of
    DERIVATIONS, or JOB, where `computed` is the number and the sources are whole files. rule: a
    format string, or a key of RULES; `counted of 3`, where not all of 3 have a value.
    """

    sources: tuple[Source, ...]
    rule: str = "{}"
    derivation: str = "value"
    interval: Interval | None = None
    printed: Printed | None = None
    computed: Any = None

    @cached_property
    def raw(self) -> Any:
        """The number before it is rounded; a list where a rule shows several."""
        if self.derivation == JOB:
            return self.computed
        return DERIVATIONS[self.derivation]([source.value() for source in self.sources])

    def __str__(self) -> str:
        return shown(self.raw, self.rule)


def of(file: Path, pointer: str, rule: str = "{}", **more: Any) -> Cell:
    """The cell of one value, as it stands in a file."""
    return Cell((Source(file, pointer),), rule, **more)


def in_row(file: Path, column: str, **where: Any) -> Source:
    """A value in the one row of a CSV file that has these values in these columns.

    Raises ValueError naming file and values if no row has them, or several have.
    """
    found = [n for n, row in enumerate(_content(file)) if where.items() <= row.items()]
    if len(found) != 1:
        raise ValueError(f"{file}: {len(found)} rows have {where}")
    return Source(file, f"/{found[0]}/{column}")


def shown(raw: Any, rule: str) -> str:
    """A number as text. Raises KeyError for a rule that is neither known nor a format string."""
    if "{" not in rule:
        name, _, n = rule.partition(" of ")
        return RULES[name](raw, *([int(n)] if n else []))
    return rule.format(*raw) if isinstance(raw, list) else rule.format(raw)


@cache
def _content(file: Path) -> Any:
    if file.suffix == ".csv":
        return [{name: _number(cell) for name, cell in row.items()} for row in read_csv(file)]
    return json.loads(file.read_text())


def _number(cell: str) -> int | float | str:
    for kind in (int, float):
        try:
            return kind(cell)
        except ValueError:
            continue
    return cell


def _window(layers: Sequence[Sequence[int]]) -> str:
    """Layers of each tower as the paper prints them: `3-7`, or `2-4/2-4`."""
    return "/".join(f"{of_tower[0]}-{of_tower[-1]}" for of_tower in layers)


def _groups(of_towers: Mapping[str, Sequence[Sequence[int]]]) -> str:
    """Groups of layers of each tower: `0-2, 5+8`, and a `/` between towers."""

    def named(layers: Sequence[int]) -> str:
        adjacent = list(layers) == list(range(layers[0], layers[-1] + 1))
        return f"{layers[0]}-{layers[-1]}" if adjacent else "+".join(map(str, layers))

    return "/".join(", ".join(map(named, groups)) for groups in of_towers.values())


def _span(start_and_k: Sequence[int]) -> str:
    """A window as its first and its last layer."""
    start, k = start_and_k
    return f"{start}-{start + k - 1}"


def _counted(values: Sequence[Any], n_all: int | None = None) -> str:
    """A value that all share; else each value and how many (of n_all) have it."""
    texts = [f"{value:.4g}" if isinstance(value, float) else str(value) for value in values]
    counts, n_all = Counter(texts), n_all or len(texts)
    if list(counts.values()) == [n_all]:
        return texts[0]
    return ", ".join(f"{text} ({n} of {n_all})" for text, n in counts.most_common())


def _common(values: Sequence[Any]) -> Any:
    """The value that all share."""
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
