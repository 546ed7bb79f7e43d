"""Build an image, the same bits every time: `make images` or `make images ENV=cuda`.

    python containers/build.py cpu|cuda [--mirror URL] [--accept]

A Debian file system out of locked packages, the locked wheels that jobs import, and files/ on
top. No package's script runs and no rights are needed: files are unpacked, compiled and packed.
The result is held against lock.yaml. When what an image is made from has changed, the lock takes
the new digest; when it has not and the image still is another, the build fails (--accept locks it).
"""

import argparse
import hashlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import debian
import sif
import wheels
import yaml

from ffmerge.digest import sha256_of
from ffmerge.sources import code_digest

CONTAINERS = Path(__file__).resolve().parent
REPOSITORY = CONTAINERS.parent
LOCK = CONTAINERS / "lock.yaml"
CACHE = REPOSITORY / ".cache" / "debian"
NOTE = """\
# The images that jobs may run in, and what each was made from. Written by `make images`; a job
# refuses to start in any other image. sha256 null: nobody has built that one yet.
"""


def made_from(build: str) -> dict[str, str]:
    """sha256 of all that decides about an image's bits; of code, what it does (ffmerge.sources)."""
    code = [CONTAINERS / f"{name}.py" for name in ("build", "debian", "sif", "wheels")]
    files = [file for file in sorted((CONTAINERS / "files").rglob("*")) if file.is_file()]
    digests = [f"{sha256_of(file)}  {file.relative_to(CONTAINERS)}" for file in files]
    return {
        "requirements": _sha256(requirements(build)),
        "debian": _sha256("\n".join(" ".join(package) for package in debian.locked())),
        "recipe": _sha256("\n".join([code_digest(code), *digests])),
    }


def requirements(build: str) -> str:
    return wheels.requirements((REPOSITORY / "envs" / f"{build}.txt").read_text())


def build_image(build: str, mirror: str | None, scratch: Path) -> Path:
    """Build the image; returns its file, in `scratch`."""
    say = _Steps(build)
    say("Debian packages")
    root, tools = scratch / "root", scratch / "tools"
    for package, file in debian_files(mirror):
        debian.unpack(file, root if package.use == "image" else tools)
    debian.certificates(root)

    say("wheels")
    for wheel in wheels.download(requirements(build), scratch / "wheels"):
        wheels.unpack(wheel, root)
    shutil.rmtree(scratch / "wheels")

    say("bytecode")
    shutil.copytree(CONTAINERS / "files", root, dirs_exist_ok=True)
    sources = made_from(build)
    labels = {f"ffmerge.{name}": sources[name] for name in ("requirements", "debian")}
    (root / ".singularity.d/labels.json").write_text(json.dumps(labels, indent=2))
    compile_python(root)

    say("image")
    sif.normalize(root)
    image = scratch / "image.sif"
    sif.write(root, image, program(tools / "usr/bin/mksquashfs", tools, root))
    say("done")
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

    In one process and one order, with one hash seed: the bits depend on all three.
    """
    python = program(root / "usr/bin/python3.11", root)
    options = ["-S", "-s", "-m", "compileall", "-qq", "--invalidation-mode", "unchecked-hash"]
    folders = [root / "usr/lib/python3.11", root / "usr/lib/python3", root / wheels.PREFIX / "lib"]
    environment = {"PYTHONHOME": str(root / "usr"), "PYTHONHASHSEED": "0", "LC_ALL": "C.UTF-8"}
    # Its status tells of files that are not meant for this Python, such as tests of old syntax.
    subprocess.run(
        [*python, *options, "-s", root, "-p", "/", *folders], env=environment, check=False
    )


def lock(build: str, image: Path, accept: bool) -> Path:
    """Give the image its name, and lock it if it may be another than before."""
    images = yaml.safe_load(LOCK.read_text())
    digest = sha256_of(image)
    old, new = images[build], {"sha256": digest, "made_from": made_from(build)}
    if old["sha256"] not in (None, digest) and old["made_from"] == new["made_from"] and not accept:
        raise ValueError(
            f"this build of the {build} image has sha256 {digest}, and containers/lock.yaml has "
            f"{old['sha256']} for the same inputs. To use this one: python containers/build.py "
            f"{build} --accept. Every result made in the other one will be made again."
        )
    target = CONTAINERS / name(build, digest)
    shutil.copyfile(image, target.with_suffix(".partial"))
    target.with_suffix(".partial").replace(target)
    if old != {"file": target.name, **new}:
        images[build] = {"file": target.name, **new}
        LOCK.write_text(NOTE + yaml.safe_dump(images, sort_keys=False))
        print("containers/lock.yaml has changed: commit it.")
    return target


def name(build: str, digest: str) -> str:
    """The digest is part of the name, so that Snakemake sees a change of image."""
    return f"ffmerge-{build}-{digest[:12]}.sif"


def is_built(locked: dict[str, Any], build: str) -> bool:
    """Whether the locked image is there, with the locked bits and made from what is here now."""
    file = CONTAINERS / locked["file"]
    current = locked["made_from"] == made_from(build)
    return current and file.exists() and sha256_of(file) == locked["sha256"]


class _Steps:
    """Says which step begins, and how long the one before took."""

    def __init__(self, build: str) -> None:
        self._build, self._since = build, time.monotonic()

    def __call__(self, step: str) -> None:
        now = time.monotonic()
        print(f"{self._build} image: {step} (after {now - self._since:.0f} s)", flush=True)


def _sha256(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("build", choices=["cpu", "cuda"])
    parser.add_argument("--mirror", help="a Debian mirror's address; the machine's own otherwise")
    parser.add_argument("--accept", action="store_true", help="lock whatever the build gives")
    chosen = parser.parse_args()
    if is_built(yaml.safe_load(LOCK.read_text())[chosen.build], chosen.build):
        print(f"The {chosen.build} image is there.")
        return
    with tempfile.TemporaryDirectory(prefix="ffmerge-image-") as scratch:
        try:
            image = build_image(chosen.build, chosen.mirror, Path(scratch))
            target = lock(chosen.build, image, chosen.accept)
        except (ValueError, OSError, subprocess.CalledProcessError) as error:
            sys.exit(f"error: {error}")
    print(f"{os.path.relpath(target)}: {target.stat().st_size / 1e6:.0f} MB")


if __name__ == "__main__":
    main()
