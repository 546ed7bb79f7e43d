"""A job of a chain, for people."""

from collections.abc import Iterator
from typing import Any

from provenance.file_states import GONE, LEFT, OTHER
from provenance.text_format import counted, line, plain, short, wrapped

PARAMS = 6  # lines of a job's parameters; --json has all
SHARED = {"git": "commit", "environment": "environment", "machine": "host"}
"""What most jobs of a chain have in common, and what people call it."""


def job_text(job: dict[str, Any], shared: dict[str, str], commands: bool) -> Iterator[str]:
    """The lines of a job; `shared`, which was said before, only where this one differs."""
    yield f"{job['n']:>3}  {job['name']}" + ("   RECORD ALTERED" if job["altered"] else "")
    yield from _files("input", job["inputs"])
    if job["n_other_inputs"]:
        others = counted(job["n_other_inputs"], "other file")
        yield line("", f"and {others}, for other numbers of the table", 5)
    yield from _files("output", job["outputs"])
    yield from wrapped("params", ", ".join(_flat(job["params"] or {})), 5, PARAMS)
    if job["seed"] is not None:
        yield line("seed", str(job["seed"]), 5)
    yield line("code", f"{short(job['code'])}, {counted(len(job['sources'] or {}), 'file')}", 5)
    yield line("ran", _ran(job), 5)
    yield line("must reproduce", _reproduces(job["reproduces"]), 5)
    said = in_common(job)
    for fact, of_all in shared.items():
        if said[fact] != of_all:
            yield line(SHARED[fact], said[fact], 5)
    for warning in job["warnings"] or []:
        yield line("warned", warning, 5)
    yield line("record", job["record"], 5)
    if commands:
        yield line("command", str(job["command"]), 5)


def in_common(job: dict[str, Any]) -> dict[str, str]:
    """What most jobs of a chain have in common, in words."""
    git, environment = job["git"] or {}, job["environment"] or {}
    machine, commit = job["machine"] or {}, git.get("commit")
    if git.get("dirty"):
        commit = f"{commit}, changed by {git.get('patch') or 'a patch that is not kept'}"
    lock = environment.get("lock") or {}
    where = f"{lock['path']} {short(lock['sha256'])}" if lock else "neither lock nor image"
    if environment.get("image"):
        where = f"image {environment['image']} {short(environment['image_sha256'])}"
    slurm = f"SLURM node {machine['slurm_node']}" if machine.get("slurm_node") else None
    parts = [machine.get("host"), machine.get("cpu"), machine.get("gpu"), slurm]
    return {
        "git": commit or "not recorded",
        "environment": f"Python {environment.get('python', '?')}, {where}",
        "machine": ", ".join(filter(None, parts)) or "not recorded",
    }


def file_text(path: str, entry: dict[str, Any]) -> str:
    """A file with its digest, and what is wrong with it."""
    said = {OTHER: "  ALTERED", GONE: "  GONE", LEFT: "  left behind"}.get(entry["state"], "")
    return f"{path}  {short(entry['sha256'])}{said}"


def _files(kind: str, entries: list[dict[str, Any]]) -> Iterator[str]:
    before = ""
    for each in entries:
        made_by = f"   from {each['made_by']}" if each.get("made_by") else ""
        if "maker_says" in each:
            made_by += f", WHICH MADE {short(each['maker_says'])}"
        name = "" if each["name"] == before else f"{kind} {each['name']}"
        before = each["name"]
        yield line(name, file_text(each["path"], each) + made_by, 5)


def _ran(job: dict[str, Any]) -> str:
    time, machine = job["time"] or {}, job["machine"] or {}
    if not time:
        return "not recorded"
    started = str(time.get("started")).replace("T", " ").replace("+00:00", " UTC")
    slurm = f", SLURM job {machine['slurm_job']}" if machine.get("slurm_job") else ""
    threads = counted(machine.get("threads", 0), "thread")
    return f"{started}, {time.get('seconds', 0):.1f} s, {threads}{slurm}"


def _reproduces(what: Any) -> str:
    if not isinstance(what, dict):
        return {"bits": "every bit", "decisions": "the same decisions"}.get(what, plain(what))
    return ", ".join(f"{name} within {tolerance}" for name, tolerance in what.items())


def _flat(value: Any, key: str = "") -> Iterator[str]:
    """Those that are set, by dotted name; not the digests of inputs, which the inputs have."""
    if isinstance(value, dict) and value:
        for name, below in value.items():
            if below is not None and not (key == "" and name in ("inputs", "reported")):
                yield from _flat(below, f"{key}.{name}".lstrip("."))
    else:
        yield f"{key} {plain(value)}"
