"""Download package files (.whl, .tgz, .deb) and read their members without installing them."""

import io
import os
import re
import shutil
import subprocess
import tarfile
import tempfile
import zipfile
from collections.abc import Iterator, Sequence
from fnmatch import fnmatchcase
from pathlib import Path
from typing import BinaryIO

from experiment.inputs import MAX_MEMBER_BYTES, check_size, whole
from provenance.digest import sha256_of

_NAME = r"[A-Za-z0-9](?:[A-Za-z0-9._+-]*[A-Za-z0-9+])?"
REGISTRIES = {  # registry -> patterns of a package's name, version and file
    "pypi": (_NAME, r"[A-Za-z0-9][A-Za-z0-9.!+_-]*", r"[\w.+!-]+(?:-[\w.]+){3}\.whl"),
    "npm": (rf"(?:@{_NAME}/)?{_NAME}", r"\d+\.\d+\.\d+(?:[-+][A-Za-z0-9.+-]+)?", r"[\w.+-]+\.tgz"),
    "debian": (_NAME, r"[A-Za-z0-9][A-Za-z0-9.+:~-]*", r"[\w.+:~%-]+\.deb"),
}
AR_MAGIC = b"!<arch>\n"
AR_HEADER_BYTES = 60


def check_names(registry: str, name: str, version: str, file: str) -> None:
    """Raise ValueError unless name, version and file are ones that a registry gives a package.

    A client also takes a URL, a folder or an option there, and would build what it finds.
    """
    if registry not in REGISTRIES:
        raise ValueError(f"registry: has to be one of {', '.join(REGISTRIES)} (is {registry!r})")
    given = {"name": name, "version": version, "file": file}
    for (key, value), pattern in zip(given.items(), REGISTRIES[registry], strict=True):
        if not re.fullmatch(pattern, value, re.ASCII):
            raise ValueError(
                f"{key}: has to be the {key} of a package of {registry} (is {value!r})"
            )


def download_command(registry: str, name: str, version: str, file: str) -> Sequence[str]:
    """Command of the registry's own client that puts `file` into the working directory.

    registry: "pypi", "npm" or "debian". A wheel is requested by the tags in its file name, so that
    the machine's own Python and platform do not matter. Raises ValueError as `check_names` does.
    """
    check_names(registry, name, version, file)
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


def fetch_package(
    registry: str, name: str, version: str, file: str, sha256: str, destination: Path
) -> None:
    """Copy a package file to `destination`, from the folder FFMERGE_PACKAGES or from its registry.

    Raises OSError if the registry's client is missing or fails, ValueError for another digest.
    """
    with tempfile.TemporaryDirectory() as folder:
        package = Path(os.environ.get("FFMERGE_PACKAGES") or folder, file)
        if not package.exists():
            package = _download(registry, name, version, file, Path(folder))
        check_sha256(
            package,
            sha256,
            file,
            f"This is not the {registry} package {name} {version} that was asked for. Fetch it "
            "again; if it differs again, the registry has replaced it: look at what changed before "
            "resources/demo/sources.yaml or the configuration, whichever names it, is given the "
            "new digest.",
        )
        shutil.copyfile(package, destination)


def _download(registry: str, name: str, version: str, file: str, folder: Path) -> Path:
    command = download_command(registry, name, version, file)
    package = f"{registry} package {name} {version}"
    advice = (
        f"If the registry no longer has this version, put {file} from an archive into a folder and "
        "name the folder in the environment variable FFMERGE_PACKAGES."
    )
    if shutil.which(command[0]) is None:
        raise OSError(f"{package} needs the program {command[0]}, which is not here. {advice}")
    if subprocess.run(command, cwd=folder).returncode != 0:
        raise OSError(f"{package} was not downloaded: {' '.join(command)} failed. {advice}")
    if not (folder / file).exists():
        files = ", ".join(path.name for path in folder.iterdir()) or "nothing"
        raise OSError(f"{package} came as {files}, not as {file}. {advice}")
    return folder / file


def check_sha256(path: Path, expected: str, name: str, advice: str) -> None:
    """Raise ValueError with `name` and `advice` unless the file has the expected digest."""
    if (actual := sha256_of(path)) != expected:
        raise ValueError(f"{name} has sha256 {actual}, expected {expected}. {advice}")


def iter_members(package: Path, pattern: str) -> Iterator[tuple[str, bytes]]:
    """Yield name and content of every regular file in `package` whose name matches `pattern`.

    Names are as stored, without a leading "./", in the archive's order. Raises ValueError if the
    package is none of the three kinds, is damaged, or nothing matches.
    """
    n_matching = 0
    with whole(package):
        for name, content in _iter_files(package, pattern):
            n_matching += 1
            yield name, content
    if n_matching == 0:
        raise ValueError(f"{package.name} holds no file that matches {pattern!r}")


def _iter_files(package: Path, pattern: str) -> Iterator[tuple[str, bytes]]:
    if package.suffix == ".whl":
        with zipfile.ZipFile(package) as wheel:
            for member in wheel.infolist():
                if fnmatchcase(member.filename, pattern):
                    check_size(package, member.filename, member.file_size)
                    yield member.filename, wheel.read(member)
    elif package.suffix in (".tgz", ".deb"):
        with package.open("rb") as file:
            tar = file if package.suffix == ".tgz" else _debian_data(file)
            with tarfile.open(fileobj=tar, mode="r:*") as archive:
                for member in archive:
                    name = member.name.removeprefix("./")
                    if member.isfile() and fnmatchcase(name, pattern):
                        check_size(package, name, member.size)
                        yield name, archive.extractfile(member).read()
    else:
        raise ValueError(f"{package.name} is not a wheel, an npm tarball or a Debian package")


def _debian_data(package: BinaryIO) -> BinaryIO:
    """The data archive of a .deb, which is an `ar` archive, see deb(5) and ar(5).

    Returns a tar, still compressed with gzip, bzip2 or xz, but not with Zstandard.
    """
    if package.read(len(AR_MAGIC)) != AR_MAGIC:
        raise ValueError("not a Debian package: the ar signature is missing")
    while header := package.read(AR_HEADER_BYTES):  # name in bytes 0-15, decimal size in 48-57
        name, digits = header[:16].decode("ascii", "replace").strip().rstrip("/"), header[48:58]
        if not digits.strip().isdigit():
            raise EOFError("an ar header without a size")
        size = int(digits)
        if name == "data.tar.zst":
            import zstandard

            try:
                content = zstandard.ZstdDecompressor().stream_reader(package.read(size))
                return io.BytesIO(content.read(MAX_MEMBER_BYTES))
            except zstandard.ZstdError as error:
                raise EOFError(error) from None
        if name.startswith("data.tar"):
            return io.BytesIO(package.read(size))
        package.seek(size + size % 2, io.SEEK_CUR)  # members start at even offsets
    raise ValueError("not a Debian package: it has no data.tar")
