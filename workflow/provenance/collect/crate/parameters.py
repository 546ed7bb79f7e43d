"""What rules and the workflow can be given and give, and how one's outputs are another's inputs."""

import json
from hashlib import sha256
from typing import Any
from urllib.parse import quote

from rocrate.model.entity import Entity

from provenance.collect.crate.entities import entity, link
from provenance.records import Record

TYPES = {bool: "Boolean", int: "Integer", float: "Float"}


def leaves(params: Any, name: str = "") -> dict[str, Any]:
    """Parameters by dotted name: `task.fine_tuning.learning_rate`. A list is one value, as JSON."""
    if isinstance(params, dict):
        found: dict[str, Any] = {}
        for key, value in params.items():
            found |= leaves(value, f"{name}.{key}" if name else key)
        return found
    return {name: params}


def slots(named: dict[str, Any]) -> dict[str, list[tuple[str, str]]]:
    """A record's inputs or outputs: name -> (path, sha256) of its files."""
    return {
        name: [(each["path"], each["sha256"]) for each in _as_list(value)]
        for name, value in named.items()
    }


def of_tool(tool: Entity, record: Record, slot: str, name: str, kind: str) -> Entity:
    """A formal parameter of a rule, and of a tool that runs it.

    slot: `input`, `output` or `params`; kind: its type, in schema.org's words.
    """
    identifier = f"#rule/{record.content['rule']}/{slot}/{quote(name)}"
    parameter = formal(tool, identifier, name, kind)
    link(tool, "output" if slot == "output" else "input", parameter)
    return parameter


def of_workflow(workflow: Entity, slot: str, name: str, kind: str) -> Entity:
    """A formal parameter of the workflow as a whole. slot: `input` or `output`."""
    parameter = formal(workflow, f"#workflow/{slot}/{quote(name)}", name, kind)
    link(workflow, slot, parameter)
    return parameter


def formal(owner: Entity, identifier: str, name: str, kind: str) -> Entity:
    """A formal parameter."""
    return entity(owner.crate, identifier, "FormalParameter", additionalType=kind, name=name)


def value(parameter: Entity, name: str, given: Any) -> Entity:
    """A value that was given for a formal parameter."""
    text = given if isinstance(given, str) else json.dumps(given, ensure_ascii=False)
    identifier = f"{parameter.id}/{sha256(text.encode()).hexdigest()[:12]}"
    properties = {"exampleOfWork": parameter, "name": name, "value": text}
    return entity(parameter.crate, identifier, "PropertyValue", **properties)


def connect(by: Entity, source: Entity, target: Entity) -> None:
    """Say that what came out at one formal parameter was given for another, by a step."""
    identifier = f"#connection/{source.id[1:]}/to/{target.id[1:]}"
    ends = {"sourceParameter": source, "targetParameter": target}
    link(by, "connection", entity(by.crate, identifier, "ParameterConnection", **ends))


def kind_of(given: Any) -> str:
    """The type of a value."""
    return TYPES.get(type(given), "Text")


def kind_of_file(file: Entity) -> str:
    """The type of what a file or a directory is given for."""
    return "Dataset" if file.type == "Dataset" else "File"


def _as_list(given: Any) -> list[Any]:
    return given if isinstance(given, list) else [given]
