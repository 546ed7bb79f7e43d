"""Describe jobs in an RO-Crate: rules as steps, scripts as tools, jobs as actions on files."""

import ast
import json
from collections.abc import Mapping
from graphlib import CycleError, TopologicalSorter
from hashlib import sha256
from pathlib import Path
from typing import Any
from urllib.parse import quote

from rocrate.model.contextentity import ContextEntity
from rocrate.model.entity import Entity
from rocrate.rocrate import ROCrate

from provenance.collect.collection import Collection
from provenance.project import PROJECT
from provenance.records import Record
from provenance.text_format import leaves

COMPLETED = "http://schema.org/CompletedActionStatus"
REQUIREMENTS = "https://pip.pypa.io/en/stable/reference/requirements-file-format/"
SIF = "https://w3id.org/ro/terms/workflow-run#SIFImage"
UNITS = "https://qudt.org/vocab/unit/"
USAGE = {  # key of a record's `time` -> what it measures, and its unit
    "seconds": ("Time from the first to the last line of the job's work", f"{UNITS}SEC"),
    "start_up_seconds": ("Time before it: Python and imports", f"{UNITS}SEC"),
    "cpu_seconds": ("Processor time of all threads", f"{UNITS}SEC"),
    "peak_memory_bytes": ("Largest resident memory", f"{UNITS}BYTE"),
}
TYPES = {bool: "Boolean", int: "Integer", float: "Float"}
FORMATS = {
    ".csv": "text/csv",
    ".html": "text/html",
    ".json": "application/json",
    ".md": "text/markdown",
    ".patch": "text/x-diff",
    ".pdf": "application/pdf",
    ".png": "image/png",
    ".parquet": "application/vnd.apache.parquet",
    ".py": "text/x-python",
    ".safetensors": "application/octet-stream",
    ".yaml": "application/yaml",
}


def entity(crate: ROCrate, identifier: str, kind: str, **properties: Any) -> Entity:
    """Return the entity with an identifier; add it with these properties if it is not there."""
    if identifier in crate:  # `get` alone looks through all entities for what is not there
        return crate.get(identifier)
    return crate.add(ContextEntity(crate, identifier, {"@type": kind, **properties}))


def link(source: Entity, name: str, target: Entity) -> None:
    """Refer from one entity to another by a property, once."""
    known = source.as_jsonld().get(name, [])
    if {"@id": target.id} not in (known if isinstance(known, list) else [known]):
        source.append_to(name, target)


def parameter(owner: Entity, slot: str, identifier: str, name: str, kind: str) -> Entity:
    """Add a formal parameter to a tool or workflow.

    slot: `input` or `output`. kind: its type, as schema.org names it.
    """
    properties = {"additionalType": kind, "name": name}
    formal = entity(owner.crate, identifier, "FormalParameter", **properties)
    link(owner, slot, formal)
    return formal


def connect(step: Entity, source: Entity, target: Entity) -> None:
    """State that a step passes the value of one formal parameter to another."""
    identifier = f"#connection/{source.id[1:]}/to/{target.id[1:]}"
    ends = {"sourceParameter": source, "targetParameter": target}
    link(step, "connection", entity(step.crate, identifier, "ParameterConnection", **ends))


def kind_of_file(file: Entity) -> str:
    """Return the type of a parameter that takes a file or directory."""
    return "Dataset" if file.type == "Dataset" else "File"


class Files:
    """Entities of files and directories, one for each version.

    folder: of the crate. digests: path in it -> sha256.

    A file that is not in the crate must not look as if it were. RO-Crate 1.1 knows files by
    relative path, which must exist, and by web address, which these do not have. They get a local
    identifier, `#path`: a contextual entity, which validators do not look for on disk.
    """

    def __init__(self, crate: ROCrate, folder: Path, digests: Mapping[str, str]) -> None:
        self.crate, self.folder, self.digests = crate, folder, digests
        self._versions: dict[tuple[str, str], Entity] = {}

    def entity(self, path: str, digest: str | None = None) -> Entity:
        """Return the file or directory with a digest; without one, as it is in the crate."""
        digest = digest or self.digests[path]
        if (path, digest) not in self._versions:
            held = self.digests.get(path) == digest
            self._versions[path, digest] = (self._held if held else self._absent)(path, digest)
        return self._versions[path, digest]

    def know(self, path: str, entity: Entity) -> None:
        """Use an entity that was made elsewhere for a path in the crate."""
        self._versions[path, self.digests[path]] = entity

    def _held(self, path: str, digest: str) -> Entity:
        source = self.folder / path
        properties: dict[str, Any] = {"name": path, "sha256": digest}
        if source.is_dir():
            properties["description"] = (
                "Its sha256 is that of the lines `sha256  name` of its files"
            )
            return self.crate.add_dataset(source, path, properties=properties)
        properties["contentSize"] = str(source.stat().st_size)
        properties["encodingFormat"] = FORMATS.get(source.suffix, "text/plain")
        if source.suffix == ".py":
            properties["@type"] = ["File", "SoftwareSourceCode"]
        return self.crate.add_file(source, path, properties=properties)

    def _absent(self, path: str, digest: str) -> Entity:
        another = f"#{path}" in self.crate
        suffix = Path(path).suffix  # only directories, of models, have none
        known = {"encodingFormat": FORMATS.get(suffix, "text/plain")} if suffix else {}
        return entity(
            self.crate,
            f"#{path}@{digest[:12]}" if another else f"#{path}",
            "File" if suffix else "Dataset",
            name=path,
            description="Not in this crate, but known by its digest",
            sha256=digest,
            **known,
        )


