"""The record beside a model, in the form of a job's, and the lineage that records show."""

import hashlib
import json
import math
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch

from ffmerge.compression.batches import Batch, Data
from ffmerge.compression.source import SourceModel
from ffmerge.models.pretrained import SOURCE
from provenance import record as job_record
from provenance.digest import sha256_of
from provenance.record import read_record

RECORD_FILE = "ffmerge_record.json"


def inputs(source: SourceModel, files: Sequence[Path] | None, data: Data) -> dict[str, Any]:
    """Digests of the inputs: the model's files and the data. files: None for batches."""
    return {
        "name": source.name,
        "revision": source.revision,
        "model": model_digests(source),
        "data": data_digests(files, data.features, data.held_out),
    }


def data_digests(files: Sequence[Path] | None, *batches: Sequence[Batch]) -> dict[str, str]:
    """Digests of files of data, by name; if they are None, of all parts of the user's batches."""
    if files is None:
        return {"batches": digest_of_batches(batches)}
    return {str(file): sha256_of(file) for file in files}


def model_digests(source: SourceModel) -> dict[str, str]:
    """Digests of a model's files, by name."""
    files = (source.directory / "config.json", *source.weights)
    return {file.name: sha256_of(file) for file in files}


def write(
    directory: Path,
    inputs: dict[str, Any],
    params: dict[str, Any],
    result: dict[str, Any],
    started: float,
    command: str | None,
    step: str,
) -> str:
    """Write the record of a directory's content, and return its digest.

    inputs: with digests. result: plain values. started: seconds since the epoch. command: None if
    called from Python. step: compress, compare, tune or export. The record leaves out the model
    card, which holds the record's digest.
    """
    state, patch = job_record.git_state()
    if state and "patch" in state:
        job_record.write_atomically(directory / state["patch"], patch)
    files = {file.relative_to(directory).as_posix(): file for file in directory.rglob("*")}
    files = {
        name: files[name] for name in sorted(files) if name[0] != "." and files[name].is_file()
    }
    content = {
        "format": job_record.FORMAT,
        "step": step,
        "command": command,
        "params": params,
        "input": inputs,
        "output": {name: sha256_of(file) for name, file in files.items()},
        "result": finite({key: result[key] for key in result if key not in ("record", "warnings")}),
        "code": {"files": job_record.source_digests(Path(__file__))},
        "git": state,
        "environment": job_record.environment(),
        "machine": job_record.machine(torch.get_num_threads()),
        "time": {
            "started": _iso(started),
            "ended": _iso(time.time()),
            "seconds": round(time.time() - started, 3),
            **job_record.usage(),
        },
        "warnings": result["warnings"],
    }
    job_record.write_record(directory / RECORD_FILE, content)
    return read_record(directory / RECORD_FILE)["digest"]


def digest_of_batches(parts: Sequence[Sequence[Batch]]) -> str:
    """sha256 over the tensors of batches, and where each part begins."""
    whole = hashlib.sha256()
    for batches in parts:
        whole.update(f"{len(batches)} batches\n".encode())
        for key, value in (item for batch in batches for item in sorted(batch.items())):
            whole.update(f"{key} {value.dtype} {tuple(value.shape)}\n".encode())
            whole.update(value.contiguous().reshape(-1).view(torch.uint8).numpy().data)
    return whole.hexdigest()


