"""Recompute the locks envs/cpu.txt and envs/cuda.txt from the .in files beside them.

    make lock                          what is locked stays, unless the .in files say otherwise
    make lock LOCK_FLAGS=--upgrade     the newest version of everything that is not pinned there

Both locks hold the same versions. They differ in torch, whose builds need different things:

    cuda.txt   the package index's own build, with the CUDA libraries that it loads on Linux
    cpu.txt    no CUDA library; on Linux the build whose version ends in +cpu

The resolver does not see the +cpu build, because the index does not have it. Its hash is that of
the file that pip takes on the machine where this runs; a hash taken elsewhere (for another Python
or processor) is kept as long as the version is the same.
"""

import json
import re
import subprocess
import sys
import tempfile
from pathlib import Path

ENVS = Path(__file__).resolve().parent
CUDA_ONLY = re.compile(r"(nvidia|cuda)-|triton$")  # what only a CUDA build of torch loads
HEADERS = {
    "cpu": "# Everything ffmerge needs on a machine without a GPU.\n",
    "cuda": "# Everything ffmerge needs on a Linux machine with an NVIDIA GPU.\n",
}
MADE_BY = "# Made by `make lock` from the .in files: change those, not this.\n\n"


def resolve(old: str, flags: list[str]) -> str:
    """The resolver's answer for every platform and every Python from 3.11 on."""
    with tempfile.TemporaryDirectory() as scratch:
        lock = Path(scratch, "lock.txt")
        lock.write_text(old)  # what stands here is preferred over newer versions
        compiler = [sys.executable, "-m", "uv", "pip", "compile"]
        compiler += [f"envs/{name}.in" for name in ("requirements", "development")]
        compiler += ["--universal", "--python-version", "3.11", "--generate-hashes", "--quiet"]
        compiler += ["--no-header", "--no-emit-index-url", "--no-emit-find-links"]
        subprocess.run([*compiler, *flags, "--output-file", lock], cwd=ENVS.parent, check=True)
        return lock.read_text()


def entries(lock: str) -> list[str]:
    """One text per package: its requirement, its hashes, and a comment on who wants it."""
    return re.findall(r"^[^\s#].*\n(?:[ \t].*\n)*", lock, flags=re.M)


def name(entry: str) -> str:
    return re.match(r"[\w.-]+", entry)[0]


def hashes(entry: str) -> set[str]:
    return set(re.findall(r"--hash=(sha256:[0-9a-f]{64})", entry))


def hash_taken_here(requirement: str) -> str:
    """The hash of the file that pip would install for this requirement on this machine."""
    pip = [sys.executable, "-m", "pip", "install", requirement, "--quiet", "--dry-run"]
    pip += ["--no-deps", "--ignore-installed", "--report", "-"]
    report = subprocess.run(pip, check=True, stdout=subprocess.PIPE).stdout
    archive = json.loads(report)["install"][0]["download_info"]["archive_info"]
    return "sha256:" + archive["hashes"]["sha256"]


def cpu_torch(indexed: str, old: str) -> str:
    """The two entries for torch in cpu.txt, from its entry in cuda.txt and the old cpu.txt.

    One entry with the hashes of both builds would not do: pip prefers a file whose hash the index
    tells, which is the CUDA build, over one in a folder, whatever their versions.
    """
    line, rest = indexed.split(" \\\n", 1)
    if ";" in line:
        sys.exit(f"torch now comes with a condition, which the lock would lose: {line}")
    cpu = f"{line}+cpu"
    known = [hashes(entry) for entry in entries(old) if entry.split()[0] == cpu]
    digests = sorted({hash_taken_here(cpu)}.union(*known))
    linux = [f"{cpu} ; sys_platform == 'linux'", *(f"    --hash={digest}" for digest in digests)]
    return " \\\n".join(linux) + f"\n{line} ; sys_platform != 'linux' \\\n{rest}"


def main() -> None:
    paths = {build: ENVS / f"{build}.txt" for build in HEADERS}
    old = {build: path.read_text() if path.exists() else "" for build, path in paths.items()}
    cuda = entries(resolve(old["cuda"], sys.argv[1:]))
    cpu = [entry for entry in cuda if not CUDA_ONLY.match(name(entry))]
    cpu = [cpu_torch(entry, old["cpu"]) if name(entry) == "torch" else entry for entry in cpu]
    for build, locked in {"cpu": cpu, "cuda": cuda}.items():
        paths[build].write_text(HEADERS[build] + MADE_BY + "".join(locked))


if __name__ == "__main__":
    main()
