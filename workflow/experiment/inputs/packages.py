"""Read the members of a package file (.whl, .tgz, .deb) where it lies, without installing it."""

import io
import tarfile
import zipfile
from collections.abc import Iterator
from fnmatch import fnmatchcase
from pathlib import Path

from provenance.digest import sha256_of

AR_MAGIC = b"!<arch>\n"
AR_HEADER_BYTES = 60


def check_sha256(path: Path, expected: str, name: str, advice: str) -> None:
    """Raise ValueError with `name` and `advice` unless the file has the expected digest."""
    if (found := sha256_of(path)) != expected:
        raise ValueError(f"{name} has sha256 {found}, expected {expected}. {advice}")


def iter_members(package: Path, pattern: str) -> Iterator[tuple[str, bytes]]:
    """Name and content of every regular file in `package` whose name matches `pattern`.

    Names are as stored, without a leading "./"; the order is the archive's. Raises ValueError for
    a file that is none of the three kinds, or when nothing matches.
    """
    n_matching = 0
    for name, content in _iter_files(package, pattern):
        n_matching += 1
        yield name, content
    if n_matching == 0:
        raise ValueError(f"{package.name} holds no file that matches {pattern!r}")


def read_member(package: Path, pattern: str) -> bytes:
    """Content of the one file in `package` that matches `pattern`; ValueError if not one."""
    members = list(iter_members(package, pattern))
    if len(members) != 1:
        raise ValueError(f"{package.name} holds {len(members)} files that match {pattern!r}, not 1")
    return members[0][1]


def _iter_files(package: Path, pattern: str) -> Iterator[tuple[str, bytes]]:
    if package.suffix == ".whl":
        with zipfile.ZipFile(package) as wheel:
            for name in wheel.namelist():
                if fnmatchcase(name, pattern):
                    yield name, wheel.read(name)
    elif package.suffix in (".tgz", ".deb"):
        with package.open("rb") as file:
            tar_bytes = file if package.suffix == ".tgz" else io.BytesIO(_debian_data(file.read()))
            with tarfile.open(fileobj=tar_bytes, mode="r:*") as archive:
                for member in archive:
                    name = member.name.removeprefix("./")
                    if member.isfile() and fnmatchcase(name, pattern):
                        yield name, archive.extractfile(member).read()
    else:
        raise ValueError(f"{package.name} is not a wheel, an npm tarball or a Debian package")


def _debian_data(package: bytes) -> bytes:
    """The data archive of a .deb: `ar` format, see deb(5) and ar(5).

    Each member has a header of 60 bytes (name in bytes 0-15, decimal size in 48-57) and starts at
    an even offset. Returns a tar, still compressed with gzip, bzip2 or xz; Zstandard is undone.
    """
    if not package.startswith(AR_MAGIC):
        raise ValueError("not a Debian package: the ar signature is missing")
    offset = len(AR_MAGIC)
    while offset < len(package):
        header = package[offset : offset + AR_HEADER_BYTES]
        name = header[:16].decode("ascii").strip().rstrip("/")
        start = offset + AR_HEADER_BYTES
        end = start + int(header[48:58])
        if name == "data.tar.zst":
            import zstandard

            return zstandard.ZstdDecompressor().stream_reader(package[start:end]).read()
        if name.startswith("data.tar"):
            return package[start:end]
        offset = end + end % 2
    raise ValueError("not a Debian package: it has no data.tar")
