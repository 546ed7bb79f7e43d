"""Format lines, digests, counts and times for the commands' output."""

import json
import re
from collections import Counter
from collections.abc import Iterable, Iterator
from typing import Any, TextIO

WIDTH = 96


def printable(text: str) -> str:
    """Escape what a terminal would obey, such as a file's name that clears the screen."""
    safe = re.sub(r"[\0-\x08\x0b-\x1f\x7f-\x9f]", lambda found: repr(found[0])[1:-1], text)
    return safe.encode(errors="backslashreplace").decode()  # a name that is not in UTF-8


class Printable:
    """A stream for text that others may have written. stream: where it goes."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def write(self, text: str) -> int:
        """Write a text, with its control characters escaped."""
        return self._stream.write(printable(text))

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


def line(name: str, text: str, indent: int = 2) -> str:
    """Format a name and a text as two columns."""
    return f"{' ' * indent}{name:<18} {text}"


def wrapped(name: str, text: str, indent: int = 2, lines: int = 40) -> Iterator[str]:
    """Format a line, broken at commas into at most so many lines."""
    rows = [""]
    for word in text.split(", "):
        if rows[-1] and len(rows[-1]) + len(word) > WIDTH:
            rows.append("")
        rows[-1] += f"{word}, "
    rows[-1] = rows[-1].removesuffix(", ")
    if len(rows) > lines:
        rows[lines - 1 :] = ["… (all with --json)"]
    for n, row in enumerate(rows):
        yield line("" if n else name, row.rstrip(), indent)


def leaves(value: Any, name: str = "") -> Iterator[tuple[str, Any]]:
    """Yield the values of nested objects by dotted name: `task.seed`, 1. A list is one value."""
    if isinstance(value, dict):
        for key, below in value.items():
            yield from leaves(below, f"{name}.{key}" if name else key)
    else:
        yield name, value


def plain(value: Any) -> str:
    """Format a value as JSON, text without quotation marks."""
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def short(digest: str | None) -> str:
    """Shorten a digest to what people compare."""
    return digest[:12] if digest else "no digest"


def counted(n: int, noun: str) -> str:
    """Format a count: `1 file`, `2 files`."""
    return f"{n} {noun}{'' if n == 1 else 's'}"


def tallied(words: Iterable[str]) -> str:
    """Count words in order of first appearance: `9 fine_tune, 10 score_test, quantize`."""
    return ", ".join(f"{n} {word}" if n > 1 else word for word, n in Counter(words).items())


def duration(seconds: float) -> str:
    """Format a time: `40 s`, `12 min` or `3.5 h`."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
