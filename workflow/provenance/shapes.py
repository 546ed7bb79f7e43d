"""Check the shape of JSON files that anybody may have altered, so that their readers need not.

A shape is a type, or a union of types; a predicate; a dict of the keys that an object must have (it
may have more); a list of one shape for all entries; a tuple of alternatives; or a class below.
"""

import json
from dataclasses import dataclass
from inspect import isfunction
from pathlib import Path
from typing import Any

PATH_BYTES, NAME_BYTES = 1000, 255  # more than any file's path and name have


class Misfit(ValueError):
    """A value that does not have its shape, in words."""


@dataclass(frozen=True)
class Maybe:
    """The value of a key that may be absent or null."""

    of: Any


@dataclass(frozen=True)
class Mapped:
    """An object with any keys, or keys of a shape."""

    of: Any
    keys: Any = object


def a_path(value: Any) -> bool:
    """Return whether a value is text that can name a file."""
    if not isinstance(value, str) or not value or "\0" in value:
        return False
    encoded = value.encode(errors="replace")
    return len(encoded) <= PATH_BYTES and max(map(len, encoded.split(b"/"))) <= NAME_BYTES


FILE = {"path": a_path, "sha256": str}


def read_json(file: Path, shape: Any) -> Any:
    """Read a JSON file. Raises Misfit, in words, if it holds nothing of this shape."""
    try:
        content = json.loads(file.read_bytes())
    except (OSError, ValueError, RecursionError) as error:
        raise Misfit(str(error)) from None
    check(content, shape)
    return content


def check(value: Any, shape: Any, place: str = "") -> None:
    """Raise Misfit, naming the place in the file, if a value does not have a shape."""
    match shape:
        case dict():
            _require(value, dict, place)
            for key, of in shape.items():
                if isinstance(of, Maybe):
                    of = of.of if value.get(key) is not None else object
                elif key not in value:
                    raise Misfit(f"{place}{key} is missing")
                check(value.get(key), of, f"{place}{key}.")
        case list():
            for n, each in enumerate(_require(value, list, place)):
                check(each, shape[0], f"{place}{n}.")
        case tuple():
            _check_alternatives(value, shape, place)
        case Mapped():
            for key, each in _require(value, dict, place).items():
                check(key, shape.keys, f"{place}{key[:60]}.")
                check(each, shape.of, f"{place}{key[:60]}.")
        case _:
            _require(value, shape, place)


def _check_alternatives(value: Any, shapes: tuple[Any, ...], place: str) -> None:
    misfits = []
    for shape in shapes:
        try:
            return check(value, shape, place)
        except Misfit as misfit:
            misfits.append(misfit)
    raise misfits[0]


def _require(value: Any, kind: Any, place: str) -> Any:
    if kind(value) if isfunction(kind) else isinstance(value, kind):
        return value
    expected = getattr(kind, "__name__", str(kind)).replace("_", " ")
    raise Misfit(f"{place[:-1] or 'the content'} is {repr(value)[:60]}, not {expected}")
