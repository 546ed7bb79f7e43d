"""Download a package file by name, with the registry's ordinary client, and check its digest."""

import os
import shutil
import subprocess
import tempfile
from pathlib import Path

from experiment.inputs.packages import check_sha256, download_command
from provenance.job import Job


def stored(file: str) -> Path | None:
    """The package file in the folder that FFMERGE_PACKAGES names, if it is there."""
    folder = os.environ.get("FFMERGE_PACKAGES")
    return Path(folder) / file if folder and (Path(folder) / file).exists() else None


def download(registry: str, name: str, version: str, file: str, folder: Path) -> Path:
    """Download into `folder`; OSError if the client is missing or fails."""
    command = download_command(registry, name, version, file)
    package = f"{registry} package {name} {version}"
    advice = (
        f"If the registry no longer has this version, put {file} from an archive into a folder and "
        "name the folder in the environment variable FFMERGE_PACKAGES."
    )
    if shutil.which(command[0]) is None:
        raise OSError(f"{package} needs the program {command[0]}, which is not here. {advice}")
    if subprocess.run(command, cwd=folder).returncode != 0:
        raise OSError(f"{package} was not downloaded: {' '.join(command)} failed. {advice}")
    if not (folder / file).exists():
        found = ", ".join(path.name for path in folder.iterdir()) or "nothing"
        raise OSError(f"{package} came as {found}, not as {file}. {advice}")
    return folder / file


if __name__ == "__main__":
    with Job.from_command_line() as job, tempfile.TemporaryDirectory() as folder:
        registry, name, version = job.params.registry, job.params.name, job.params.version
        file = job.params.file
        package = stored(file) or download(registry, name, version, file, Path(folder))
        check_sha256(
            package,
            job.params.sha256,
            file,
            f"This is not the {registry} package {name} {version} that was asked for. Fetch it "
            "again; if it differs again, the registry has replaced it: look at what changed before "
            "resources/demo/sources.yaml or the configuration, whichever names it, is given the "
            "new digest.",
        )
        shutil.copyfile(package, job.output.package)
