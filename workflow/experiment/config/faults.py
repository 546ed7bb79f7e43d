"""What a configuration may hold, and what is wrong with one, in words: one line a fault.

Both are read off the JSON schema of the configuration's classes (experiment.config), so that a
message, `config/README.md` and an editor say the same.
"""

import re
from collections.abc import Iterable, Iterator, Mapping
from difflib import get_close_matches
from functools import cache
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ValidationError

from experiment.config.run import Config
from provenance.digest import sha256_of

Schema = dict[str, Any]

PATTERNS = {
    "^[0-9a-f]{40}$": "a commit, 40 hexadecimal digits",
    "^[0-9a-f]{64}$": "a sha256, 64 hexadecimal digits",
    "^[a-z][a-z0-9_]*$": "a name of small letters, digits and _ that begins with a letter",
}
TYPES = {
    "string": "text",
    "boolean": "true or false",
    "integer": "a whole number",
    "number": "a number",
}
BOUNDS = {"exclusiveMinimum": "above", "minimum": "of at least", "exclusiveMaximum": "below"}
NULL = {"type": "null"}
ABOUT_A_KEY = re.compile(r"(?P<key>\w+(\.\w+)*): (?P<said>.*)", re.DOTALL)


def validated(raw: dict[str, Any]) -> Config:
    """The configuration, checked together with the files it names.

    Raises ValueError with one line a fault: key, value, and what is allowed.
    """
    try:
        checked = Config.model_validate(raw)
    except ValidationError as error:
        raise ValueError("\n".join(faults(error, Config))) from None
    if missing := file_faults(checked.tasks):
        raise ValueError("\n".join(missing))
    return checked


def faults(error: ValidationError, model: type[BaseModel]) -> list[str]:
    """One line a fault, `key: what is allowed (is value)`; keys are dotted, as in the file."""
    schema = _schema(model)
    lines: dict[tuple, str] = {}
    for fault in error.errors():
        place, key, allowed = _at(fault["loc"], schema)
        # a value that is none of several types has a fault for each of them: one is enough
        lines.setdefault(place, _line(fault, key, allowed, schema).lstrip(".: "))
    return list(lines.values())


@cache
def _schema(model: type[BaseModel]) -> Schema:
    return model.model_json_schema()


def file_faults(tasks: Mapping[str, Any]) -> list[str]:
    """One line a local file that a task names and that is not there, or has another digest."""
    return [f"tasks.{name}.{line}" for name, task in tasks.items() for line in _files(task)]


def _files(task: Any) -> Iterator[str]:
    data, model = task.dataset, task.base_model
    if data.devkit is not None:
        yield from _file("dataset", "devkit", data.devkit)
    if data.repository is None and data.url is None:
        for split in ("train", "validation", "test"):
            file = getattr(data, split)
            # tar files of 145 GB are digested by their job, not at every start
            digest = file.sha256 if data.devkit is None else None
            yield from _file(f"dataset.{split}", "path", file.path, digest)
    if model.path is not None:
        yield from _file("base_model", "path", model.path, model.sha256)


def _file(group: str, key: str, path: str, expected: str | None = None) -> Iterator[str]:
    if not Path(path).exists():
        yield f"{group}.{key}: {path} does not exist, seen from {Path.cwd()}"
    elif expected is not None and (found := sha256_of(Path(path))) != expected:
        yield f"{group}.sha256: has to be that of {path}, {found} (is {expected!r})"


def shown(value: object) -> str:
    """A value as a message gives it."""
    match value:
        case None | [] | "":
            return "(is empty)"
        case bool():
            return f"(is {str(value).lower()})"
        case dict():
            return "(is a group of keys)" if value else "(is empty)"
        case list():
            return "(is a list)"
    return f"(is {value!r})"


def one_of(names: Iterable[str]) -> str:
    """`a`, `a or b`, `a, b or c`."""
    *others, last = names
    return f"{', '.join(others)} or {last}" if others else last


