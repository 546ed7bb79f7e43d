"""Find why a job has to run again, by comparing its record with the job that would run now."""

import json
import os
import re
import subprocess
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from provenance.dag import PlannedJob, paths
from provenance.digest import sha256_of
from provenance.hashing import read_bounded
from provenance.project import PROJECT
from provenance.records import Record, Records, a_commit
from provenance.sources import read_source

ABSENT = object()  # in place of a value that one side does not have
REASONS = {  # Snakemake's reason, where no record tells -> kind of cause, and our text
    "Incomplete output files": ("interrupted", "a job was interrupted and left its outputs"),
    "Code has changed": ("rule", "the command of a rule in workflow/rules/ is another"),
    "Software environment definition": ("environment", "the environment or image is another"),
    "Set of input files": ("inputs", "other files are read"),
    "Params have changed": ("order", "the same parameters in another order"),
}


@dataclass(frozen=True, order=True)
class Cause:
    """A change that makes jobs stale. kind: new, parameter, code, input, missing and so on.

    text: the change, the same for all jobs that it makes stale. details: where to look further.
    """

    kind: str
    text: str
    details: tuple[str, ...] = ()


def causes(job: PlannedJob, records: Records, made_before: set[str]) -> list[Cause]:
    """List why a job would run, apart from its inputs being made again.

    Empty if that is the only reason, or if it only makes temporary files again for another job.
    made_before: the outputs of jobs that would run before it.
    """
    outputs = list(paths(job.outputs))
    gone = sorted(path for path in outputs if not Path(path).exists())
    temporary = job.temporary.intersection(gone)
    missing = [path for path in gone if path not in temporary]
    file = Path(job.outputs["record"])
    record = records.by_file.get(file)
    if record is None:
        if len(missing) == len(outputs) - len(temporary):
            return [Cause("new", "not made yet")]
        return [Cause("missing", "the record is missing or unreadable", (str(file),))]
    found = [*_parameters(job, record), *_code(job, record), *_inputs(job, record, made_before)]
    if missing:
        found.append(Cause("missing", "outputs are missing", tuple(missing)))
    if not found:
        found += [Cause(*cause) for reason, cause in REASONS.items() if reason in job.reason]
    if not found and not temporary and "updated by another job" not in job.reason:
        found.append(Cause("other", f"Snakemake says: {job.reason[:200]}"))
    return found


def causes_on_disk(
    record: Record, now: Mapping[str, str | None], gone: Iterable[str]
) -> list[Cause]:
    """List what changed since a job ran, as far as files say it and without the workflow.

    now: inputs -> their sha256, None for what is not there. gone: outputs that are not there.
    """
    found = [Cause("code", file, (hint,)) for file, hint in changed_sources(record).items()]
    for path, read in record.inputs.items():
        if (found_now := now.get(path, read)) != read:
            is_now = f"{found_now[:12]}…" if found_now else "nothing"
            found.append(Cause("input", f"{path}: {read[:12]}… -> {is_now}"))
    if missing := sorted(gone):
        found.append(Cause("missing", "outputs are missing", tuple(missing)))
    return found


def _parameters(job: PlannedJob, record: Record) -> Iterator[Cause]:
    task = job.wildcards.get("task")
    for key, old, new in differences(record.part("params"), job.params):
        pinned = key.removeprefix("inputs.") if key.startswith("inputs.") else None
        name = f"content of {pinned}" if pinned else key.removeprefix("task.")
        of_task = f" of task {task}" if task and key not in PROJECT.run_parameters else ""
        yield Cause("parameter", f"{name}{of_task}: {_brief(old)} -> {_brief(new)}")
    promised = record.content.get("reproduces")
    if promised != job.reproduces:
        change = f"{_brief(promised)} -> {_brief(job.reproduces)}"
        yield Cause("class", f"what {job.rule} declares to reproduce: {change}")


def differences(old: Any, new: Any, key: str = "") -> Iterator[tuple[str, Any, Any]]:
    """Yield dotted key, old and new of each value that differs; ABSENT where there is none."""
    if isinstance(old, dict) and isinstance(new, dict):
        for name in dict.fromkeys([*old, *new]):
            below = f"{key}.{name}".lstrip(".")
            yield from differences(old.get(name, ABSENT), new.get(name, ABSENT), below)
    elif old != new:
        yield key, old, new


