"""Fetch, unpack and convert the paper's real inputs into the files that the workflow reads."""

import lzma
import tarfile
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

NEEDS_NETWORK = "this job runs on a node that has a network"
MAX_MEMBER_BYTES = 1 << 30  # of a file in an archive that is read as a whole
DAMAGED = (tarfile.TarError, zipfile.BadZipFile, EOFError, zlib.error, lzma.LZMAError)


@contextmanager
def whole(archive: Path) -> Iterator[None]:
    """Raise ValueError naming the archive if it turns out to be damaged or cut off."""
    try:
        yield
    except DAMAGED as error:
        raise ValueError(f"{archive} is damaged or cut off: {error}") from None
    except OSError as error:
        if error.errno is not None:  # of the disk, and not of gzip or bzip2
            raise
        raise ValueError(f"{archive} is damaged or cut off: {error}") from None


def check_size(archive: Path, member: str, n_bytes: int) -> None:
    """Raise ValueError if a member claims to be too large to be read."""
    if n_bytes > MAX_MEMBER_BYTES:
        raise ValueError(
            f"{archive}: {member} has {n_bytes:,} bytes, more than {MAX_MEMBER_BYTES:,}"
        )
