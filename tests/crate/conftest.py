"""Install tools of other projects that check the crate and the citation, and run them."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from hashlib import sha256
from pathlib import Path

import pytest

HERE = Path(__file__).parent
FOLDER = HERE.parents[1] / ".cache" / "checkers"
LOCKS = (HERE / "checkers.txt", HERE / "context.txt")
CONTEXT_URL = "https://w3id.org/ro/crate/1.1/context"


class Checkers:
    """roc-validator, runcrate, rdflib and cffconvert, as checkers.txt beside this locks them."""

    bin = FOLDER / "bin"
    context = FOLDER / "context/rocrate/data/ro-crate.jsonld"
    cache = FOLDER / "http"

    def validate(self, crate: Path, profile: str = "provenance-run-crate") -> dict:
        """Validate a crate with roc-validator at severity REQUIRED, without a network."""
        report = crate.parent / f"{crate.name}.{profile}.json"
        options = ["--offline", "--cache-path", self.cache, "--profile-identifier", profile]
        options += ["--requirement-severity", "required"]
        options += ["--output-format", "json", "--output-file", report]
        validator = [self.bin / "rocrate-validator", "-y", "validate", *options, crate]
        ran = subprocess.run(validator, capture_output=True, text=True)
        assert report.exists(), ran.stdout + ran.stderr
        said = json.loads(report.read_text())
        assert (ran.returncode == 0) == said["passed"], ran.stdout + ran.stderr
        return said

    def report(self, crate: Path) -> str:
        """Return runcrate's report on a crate."""
        command = [self.bin / "runcrate", "report", crate]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout

    def cites(self, file: Path) -> str:
        """Return what cffconvert says of a CITATION.cff. Fails if it is not valid."""
        command = [self.bin / "cffconvert", "--validate", "--infile", file]
        ran = subprocess.run(command, capture_output=True, text=True)
        assert ran.returncode == 0, ran.stdout + ran.stderr
        return ran.stdout

    @contextmanager
    def asking(self, crate: Path) -> Iterator[Callable[[str], list[list[str]]]]:
        """Yield a function that answers SPARQL queries from a crate (see ask.py)."""
        command = [self.bin / "python", HERE / "ask.py", crate, self.context]
        pipe = subprocess.PIPE
        with subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True) as process:

            def ask(query: str) -> list[list[str]]:
                process.stdin.write(json.dumps(query) + "\n")
                process.stdin.flush()
                return json.loads(process.stdout.readline())

            yield ask
            process.stdin.close()  # it ends with its questions


@pytest.fixture(scope="session")
def checkers() -> Checkers:
    """The tools, installed once for each lock. Skips if they cannot be installed, except in CI."""
    locked = "".join(sha256(lock.read_bytes()).hexdigest() for lock in LOCKS)
    stamp = FOLDER / "installed-from"
    if not stamp.is_file() or stamp.read_text() != locked:
        shutil.rmtree(FOLDER, ignore_errors=True)
        try:
            _install()
        except subprocess.CalledProcessError as error:
            said = f"tools that check what we say cannot be installed: {error.stderr.strip()}"
            (pytest.fail if os.environ.get("CI") else pytest.skip)(said)
        stamp.write_text(locked)
    return Checkers()


def _install() -> None:
    uv, python = [sys.executable, "-m", "uv"], FOLDER / "bin" / "python"
    into = ["--python", python, "--require-hashes"]
    target = ["--target", Checkers.context.parents[2], "--no-deps"]
    seed = [HERE / "seed_cache.py", Checkers.cache, CONTEXT_URL, Checkers.context]
    for command in (
        [*uv, "venv", "--python", sys.executable, FOLDER],
        [*uv, "pip", "sync", *into, LOCKS[0]],
        [*uv, "pip", "install", *into, *target, "--requirements", LOCKS[1]],
        [python, *seed],
    ):
        subprocess.run(command, capture_output=True, text=True, check=True)
