"""Entities of a crate that are no files."""

from typing import Any

from rocrate.model.contextentity import ContextEntity
from rocrate.model.entity import Entity
from rocrate.rocrate import ROCrate


def entity(crate: ROCrate, identifier: str, kind: str, **properties: Any) -> Entity:
    """The entity of this identifier; made, with these properties, when it is first asked for."""
    return crate.get(identifier) or crate.add(
        ContextEntity(crate, identifier, {"@type": kind, **properties})
    )


def link(source: Entity, name: str, target: Entity) -> None:
    """Refer from one entity to another by a property, once."""
    known = source.as_jsonld().get(name, [])
    if {"@id": target.id} not in (known if isinstance(known, list) else [known]):
        source.append_to(name, target)


def compact(crate: ROCrate) -> None:
    """Write a list of one as that one, and none as nothing, as RO-Crate 1.1 recommends."""
    for each in crate.get_entities():
        content = each.as_jsonld()
        for name, value in list(content.items()):
            if isinstance(value, list) and len(value) < 2:
                content[name] = value[0] if value else None
                if not value:
                    del content[name]
