"""sha256 of many files and directories at once, each file read once, by all processors."""

import hashlib
import os
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from provenance.digest import NOT_CONTENT, sha256_of
from provenance.progress import progress


@dataclass(frozen=True)
class Digests:
    """of: path -> sha256, None where nothing is; files and bytes read."""

    of: dict[str, str | None]
    files: int
    bytes: int


def digests(paths: Iterable[str]) -> Digests:
    """The digests of files and directories; of a file that cannot be read, the error."""
    contents = {path: _files(Path(path)) for path in dict.fromkeys(paths)}
    files = sorted({file for of in contents.values() for file in of or ()})
    sizes = [file.stat().st_size for file in files]
    bar = progress(total=sum(sizes), desc="hashing")
    bar.unit, bar.unit_scale = "B", True
    found: dict[Path, str] = {}
    with bar, ThreadPoolExecutor(len(os.sched_getaffinity(0))) as threads:  # hashlib has no GIL
        for file, size, digest in zip(files, sizes, threads.map(_digest, files), strict=True):
            found[file] = digest
            bar.update(size)
    return Digests(
        {path: _combined(Path(path), of, found) for path, of in contents.items()},
        len(files),
        sum(sizes),
    )


def _files(path: Path) -> list[Path] | None:
    """The files whose bytes a path stands for, in the order of provenance.digest."""
    if path.is_dir():
        return sorted(p for p in path.rglob("*") if p.is_file() and p.name not in NOT_CONTENT)
    return [path] if path.is_file() else None


def _digest(file: Path) -> str:
    try:
        return sha256_of(file)
    except OSError as error:
        return f"cannot be read: {error.strerror}"


def _combined(path: Path, files: list[Path] | None, found: dict[Path, str]) -> str | None:
    if files is None or not path.is_dir():
        return found[path] if files else None
    lines = [f"{found[file]}  {file.relative_to(path).as_posix()}\n" for file in files]
    return hashlib.sha256("".join(lines).encode()).hexdigest()
