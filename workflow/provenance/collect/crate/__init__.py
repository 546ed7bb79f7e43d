"""A collection as a Provenance Run Crate (Workflow Run RO-Crate 0.5, on RO-Crate 1.1).

The Snakefile is the workflow, each rule a step, each script with its code and environment a tool,
and each job an action: all of it read from the jobs' records. Who ran the jobs is in no record,
and so not here.
"""

import tomllib
from collections.abc import Mapping
from pathlib import Path

from rocrate.model.entity import Entity
from rocrate.rocrate import ROCrate

from provenance.collect.collection import Collection
from provenance.collect.crate import licences
from provenance.collect.crate.entities import compact, entity
from provenance.collect.crate.files import Files
from provenance.collect.crate.jobs import Jobs
from provenance.collect.crate.run import add_run, add_workflow
from provenance.collect.crate.tools import Tools

RUN_TERMS = "https://w3id.org/ro/terms/workflow-run#"
TERMS = {  # beyond RO-Crate 1.1's; written into the crate, so that nothing else has to be fetched
    "buildInstructions": "https://codemeta.github.io/terms/buildInstructions",
    **{
        term: RUN_TERMS + term
        for term in (
            *("ContainerImage", "ParameterConnection", "connection", "containerImage"),
            *("resourceUsage", "sha256", "sourceParameter", "targetParameter"),
        )
    },
}
ACTIONS = ("CreateAction", "ControlAction", "OrganizeAction")
PROFILES = {
    "https://w3id.org/ro/wfrun/process/0.5": "Process Run Crate",
    "https://w3id.org/ro/wfrun/workflow/0.5": "Workflow Run Crate",
    "https://w3id.org/ro/wfrun/provenance/0.5": "Provenance Run Crate",
    "https://w3id.org/workflowhub/workflow-ro-crate/1.0": "Workflow RO-Crate",
}


def write_crate(chosen: Collection, folder: Path, digests: Mapping[str, str]) -> None:
    """Write `ro-crate-metadata.json` about a collection that was copied to a folder.

    digests: path in the folder -> sha256 of what is there. The same collection gives the same
    bytes.
    """
    crate = ROCrate(version="1.1")
    crate.metadata.extra_terms.update(TERMS)
    files = Files(crate, folder, digests)
    workflow = add_workflow(crate, files, **_version(folder))
    jobs = Jobs(Tools(workflow, chosen, files), files)
    for record in chosen.records:
        jobs.add(record)
    for path in digests:
        files.entity(path)
    add_run(chosen, files, jobs, workflow)
    _licence(crate, chosen, files)
    _describe(crate, chosen, workflow, folder)
    compact(crate)
    crate.metadata.write(folder)


def _licence(crate: ROCrate, chosen: Collection, files: Files) -> None:
    """The licences of the embedded data that the run read."""
    for path, names in licences.licences_of_data(files.folder).items():
        if path in chosen.recorded:
            file = files.entity(path, chosen.recorded[path])
            file["license"] = [licences.licence(crate, name) for name in names]


def _describe(crate: ROCrate, chosen: Collection, workflow: Entity, folder: Path) -> None:
    """What the crate as a whole is."""
    cited, root = licences.citation(folder), crate.root_dataset
    names = ", ".join(ledger.name for ledger in chosen.ledgers) or ", ".join(chosen.targets)
    root["name"] = f"{chosen.evidence.results}: {names}"
    root["description"] = (
        "Tables and figures, the ledgers of their numbers, and the records of all jobs that they "
        "come from. Weights, features and data that are not in here are named by their sha256; "
        "Within this folder, `ffmerge trace` goes from each number to what it comes from."
    )
    root["datePublished"] = max(record.content["time"]["ended"] for record in chosen.records)
    root["license"] = licences.licence(crate, cited.get("license", "MIT"))
    root["author"] = workflow["author"] = licences.authors(crate, cited)
    root["citation"] = licences.paper(crate, cited)
    root["conformsTo"] = [
        entity(crate, profile, "CreativeWork", name=name, version=profile.rpartition("/")[2])
        for profile, name in PROFILES.items()
    ]
    if readme := crate.get("README.md"):
        readme["about"] = root
    root["mentions"] = [entity for entity in crate.contextual_entities if entity.type in ACTIONS]


def _version(folder: Path) -> dict[str, str]:
    file = folder / "pyproject.toml"
    known = tomllib.loads(file.read_text())["project"] if file.is_file() else {}
    return {key: known[key] for key in ("version",) if key in known}
