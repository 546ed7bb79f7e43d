"""Describe a collection as a Provenance Run Crate (Workflow Run RO-Crate 0.5, on RO-Crate 1.1).

The Snakefile is the workflow, each rule a step, each script with its code and environment a tool,
and each job an action: all read from the jobs' records. No record says who ran the jobs, so neither
does the crate.
"""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import quote

from rocrate.model.entity import Entity
from rocrate.rocrate import ROCrate

from provenance.collect.collection import Collection
from provenance.collect.crate_jobs import (
    COMPLETED,
    Files,
    Jobs,
    connect,
    entity,
    kind_of_file,
    link,
    parameter,
)
from provenance.hashing import read_bounded
from provenance.project import PROJECT, configurations_of
from provenance.records import Mapped, Maybe, read_checked

RUN_TERMS = "https://w3id.org/ro/terms/workflow-run#"
TERMS = {  # beyond RO-Crate 1.1; written into the crate, so that nothing else has to be fetched
    "buildInstructions": "https://codemeta.github.io/terms/buildInstructions",
    **{
        term: RUN_TERMS + term
        for term in (
            *("ContainerImage", "ParameterConnection", "connection", "containerImage"),
            *("resourceUsage", "sha256", "sourceParameter", "targetParameter"),
        )
    },
}
CITATION = {  # what is read of CITATION.cff
    "license": Maybe(str),
    "authors": Maybe([{"name": str}]),
    "preferred-citation": Maybe({"title": str}),
}
SOURCES = {  # of the embedded data
    "packages": Mapped({"licence": str}),
    "data": [{"path": str, "packages": [str]}],
}
FAILED = "http://schema.org/FailedActionStatus"
ACTIONS = ("CreateAction", "ControlAction", "OrganizeAction")
PROFILES = {
    "https://w3id.org/ro/wfrun/process/0.5": "Process Run Crate",
    "https://w3id.org/ro/wfrun/workflow/0.5": "Workflow Run Crate",
    "https://w3id.org/ro/wfrun/provenance/0.5": "Provenance Run Crate",
    "https://w3id.org/workflowhub/workflow-ro-crate/1.0": "Workflow RO-Crate",
}


def write_crate(chosen: Collection, folder: Path, digests: Mapping[str, str]) -> None:
    """Write `ro-crate-metadata.json` about a collection that was copied to a folder.

    digests: path in the folder -> sha256. The same collection gives the same bytes.
    """
    crate = ROCrate(version="1.1")
    crate.metadata.extra_terms.update(TERMS)
    files = Files(crate, folder, digests)
    workflow = _add_workflow(files)
    jobs = Jobs(workflow, chosen, files)
    for record in chosen.ancestry:
        jobs.add(record)
    for path in digests:
        files.entity(path)
    _add_run(chosen, files, jobs, workflow)
    for path, names in _licences_of_data(folder).items():
        if path in chosen.recorded:
            file = files.entity(path, chosen.recorded[path])
            file["license"] = [_licence(crate, name) for name in names]
    _describe(crate, chosen, workflow, folder)
    _compact(crate)
    crate.metadata.write(folder)


def _add_workflow(files: Files) -> Entity:
    """Add the Snakefile as the main workflow; its steps and tools come with the jobs."""
    name, pyproject = str(PROJECT.snakefile), files.folder / "pyproject.toml"
    told = read_bounded(pyproject).decode(errors="replace") if pyproject.is_file() else ""
    version = re.search(r'(?ms)^\[project\]$.*?^version = "([^"\n]{1,50})"$', told)
    workflow = files.crate.add_workflow(
        files.folder / name,
        name,
        main=True,
        lang="snakemake",
        lang_version=_locked(files.folder, "snakemake"),
        properties={
            "@type": ["File", "SoftwareSourceCode", "ComputationalWorkflow", "HowTo"],
            "name": name,
            "sha256": files.digests[name],
            **({"version": version[1]} if version else {}),
        },
    )
    files.know(name, workflow)
    return workflow


def _locked(folder: Path, package: str) -> str | None:
    """Return the version of a package in the locks."""
    locks = [
        read_bounded(file).decode(errors="replace") for file in (folder / "envs").glob("*.txt")
    ]
    pinned = re.compile(rf"^{package}==([^\s;]+)", re.MULTILINE)
    versions = {version for lock in locks for version in pinned.findall(lock)}
    return versions.pop() if len(versions) == 1 else None


