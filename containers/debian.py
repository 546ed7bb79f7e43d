"""The Debian packages of the images: which, from where, and how they become a file system.

A mirror is the machine's own, as apt has it, or the one that is named. What comes from it is held
against the sha256 in debian.lock, so it does not matter which one it is.
"""

import hashlib
import io
import re
import subprocess
import tarfile
import urllib.request
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple
from urllib.parse import quote

LOCK = Path(__file__).parent / "debian.lock"

# Documentation and translations; licences (usr/share/doc/*/copyright) stay.
LEFT_OUT = re.compile(
    r"\./usr/share/(man|info|locale|lintian|bash-completion|doc-base)/.|\./usr/share/doc/.*(?<!/copyright)$"
)
MERGED = ["bin", "sbin", "lib", "lib64"]  # links into usr/, as in every Debian since 12


class Package(NamedTuple):
    """A line of debian.lock. use: `image` or `build`. path: of the file, below a mirror's root."""

    use: str
    name: str
    version: str
    sha256: str
    path: str


def locked() -> list[Package]:
    """The packages in debian.lock."""
    lines = LOCK.read_text().splitlines()
    return [Package(*line.split()) for line in lines if line and not line.startswith("#")]


def mirrors(named: str | None = None) -> list[str]:
    """Addresses to try: the named one, or else those of the machine's own apt."""
    if named:
        return [named]
    targets = ["apt-get", "indextargets", "--format", "$(REPO_URI)"]
    targets += ["Created-By: Packages", "Component: main"]
    try:
        found = subprocess.run(targets, capture_output=True, text=True, check=True).stdout.split()
    except (OSError, subprocess.CalledProcessError):
        found = []
    if not found:
        raise ValueError("apt knows no Debian mirror here; name one: make images MIRROR=…")
    return list(dict.fromkeys(found))


def fetch(package: Package, addresses: Iterable[str], cache: Path) -> Path | None:
    """The package's file, out of the cache or from the first mirror that has it; None: no one."""
    file = cache / f"{package.name}_{package.sha256[:12]}.deb"
    if file.exists() and _sha256(file.read_bytes()) == package.sha256:
        return file
    for address in addresses:
        url = f"{address.rstrip('/')}/{quote(package.path)}"
        try:
            content = urllib.request.urlopen(url, timeout=120).read()
        except (OSError, ValueError):
            continue
        if _sha256(content) == package.sha256:
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(content)
            return file
    return None


def unpack(deb: Path, root: Path) -> None:
    """Put a package's files below `root`. Its scripts are not run: nothing here needs them."""
    for name in MERGED:
        if not (root / name).is_symlink():
            (root / "usr" / name).mkdir(parents=True)
            (root / name).symlink_to(f"usr/{name}")
    with _content(deb) as archive:
        archive.extraction_filter = getattr(tarfile, "fully_trusted_filter", None)
        wanted = [member for member in archive if not LEFT_OUT.match(member.name)]
        archive.extractall(root, wanted)


def _content(deb: Path) -> tarfile.TarFile:
    """The archive `data.tar.*` inside a package, which is itself an `ar` archive."""
    with deb.open("rb") as file:
        file.seek(len("!<arch>\n"))
        while header := file.read(60):
            size = int(header[48:58])
            if header.startswith(b"data.tar"):
                return tarfile.open(fileobj=io.BytesIO(file.read(size)))
            file.seek(size + size % 2, io.SEEK_CUR)
    raise ValueError(f"{deb} is no Debian package")


def certificates(root: Path) -> None:
    """Join the certificates, which the package's own script does elsewhere."""
    each = sorted((root / "usr/share/ca-certificates").rglob("*.crt"))
    bundle = root / "etc/ssl/certs/ca-certificates.crt"
    bundle.parent.mkdir(parents=True, exist_ok=True)
    bundle.write_text("".join(file.read_text() for file in each))


def _sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()
