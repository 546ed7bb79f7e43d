"""Check the shape of JSON that somebody may have altered, so that its readers need not.

A shape is a type, or a union of types, that a value must have; a predicate; a dict of the keys that
an object must have, and may have more; a list of one shape, which all entries must have; or one of
the classes below. What does not fit is dropped as far up as some part may be absent.
"""

from dataclasses import dataclass
from inspect import isfunction
from typing import Any

PATH_BYTES, NAME_BYTES = 1000, 255  # more than any file's path and name have


class Misfit(ValueError):
    """A value that does not have its shape, in words."""


@dataclass(frozen=True)
class Maybe:
    """A value that may be absent or null; one that does not fit becomes None."""

    of: Any


@dataclass(frozen=True)
class Mapped:
    """An object with any keys, or keys of a shape; entries that do not fit are dropped."""

    of: Any
    keys: Any = object


@dataclass(frozen=True)
class Listed:
    """A list; entries that do not fit are dropped."""

    of: Any


@dataclass(frozen=True)
class OneOrMore:
    """A value, or a list of such values."""

    of: Any


def a_path(value: Any) -> bool:
    """Return whether a value is text that can name a file."""
    if not isinstance(value, str) or not value or "\0" in value:
        return False
    encoded = value.encode(errors="replace")
    return len(encoded) <= PATH_BYTES and max(map(len, encoded.split(b"/"))) <= NAME_BYTES


FILE = {"path": a_path, "sha256": str}


def fitted(value: Any, shape: Any, problems: list[str], place: str = "") -> Any:
    """Return the part of a value that has a shape, and note in `problems` what was dropped.

    place: where the value stands, for messages. Raises Misfit if no part of it may be absent.
    """
    match shape:
        case dict():
            known = _of_type(value, dict, place)
            parts = {
                key: fitted(known.get(key), of, problems, f"{place}{key}.")
                for key, of in shape.items()
            }
            return known | {key: parts[key] for key in parts if key in known}
        case list():
            entries = enumerate(_of_type(value, list, place))
            return [fitted(each, shape[0], problems, f"{place}{n}.") for n, each in entries]
        case Maybe(of):
            kept = [] if value is None else _attempt(value, of, problems, place)
            return kept[0] if kept else None
        case Mapped(of, keys):
            return {
                key: kept
                for key, each in _of_type(value, dict, place).items()
                for kept in _attempt(each, of, problems, f"{place}{key}.")
                if _attempt(key, keys, problems, f"{place}{key}.")
            }
        case Listed(of):
            return [
                kept
                for n, each in enumerate(_of_type(value, list, place))
                for kept in _attempt(each, of, problems, f"{place}{n}.")
            ]
        case OneOrMore(of):
            return fitted(value, [of] if isinstance(value, list) else of, problems, place)
    return _of_type(value, shape, place)


def _attempt(value: Any, shape: Any, problems: list[str], place: str) -> list[Any]:
    """Return [the fitted value], or [] after noting why it does not fit."""
    try:
        return [fitted(value, shape, problems, place)]
    except Misfit as misfit:
        problems.append(str(misfit))
        return []


def _of_type(value: Any, shape: Any, place: str) -> Any:
    if shape(value) if isfunction(shape) else isinstance(value, shape):
        return value
    expected = getattr(shape, "__name__", str(shape)).replace("_", " ")
    text = "missing" if value is None else repr(value)
    raise Misfit(f"{place[:-1] or 'the content'} is {text[:60]}, not {expected}")
