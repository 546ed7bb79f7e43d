"""Lock the Debian packages of the images at the versions that a mirror has now.

    python containers/lock_debian.py [--mirror URL]

Prints what is another than before. apt resolves on an empty machine, so that its answer depends on
the mirror alone.
"""

import argparse
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterable
from pathlib import Path

from debian import LOCK, Package, locked, mirrors

RELEASE, ARCHITECTURE = "bookworm", "amd64"  # Debian 12, whose Python is 3.11
KEYRING = "/usr/share/keyrings/debian-archive-keyring.gpg"

IMAGE = [
    "base-files",
    "bash",  # Snakemake starts every job with it
    "ca-certificates",  # for the jobs that fetch models and data
    "coreutils",
    "dash",  # /bin/sh
    "git",  # a job records the commit
    "grep",
    "libc-bin",  # the locale C.UTF-8
    "libgomp1",
    "libstdc++6",
    "python-is-python3",
    "python3",
    "sed",
]
BUILD = ["squashfs-tools"]  # runs during the build: its version decides about the image's bits


def resolve(address: str) -> tuple[str, list[Package]]:
    """The date of the mirror's release, and what apt would install on an empty machine."""
    with tempfile.TemporaryDirectory() as scratch:
        apt = _Apt(Path(scratch), address)
        image = apt.would_install(IMAGE)
        build = apt.would_install([*IMAGE, *BUILD])
        uses = {name: "build" for name in build} | {name: "image" for name in image}
        return apt.release_date(), sorted(apt.describe(use, name) for name, use in uses.items())


class _Apt:
    """apt with one source and a state of its own, on which nothing is installed."""

    def __init__(self, scratch: Path, address: str) -> None:
        self._lists = scratch / "lists"
        (self._lists / "partial").mkdir(parents=True)
        (scratch / "cache/archives/partial").mkdir(parents=True)
        (scratch / "status").touch()
        source = f"deb [arch={ARCHITECTURE} signed-by={KEYRING}] {address} {RELEASE} main\n"
        (scratch / "sources.list").write_text(source)
        settings = {
            "APT::Architecture": ARCHITECTURE,
            "APT::Install-Recommends": "false",
            "APT::Sandbox::User": "",
            "Dir::Cache": scratch / "cache",
            "Dir::Etc::SourceList": scratch / "sources.list",
            "Dir::Etc::SourceParts": "/dev/null",
            "Dir::State::Extended_States": scratch / "extended",
            "Dir::State::Lists": self._lists,
            "Dir::State::Status": scratch / "status",
        }
        self._options = [
            text for key, value in settings.items() for text in ("-o", f"{key}={value}")
        ]
        self._run("apt-get", "-qq", "update", "--error-on=any")

    def _run(self, program: str, *arguments: str) -> str:
        done = subprocess.run([program, *self._options, *arguments], capture_output=True, text=True)
        if done.returncode:
            raise ValueError(f"apt: {done.stderr.strip()}")
        return done.stdout

    def would_install(self, names: list[str]) -> list[str]:
        said = self._run("apt-get", "-qq", "--simulate", "install", *names)
        return re.findall(r"^Inst (\S+)", said, re.M)

    def describe(self, use: str, name: str) -> Package:
        said = self._run("apt-cache", "--no-all-versions", "show", name)
        field = dict(re.findall(r"^(Version|SHA256|Filename): (\S+)", said, re.M))
        return Package(use, name, field["Version"], field["SHA256"], field["Filename"])

    def release_date(self) -> str:
        (release,) = self._lists.glob("*Release")
        return re.search(r"^Date: (.*)", release.read_text(), re.M)[1]


def changes(old: Iterable[Package], new: Iterable[Package]) -> list[str]:
    """One line for each package that is not the same in both: `name version → version`."""
    before, after = ({p.name: p for p in packages} for packages in (old, new))
    lines = []
    for name in sorted(before.keys() | after.keys()):
        if before.get(name) != after.get(name):
            was, is_now = (
                found[name].version if name in found else "–" for found in (before, after)
            )
            again = " (built again)" if was == is_now else ""
            lines.append(f"{name} {was} → {is_now}{again}")
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--mirror", help="a Debian mirror's address; the machine's own otherwise")
    try:
        date, packages = resolve(mirrors(parser.parse_args().mirror)[0])
    except ValueError as error:
        sys.exit(f"error: {error}")
    moved = changes(locked() if LOCK.exists() else [], packages)
    if moved:
        lines = [" ".join(package) for package in packages]
        LOCK.write_text(
            "# The Debian packages of the images. Made by `python containers/lock_debian.py`.\n"
            f"# {RELEASE} main, {ARCHITECTURE}, as released {date}.\n"
            "# use, name, version, sha256, path on a mirror\n" + "\n".join(lines) + "\n"
        )
    print("\n".join(moved) or "debian.lock is what the mirror has.")


if __name__ == "__main__":
    main()
