"""What ran: each rule as a step, and each script with its code and environment as a tool."""

import json
import re
from graphlib import CycleError, TopologicalSorter
from hashlib import sha256
from pathlib import Path
from typing import Any
from urllib.parse import quote

from rocrate.model.entity import Entity

from provenance.collect.collection import Collection
from provenance.collect.crate.entities import entity, link
from provenance.collect.crate.files import Files
from provenance.records import Record

REQUIREMENTS = "https://pip.pypa.io/en/stable/reference/requirements-file-format/"
SIF = "https://w3id.org/ro/terms/workflow-run#SIFImage"


class Tools:
    """The steps and tools of a workflow, each made when it is first asked for."""

    def __init__(self, workflow: Entity, chosen: Collection, files: Files) -> None:
        self.crate, self.workflow, self.files = workflow.crate, workflow, files
        self._positions = _positions(chosen)
        self._described = _docstrings(files.folder)

    def step(self, record: Record) -> Entity:
        """The rule of a job."""
        rule = record.content["rule"]
        known = {"description": self._described.get(rule), "position": self._positions.get(rule)}
        properties = {name: str(value) for name, value in known.items() if value is not None}
        step = entity(self.crate, f"#rule/{rule}", "HowToStep", name=rule, **properties)
        link(self.workflow, "step", step)
        return step

    def tool(self, record: Record) -> Entity:
        """The script that a job ran, with the modules it could reach and the packages it used."""
        code, environment = record.content["code"], record.content["environment"]
        rule = record.content["rule"]
        whole = sha256(json.dumps([code, environment], sort_keys=True).encode()).hexdigest()
        identifier = f"#tool/{rule}/{whole[:12]}"
        if known := self.crate.get(identifier):
            return known
        script = next((path for path in code["files"] if "/scripts/" in path), None)
        tool = entity(
            self.crate,
            identifier,
            "SoftwareApplication",
            name=Path(script or rule).name,
            description="The version is the digest of the syntax trees of script and modules",
            softwareVersion=code["digest"],
        )
        sources = {path: self.files.entity(path, digest) for path, digest in code["files"].items()}
        if script:
            tool["mainEntity"] = sources[script]
        tool["softwareRequirements"] = [*sources.values(), *self._packages(environment)]
        if environment.get("lock"):
            tool["buildInstructions"] = self._lock(environment["lock"])
            link(self.step(record), "buildInstructions", tool["buildInstructions"])
        link(self.workflow, "hasPart", tool)
        link(self.step(record), "workExample", tool)
        return tool

    def image(self, record: Record) -> Entity | None:
        """The container image that a job ran in, if any."""
        environment = record.content["environment"]
        if not environment.get("image"):
            return None
        return entity(
            self.crate,
            f"#image/{environment['image_sha256']}",
            "ContainerImage",
            additionalType={"@id": SIF},
            name=Path(environment["image"]).name,
            sha256=environment["image_sha256"],
            description="Built from containers/ and envs/; containers/lock.yaml has its digest",
        )

    def _lock(self, lock: dict[str, str]) -> Entity:
        file = self.files.entity(lock["path"], lock["sha256"])
        name = "Requirements of pip, with hashes"
        link(file, "conformsTo", entity(self.crate, REQUIREMENTS, "WebPageElement", name=name))
        return file

    def _packages(self, environment: dict[str, Any]) -> list[Entity]:
        versions = {"python": environment["python"], **environment["packages"]}
        return [
            entity(
                self.crate,
                f"#package/{name}/{quote(version)}",
                "SoftwareApplication",
                name=name,
                softwareVersion=version,
            )
            for name, version in versions.items()
        ]


def _positions(chosen: Collection) -> dict[str, int]:
    """Rules in an order in which each comes after those it needs; {} if there is no such order."""
    needs: dict[str, set[str]] = {}
    for record in chosen.records:
        rule, makers = record.content["rule"], map(chosen.evidence.maker, record.inputs)
        needs.setdefault(rule, set()).update({each.content["rule"] for each in makers if each})
        needs[rule].discard(rule)
    try:
        return {rule: n for n, rule in enumerate(TopologicalSorter(needs).static_order(), start=1)}
    except CycleError:
        return {}


def _docstrings(folder: Path) -> dict[str, str]:
    """What the rules of the workflow say of themselves."""
    texts = [file.read_text() for file in sorted((folder / "workflow/rules").glob("*.smk"))]
    found = re.findall(r'^rule (\w+):\n\s+"""(.*?)"""', "\n".join(texts), flags=re.M | re.S)
    return {rule: " ".join(text.split()) for rule, text in found}