def _add_run(chosen: Collection, files: Files, jobs: Jobs, workflow: Entity) -> None:
    crate, version = workflow.crate, _locked(files.folder, "snakemake")
    times = [record.part("time") for record in chosen.ancestry]
    common: dict[str, Any] = {
        "startTime": min(filter(None, (time.get("started") for time in times)), default=None),
        "endTime": max(filter(None, (time.get("ended") for time in times)), default=None),
        "actionStatus": COMPLETED,
    }
    if chosen.missing:
        common |= {"actionStatus": FAILED, "error": f"missing: {', '.join(chosen.missing)}"}
    configuration = []  # the files of config/ with these results, which set all parameters
    for each in configurations_of(chosen.records.results, files.folder):
        file = files.entity(str(each.relative_to(files.folder)))
        formal = _parameter(workflow, "input", "configuration", file)
        for step, target in jobs.settings.values():
            connect(step, formal, target)
        configuration.append(file)
    origins = []  # the data and models that no job made, as inputs of the workflow
    for path, digest in chosen.records.origins(*chosen.targets).items():
        file = files.entity(path, digest)
        formal = _parameter(workflow, "input", path, file)
        for step, target in jobs.readers.get(path, []):
            connect(step, formal, target)
        origins.append(file)
    results = []  # the tables and figures, as outputs of the workflow
    for path in chosen.targets:
        record = chosen.records.maker(path)
        if record and path in record.outputs:
            file = files.entity(path, record.outputs[path])
            connect(workflow, jobs.producers[path], _parameter(workflow, "output", path, file))
            results.append(file)
    run = entity(
        crate,
        "#run",
        "CreateAction",
        name=f"Run of the workflow for {chosen.records.results}",
        description="All jobs that these tables and figures come from, from the first to the last; "
        "they may have run on several days, on several machines and in several calls of Snakemake",
        instrument=workflow,
        object=[*configuration, *origins],
        result=results,
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
        # accepts only ControlActions; ours is an input of the workflow.
        object=jobs.controls,
        result=run,
        **common,
    )


def _parameter(workflow: Entity, slot: str, name: str, file: Entity) -> Entity:
    """Make a file the value of a formal parameter of the workflow. slot: `input` or `output`."""
    identifier = f"#workflow/{slot}/{quote(name)}"
    formal = parameter(workflow, slot, identifier, name, kind_of_file(file))
    link(file, "exampleOfWork", formal)
    return formal


def _describe(crate: ROCrate, chosen: Collection, workflow: Entity, folder: Path) -> None:
    cited, root = read_checked(folder / PROJECT.citation, CITATION), crate.root_dataset
    names = ", ".join(ledger.name for ledger in chosen.ledgers) or ", ".join(chosen.targets)
    root["name"] = f"{chosen.records.results}: {names}"
    root["description"] = (
        "Tables and figures, the ledgers of their numbers, and the records of all jobs that they "
        "come from. Weights, features and data that are not in here are named by their sha256; "
        "Within this folder, `ffmerge trace` goes from each number to what it comes from."
    )
    ended = (record.part("time").get("ended") for record in chosen.ancestry)
    root["datePublished"] = max(filter(None, ended), default=None)
    root["license"] = _licence(crate, cited.get("license", "MIT"))
    root["author"] = workflow["author"] = [
        entity(crate, f"#author/{n}", "Organization", name=author["name"])
        for n, author in enumerate(cited.get("authors", []), start=1)
    ]
    if paper := cited.get("preferred-citation"):
        root["citation"] = entity(crate, "#paper", "ScholarlyArticle", name=paper["title"])
    root["conformsTo"] = [
        entity(crate, profile, "CreativeWork", name=name, version=profile.rpartition("/")[2])
        for profile, name in PROFILES.items()
    ]
    if readme := crate.get("README.md"):
        readme["about"] = root
    root["mentions"] = [each for each in crate.contextual_entities if each.type in ACTIONS]


def _licence(crate: ROCrate, name: str) -> Entity:
    identifier = f"https://spdx.org/licenses/{name}"
    known = {"name": name, "description": f"The licence {name} of the SPDX list"}
    return entity(crate, identifier, "CreativeWork", url={"@id": identifier}, **known)


def _licences_of_data(folder: Path) -> dict[str, list[str]]:
    """Path of an embedded data file -> SPDX names of its licences, each once."""
    file = folder / PROJECT.data_sources
    if not file.is_file():
        return {}
    sources = read_checked(file, SOURCES)
    by_package = {
        name: package["licence"].split(" AND ") for name, package in sources["packages"].items()
    }
    licences = {
        data["path"]: [name for each in data["packages"] for name in by_package.get(each, [])]
        for data in sources["data"]
    }
    above = PROJECT.data_sources.parent
    return {str(above / path): list(dict.fromkeys(names)) for path, names in licences.items()}


def _compact(crate: ROCrate) -> None:
    """Write a list of one entry as that entry, and drop empty lists, as RO-Crate 1.1 recommends."""
    for each in crate.get_entities():
        content = each.as_jsonld()
        for name, value in list(content.items()):
            if value == []:
                del content[name]
            elif isinstance(value, list) and len(value) == 1:
                content[name] = value[0]
