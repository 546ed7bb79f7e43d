"""Lines, digests and counts, as the commands print them."""

import json
from collections.abc import Iterator
from typing import Any

WIDTH = 96


def line(name: str, text: str, indent: int = 2) -> str:
    """A name and what is said of it, in two columns."""
    return f"{' ' * indent}{name:<18} {text}"


def wrapped(name: str, text: str, indent: int = 2, lines: int = 40) -> Iterator[str]:
    """A line, broken at commas; no more than so many."""
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


def plain(value: Any) -> str:
    """A value as JSON, text without quotation marks."""
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def short(digest: str | None) -> str:
    """A digest as people compare it."""
    return digest[:12] if digest else "no digest"


def counted(n: int, noun: str) -> str:
    """`1 file`, `2 files`."""
    return f"{n} {noun}{'' if n == 1 else 's'}"
