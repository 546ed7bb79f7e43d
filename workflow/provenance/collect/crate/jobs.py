"""What happened: each job as an action, with what it read, wrote, was told and used."""

import json
from hashlib import sha256
from typing import Any

from rocrate.model.entity import Entity

from provenance.collect.crate import parameters
from provenance.collect.crate.entities import entity
from provenance.collect.crate.files import Files
from provenance.collect.crate.tools import Tools
from provenance.records import Record

COMPLETED = "http://schema.org/CompletedActionStatus"
UNITS = "https://qudt.org/vocab/unit/"
USAGE = {  # key of a record's `time` -> what it measures, and its unit
    "seconds": ("Time from the first to the last line of the job's work", f"{UNITS}SEC"),
    "start_up_seconds": ("Time before it: Python and imports", f"{UNITS}SEC"),
    "cpu_seconds": ("Processor time of all threads", f"{UNITS}SEC"),
    "peak_memory_bytes": ("Largest resident memory", f"{UNITS}BYTE"),
}


class Jobs:
    """The actions of a run.

    controls: those of the steps. producers: path -> the formal parameter that it came out of;
    readers: path -> steps and their parameters that it was given for; told: the steps and
    parameters that are no files, by identifier.
    """

    def __init__(self, tools: Tools, files: Files) -> None:
        self.crate, self.tools, self.files = tools.crate, tools, files
        self.controls: list[Entity] = []
        self.producers: dict[str, Entity] = {}
        self.readers: dict[str, list[tuple[Entity, Entity]]] = {}
        self.told: dict[str, tuple[Entity, Entity]] = {}

    def add(self, record: Record) -> None:
        """Add the action of a job, after those it builds on, and that of its step."""
        name = str(record.file).removesuffix(".record.json")
        time, step = record.content["time"], self.tools.step(record)
        file = self.files.entity(str(record.file))
        action = entity(
            self.crate,
            f"#job/{name}",
            "CreateAction",
            name=str(record),
            description=_told(record),
            instrument=self.tools.tool(record),
            object=[*self._inputs(record), *self._values(record)],
            result=self._outputs(record),
            startTime=time["started"],
            endTime=time["ended"],
            actionStatus=COMPLETED,  # a job that fails leaves no record
            resourceUsage=self._usage(name, time),
            additionalProperty=self._circumstances(record),
            subjectOf=file,
        )
        file["about"] = action
        if image := self.tools.image(record):
            action["containerImage"] = image
        self.controls.append(
            entity(
                self.crate,
                f"#control/{name}",
                "ControlAction",
                name=f"Step {step['name']}: {record}",
                instrument=step,
                object=action,
                actionStatus=COMPLETED,
            )
        )

    def _inputs(self, record: Record) -> list[Entity]:
        tool, step, found = self.tools.tool(record), self.tools.step(record), {}
        for name, versions in parameters.slots(record.content["input"]).items():
            for path, digest in versions:
                file = self.files.entity(path, digest)
                kind = parameters.kind_of_file(file)
                parameter = parameters.of_tool(tool, record, "input", name, kind)
                self.files.example_of(file, parameter)
                self.readers.setdefault(path, []).append((step, parameter))
                if path in self.producers:
                    parameters.connect(step, self.producers[path], parameter)
                found[file.id] = file  # once, though it may be given for two
        return list(found.values())

    def _values(self, record: Record) -> list[Entity]:
        tool, step, found = self.tools.tool(record), self.tools.step(record), []
        given = parameters.leaves(record.content["params"])
        if record.content["seed"] is not None:
            given["seed"] = record.content["seed"]
        for name, value in given.items():
            kind = parameters.kind_of(value)
            parameter = parameters.of_tool(tool, record, "params", name, kind)
            self.told[parameter.id] = step, parameter
            found.append(parameters.value(parameter, name, value))
        return found

    def _outputs(self, record: Record) -> list[Entity]:
        tool, found = self.tools.tool(record), []
        for name, versions in parameters.slots(record.content["output"]).items():
            for path, digest in versions:
                file = self.files.entity(path, digest)
                kind = parameters.kind_of_file(file)
                self.producers[path] = parameters.of_tool(tool, record, "output", name, kind)
                self.files.example_of(file, self.producers[path])
                found.append(file)
        return found

    def _usage(self, name: str, time: dict[str, Any]) -> list[Entity]:
        found = []
        for key, (meaning, unit) in USAGE.items():
            if time.get(key) is not None:
                term = {"name": key, "description": meaning}
                quantity = entity(self.crate, f"#quantity/{key}", "DefinedTerm", **term)
                measured = {"propertyID": quantity.id, "unitCode": unit, "value": str(time[key])}
                identifier = f"#job/{name}/{key}"
                found.append(entity(self.crate, identifier, "PropertyValue", name=key, **measured))
        return found

    def _circumstances(self, record: Record) -> list[Entity]:
        """Where a job ran, at which commit, and what a second run must reproduce."""
        git = record.content.get("git") or {}
        known = {
            **record.content.get("machine", {}),
            "reproduces": record.content.get("reproduces"),
            "git commit": git.get("commit"),
            "git patch": git.get("patch"),  # there if the tree differed from the commit
        }
        found = []
        for name, value in known.items():
            if value is not None:
                text = value if isinstance(value, str) else json.dumps(value)
                where = f"#circumstance/{sha256(f'{name} {text}'.encode()).hexdigest()[:12]}"
                found.append(entity(self.crate, where, "PropertyValue", name=name, value=text))
        return found


def _told(record: Record) -> str:
    told = "The record beside its outputs has the command that repeats this job by hand"
    if warned := record.content.get("warnings"):
        told += f"; it warned: {'; '.join(map(str, warned))}"
    return f"{told}; but that record was altered after the job wrote it" if record.altered else told
