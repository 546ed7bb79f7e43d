"""What is in an image: locked Debian packages, locked wheels, and files/ on top.

No package's script runs and no rights are needed: files are unpacked, compiled and packed.
"""

import json
import shutil
import subprocess
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import debian
import sif
import wheels

CONTAINERS = Path(__file__).resolve().parent
CACHE = CONTAINERS.parent / ".cache" / "debian"


def build_image(wanted: str, labels: dict[str, str], mirror: str | None, scratch: Path) -> Path:
    """Build an image with the Python packages of `wanted`; returns its file, in `scratch`."""
    say = _Steps()
    say("Debian packages")
    root, tools = scratch / "root", scratch / "tools"
    for package, file in debian_files(mirror):
        debian.unpack(file, root if package.use == "image" else tools)
    debian.certificates(root)

    say("wheels")
    for wheel in wheels.download(wanted, scratch / "wheels"):
        wheels.unpack(wheel, root)
    shutil.rmtree(scratch / "wheels")

    say("bytecode")
    shutil.copytree(CONTAINERS / "files", root, dirs_exist_ok=True)
    (root / ".singularity.d/labels.json").write_text(json.dumps(labels, indent=2))
    compile_python(root)

    say("image")
    sif.normalize(root)
    image = scratch / "image.sif"
    sif.write(root, image, program(tools / "usr/bin/mksquashfs", tools, root))
    say("packed")
    return image


def debian_files(mirror: str | None) -> list[tuple[debian.Package, Path]]:
    """Every locked package with its file. Raises ValueError if a mirror no longer has one."""
    packages, addresses = debian.locked(), debian.mirrors(mirror)
    with ThreadPoolExecutor(4) as pool:
        files = list(pool.map(lambda package: debian.fetch(package, addresses, CACHE), packages))
    missing = [package for package, file in zip(packages, files, strict=True) if file is None]
    if missing:
        raise ValueError(moved_on(missing, packages, addresses[0]))
    return list(zip(packages, files, strict=True))


def moved_on(missing: list[debian.Package], packages: list[debian.Package], address: str) -> str:
    """What to tell somebody whose mirror does not have the locked packages."""
    import lock_debian

    lines = [f"the Debian mirror does not have {len(missing)} of {len(packages)} locked packages:"]
    lines += [f"  {package.name} {package.version}" for package in missing]
    try:
        lines += ["What it has instead, and what else is new:"]
        lines += [
            f"  {line}" for line in lock_debian.changes(packages, lock_debian.resolve(address)[1])
        ]
    except (ValueError, OSError) as error:
        lines[-1] = f"What it has instead is unknown: {error}"
    return "\n".join(
        [
            *lines,
            "To build the locked image, name a mirror that keeps old packages, as of the date in "
            "containers/debian.lock: make images MIRROR=…",
            "To go on with the new versions: python containers/lock_debian.py, then make images. "
            "The image will be another, so every result will be made again.",
        ]
    )


def program(file: Path, *roots: Path) -> list[str | Path]:
    """The command that runs a program of an unpacked Debian anywhere, with its own libraries."""
    libraries = ":".join(str(root / "usr/lib/x86_64-linux-gnu") for root in roots)
    loader = roots[-1] / "usr/lib/x86_64-linux-gnu/ld-linux-x86-64.so.2"
    return [loader, "--library-path", libraries, file]


def compile_python(root: Path) -> None:
    """Compile every module with the image's own Python, for an image cannot be written to later.

    In one process and one order, with one hash seed: the bits depend on all three. And with -B: the
    modules that the compiler itself imports would otherwise be compiled with this build's paths.
    """
    python = program(root / "usr/bin/python3.11", root)
    options = ["-B", "-S", "-s", "-m", "compileall", "-qq", "--invalidation-mode", "unchecked-hash"]
    folders = [root / "usr/lib/python3.11", root / "usr/lib/python3", root / wheels.PREFIX / "lib"]
    environment = {"PYTHONHOME": str(root / "usr"), "PYTHONHASHSEED": "0", "LC_ALL": "C.UTF-8"}
    # Its status tells of files that are not meant for this Python, such as tests of old syntax.
    subprocess.run(
        [*python, *options, "-s", root, "-p", "/", *folders], env=environment, check=False
    )


class _Steps:
    """Says which step begins, and when."""

    def __init__(self) -> None:
        self._since = time.monotonic()

    def __call__(self, step: str) -> None:
        print(f"{time.monotonic() - self._since:4.0f} s  {step}", flush=True)
