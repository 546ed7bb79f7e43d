"""Make .venv from a lock: `python envs/install.py cpu` or `… cuda`. `make` calls this first.

Nothing happens when .venv already holds what the lock says. Otherwise it is made from nothing, so
that neither an interrupted installation nor a changed lock leaves a mixture. Needs only a Python
with its own pip and venv.
"""

import sys

if sys.version_info < (3, 11):  # noqa: UP036 (this is where the others are told)
    sys.exit(
        "ffmerge needs Python 3.11 or newer, and {} is {}.{}.\n".format(
            sys.executable, *sys.version_info[:2]
        )
        + "Name another one: make PYTHON=/path/to/python3.11 …"
    )

import fcntl
import os
import re
import subprocess
import tomllib
import venv
from pathlib import Path

ENVS = Path(__file__).resolve().parent
REPOSITORY = ENVS.parent
VENV = REPOSITORY / ".venv"
PYTHON = VENV / "bin" / "python"
STAMP = VENV / "installed.txt"  # written last: what .venv was made from

NO_CPU_BUILD = """
The package index has no CPU build of torch for this machine and Python (see above), so here comes
its CUDA build, which runs on a CPU too but takes about 4 GB more. To have the small one: take
Python 3.11, set PIP_FIND_LINKS or PIP_EXTRA_INDEX_URL to where PyTorch publishes its CPU builds,
remove .venv, and run make again.
"""


def entry(lock: Path, package: str) -> str:
    """One package's lines in a lock: its requirement for each platform, and the hashes."""
    return "".join(re.findall(rf"^{package}==.*\n(?:[ \t].*\n)*", lock.read_text(), flags=re.M))


def pip_install(*arguments: str | Path, requirements: str | None = None) -> bool:
    """Whether pip installed all of it. Nothing is taken that is not named, no build isolated."""
    pip = [PYTHON, "-m", "pip", "--disable-pip-version-check", "install"]
    pip += ["--no-deps", "--no-build-isolation"]
    if not sys.stdout.isatty():
        pip.append("--quiet")
    if requirements is not None:
        arguments = (*arguments, "--requirement", "/dev/stdin")
    done = subprocess.run([*pip, *arguments], input=requirements, text=True, cwd=REPOSITORY)
    return done.returncode == 0


def install(build: str) -> None:
    """Everything in the lock, each file by its hash, and this package itself."""
    lock = ENVS / f"{build}.txt"
    # Some packages come as source only; the locked setuptools builds them, not a downloaded one.
    ok = pip_install("--require-hashes", requirements=entry(lock, "setuptools"))
    if ok and build == "cpu":
        has_cpu_build = pip_install("--require-hashes", requirements=entry(lock, "torch"))
        if not has_cpu_build:
            print(NO_CPU_BUILD, flush=True)
            lock = ENVS / "cuda.txt"
    ok = ok and pip_install("--require-hashes", "--requirement", lock)
    ok = ok and pip_install("--editable", ".")
    if not ok:
        sys.exit(f"pip could not install envs/{lock.name} (see above); make starts over next time.")
    if subprocess.run([PYTHON, "-c", "import torch"]).returncode:
        sys.exit("torch is installed but does not start (see above); make ENV=cpu or ENV=cuda?")


def contents(build: str) -> str:
    """What .venv is made from: a lock, and how this package presents itself to Python."""
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())
    package = [project["build-system"], project["project"], project["tool"]["setuptools"]]
    package.append((REPOSITORY / "setup.py").read_text())
    return f"{build}\n{package}\n{(ENVS / f'{build}.txt').read_text()}"


def installed() -> str:
    return STAMP.read_text() if STAMP.exists() else ""


def main() -> None:
    # Without a word on which: the same again, at first cpu.
    build = " ".join(sys.argv[1:]) or installed().partition("\n")[0] or "cpu"
    if build not in ("cpu", "cuda"):
        sys.exit(f"ENV is {build!r}, but has to be cpu or cuda.")
    if installed() == contents(build):
        return
    # Of two at once the second waits here, then finds it done. The lock ends with this process.
    fcntl.flock(os.open(ENVS, os.O_RDONLY), fcntl.LOCK_EX)
    if installed() == contents(build):
        return
    print(f"Making .venv from envs/{build}.txt: about two minutes and 2 GB.", flush=True)
    venv.create(VENV, clear=True, with_pip=True, prompt="ffmerge")
    install(build)
    STAMP.write_text(contents(build))


if __name__ == "__main__":
    main()
