"""Write and read the record of a job: what ran on what, from which code, where and when."""

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

# Options of git's diff for a patch that can be applied, whatever the user's configuration
PLAIN = ("--binary", "--no-ext-diff", "--no-textconv", "--no-color")
PLAIN += ("--src-prefix=a/", "--dst-prefix=b/")

FORMAT = 1  # of the record; raised when a field changes its meaning


def digests(files: dict[str, Any]) -> dict[str, Any]:
    """Replace each of some named files, or lists of files, by its `path` and `sha256`."""

    def entry(value: Any) -> Any:
        if isinstance(value, list):
            return [entry(item) for item in value]
        return {"path": str(value), "sha256": sha256_of(Path(value))}

    return {name: entry(value) for name, value in files.items()}


def loaded_sources(script: Path) -> list[Path]:
    """List the script and all loaded modules of the workflow or beside the script."""
    files = {getattr(module, "__file__", None) for module in list(sys.modules.values())}
    loaded = {
        file
        for file in (Path(file) for file in files if file)
        # in a package: what Python itself loads, such as a sitecustomize.py, is not a job's import
        if WORKFLOW in file.parent.parents or script.parent in file.parents
    }
    return sorted({script, *loaded})


def source_digests(script: Path) -> dict[str, str]:
    """Hash the script and all loaded modules of the workflow or beside the script."""
    return {os.path.relpath(file, REPOSITORY): sha256_of(file) for file in loaded_sources(script)}


def git_state(patches: Path = Path()) -> tuple[dict[str, Any] | None, bytes]:
    """Return the commit and whether the tree differs from it, and the difference.

    patches: directory that the patch is for, as `<sha256>.patch`. The state is None outside a
    checkout of this project, such as where the package is installed inside another repository.
    """
    top = _git("rev-parse", "--show-toplevel")
    if top is None or Path(os.fsdecode(top.removesuffix(b"\n"))).resolve() != REPOSITORY.resolve():
        return None, b""
    commit = _git("rev-parse", "HEAD")
    status = _git("status", "--porcelain", "--untracked-files=no")
    if commit is None or status is None:
        return None, b""
    state: dict[str, Any] = {"commit": commit.strip().decode(), "dirty": bool(status.strip())}
    patch = b""
    if state["dirty"]:
        patch = _git("diff", "HEAD", *PLAIN) or b""
        state["patch"] = str(patches / f"{sha256(patch).hexdigest()}.patch")
    return state, patch


def _git(*arguments: str) -> bytes | None:
    # A clone may belong to another user, such as a group's; this job runs its code anyway.
    # Without locks: the user may be at work with git.
    trusting = ["git", "--no-optional-locks", "-c", "safe.directory=*", "-C", str(REPOSITORY)]
    try:
        return subprocess.run([*trusting, *arguments], capture_output=True, check=True).stdout
    except (OSError, subprocess.CalledProcessError):
        return None


def installed_lock(environment: Path = Path(sys.prefix)) -> dict[str, str] | None:
    """Return path and sha256 of the lock that .venv was installed from (envs/install.py).

    None if this Python is not in such an environment, or if the lock has changed since.
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
    """Describe Python, the loaded packages, the lock they came from, and the image if any.

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
    """Describe host, processor and its kernels, and the SLURM job with its node.

    gpu: those on which this process had tensors; None if it computed on the processor.
    """
    torch = sys.modules.get("torch")
    cuda = torch.cuda if torch is not None and torch.cuda.is_initialized() else None
    there = range(cuda.device_count()) if cuda else ()
    used = [cuda.get_device_name(i) for i in there if cuda.max_memory_allocated(i)]
    return {
        "host": platform.node(),
        "cpu": _processor(),
        "gpu": ", ".join(used) or None,
        "threads": threads,
        "arithmetic": arithmetic(),
        "slurm_job": os.environ.get("SLURM_JOB_ID"),
        "slurm_node": os.environ.get("SLURMD_NODENAME"),
    }


def arithmetic() -> dict[str, str]:
    """Return the environment variables that are set and choose how sums are rounded."""
    return {name: os.environ[name] for name in ARITHMETIC if name in os.environ}


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    return next((line.split(":")[1].strip() for line in lines if "model name" in line), "")


def usage() -> dict[str, float | int]:
    """Measure processor time in seconds and peak resident memory in bytes of this process."""
    used = resource.getrusage(resource.RUSAGE_SELF)
    return {
        "cpu_seconds": round(used.ru_utime + used.ru_stime, 3),
        "peak_memory_bytes": _peak_memory() or used.ru_maxrss,
    }


def _peak_memory() -> int | None:
    """Return this program's peak memory; ru_maxrss also counts the parent it forked from."""
    try:
        lines = Path("/proc/self/status").read_text().splitlines()
    except OSError:
        return None
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM")), None)


def write_atomically(file: Path, content: bytes) -> None:
    """Write a file under another name, and rename it once it is on disk."""
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


def remove_partial(file: Path) -> None:
    """Remove what `write_atomically` of a killed process left of a file. No other may be at it."""
    left = re.compile(rf"\.partial\.\d+\.(\.partial\.)?{re.escape(file.name)}")
    for path in list(file.parent.iterdir()) if file.parent.is_dir() else []:
        if left.fullmatch(path.name):
            path.unlink(missing_ok=True)


def publish(partial: Path, path: Path) -> None:
    """Give a finished file or directory its name, and its files the permissions of new files.

    safetensors writes files that only their owner can read, whatever the umask.
    """
    os.umask(umask := os.umask(0))
    for file in partial.rglob("*") if partial.is_dir() else [partial]:
        if file.is_file() and not file.is_symlink():
            file.chmod(0o666 & ~umask)
    os.replace(partial, path)


def write_record(file: Path, record: dict[str, Any]) -> None:
    """Write a record atomically, as readable JSON that begins with the digest of the rest."""
    digest = sha256(as_text(record).encode()).hexdigest()
    write_atomically(file, as_text({"digest": digest, **record}).encode())


def read_record(file: Path) -> dict[str, Any]:
    """Read a record. Raises ValueError naming the file if any byte of it has changed."""
    content = file.read_bytes()
    begins = re.match(rb'\{\n  "digest": "([0-9a-f]{64})",', content)
    if begins is None or sha256(b"{" + content[begins.end() :]).hexdigest() != begins[1].decode():
        raise ValueError(f"{file}: the record is not what a job wrote")
    return json.loads(content)


def as_text(content: dict[str, Any]) -> str:
    """Format a record or ledger as readable JSON; the same content gives the same bytes."""
    return json.dumps(content, indent=2, ensure_ascii=False, allow_nan=False) + "\n"
