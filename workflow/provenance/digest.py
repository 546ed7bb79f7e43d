"""sha256 of files and directories."""

import hashlib
from pathlib import Path

NOT_CONTENT = {".snakemake_timestamp"}  # put by Snakemake into a directory that a job has made


def sha256_of(path: Path) -> str:
    """Digest of a file, or of a directory: of its files' sorted lines `digest  relative/name`.

    Raises FileNotFoundError if there is nothing at `path`.
    """
    if not path.is_dir():
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    files = sorted(p for p in path.rglob("*") if p.is_file() and p.name not in NOT_CONTENT)
    lines = [f"{sha256_of(p)}  {p.relative_to(path).as_posix()}\n" for p in files]
    return hashlib.sha256("".join(lines).encode()).hexdigest()
