"""The record beside a model: what ran on what, as a job's (provenance.record)."""

import hashlib
import time
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch

from ffmerge.compression.data.parts import Data
from ffmerge.compression.data.text import Batch
from ffmerge.compression.source import Source
from provenance import record
from provenance.digest import sha256_of

FILE = "ffmerge_record.json"


def inputs(source: Source, files: Sequence[Path] | None, data: Data) -> dict[str, Any]:
    """What went in: the model's files and the data, by digest."""
    model = {
        file.name: sha256_of(file) for file in (source.directory / "config.json", *source.weights)
    }
    if files is None:
        told = {"batches": digest_of_batches([*data.features, *data.held_out])}
    else:
        told = {str(file): sha256_of(file) for file in files}
    return {"name": source.name, "revision": source.revision, "model": model, "data": told}


def write(
    directory: Path,
    given: dict[str, Any],
    params: dict[str, Any],
    result: dict[str, Any],
    started: float,
    command: str | None,
) -> str:
    """Write the record of what a directory holds, and return its digest.

    given: what went in, by digest. result: in plain values. started: seconds since the epoch.
    command: None if called from Python. The model card, which names the digest, is not in the
    record.
    """
    state = record.git_state(directory)
    if state and "patch" in state:
        state["patch"] = Path(state["patch"]).name
    files = sorted(file for file in directory.iterdir() if file.is_file() and file.name[0] != ".")
    content = {
        "format": record.FORMAT,
        "command": command,
        "params": params,
        "input": given,
        "output": {file.name: sha256_of(file) for file in files},
        "result": {key: result[key] for key in result if key not in ("record", "warnings")},
        "code": {"files": record.source_digests(Path(__file__))},
        "git": state,
        "environment": record.environment(),
        "machine": record.machine(torch.get_num_threads()),
        "time": {
            "started": _iso(started),
            "ended": _iso(time.time()),
            "seconds": round(time.time() - started, 3),
            **record.usage(),
        },
        "warnings": result["warnings"],
    }
    record.write_record(directory / FILE, content)
    return record.read_record(directory / FILE)["digest"]


def digest_of_batches(batches: Sequence[Batch]) -> str:
    """sha256 over the tensors of batches."""
    whole = hashlib.sha256()
    for batch in batches:
        for key, value in sorted(batch.items()):
            whole.update(f"{key} {value.dtype} {tuple(value.shape)}\n".encode())
            whole.update(value.contiguous().reshape(-1).view(torch.uint8).numpy().data)
    return whole.hexdigest()


def _iso(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="seconds")
