"""The run as a whole: the workflow, what it was given and what it made, and the engine's part."""

import re
from pathlib import Path
from typing import Any

import yaml
from rocrate.model.entity import Entity
from rocrate.rocrate import ROCrate

from provenance.collect.collection import Collection
from provenance.collect.crate import parameters
from provenance.collect.crate.entities import entity
from provenance.collect.crate.files import Files
from provenance.collect.crate.jobs import COMPLETED, Jobs

SNAKEFILE = "workflow/Snakefile"
FAILED = "http://schema.org/FailedActionStatus"


def add_workflow(crate: ROCrate, files: Files, **properties: Any) -> Entity:
    """The Snakefile as the main workflow, whose steps and tools come with the jobs."""
    workflow = crate.add_workflow(
        files.folder / SNAKEFILE,
        SNAKEFILE,
        main=True,
        lang="snakemake",
        lang_version=_locked(files.folder, "snakemake"),
        properties={
            "@type": ["File", "SoftwareSourceCode", "ComputationalWorkflow", "HowTo"],
            "name": SNAKEFILE,
            "sha256": files.digests[SNAKEFILE],
            **properties,
        },
    )
    files.know(SNAKEFILE, workflow)
    return workflow


def add_run(chosen: Collection, files: Files, jobs: Jobs, workflow: Entity) -> None:
    """The run of the workflow, and that of Snakemake; the jobs' actions are there already."""
    crate, version = workflow.crate, _locked(files.folder, "snakemake")
    common: dict[str, Any] = {
        "startTime": min(record.content["time"]["started"] for record in chosen.records),
        "endTime": max(record.content["time"]["ended"] for record in chosen.records),
        "actionStatus": COMPLETED,
    }
    if chosen.missing:
        common |= {"actionStatus": FAILED, "error": f"missing: {', '.join(chosen.missing)}"}
    run = entity(
        crate,
        "#run",
        "CreateAction",
        name=f"Run of the workflow for {chosen.evidence.results}",
        description="All jobs that these tables and figures come from, from the first to the last; "
        "they may have run on several days, on several machines and in several calls of Snakemake",
        instrument=workflow,
        object=_configuration(chosen, files, jobs, workflow)
        + _given(chosen, files, jobs, workflow),
        result=_made(chosen, files, jobs, workflow),
        **common,
    )
    engine = {"name": "Snakemake", "url": "https://snakemake.github.io"}
    engine |= {"softwareVersion": version} if version else {}
    entity(
        crate,
        "#engine-run",
        "OrganizeAction",
        name="Run of Snakemake",
        instrument=entity(crate, "#snakemake", "SoftwareApplication", **engine),
        # The profile also wants the engine's configuration file here, but roc-validator 0.13.0
        # takes nothing but ControlActions; ours is an input of the workflow.
        object=jobs.controls,
        result=run,
        **common,
    )


def _configuration(chosen: Collection, files: Files, jobs: Jobs, workflow: Entity) -> list[Entity]:
    """The files of config/ whose results these are; the rules compute all parameters from them."""
    found = []
    for path in files.digests:
        if path.startswith("config/") and path.endswith(".yaml"):
            content = yaml.safe_load((files.folder / path).read_text())
            if content.get("results") == str(chosen.evidence.results):
                found.append(files.entity(path))
    if found:
        parameter = parameters.of_workflow(workflow, "input", "configuration", "File")
        for file in found:
            files.example_of(file, parameter)
        for step, target in jobs.told.values():
            parameters.connect(step, parameter, target)
    return found


def _given(chosen: Collection, files: Files, jobs: Jobs, workflow: Entity) -> list[Entity]:
    """What the run began with: data and models that no job made, as the workflow's parameters."""
    found = []
    for path, digest in chosen.evidence.origins(*chosen.targets).items():
        file = files.entity(path, digest)
        kind = parameters.kind_of_file(file)
        parameter = parameters.of_workflow(workflow, "input", path, kind)
        files.example_of(file, parameter)
        for step, target in jobs.readers.get(path, []):
            parameters.connect(step, parameter, target)
        found.append(file)
    return found


def _made(chosen: Collection, files: Files, jobs: Jobs, workflow: Entity) -> list[Entity]:
    """The tables and figures."""
    found = []
    for path in chosen.targets:
        record = chosen.evidence.maker(path)
        if record and path in record.outputs:
            file = files.entity(path, record.outputs[path])
            kind = parameters.kind_of_file(file)
            parameter = parameters.of_workflow(workflow, "output", path, kind)
            files.example_of(file, parameter)
            parameters.connect(workflow, jobs.producers[path], parameter)
            found.append(file)
    return found


def _locked(folder: Path, package: str) -> str | None:
    """The version of a package in the locks."""
    found = {
        version
        for lock in sorted((folder / "envs").glob("*.txt"))
        for version in re.findall(rf"^{package}==([^\s;]+)", lock.read_text(), flags=re.M)
    }
    return found.pop() if len(found) == 1 else None
