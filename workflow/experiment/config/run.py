"""The whole run: settings that all tasks share, and the check of a configuration and its files."""

import re
from collections.abc import Iterable
from difflib import get_close_matches
from functools import cache
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field, ValidationError, model_validator
from pydantic_core import ErrorDetails

from experiment.config.checks import folder_of_results, task_errors
from experiment.config.settings import (
    Number,
    Once,
    Positive,
    Strict,
    Whole,
    WindowSizes,
    wrong,
)
from experiment.config.tasks import KINDS, Task

FOLDERS = ("figures", "logs", "packages", "patches", "rebuild", "tables")
"""Folders of `results` that hold no task."""


Ratio = Literal[tuple(WindowSizes.model_fields)]
Seed = Annotated[Whole, Field(ge=0, lt=2**32)]


class Intervals(Strict):
    """Statistics over per-example scores: bootstrap intervals and paired tests."""

    resamples: Positive = Field(
        1000, le=1_000_000, description="bootstrap resamples in tables and figures"
    )
    confidence: Number = Field(0.95, gt=0, lt=1, description="confidence level of the intervals")
    permutations: Positive = Field(
        10_000,
        le=1_000_000,
        description="bootstrap resamples behind the interval of a claim",
    )


class Config(Strict):
    """One run of the whole DAG."""

    results: Annotated[str, AfterValidator(folder_of_results)] = Field(
        description="directory for all results, of its own (letters, digits, `. _ - + /`); no two "
        "configurations share one"
    )
    device: Literal["cpu", "cuda"] = Field(
        "cpu", description="where models run; a job ends at once where it is missing"
    )
    seed: Seed = Field(0, description="seed of every random choice")
    further_seeds: Annotated[list[Seed], Once] = Field(
        [],
        max_length=100,
        description="further seeds with which each model of Table 5 is tuned, for "
        "`tables/seeds.csv`: whether findings hold for other seeds",
    )
    further_seeds_at: Annotated[list[Ratio], Once] | None = Field(
        None,
        min_length=1,
        description="ratios of `merge.k` whose models are tuned with further seeds; unset: all",
    )
    intervals: Intervals = Field(Intervals(), description="confidence intervals of the scores")
    temporary: Annotated[list[Literal["compressed", "tuned"]], Once] = Field(
        [],
        description="weights to remove after the last job has read them, unless the command line "
        "asks for them: compressed models before tuning (made again in seconds), or tuned ones "
        "(made again in hours, when a new score or table needs them)",
    )
    tasks: dict[Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]{0,59}$")], Task] = Field(
        min_length=1,
        description="models with their data, by the name of their folder in `results`",
    )

    @model_validator(mode="after")
    def _runs_and_is_filed(self) -> "Config":
        for name, task in self.tasks.items():
            if name in FOLDERS:
                raise ValueError(f"tasks.{name}: a name other than {', '.join(FOLDERS)}")
            for key, training in task.trainings().items():
                if training.precision == "fp16" and self.device == "cpu":
                    allowed = "fp32 or bf16 with device cpu"
                    raise wrong(f"tasks.{name}.{key}.precision", allowed, "fp16")
        if self.seed in self.further_seeds:
            raise wrong("further_seeds", f"other seeds than seed, {self.seed}", self.seed)
        ratios = {ratio for task in self.tasks.values() for ratio in task.merge.k.ratios()}
        if absent := sorted(set(self.further_seeds_at or ()) - ratios):
            raise wrong("further_seeds_at", "ratios that merge.k of a task has", absent[0])
        labels: dict[str, str] = {}
        for name, task in self.tasks.items():
            if (first := labels.setdefault(task.label, name)) != name:
                raise wrong(f"tasks.{name}.label", f"another than that of {first}", task.label)
        return self


# --- the check ------------------------------------------------------------------------------------


def validated(raw: dict[str, Any]) -> Config:
    """Check a configuration and the files it names.

    Raises ValueError with one line an error: the key's path, what is allowed, and the value.
    """
    try:
        checked = Config.model_validate(raw)
    except ValidationError as error:
        raise ValueError("\n".join(_lines(error, raw))) from None
    if errors := [e for name, task in checked.tasks.items() for e in task_errors(name, task)]:
        raise ValueError("\n".join(errors))
    return checked


# --- errors of pydantic, one line each ------------------------------------------------------------

Schema = dict[str, Any]
ABOUT_A_KEY = re.compile(r"(\w+(?:\.\w+)*): (.*)", re.DOTALL)  # a key below, and its error
PATTERNS = {
    "^[a-z][a-z0-9_]{0,59}$": "name of up to 60 small letters, digits and _, a letter first",
    "^[0-9a-f]{40}$": "commit, 40 hexadecimal digits",
    "^[0-9a-f]{64}$": "sha256, 64 hexadecimal digits",
    r"^([\w-][\w.-]*/)?[\w-][\w.-]*$": "repository, `owner/name`",
}
TYPE_NAMES = {"string": "text", "boolean": "true or false", "integer": "whole number"}
BOUNDS = {
    "exclusiveMinimum": "above",
    "minimum": "of at least",
    "exclusiveMaximum": "below",
    "maximum": "at most",
}
NULL = {"type": "null"}


