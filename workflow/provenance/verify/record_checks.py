"""Whether records are what jobs wrote, and whether they agree with each other."""

import json
import shlex
from pathlib import Path
from typing import Any

from provenance.hashing import Digests
from provenance.reach import Reach
from provenance.records import Record
from provenance.verify.findings import BROKEN, MISSING, STALE, Findings

LOCKED_IMAGES = Path("containers/lock.yaml")
DESCRIBED = ("rule", "wildcards", "params", "reproduces")  # in the record and on the command line


def named_files(record: Record) -> list[str]:
    """The files beside inputs and outputs that a record names: code, lock, image, patch."""
    content = record.content
    environment, git = content.get("environment") or {}, content.get("git") or {}
    lock, image = environment.get("lock") or {}, environment.get("image")
    others = [lock.get("path"), git.get("patch"), image and image_file(image)]
    return [*sources(record), *(path for path in others if path)]


def sources(record: Record) -> dict[str, str]:
    """Path -> sha256 of the source files that ran."""
    return (record.content.get("code") or {}).get("files") or {}


def image_file(image: str) -> str:
    """Where an image is: where it was, or of that name in this repository."""
    return image if Path(image).exists() else f"containers/{Path(image).name}"


def check_record(
    record: Record, digests: Digests, locked: dict[str, Any], reach: Reach, findings: Findings
) -> None:
    """The seal of a record, its command, its environment and its patch.

    locked: content of containers/lock.yaml.
    """
    about = {"reaches": reach.of(record.file), "record": record.file}
    if record.altered:
        findings.fault(record.file, "the record is not what the job wrote", **about)
    for key, said, ran in _told_otherwise(record.content):
        why = "the record's command says otherwise"
        findings.fault(f"{record.file}: {key}", why, ran, said, **about)
    environment = record.content.get("environment") or {}
    lock, image = environment.get("lock"), environment.get("image_sha256")
    if lock and digests.of[lock["path"]] != lock["sha256"]:
        why, found = "the environment's lock was another when jobs ran", digests.of[lock["path"]]
        findings.fault(lock["path"], why, lock["sha256"], found, STALE, **about)
    if image:
        _check_image(environment, digests, locked, findings, about)
    if not lock and not image:
        findings.remark("environment", "some jobs ran in no locked environment and in no image")
    if patch := (record.content.get("git") or {}).get("patch"):
        found = digests.of[patch]
        if found != Path(patch).stem:
            state, why = (BROKEN if found else MISSING), "the patch of the tree that jobs ran from"
            findings.fault(patch, why, Path(patch).stem, found, state, **about)


def _check_image(
    environment: dict[str, Any],
    digests: Digests,
    locked: dict[str, Any],
    findings: Findings,
    about: dict[str, Any],
) -> None:
    file, recorded = image_file(environment["image"]), environment["image_sha256"]
    if (found := digests.of[file]) is None:
        findings.remark(file, "the image that jobs ran in is not here")
    elif found != recorded:
        findings.fault(file, "jobs ran in another image", recorded, found, STALE, **about)
    known = [entry.get("sha256") for entry in locked.values()]
    if recorded not in known:
        why = "the image that jobs ran in is none of those"
        findings.fault(LOCKED_IMAGES, why, recorded, known, STALE, **about)


def _told_otherwise(content: dict[str, Any]) -> list[tuple[str, Any, Any]]:
    """Key, what the record says, what its command line says; where these differ."""
    try:
        words = shlex.split(content["command"])
        script = next(i for i, word in enumerate(words) if word.endswith(".py"))
        job = json.loads(words[script + 1])
    except (KeyError, ValueError, StopIteration, IndexError, AttributeError):
        return [("command", content.get("command"), "the command of a job")]
    pairs = [(key, content.get(key), job.get(key)) for key in DESCRIBED]
    pairs.append(("code.digest", (content.get("code") or {}).get("digest"), job.get("code")))
    return [(key, said, ran) for key, said, ran in pairs if said != ran]