def finite(value: Any) -> Any:
    """Replace the numbers that JSON lacks, NaN and infinities, by None in plain values."""
    if isinstance(value, dict):
        return {key: finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [finite(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _iso(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="seconds")


# --- lineage --------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Lineage:
    """The origin of a merged model, from records that match its files. Every part may be missing.

    records: step -> digest of its record. base_model: its directory, if it still exists. origin:
    `repository` and `revision` on a hub, or a package. method: permute or vanilla. tuned: whether
    it was fine-tuned. losses: on held-out data, of each step of the tool in turn: `step`, `of`,
    `before`, `after`, `n_held_out`. score: `metric` and `score` on the test split. name: the
    original's, as the user gave it, or of the base model's directory.
    """

    records: dict[str, str] = field(default_factory=dict)
    base_model: Path | None = None
    origin: dict[str, Any] = field(default_factory=dict)
    method: str | None = None
    tuned: bool | None = None
    losses: list[dict[str, Any]] = field(default_factory=list)
    score: dict[str, Any] | None = None
    name: str | None = None

    def as_json(self) -> dict[str, Any]:
        """All of it as plain values, except where the base model is on this machine."""
        return {key: value for key, value in asdict(self).items() if key != "base_model"}


def lineage_from(name: str, revision: str | None, **more: Any) -> Lineage:
    """The lineage of a user's original, or of what was made from it. revision: on the hub."""
    origin = {"repository": name, "revision": revision} if revision else {}
    return Lineage(origin=origin, name=name, **more)


def lineage_of(model: Path) -> Lineage:
    """Read the lineage of a model that `ffmerge compress` or the workflow wrote.

    Raises ValueError naming a file that differs from its record.
    """
    if (model / RECORD_FILE).exists():
        outputs = {name: model / name for name in read_record(model / RECORD_FILE)["output"]}
        record = _checked(model / RECORD_FILE, outputs)
        step, result = record.get("step", "export"), record["result"]
        losses = (
            [{"step": step, **result["loss"], "n_held_out": result["n_held_out"]}]
            if "loss" in result
            else []
        )
        if "lineage" in record["input"]:  # the model is an export, or tuned
            earlier = Lineage(**record["input"]["lineage"])
            return replace(
                earlier,
                records={**earlier.records, step: record["digest"]},
                tuned=step == "tune" or earlier.tuned,
                losses=earlier.losses + losses,
                score=None if step == "tune" else earlier.score,
            )
        return lineage_from(
            record["input"]["name"],
            record["input"]["revision"],
            records={"compress": record["digest"]},
            method=record["params"]["method"],
            tuned=False,
            losses=losses,
        )
    if job_record_of(model).exists():
        return _of_workflow(model)
    return Lineage()


def _of_workflow(model: Path) -> Lineage:
    made = _checked(job_record_of(model), {"model": model})
    tuned = made["rule"] == "fine_tune"
    records, merged, score = {made["rule"]: made["digest"]}, None if tuned else made, None
    if tuned and (before := job_record_of(model.with_name("compressed"))).exists():
        merging = read_record(before)
        if merging["output"]["model"]["sha256"] == made["input"]["model"]["sha256"]:
            merged, records = merging, {merging["rule"]: merging["digest"], **records}
    test, tested = model.with_name("test.json"), model.with_name("test.record.json")
    if test.exists() and tested.exists():
        scoring = _checked(tested, {"score": test})
        if scoring["input"]["model"]["sha256"] == made["output"]["model"]["sha256"]:
            records[scoring["rule"]] = scoring["digest"]
            score = {key: json.loads(test.read_text())[key] for key in ("metric", "score")}
    base_model = _beside(
        model, made["output"]["model"]["path"], made["input"]["base_model"]["path"]
    )
    source = base_model / SOURCE if base_model else None
    return Lineage(
        records,
        base_model,
        json.loads(source.read_text()) if source and source.exists() else {},
        merged["params"].get("method") if merged else None,
        tuned,
        score=score,
        name=base_model.name if base_model else None,
    )


def job_record_of(model: Path) -> Path:
    """The record of a model's directory in a workflow."""
    return model.with_name(f"{model.name}.record.json")


def _checked(record: Path, outputs: dict[str, Path]) -> dict[str, Any]:
    """Read a record and check outputs against it. outputs: names in the record -> their paths."""
    content = read_record(record)
    for name, path in outputs.items():
        recorded = content["output"][name]
        if sha256_of(path) != (recorded if isinstance(recorded, str) else recorded["sha256"]):
            raise ValueError(
                f"{path} is not what {record} says it was when it was made; make it again"
            )
    return content


def _beside(model: Path, recorded: str, path: str) -> Path | None:
    """Find a directory by its path in a record, if it exists. recorded: the model's path there."""
    whole = model.resolve().as_posix()
    root = Path(whole.removesuffix(recorded)) if whole.endswith(f"/{recorded}") else Path()
    return root / path if (root / path).is_dir() else None
