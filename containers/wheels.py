"""The Python packages of an image: what jobs import, by the hashes of a lock in envs/.

Snakemake and the tools of development stay outside. A job does not import them, and an image that
is another makes every result out of date: nobody should have to train again for a newer linter.
"""

import re
import shutil
import subprocess
import sys
from collections import defaultdict
from pathlib import Path
from zipfile import ZipFile

from packaging.requirements import Requirement

NOT_FOR_JOBS = re.compile(r"(snakemake.*|pytest|ruff|snakefmt|setuptools|uv|rocrate|selenium)$")
# The Python that the image has, in the words of a requirement's condition.
MARKERS = {
    "implementation_name": "cpython",
    "os_name": "posix",
    "platform_machine": "x86_64",
    "platform_python_implementation": "CPython",
    "platform_system": "Linux",
    "python_full_version": "3.11.2",
    "python_version": "3.11",
    "sys_platform": "linux",
}
# The newest that fits comes first, as pip has it. Debian 12 has glibc 2.36.
PLATFORMS = [f"manylinux_2_{minor}_x86_64" for minor in range(36, 4, -1)]
PLATFORMS += ["manylinux2014_x86_64", "manylinux2010_x86_64", "manylinux1_x86_64", "linux_x86_64"]

PREFIX = "usr/local"
SITE = f"{PREFIX}/lib/python3.11/dist-packages"  # Debian's name for site-packages


def requirements(lock: str) -> str:
    """The lines of a lock that the image is made from: pinned, hashed, for its own platform.

    Who wants a package stands below it in the lock (`# via …`), and leads from what requirements.in
    names to all that comes with it.
    """
    pinned: dict[str, str] = {}
    wanted_by: dict[str, set[str]] = defaultdict(set)
    for entry in re.findall(r"^[^\s#].*\n(?:[ \t].*\n)*", lock, re.M):
        requirement = Requirement(entry.partition("\n")[0].rstrip(" \\"))
        name = requirement.name
        wanted_by[name] |= {line.strip(" #") for line in entry.partition("# via")[2].split("\n")}
        if requirement.marker is None or requirement.marker.evaluate(MARKERS):
            hashes = re.findall(r"--hash=\S+", entry)
            pinned[name] = " ".join([f"{name}{requirement.specifier}", *hashes])

    direct = {name for name in pinned if "-r envs/requirements.in" in wanted_by[name]}
    needed = more = {name for name in direct if not NOT_FOR_JOBS.match(name)}
    while more:
        more = {name for name in pinned.keys() - needed if wanted_by[name] & more}
        needed = needed | more
    return "".join(f"{pinned[name]}\n" for name in sorted(needed))


def download(wanted: str, folder: Path) -> list[Path]:
    """Fetch the wheels with pip, from where its configuration says, each held against its hash.

    Raises ValueError if pip could not get one of them.
    """
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "download"]
    pip += ["--no-deps", "--require-hashes", "--only-binary=:all:", "--python-version=3.11"]
    pip += [f"--platform={platform}" for platform in PLATFORMS]
    pip += ["--progress-bar=off", "-qq", f"--dest={folder}", "--requirement=/dev/stdin"]
    if subprocess.run(pip, input=wanted, text=True).returncode:
        raise ValueError("pip could not fetch every wheel (see above)")
    return sorted(folder.glob("*.whl"))


def unpack(wheel: Path, root: Path) -> None:
    """Install a wheel below `root` but for its commands: a job starts `python`, and no other."""
    with ZipFile(wheel) as archive:
        for member in archive.infolist():
            folder, _, rest = member.filename.partition("/")
            target = f"{SITE}/{member.filename}"
            if folder.endswith(".data"):
                kind, _, rest = rest.partition("/")
                places = {"purelib": SITE, "platlib": SITE, "data": PREFIX}
                if kind not in places:
                    continue
                target = f"{places[kind]}/{rest}"
            if member.is_dir():
                continue
            file = root / target
            file.parent.mkdir(parents=True, exist_ok=True)
            with archive.open(member) as source, file.open("wb") as copy:
                shutil.copyfileobj(source, copy, 1 << 20)
            file.chmod(0o755 if member.external_attr >> 16 & 0o111 else 0o644)