def _brief(value: Any) -> str:
    if value is ABSENT:
        return "nothing"
    text = json.dumps(value, ensure_ascii=False)
    if re.fullmatch(r'"[0-9a-f]{64}"', text):
        return f"{value[:12]}…"
    return text if len(text) <= 60 else f"{text[:57]}…"


def _code(job: PlannedJob, record: Record) -> Iterator[Cause]:
    if record.code_digest == job.code:
        return
    changes = changed_sources(record)
    yield from (Cause("code", file, (hint,)) for file, hint in changes.items())
    if not changes:
        yield Cause("code", f"code that {job.rule} can reach", ("none of the files that ran",))


def _inputs(job: PlannedJob, record: Record, made_before: set[str]) -> Iterator[Cause]:
    recorded = record.inputs
    for path in paths(job.inputs):
        if path in made_before:
            continue
        if path not in recorded:
            yield Cause("inputs", f"{path} is read, and was not")
        elif Path(path).exists() and (time := _modified(path)) > _modified(str(record.file)):
            now = _digest(Path(path).resolve(), time)
            if now != recorded[path]:
                yield Cause("input", f"{path}: {recorded[path][:12]}… -> {now[:12]}…")
            elif path in job.reason:  # Snakemake keeps no digest of larger files
                yield Cause("time", f"{path} is newer than what is made of it, and the same")
    for path in sorted(set(recorded).difference(paths(job.inputs))):
        yield Cause("inputs", f"{path} was read, and is not")


def _modified(path: str) -> float:
    """Return when a file, or the newest file in a directory, was modified."""
    files = [each for each in Path(path).rglob("*") if each.is_file()]
    return max(each.stat().st_mtime for each in [Path(path), *files])


@cache
def _digest(path: Path, modified: float) -> str:
    """Hash a file once for all jobs that read it; again when its time has changed."""
    return sha256_of(path)


def changed_sources(record: Record) -> dict[str, str]:
    """Return the files that ran in a job whose code has changed since -> how to see the change.

    Comments do not count. If there are none, it is those that the job could have imported.
    """
    commit = (record.part("git").get("commit") or "no commit")[:10]
    then = f", after {record.patch}" if record.patch else ""
    changed = [file for file, tree in record.trees.items() if tree_of(file) != tree]
    return {
        file: f"git diff {commit} -- {file}{then}" if Path(file).exists() else "is gone"
        for file in [each for each in changed if each in record.sources] or changed
    }


def tree_of(file: str) -> str | None:
    """Return the digest of the syntax tree of a source file; None if there is none."""
    try:
        return read_source(Path(file)).tree
    except (OSError, SyntaxError, ValueError, RecursionError, MemoryError):
        return None


@cache
def committed(commit: str, file: str) -> bytes | None:
    """Return a file as it is in a commit; None if the commit or the file is not there."""
    return _blob(f"{commit}:{file}") if a_commit(commit) else None


def _blob(name: str) -> bytes | None:
    """Read an object of the repository here, without its configuration, which can run commands."""
    objects = _objects(Path(".git"))
    if objects is None:
        return None
    with TemporaryDirectory() as empty:
        Path(empty, "refs").mkdir()
        Path(empty, "HEAD").write_text("ref: refs/heads/none")
        own = {"GIT_DIR": empty, "GIT_OBJECT_DIRECTORY": str(objects.resolve())}
        command = ["git", "cat-file", "blob", name]
        try:
            ran = subprocess.run(command, capture_output=True, check=True, env=os.environ | own)
        except (OSError, ValueError, subprocess.CalledProcessError):
            return None
    return ran.stdout


def _objects(folder: Path) -> Path | None:
    """Return where a repository keeps its objects; in a work tree, `.git` names another folder."""
    with suppress(OSError, ValueError):
        if folder.is_file():
            text = read_bounded(folder).decode().strip()
            folder = folder.parent / text.removeprefix("gitdir: ")
        common = folder / "commondir"
        folder = folder / read_bounded(common).decode().strip() if common.is_file() else folder
        return folder / "objects" if (folder / "objects").is_dir() else None
    return None
