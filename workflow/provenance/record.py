"""The record of a job: what ran on what, from which code, where and when."""

import json
import os
import platform
import re
import resource
import subprocess
import sys
from hashlib import sha256
from importlib import metadata
from pathlib import Path
from typing import Any

from provenance.digest import sha256_of
from provenance.sources import REPOSITORY, WORKFLOW

# Environment variables that choose the processor kernels of MKL, torch and oneDNN
ARITHMETIC = ("MKL_CBWR", "ATEN_CPU_CAPABILITY", "ONEDNN_MAX_CPU_ISA")

FORMAT = 1  # of the record; raised when a field changes its meaning


def digests(files: dict[str, Any]) -> dict[str, Any]:
    """Named files or lists of files -> the same names with `path` and `sha256` of each."""

    def of(value: Any) -> Any:
        if isinstance(value, list):
            return [of(item) for item in value]
        return {"path": str(value), "sha256": sha256_of(Path(value))}

    return {name: of(value) for name, value in files.items()}


def source_digests(script: Path) -> dict[str, str]:
    """sha256 of the script and of every module of the workflow, or beside it, that is loaded."""
    files = {getattr(module, "__file__", None) for module in list(sys.modules.values())}
    loaded = {
        file
        for file in (Path(file) for file in files if file)
        if WORKFLOW in file.parents or script.parent in file.parents
    }
    return {
        os.path.relpath(file, REPOSITORY): sha256_of(file) for file in sorted({script, *loaded})
    }


def git_state(patches: Path) -> dict[str, Any] | None:
    """Commit and whether the tree differed from it; the difference is kept under its own digest.

    patches: directory for `<sha256>.patch`. Returns None outside a checkout of this project, such
    as in an environment inside somebody else's repository, into which the package was installed.
    """
    top = _git("rev-parse", "--show-toplevel")
    if top is None or Path(top.removesuffix("\n")).resolve() != REPOSITORY.resolve():
        return None
    commit = _git("rev-parse", "HEAD")
    status = _git("status", "--porcelain", "--untracked-files=no")
    if commit is None or status is None:
        return None
    state: dict[str, Any] = {"commit": commit.strip(), "dirty": bool(status.strip())}
    if state["dirty"]:
        patch = (_git("diff", "HEAD") or "").encode()
        file = patches / f"{sha256(patch).hexdigest()}.patch"
        if not file.exists():
            write_atomically(file, patch)
        state["patch"] = str(file)
    return state


def _git(*arguments: str) -> str | None:
    # A clone may be another user's, such as a group's; this job runs its code in any case.
    trusting = ["git", "-c", "safe.directory=*", "-C", str(REPOSITORY)]
    try:
        return subprocess.run(
            [*trusting, *arguments],
            capture_output=True,
            text=True,
            errors="replace",
            check=True,
        ).stdout
    except (OSError, subprocess.CalledProcessError):
        return None


def installed_lock(environment: Path = Path(sys.prefix)) -> dict[str, str] | None:
    """Path and sha256 of the lock that .venv was installed from (envs/install.py).

    None if this Python is in no such environment, or if the lock changed since.
    """
    try:
        installed = (environment / "installed.txt").read_text()
        lock = REPOSITORY / "envs" / f"{installed.partition(chr(10))[0]}.txt"
        if not installed.endswith(lock.read_text()):
            return None
    except OSError:
        return None
    return {"path": os.path.relpath(lock, REPOSITORY), "sha256": sha256_of(lock)}


def environment(image: dict[str, str] | None = None) -> dict[str, Any]:
    """Python, the installed packages that are loaded, the lock they came from, the image if any.

    image: path and sha256 of the one that this process runs in (provenance.image).
    """
    names = {name.split(".")[0] for name in list(sys.modules)}
    packages = {}
    for name in sorted(names - set(sys.stdlib_module_names)):
        try:
            packages[name] = metadata.version(name)
        except (metadata.PackageNotFoundError, ValueError):
            continue
    return {
        "python": platform.python_version(),
        "packages": packages,
        "lock": None if image else installed_lock(),
        "image": image["path"] if image else None,
        "image_sha256": image["sha256"] if image else None,
    }


def machine(threads: int) -> dict[str, Any]:
    """Host, processor and its kernels, GPU if one is in use, and the SLURM job with its node."""
    torch = sys.modules.get("torch")
    gpu = torch.cuda.get_device_name() if torch and torch.cuda.is_available() else None
    return {
        "host": platform.node(),
        "cpu": _processor(),
        "gpu": gpu,
        "threads": threads,
        "arithmetic": arithmetic(),
        "slurm_job": os.environ.get("SLURM_JOB_ID"),
        "slurm_node": os.environ.get("SLURMD_NODENAME"),
    }


def arithmetic() -> dict[str, str]:
    """The environment variables that are set and choose how sums are rounded, with their values."""
    return {name: os.environ[name] for name in ARITHMETIC if name in os.environ}


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    return next((line.split(":")[1].strip() for line in lines if "model name" in line), "")


def usage() -> dict[str, float | int]:
    """Processor time in seconds and peak resident memory in bytes of this process."""
    used = resource.getrusage(resource.RUSAGE_SELF)
    return {
        "cpu_seconds": round(used.ru_utime + used.ru_stime, 3),
        "peak_memory_bytes": _peak_memory() or used.ru_maxrss,
    }


def _peak_memory() -> int | None:
    """High-water mark of this program; Linux' ru_maxrss also counts the parent it forked from."""
    try:
        lines = Path("/proc/self/status").read_text().splitlines()
    except OSError:
        return None
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM")), None)


def write_atomically(file: Path, content: bytes) -> None:
    """Write a file so that nobody ever sees half of it, on disk before it gets its name."""
    file.parent.mkdir(parents=True, exist_ok=True)
    partial = file.with_name(f".partial.{os.getpid()}.{file.name}")
    try:
        with partial.open("wb") as stream:
            stream.write(content)
            stream.flush()
            os.fsync(stream.fileno())
        os.replace(partial, file)
    finally:
        partial.unlink(missing_ok=True)


def write_record(file: Path, record: dict[str, Any]) -> None:
    """Write a record as readable JSON that begins with the digest of the rest, atomically."""
    digest = sha256(as_text(record).encode()).hexdigest()
    write_atomically(file, as_text({"digest": digest, **record}).encode())


def read_record(file: Path) -> dict[str, Any]:
    """A record, as it was written. Raises ValueError naming the file if a byte of it is another."""
    content = file.read_bytes()
    begins = re.match(rb'\{\n  "digest": "([0-9a-f]{64})",', content)
    if begins is None or sha256(b"{" + content[begins.end() :]).hexdigest() != begins[1].decode():
        raise ValueError(f"{file}: the record is not what a job wrote")
    return json.loads(content)


def as_text(content: dict[str, Any]) -> str:
    """Records and ledgers as JSON that a person can read; the same content gives the same bytes."""
    return json.dumps(content, indent=2, ensure_ascii=False, allow_nan=False) + "\n"
