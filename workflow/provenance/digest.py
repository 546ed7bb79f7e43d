"""Hash files and directories."""

import hashlib
from pathlib import Path

NOT_CONTENT = {".snakemake_timestamp"}  # Snakemake puts this into output directories


def sha256_of(path: Path) -> str:
    """Return the sha256 of a file, or of a directory's sorted lines `sha256  name`, one a file.

    Raises FileNotFoundError if there is nothing at `path`.
    """
    if not path.is_dir():
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    files = sorted(p for p in path.rglob("*") if p.is_file() and p.name not in NOT_CONTENT)
    lines = [f"{sha256_of(p)}  {p.relative_to(path).as_posix()}\n" for p in files]
    return hashlib.sha256("".join(lines).encode()).hexdigest()