def _lines(error: ValidationError, raw: Any) -> list[str]:
    lines: dict[tuple[str, str], list[str]] = {}  # a union has an error for each of its types
    for details in error.errors():
        keys, message, value = _described(details, raw)
        lines.setdefault((".".join(map(str, keys)), value), []).append(message)
    return [
        f"{key}: {' or '.join(messages).replace(' or should be ', ' or ')}{value}".lstrip(": ")
        for (key, value), messages in lines.items()
    ]


def _described(details: ErrorDetails, raw: Any) -> tuple[list, str, str]:
    """Keys, message and value of one error."""
    location, value = details["loc"], details["input"]
    keys, message = _keys(location, raw), details["msg"].removeprefix("Input ")
    match details["type"]:
        case "value_error":  # raised by a validator, whose message includes the value
            message = str(details["ctx"]["error"])
            if about := ABOUT_A_KEY.fullmatch(message):
                return [*keys, about[1]], about[2], ""
            return keys, message, ""
        case "string_pattern_mismatch":
            message = f"should be a {PATTERNS[details['ctx']['pattern']]}"
        case "missing":
            allowed = in_words(_schema_at(location))
            return [*keys, location[-1]], f"is missing, allowed: {allowed}", ""
        case "union_tag_not_found":
            return [*keys, "kind"], f"is missing, allowed: {one_of(KINDS)}", ""
        case "union_tag_invalid":
            keys, message, value = [*keys, "kind"], f"should be {one_of(KINDS)}", value["kind"]
        case "model_type" | "model_attributes_type":
            message = f"should be a {in_words(_schema_at(location))}"
        case "extra_forbidden" | "invalid_key":
            names = list(_schema_at(location[:-1])["properties"])
            nearest = get_close_matches(str(location[-1]), names, n=1)
            allowed = f"the nearest is {nearest[0]}" if nearest else f"allowed: {', '.join(names)}"
            message = f"is not a key here, {allowed}"
    shown = "empty" if value in (None, "", [], {}) else repr(value)
    return keys, message, f" (is {shown if len(shown) < 100 else f'{shown[:99]}…'})"


def _keys(location: tuple, raw: Any) -> list:
    """The keys in a location, without the classes of unions that pydantic puts among them."""
    keys = []
    for part in location:
        try:
            raw = raw[part]
        except (KeyError, IndexError, TypeError):
            continue
        keys.append(part)
    return keys


@cache
def _schema() -> Schema:
    return Config.model_json_schema()


def _schema_at(location: tuple) -> Schema:
    """The schema of the values at a location, classes of unions included."""
    allowed = _schema()
    for part in location:
        match resolved(allowed):
            case {"properties": known}:
                allowed = known[part]
            case {"discriminator": tag}:
                allowed = {"$ref": tag["mapping"][part]}
            case mapping:
                allowed = values_of(mapping)
    return resolved(allowed)


def resolved(allowed: Schema) -> Schema:
    """Follow references in a schema, and drop the null of an optional value."""
    options = [option for option in allowed.get("anyOf", []) if option != NULL]
    if len(options) == 1:
        return resolved(options[0])
    if "$ref" in allowed:
        return _schema()["$defs"][allowed["$ref"].rpartition("/")[2]]
    return allowed


def values_of(mapping: Schema) -> Schema:
    """The schema of a mapping's values."""
    named = mapping.get("patternProperties") or {"": mapping["additionalProperties"]}
    return next(iter(named.values()))


def in_words(allowed: Schema) -> str:
    """Describe the values that a schema allows."""
    match resolved(allowed):
        case {"anyOf": options}:
            return one_of(in_words(option) for option in options if option != NULL)
        case {"const": only}:
            return f"`{only}`"
        case {"enum": names}:
            return one_of(f"`{name}`" for name in names)
        case {"pattern": pattern}:
            return PATTERNS[pattern]
        case {"type": "array", "items": item, **bounds}:
            return f"list{', not empty' * ('minItems' in bounds)} ({in_words(item)})"
        case {"discriminator": _} | {"additionalProperties": True}:
            return "group of keys"
        case {"properties": keys}:
            return f"group of the keys {', '.join(keys)}"
        case {"type": "object", **mapping}:
            return f"names, each with {in_words(values_of(mapping))}"
        case {"type": kind, **keywords}:
            known = [(word, keywords[key]) for key, word in BOUNDS.items() if key in keywords]
            bounds = " and ".join(f"{word} {bound}" for word, bound in known)
            return f"{TYPE_NAMES.get(kind, kind)} {bounds}".rstrip()


def one_of(names: Iterable[str]) -> str:
    """`a`, `a or b`, `a, b or c`."""
    *others, last = names
    return f"{', '.join(others)} or {last}" if others else last