class Jobs:
    """The actions of a run, with the rules as steps and their scripts as tools.

    Steps and tools are added when they are first asked for. controls: of the steps. producers: path
    -> the formal parameter that it came out of. readers: path -> steps and the parameters that took
    it. settings: steps and parameters that take no file, by identifier.
    """

    def __init__(self, workflow: Entity, chosen: Collection, files: Files) -> None:
        self.crate, self.workflow, self.files = workflow.crate, workflow, files
        self._positions = _positions(chosen)
        scripts = sorted((files.folder / PROJECT.scripts).glob("*.py"))
        docstrings = {file.stem: ast.get_docstring(ast.parse(file.read_text())) for file in scripts}
        self._described = {
            rule: " ".join(text.split()) for rule, text in docstrings.items() if text
        }
        self.controls: list[Entity] = []
        self.producers: dict[str, Entity] = {}
        self.readers: dict[str, list[tuple[Entity, Entity]]] = {}
        self.settings: dict[str, tuple[Entity, Entity]] = {}

    def add(self, record: Record) -> None:
        """Add the action of a job and that of its step. Jobs must come after those they need."""
        name = str(record.file).removesuffix(".record.json")
        time, step = record.part("time"), self.step(record)
        file = self.files.entity(str(record.file))
        action = entity(
            self.crate,
            f"#job/{name}",
            "CreateAction",
            name=str(record),
            description=_description(record),
            instrument=self.tool(record),
            object=[*self._inputs(record, step), *self._values(record, step)],
            result=self._outputs(record),
            startTime=time.get("started"),
            endTime=time.get("ended"),
            actionStatus=COMPLETED,  # a job that fails leaves no record
            resourceUsage=self._usage(name, time),
            additionalProperty=self._circumstances(record),
            subjectOf=file,
        )
        file["about"] = action
        environment = record.part("environment")
        if environment.get("image"):
            digest = environment.get("image_sha256")
            action["containerImage"] = entity(
                self.crate,
                f"#image/{digest}",
                "ContainerImage",
                additionalType={"@id": SIF},
                name=Path(environment["image"]).name,
                sha256=digest,
                description="Built from containers/ and envs/; containers/lock.yaml has its digest",
            )
        control = entity(
            self.crate,
            f"#control/{name}",
            "ControlAction",
            name=f"Step {step['name']}: {record}",
            instrument=step,
            object=action,
            actionStatus=COMPLETED,
        )
        self.controls.append(control)

    def _inputs(self, record: Record, step: Entity) -> list[Entity]:
        entities = {}
        for name, path, digest in record.files("input"):
            file, formal = self._file(record, "input", name, path, digest)
            self.readers.setdefault(path, []).append((step, formal))
            if path in self.producers:
                connect(step, self.producers[path], formal)
            entities[file.id] = file  # once, even if two inputs are the same file
        return list(entities.values())

    def _values(self, record: Record, step: Entity) -> list[Entity]:
        params = dict(leaves(record.part("params")))
        if record.content.get("seed") is not None:
            params["seed"] = record.content["seed"]
        entities = []
        for name, value in params.items():
            kind = TYPES.get(type(value), "Text")
            formal = self.parameter(record, "params", name, kind)
            self.settings[formal.id] = step, formal
            text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
            identifier = f"{formal.id}/{sha256(text.encode()).hexdigest()[:12]}"
            properties = {"exampleOfWork": formal, "name": name, "value": text}
            entities.append(entity(self.crate, identifier, "PropertyValue", **properties))
        return entities

    def _outputs(self, record: Record) -> list[Entity]:
        entities = []
        for name, path, digest in record.files("output"):
            file, formal = self._file(record, "output", name, path, digest)
            self.producers[path] = formal
            entities.append(file)
        return entities

    def _file(
        self, record: Record, slot: str, name: str, path: str, digest: str
    ) -> tuple[Entity, Entity]:
        """Return a file that a job read or wrote, and the parameter of its rule."""
        file = self.files.entity(path, digest)
        formal = self.parameter(record, slot, name, kind_of_file(file))
        link(file, "exampleOfWork", formal)
        return file, formal

    def _usage(self, name: str, time: dict[str, Any]) -> list[Entity]:
        entities = []
        for key, (meaning, unit) in USAGE.items():
            if time.get(key) is not None:
                term = {"name": key, "description": meaning}
                quantity = entity(self.crate, f"#quantity/{key}", "DefinedTerm", **term)
                measured = {"propertyID": quantity.id, "unitCode": unit, "value": str(time[key])}
                where = f"#job/{name}/{key}"
                entities.append(entity(self.crate, where, "PropertyValue", name=key, **measured))
        return entities

    def _circumstances(self, record: Record) -> list[Entity]:
        """Return where a job ran, at which commit, and what a second run must reproduce."""
        known = {
            **record.part("machine"),
            "reproduces": record.content.get("reproduces"),
            "git commit": record.part("git").get("commit"),
            "git patch": record.patch,
        }
        entities = []
        for name, value in known.items():
            if value is not None:
                text = value if isinstance(value, str) else json.dumps(value)
                where = f"#circumstance/{sha256(f'{name} {text}'.encode()).hexdigest()[:12]}"
                entities.append(entity(self.crate, where, "PropertyValue", name=name, value=text))
        return entities

    def step(self, record: Record) -> Entity:
        """Return the rule of a job."""
        rule = record.rule
        known = {"description": self._described.get(rule), "position": self._positions.get(rule)}
        properties = {name: str(value) for name, value in known.items() if value is not None}
        step = entity(self.crate, f"#rule/{rule}", "HowToStep", name=rule, **properties)
        link(self.workflow, "step", step)
        return step

    def tool(self, record: Record) -> Entity:
        """Return the script that a job ran, with the modules and packages it used."""
        code, environment = record.part("code"), record.part("environment")
        whole = sha256(json.dumps([code, environment], sort_keys=True).encode()).hexdigest()
        identifier = f"#tool/{record.rule}/{whole[:12]}"
        if known := self.crate.get(identifier):
            return known
        script = next((path for path in record.sources if "/scripts/" in path), None)
        tool = entity(
            self.crate,
            identifier,
            "SoftwareApplication",
            name=Path(script or record.rule).name,
            description="The version is the digest of the syntax trees of script and modules",
            softwareVersion=record.code_digest,
        )
        sources = {path: self.files.entity(path, of) for path, of in record.sources.items()}
        if script:
            tool["mainEntity"] = sources[script]
        versions = {"python": environment.get("python"), **(environment.get("packages") or {})}
        packages = []
        for name, version in versions.items():
            if version:
                known, where = {"softwareVersion": version}, f"#package/{name}/{quote(version)}"
                package = entity(self.crate, where, "SoftwareApplication", name=name, **known)
                packages.append(package)
        tool["softwareRequirements"] = [*sources.values(), *packages]
        if lock := environment.get("lock"):
            file = self.files.entity(lock["path"], lock["sha256"])
            name = "Requirements of pip, with hashes"
            link(file, "conformsTo", entity(self.crate, REQUIREMENTS, "WebPageElement", name=name))
            tool["buildInstructions"] = file
            link(self.step(record), "buildInstructions", file)
        link(self.workflow, "hasPart", tool)
        link(self.step(record), "workExample", tool)
        return tool

    def parameter(self, record: Record, slot: str, name: str, kind: str) -> Entity:
        """Return the parameter of a job's rule. slot: `input`, `output` or `params`."""
        identifier = f"#rule/{record.rule}/{slot}/{quote(name)}"
        direction = "output" if slot == "output" else "input"
        return parameter(self.tool(record), direction, identifier, name, kind)


def _positions(chosen: Collection) -> dict[str, int]:
    """Number the rules so that each comes after those it needs; {} if that is not possible."""
    needs: dict[str, set[str]] = {}
    for record in chosen.ancestry:
        makers = filter(None, map(chosen.records.maker, record.inputs))
        needs.setdefault(record.rule, set()).update({maker.rule for maker in makers})
        needs[record.rule].discard(record.rule)
    try:
        return {rule: n for n, rule in enumerate(TopologicalSorter(needs).static_order(), start=1)}
    except CycleError:
        return {}


def _description(record: Record) -> str:
    text = "The record beside its outputs has the command that repeats this job by hand"
    if warnings := record.content.get("warnings"):
        text += f"; it warned: {'; '.join(warnings)}"
    return f"{text}; but that record was altered after the job wrote it" if record.altered else text
