"""Check the image that a job runs in: it is locked, and Python imports only from it.

Outside Apptainer there is nothing to check: the environment is .venv.
"""

import importlib.util
import json
import os
import sys
import sysconfig
from contextlib import suppress
from pathlib import Path
from typing import Any

import yaml

from provenance.digest import sha256_of
from provenance.record import write_atomically
from provenance.sources import REPOSITORY

LOCK = REPOSITORY / "containers" / "lock.yaml"
CACHE = REPOSITORY / ".cache" / "images"
IMAGE_FOLDER = Path("/.singularity.d/env")  # never a mount point
CHECKED = ("torch", "transformers", "numpy")


def container(build: str, lock: Path = LOCK) -> str:
    """Return the file of the locked image for a build (cpu, cuda), whether or not it exists."""
    return f"containers/{yaml.safe_load(lock.read_text())[build]['file']}"


def require(build: str, lock: Path = LOCK) -> None:
    """Raise SystemExit, saying how to build it, if the image for a build is not there."""
    if not (REPOSITORY / (file := container(build, lock))).is_file():
        raise SystemExit(f"error: the image {file} is not there; build it: make images ENV={build}")


def check(script: Path) -> dict[str, str] | None:
    """Return path and sha256 of the image that this process runs in; None outside Apptainer.

    Raises SystemExit if lock.yaml does not have it, or if code would come from anywhere else.
    """
    running = os.environ.get("APPTAINER_CONTAINER")
    if not running:
        return None
    digest = locked_digest(Path(running))
    check_search_path(sys.path)
    check_origins(script)
    return {"path": running, "sha256": digest}


def locked_digest(image: Path, lock: Path = LOCK, cache: Path = CACHE) -> str:
    """Return the sha256 of an image. Raises SystemExit if lock.yaml has no image with it."""
    images = yaml.safe_load(lock.read_text())
    names = {entry["file"]: build for build, entry in images.items()}
    build = names.get(image.name) or ("cuda" if "cuda" in image.name else "cpu")
    way_out = f"build the locked image: make images ENV={build}"
    if not images[build]["sha256"]:
        raise SystemExit(f"error: containers/lock.yaml has no {build} image yet; {way_out}")
    if not image.is_file():
        raise SystemExit(
            f"error: the image {image} is no file that this job can read; it has to be in "
            f"containers/; {way_out}"
        )
    digest = cached_digest(image, cache)
    if digest not in {entry["sha256"] for entry in images.values()}:
        raise SystemExit(
            f"error: the image {image} has sha256 {digest}, and containers/lock.yaml has "
            f"{images[build]['sha256']}; {way_out}"
        )
    return digest


def cached_digest(image: Path, cache: Path = CACHE) -> str:
    """Return the sha256 of a large file, computed once until the file changes.

    Every job of a workflow needs it. A file is known by path, inode, size and times: replacing or
    editing it changes one of them (ctime even if mtime is set back).
    """
    known = cache / f"{image.name}.json"
    identity = _identity(image)
    try:
        entry = json.loads(known.read_text())
        if entry["file"] == identity:
            return entry["sha256"]
    except (OSError, ValueError, KeyError, TypeError):
        pass  # not cached yet, or half written
    digest = sha256_of(image)
    if _identity(image) == identity:  # or else it changed while it was read
        with suppress(OSError):  # in a read-only folder, the next job computes it again
            write_atomically(known, json.dumps({"file": identity, "sha256": digest}).encode())
    return digest


def _identity(image: Path) -> dict[str, Any]:
    status = image.stat()
    return {
        "path": str(image),
        "inode": status.st_ino,
        "size": status.st_size,
        "mtime_ns": status.st_mtime_ns,
        "ctime_ns": status.st_ctime_ns,
    }


def check_search_path(entries: list[str]) -> None:
    """Raise SystemExit if Python looks for modules outside the image and this repository."""
    for entry in map(Path, entries):
        if entry.exists() and not (_in_repository(entry) or _in_image(entry)):
            raise SystemExit(
                f"error: Python would take modules from {entry}, which is neither in the image nor "
                "in this repository; start the job as its record says, with nothing of the host's"
            )


def check_origins(script: Path, packages: tuple[str, ...] = CHECKED) -> None:
    """Raise SystemExit unless the packages are the image's and the script is in this repository."""
    site = Path(sysconfig.get_path("purelib"))
    for name in packages:
        spec = importlib.util.find_spec(name)  # does not import it
        origin = Path(spec.origin).resolve() if spec and spec.origin else None
        if origin is None or site not in origin.parents or not _in_image(origin.parent):
            raise SystemExit(f"error: {name} is from {origin}, and not from the image's {site}")
    if REPOSITORY not in script.resolve().parents:
        raise SystemExit(
            f"error: the script {script} is not in {REPOSITORY}, where its modules are"
        )


def _in_repository(path: Path) -> bool:
    return REPOSITORY in path.resolve().parents


def _in_image(path: Path) -> bool:
    """Return whether a file or folder is part of the image, and not mounted from the host."""
    folder = path if path.is_dir() else path.parent
    prefix = Path(sys.prefix)
    inside = prefix == path.resolve() or prefix in path.resolve().parents
    return inside and folder.stat().st_dev == IMAGE_FOLDER.stat().st_dev
