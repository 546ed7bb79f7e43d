"""Hash files and directories."""

import hashlib
import os
from pathlib import Path

NOT_CONTENT = {".snakemake_timestamp"}  # Snakemake puts this into output directories


def sha256_of(path: Path) -> str:
    """Return the sha256 of a file, or of a directory's sorted lines `sha256  name`, one a file.

    Raises FileNotFoundError if there is neither a file nor a directory at `path`.
    """
    if not path.is_dir():
        if path.exists() and not path.is_file():  # a pipe would never end
            raise FileNotFoundError(f"{path} is no file")
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    files = sorted(p for p in path.rglob("*") if p.is_file() and p.name not in NOT_CONTENT)
    lines = [f"{sha256_of(p)}  {p.relative_to(path).as_posix()}\n" for p in files]
    return hashlib.sha256("".join(lines).encode()).hexdigest()


def is_of_the_system(path: Path) -> bool:
    """Return whether a path is in /proc or /sys, or a directory that the repository is in.

    No job's files are there, and to read them all might never end.
    """
    path = Path(os.path.realpath(path))
    return path.parts[1:2] in (("proc",), ("sys",)) or Path.cwd().is_relative_to(path)
