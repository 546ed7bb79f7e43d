"""The locks in envs/ are complete, safe to publish, and what is installed."""

import re
from importlib.metadata import version
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

ENVS = Path(__file__).parent.parent / "envs"
BUILDS = ["cpu", "cuda"]


def entries(build: str) -> list[tuple[Requirement, list[str]]]:
    """Every requirement in a lock, with the lines below it."""
    found: list[tuple[Requirement, list[str]]] = []
    for line in (ENVS / f"{build}.txt").read_text().splitlines():
        if re.match(r"[A-Za-z0-9]", line):
            found.append((Requirement(line.removesuffix("\\")), []))
        elif line and not line.startswith("#"):
            found[-1][1].append(line.strip(" \\"))
    return found


def applicable(build: str) -> dict[str, Version]:
    """The versions that a lock prescribes on this machine, by package."""
    return {
        canonicalize_name(locked.name): Version(str(locked.specifier).removeprefix("=="))
        for locked, _ in entries(build)
        if locked.marker is None or locked.marker.evaluate()
    }


@pytest.mark.parametrize("build", BUILDS)
def test_every_direct_requirement_is_locked_at_a_version_that_it_allows(build):
    lines = [line for file in ENVS.glob("*.in") for line in file.read_text().splitlines()]
    requirements = [Requirement(text) for line in lines if (text := line.partition("#")[0].strip())]
    locked = applicable(build)
    assert requirements
    for wanted in requirements:
        assert wanted.specifier.contains(locked[canonicalize_name(wanted.name)]), wanted


@pytest.mark.parametrize("build", BUILDS)
def test_every_locked_package_is_pinned_and_has_a_hash(build):
    for locked, below in entries(build):
        assert re.fullmatch(r"==[^*,]+", str(locked.specifier)), locked
        below = [line for line in below if not line.startswith("#")]
        assert below, locked
        assert all(re.fullmatch(r"--hash=sha256:[0-9a-f]{64}", line) for line in below), locked


@pytest.mark.parametrize("file", ["requirements.in", "development.in", "cpu.txt", "cuda.txt"])
def test_no_lock_says_where_packages_come_from(file):
    text = (ENVS / file).read_text()
    assert not re.search(r"://|^\s*-(?!-hash=)| @ ", text, flags=re.M)


def test_the_locks_differ_only_in_the_cuda_libraries():
    cpu, cuda = applicable("cpu"), applicable("cuda")
    assert {package: locked.public for package, locked in cpu.items()} == {
        package: locked.public for package, locked in cuda.items() if package in cpu
    }
    assert all(re.match(r"nvidia-|cuda-|triton$", package) for package in cuda.keys() - cpu.keys())


def test_what_is_installed_is_what_is_locked():
    for package, locked in applicable("cpu").items():
        # The builds of torch share a version but for what follows the plus sign.
        assert Version(version(package)).public == locked.public, package