def in_words(allowed: Schema, whole: Schema, mark: str = "") -> str:
    """What a value may be, such as `a whole number above 0`.

    whole: the schema with the definitions; mark: put around what stands in a file as it is here.
    """
    allowed = resolved(allowed, whole)
    match allowed:
        case {"anyOf": options}:
            words = [in_words(option, whole, mark) for option in options if option != NULL]
            return one_of(w for w in words if w != "a whole number" or "a number" not in words)
        case {"const": only}:
            return f"{mark}{only}{mark}"
        case {"enum": names}:
            return one_of(f"{mark}{name}{mark}" for name in names)
        case {"pattern": pattern}:
            return f"{PATTERNS[pattern]}, pattern {pattern}"
        case {"type": "array", "items": item}:
            least = " with at least one" if allowed.get("minItems") else ""
            return f"a list{least} of {in_words(item, whole, mark)}"
        case {"type": "object", "properties": keys}:
            return f"a group of the keys {', '.join(keys)}"
        case {"type": "object", "additionalProperties": True}:
            return "a group of keys"
        case {"type": "object"}:
            least = "at least one name" if allowed.get("minProperties") else "names"
            return f"{least}, each with {in_words(of_any_name(allowed), whole, mark)}"
        case {"discriminator": tag}:
            return f"a group of keys, with {tag['propertyName']}"
    bounds = [f"{word} {allowed[bound]}" for bound, word in BOUNDS.items() if bound in allowed]
    return f"{TYPES[allowed['type']]} {' and '.join(bounds)}".rstrip()


def resolved(allowed: Schema, whole: Schema) -> Schema:
    """The schema that a reference means, and what a value is where it is not left out."""
    options = [option for option in allowed.get("anyOf", []) if option != NULL]
    if len(options) == 1:
        return resolved(options[0], whole)
    if "$ref" in allowed:
        return whole["$defs"][allowed["$ref"].rpartition("/")[2]]
    return allowed


def of_any_name(allowed: Schema) -> Schema:
    """What the values of a mapping are whose names are the user's."""
    named = allowed.get("patternProperties") or {"": allowed["additionalProperties"]}
    return next(iter(named.values()))


def _at(location: tuple, whole: Schema) -> tuple[tuple, str, Schema | None]:
    """Where a fault is: its place in pydantic's terms, its dotted key, and what is allowed there.

    Among the keys pydantic names the class of a union that it chose or tried; no file does.
    An unknown key has nothing that is allowed.
    """
    if location and location[-1] == "[key]":  # the name itself is wrong, not its value
        *mapping, name, _ = location
        _, key, allowed = _at(tuple(mapping), whole)
        patterns = [{"pattern": pattern} for pattern in allowed.get("patternProperties", [])]
        return location, f"{key}.{name}", patterns[0] if patterns else {"type": "string"}
    allowed, keys = resolved(whole, whole), []
    for depth, part in enumerate(location):
        match allowed:
            case {"anyOf": _}:
                return location[:depth], ".".join(keys), allowed
            case {"discriminator": tag}:
                allowed = {"$ref": tag["mapping"][part]}
            case {"items": item}:
                allowed = item
            case {"properties": known}:
                keys.append(str(part))
                if part not in known:
                    return location, ".".join(keys), None
                allowed = known[part]
            case _:
                keys.append(str(part))
                allowed = of_any_name(allowed)
        allowed = resolved(allowed, whole)
    return location, ".".join(keys), allowed


def _line(fault: Any, key: str, allowed: Schema | None, whole: Schema) -> str:
    value = fault["input"]
    match fault["type"]:
        case "value_error":  # of a validator, which names the key below, if it is about one
            said = str(fault["ctx"]["error"])
            if about := ABOUT_A_KEY.fullmatch(said):
                key, said = f"{key}.{about['key']}", about["said"]
            return f"{key}: {said}"
        case "extra_forbidden" | "invalid_key":
            *group, name = fault["loc"]
            known = list(_at(tuple(group), whole)[2]["properties"])
            return f"{key}: is not a key here, {_nearest(str(name), known)} {shown(value)}"
        case "missing":
            return f"{key}: is missing, has to be {in_words(allowed, whole)}"
        case "union_tag_not_found":
            tag = allowed["discriminator"]
            return f"{key}.{tag['propertyName']}: is missing, has to be {one_of(tag['mapping'])}"
        case "union_tag_invalid":
            tag = allowed["discriminator"]
            name = tag["propertyName"]
            return f"{key}.{name}: has to be {one_of(tag['mapping'])} {shown(value[name])}"
    each = "each " if isinstance((None, *fault["loc"])[-1], int) else ""
    return f"{key}: {each}has to be {in_words(allowed, whole)} {shown(value)}"


def _nearest(name: str, known: list[str]) -> str:
    nearest = get_close_matches(name, known, n=1)
    return f"the nearest is {nearest[0]}" if nearest else f"allowed are {', '.join(known)}"
