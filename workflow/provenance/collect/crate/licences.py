"""Who made it and under which licence: of the workflow, and of the embedded data."""

from pathlib import Path
from typing import Any

import yaml
from rocrate.model.entity import Entity
from rocrate.rocrate import ROCrate

from provenance.collect.crate.entities import entity

SOURCES = Path("resources/demo/sources.yaml")
CITATION = Path("CITATION.cff")


def licence(crate: ROCrate, name: str) -> Entity:
    """A licence by its SPDX name."""
    identifier = f"https://spdx.org/licenses/{name}"
    known = {"name": name, "description": f"The licence {name} of the SPDX list"}
    return entity(crate, identifier, "CreativeWork", url={"@id": identifier}, **known)


def licences_of_data(folder: Path) -> dict[str, list[str]]:
    """Path of an embedded data file -> SPDX names of the licences that it is under, each once."""
    if not (folder / SOURCES).is_file():
        return {}
    sources = yaml.safe_load((folder / SOURCES).read_text())
    of_package = {
        name: each["licence"].split(" AND ") for name, each in sources["packages"].items()
    }
    return {
        str(SOURCES.parent / data["path"]): list(
            dict.fromkeys(name for package in data["packages"] for name in of_package[package])
        )
        for data in sources["data"]
    }


def citation(folder: Path) -> dict[str, Any]:
    """What CITATION.cff says; nothing if it is not there."""
    file = folder / CITATION
    return yaml.safe_load(file.read_text()) if file.is_file() else {}


def authors(crate: ROCrate, cited: dict[str, Any]) -> list[Entity]:
    """The authors of the workflow."""
    names = [author["name"] for author in cited.get("authors", [])]
    return [
        entity(crate, f"#author/{n}", "Organization", name=name)
        for n, name in enumerate(names, start=1)
    ]


def paper(crate: ROCrate, cited: dict[str, Any]) -> list[Entity]:
    """The paper that the workflow recomputes."""
    works = [cited["preferred-citation"]] if "preferred-citation" in cited else []
    return [entity(crate, "#paper", "ScholarlyArticle", name=work["title"]) for work in works]
