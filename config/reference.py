"""Write the configuration's documentation: `python config/reference.py`.

Fills `config/README.md.jinja` with a table for each group of keys to make `config/README.md`, and
writes `config/schema.json` for editors. Both follow from the classes of experiment.config.
"""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from jinja2 import Environment, StrictUndefined

from experiment.config.run import Config, Schema, in_words, resolved
from experiment.config.tasks import KINDS, TaskBase

DIRECTORY = Path(__file__).parent


def schema() -> str:
    """`schema.json`: the JSON Schema of a whole configuration."""
    dialect = {"$schema": "https://json-schema.org/draft/2020-12/schema"}
    return json.dumps(dialect | Config.model_json_schema(), indent=2, ensure_ascii=False) + "\n"


def reference() -> str:
    """`README.md`: the template with a table for each group of keys."""
    run, task = Config.model_json_schema(), TaskBase.model_json_schema()
    kinds = []
    for kind, model in KINDS.items():
        group = model.model_json_schema()
        added = {k: v for k, v in group["properties"].items() if k not in task["properties"]}
        kinds.append((kind, _groups(group | {"properties": added}, f" of {kind}")))
    options = {"trim_blocks": True, "lstrip_blocks": True, "keep_trailing_newline": True}
    template = (DIRECTORY / "README.md.jinja").read_text()
    page = Environment(undefined=StrictUndefined, **options).from_string(template)
    return page.render(run=_groups(run), task=_groups(task), kinds=kinds)


def _groups(schema: Schema, where: str = "") -> list[dict[str, Any]]:
    """The groups of keys in a schema, itself first, each once: where it is nested the least.

    where: distinguishes headings from those of the same keys elsewhere.
    """
    groups = list(_nested("", schema))
    places: dict[str, list[str]] = {}
    for key, group in groups:
        places.setdefault(group["title"], []).append(key)
    places = {title: sorted(keys, key=lambda key: key.count(".")) for title, keys in places.items()}
    headings = {title: f"`{keys[0]}`{where}" for title, keys in places.items()}
    return [
        {
            "heading": headings[group["title"]] if key else "",
            "text": " ".join(group["description"].split()),
            "same": places[group["title"]][1:],
            "rows": [
                _row(_below(key, name), allowed, headings)
                for name, allowed in group["properties"].items()
            ],
        }
        for key, group in groups
        if key == places[group["title"]][0]
    ]


def _nested(key: str, group: Schema) -> Iterator[tuple[str, Schema]]:
    """A group of keys and all groups in it, each with its own key."""
    yield key, group
    for name, allowed in group["properties"].items():
        inner = resolved(allowed)
        if "properties" in inner:
            yield from _nested(_below(key, name), inner)


def _row(key: str, allowed: Schema, headings: dict[str, str]) -> list[str]:
    """Cells of a key's row: key, value, default, meaning."""
    inner = resolved(allowed)
    if "properties" in inner:
        value = f"[keys](#{_anchor(headings[inner['title']])})"
    elif key == "tasks":
        value = "at least one name, each with [keys](#one-model-with-its-data)"
    else:
        value = in_words(inner)
    cells = [f"`{key}`", value, _default(allowed), allowed["description"]]
    return [cell.replace("|", "&#124;") for cell in cells]


def _below(key: str, name: str) -> str:
    return f"{key}.{name}" if key else name


def _anchor(heading: str) -> str:
    """The anchor that a Markdown viewer gives a heading."""
    return re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-")


def _default(allowed: Schema) -> str:
    if "default" not in allowed:
        return "needed"
    match allowed["default"]:
        case None:
            return "unset"
        case dict():
            return "see there"
        case list(names):
            return f"`[{', '.join(names)}]`"
        case default:
            return f"`{json.dumps(default)}`".replace('"', "")


def write(directory: Path) -> None:
    """Write both files."""
    (directory / "README.md").write_text(reference())
    (directory / "schema.json").write_text(schema())


if __name__ == "__main__":
    write(DIRECTORY)
