"""Why a job has to run again: what it was made with, by its record, against what it would be."""

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from provenance.dag import PlannedJob, paths
from provenance.digest import sha256_of
from provenance.explain.source_changes import changed_sources
from provenance.records import Evidence, Record

OF_THE_RUN = ("seed", "device")  # parameters of a task's jobs that are not the task's own
NOTHING = object()
SAID = {  # what Snakemake says of what no record tells -> kind, and our words
    "Incomplete output files": ("interrupted", "a job was interrupted and left its outputs"),
    "Code has changed": ("rule", "the command of a rule in workflow/rules/ is another"),
    "Software environment definition": ("environment", "the environment or image is another"),
    "Set of input files": ("inputs", "other files are read"),
    "Params have changed": ("order", "the same parameters in another order"),
}


@dataclass(frozen=True, order=True)
class Cause:
    """One change that makes jobs stale. kind: new, parameter, code, input, missing and so on.

    text: what changed from what to what; the same for all jobs that it is the cause of.
    details: where to look further.
    """

    kind: str
    text: str
    details: tuple[str, ...] = ()


def causes(job: PlannedJob, evidence: Evidence, made_before: set[str]) -> list[Cause]:
    """Why a job would run, apart from what it reads being made anew; empty if that is all.

    It is all, too, of a job that makes temporary weights again because another one needs them.
    made_before: the outputs of jobs that would run before it.
    """
    missing = sorted(path for path in paths(job.outputs) if not Path(path).exists())
    temporary = job.temporary.intersection(missing)
    missing = [path for path in missing if path not in temporary]
    file = Path(job.outputs["record"])
    record = evidence.records.get(file)
    if record is None:
        if len(missing) == len(list(paths(job.outputs))) - len(temporary):
            return [Cause("new", "not made yet")]
        return [Cause("missing", "the record is missing or unreadable", (str(file),))]
    found = [*_parameters(job, record), *_code(job, record), *_inputs(job, record, made_before)]
    if missing:
        found.append(Cause("missing", "outputs are missing", tuple(missing)))
    if not found:
        found += [Cause(*ours) for said, ours in SAID.items() if said in job.reason]
    if not found and not temporary and "updated by another job" not in job.reason:
        found.append(Cause("other", f"Snakemake says: {job.reason[:200]}"))
    return found


def _parameters(job: PlannedJob, record: Record) -> Iterator[Cause]:
    was, task = record.content, job.wildcards.get("task")
    for key, old, new in differences(was["params"], job.params):
        pinned = key.removeprefix("inputs.") if key.startswith("inputs.") else None
        name = f"content of {pinned}" if pinned else key.removeprefix("task.")
        of_task = f" of task {task}" if task and key not in OF_THE_RUN else ""
        yield Cause("parameter", f"{name}{of_task}: {_brief(old)} -> {_brief(new)}")
    if was["reproduces"] != job.reproduces:
        change = f"{_brief(was['reproduces'])} -> {_brief(job.reproduces)}"
        yield Cause("class", f"what {job.rule} declares to reproduce: {change}")


def differences(old: Any, new: Any, key: str = "") -> Iterator[tuple[str, Any, Any]]:
    """Dotted key, old and new of each value that differs (NOTHING where there is none)."""
    if isinstance(old, dict) and isinstance(new, dict):
        for name in dict.fromkeys([*old, *new]):
            below = f"{key}.{name}".lstrip(".")
            yield from differences(old.get(name, NOTHING), new.get(name, NOTHING), below)
    elif old != new:
        yield key, old, new


def _brief(value: Any) -> str:
    if value is NOTHING:
        return "nothing"
    text = json.dumps(value, ensure_ascii=False)
    if re.fullmatch(r'"[0-9a-f]{64}"', text):
        return f"{value[:12]}…"
    return text if len(text) <= 60 else f"{text[:57]}…"


def _code(job: PlannedJob, record: Record) -> Iterator[Cause]:
    if record.content["code"]["digest"] == job.code:
        return
    changes = changed_sources(record)
    for change in changes:
        yield Cause("code", change.file, (change.hint,))
    if not changes:
        yield Cause("code", f"code that {job.rule} can reach", ("none of the files that ran",))


def _inputs(job: PlannedJob, record: Record, made_before: set[str]) -> Iterator[Cause]:
    was = record.inputs
    for path in paths(job.inputs):
        if path in made_before:
            continue
        if path not in was:
            yield Cause("inputs", f"{path} is read, and was not")
        elif Path(path).exists() and (time := _time(path)) > _time(str(record.file)):
            now = _digest(Path(path).resolve(), time)
            if now != was[path]:
                yield Cause("input", f"{path}: {was[path][:12]}… -> {now[:12]}…")
            elif path in job.reason:
                # of larger files Snakemake keeps no digest
                yield Cause("time", f"{path} is newer than what is made of it, and the same")
    for path in set(was).difference(paths(job.inputs)):
        yield Cause("inputs", f"{path} was read, and is not")


def _time(path: str) -> float:
    """Of a directory, that of the newest file in it."""
    files = [each for each in Path(path).rglob("*") if each.is_file()]
    return max(each.stat().st_mtime for each in [Path(path), *files])


@cache
def _digest(path: Path, time: float) -> str:
    """Computed once for all jobs that read a file; `time` is what tells that it changed."""
    return sha256_of(path)
