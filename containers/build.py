"""Build an image, the same bits every time: `make images` or `make images ENV=cuda`.

    python containers/build.py cpu|cuda [--mirror URL] [--accept]

The result is held against lock.yaml. When what an image is made from has changed, the lock takes
the new digest; when it has not and the image still is another, the build fails (--accept locks it).
"""

import argparse
import hashlib
import os
import platform
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import contents
import debian
import wheels
import yaml

from provenance.digest import sha256_of

CONTAINERS = Path(__file__).resolve().parent
REPOSITORY = CONTAINERS.parent
LOCK = CONTAINERS / "lock.yaml"
NOTE = """\
# The images that jobs may run in, and what each was made from. Written by `make images`; a job
# refuses to start in any other image. sha256 null: nobody has built that one yet.
"""


def made_from(build: str) -> dict[str, str]:
    """sha256 of all that decides about an image's bits."""
    files = [CONTAINERS / f"{name}.py" for name in ("contents", "debian", "sif", "wheels")]
    files += [file for file in sorted((CONTAINERS / "files").rglob("*")) if file.is_file()]
    recipe = [f"{sha256_of(file)}  {file.relative_to(CONTAINERS)}\n" for file in files]
    return {
        "requirements": _sha256(requirements(build)),
        "debian": _sha256("\n".join(" ".join(package) for package in debian.locked())),
        "recipe": _sha256("".join(recipe)),
    }


def requirements(build: str) -> str:
    return wheels.requirements((REPOSITORY / "envs" / f"{build}.txt").read_text())


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
    if (sys.platform, platform.machine()) != ("linux", "x86_64"):
        sys.exit("error: the images are for Linux on x86-64, and can be built only there")
    with tempfile.TemporaryDirectory(prefix="ffmerge-image-") as scratch:
        try:
            sources = made_from(chosen.build)
            labels = {f"ffmerge.{name}": sources[name] for name in ("requirements", "debian")}
            wanted = requirements(chosen.build)
            image = contents.build_image(wanted, labels, chosen.mirror, Path(scratch))
            target = lock(chosen.build, image, chosen.accept)
        except (ValueError, OSError, subprocess.CalledProcessError) as error:
            sys.exit(f"error: {error}")
    print(f"{os.path.relpath(target)}: {target.stat().st_size / 1e6:.0f} MB")


if __name__ == "__main__":
    main()
