"""Hash files on disk: many at once for `verify`, small ones in passing for the other commands."""

import hashlib
import os
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from provenance.digest import NOT_CONTENT, is_of_the_system, sha256_of
from provenance.progress import progress

OMITTED = Path("left-behind.txt")  # in a collected folder: the files that were not copied
COLLECTED = (OMITTED, Path("ro-crate-metadata.json"))  # each marks a folder as collected
SAME, ALTERED, GONE, UNREAD = "as recorded", "altered", "gone", "not rehashed"
LEFT = "left behind"  # not copied when this folder was collected
SMALL_BYTES = 1 << 20  # larger files, and directories, are left to `verify`
MAX_BYTES = 1 << 28  # of a file that is read whole, such as a record
MAX_HOLES = 1 << 32  # bytes that a file claims to have and the disk does not hold


@dataclass(frozen=True)
class Digests:
    """Digests of files and directories. of: path -> sha256, None for what is not there."""

    of: dict[str, str | None]
    n_files: int
    n_bytes: int


def digests(paths: Iterable[str]) -> Digests:
    """Hash files and directories on all processors, each file once.

    In place of the digest of a file that cannot be read stands the error.
    """
    contents = {path: _files(Path(path)) for path in dict.fromkeys(paths)}
    files = sorted({file for listed in contents.values() for file in listed or ()})
    sizes = [0 if has_holes(file) else file.stat().st_size for file in files]
    bar = progress(total=sum(sizes), desc="hashing")
    bar.unit, bar.unit_scale = "B", True
    hashed: dict[Path, str] = {}
    with bar, ThreadPoolExecutor(len(os.sched_getaffinity(0))) as threads:  # hashlib has no GIL
        for file, size, digest in zip(files, sizes, threads.map(_digest, files), strict=True):
            hashed[file] = digest
            bar.update(size)
    combined = {path: _combined(Path(path), of, hashed) for path, of in contents.items()}
    return Digests(combined, len(files), sum(sizes))


def _files(path: Path) -> list[Path] | None:
    """Return the files whose bytes a path stands for, in the order of provenance.digest."""
    if is_of_the_system(path):
        return None
    if path.is_dir():
        return sorted(p for p in path.rglob("*") if p.is_file() and p.name not in NOT_CONTENT)
    return [path] if path.is_file() else None


def _digest(file: Path) -> str:
    if has_holes(file):
        return "cannot be read: most of it is not on the disk"
    try:
        return sha256_of(file)
    except OSError as error:
        return f"cannot be read: {error.strerror}"


def _combined(path: Path, files: list[Path] | None, hashed: dict[Path, str]) -> str | None:
    if files is None or not path.is_dir():
        return hashed[path] if files else None
    lines = [f"{hashed[file]}  {file.relative_to(path).as_posix()}\n" for file in files]
    return hashlib.sha256("".join(lines).encode()).hexdigest()


def has_holes(path: Path) -> bool:
    """Return whether a file, or one in a directory, is far larger than what the disk holds of it.

    No job leaves such a file, and to read it might never end.
    """
    files = (_files(path) or ()) if path.is_dir() else [path]
    return any(each.st_size - 512 * each.st_blocks > MAX_HOLES for each in map(Path.stat, files))


def read_bounded(file: Path) -> bytes:
    """Read a file that anybody may have written. Raises ValueError naming it if it has no end."""
    try:
        if not file.is_file():  # a pipe would never end
            raise ValueError("no such file")
        if file.stat().st_size > MAX_BYTES:
            raise ValueError(f"it has more than {MAX_BYTES:,} bytes")
        return file.read_bytes()
    except (OSError, ValueError) as error:
        raise ValueError(f"{file} cannot be read: {error}") from None


def digest_if_small(path: str) -> str:
    """Return the sha256 of a small file; of another UNREAD, and of what is not there GONE."""
    file = Path(path)
    small = file.is_file() and file.stat().st_size <= SMALL_BYTES
    if small and not is_of_the_system(file):
        return sha256_of(file)
    return UNREAD if file.is_file() or file.is_dir() else GONE


def is_collected(root: Path = Path()) -> bool:
    """Return whether a folder was collected, perhaps by others: nothing of it is executed."""
    return any(os.path.lexists(root / mark) for mark in COLLECTED)


def omitted_files(root: Path = Path()) -> dict[str, str]:
    """Path -> sha256 of what was not collected into this folder, such as weights and data.

    Raises ValueError for a file that cannot be read, or a line that has no digest and path.
    """
    if not os.path.lexists(root / OMITTED):
        return {}
    text = read_bounded(root / OMITTED).decode(errors="replace")
    pairs = [line.split("  ", 1) for line in text.splitlines()]
    if any(len(pair) != 2 for pair in pairs):
        raise ValueError(f"{root / OMITTED} has a line that is not a digest and a path")
    return {path: digest for digest, path in pairs}
