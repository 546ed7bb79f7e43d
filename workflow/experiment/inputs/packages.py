"""Download package files (.whl, .tgz, .deb) and read their members without installing them."""

import io
import tarfile
import zipfile
from collections.abc import Iterator, Sequence
from fnmatch import fnmatchcase
from pathlib import Path

from provenance.digest import sha256_of

AR_MAGIC = b"!<arch>\n"
AR_HEADER_BYTES = 60


def download_command(registry: str, name: str, version: str, file: str) -> Sequence[str]:
    """Command of the registry's own client that puts `file` into the working directory.

    registry: "pypi", "npm" or "debian". A wheel is requested by the tags in its file name, so that
    the machine's own Python and platform do not matter. Raises ValueError for another registry.
    """
    match registry:
        case "pypi":
            python, abi, platforms = file.removesuffix(".whl").split("-")[-3:]
            command = ["pip", "download", "--no-deps", "--only-binary=:all:", f"{name}=={version}"]
            python = python.split(".")[-1]  # py3 of py2.py3
            command += [f"--implementation={python[:2]}"]
            if len(python) > 3:  # pip reads a bare 3 as 3.0, which few packages support
                command += [f"--python-version={python[2:]}"]
            return [*command, f"--abi={abi}", *(f"--platform={p}" for p in platforms.split("."))]
        case "npm":
            return ["npm", "pack", "--loglevel=error", f"{name}@{version}"]
        case "debian":
            return ["apt-get", "download", f"{name}={version}"]
    raise ValueError(f"unknown registry {registry!r} of package {name}")


def check_sha256(path: Path, expected: str, name: str, advice: str) -> None:
    """Raise ValueError with `name` and `advice` unless the file has the expected digest."""
    if (actual := sha256_of(path)) != expected:
        raise ValueError(f"{name} has sha256 {actual}, expected {expected}. {advice}")


def iter_members(package: Path, pattern: str) -> Iterator[tuple[str, bytes]]:
    """Yield name and content of every regular file in `package` whose name matches `pattern`.

    Names are as stored, without a leading "./", in the archive's order. Raises ValueError if the
    package is none of the three kinds or nothing matches.
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
    """The data archive of a .deb, which is an `ar` archive, see deb(5) and ar(5).

    Each member has a header of 60 bytes (name in bytes 0-15, decimal size in 48-57) and starts at
    an even offset. Returns a tar, still compressed with gzip, bzip2 or xz, but not with Zstandard.
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
