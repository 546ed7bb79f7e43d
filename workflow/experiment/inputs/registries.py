"""The command that downloads a package file from its registry, with the registry's own client."""

from collections.abc import Sequence


def download_command(registry: str, name: str, version: str, file: str) -> Sequence[str]:
    """Command that puts the package file `file` into the working directory.

    registry: "pypi", "npm" or "debian". A wheel is asked for by the tags in its file name, so that
    the machine's own Python and platform do not matter. Raises ValueError for another registry.
    """
    match registry:
        case "pypi":
            python, abi, platforms = file.removesuffix(".whl").split("-")[-3:]
            command = ["pip", "download", "--no-deps", "--only-binary=:all:", f"{name}=={version}"]
            python = python.split(".")[-1]  # of py2.py3
            command += [f"--implementation={python[:2]}"]
            if len(python) > 3:  # a bare 3 would mean 3.0, for which hardly a package is made
                command += [f"--python-version={python[2:]}"]
            return [*command, f"--abi={abi}", *(f"--platform={p}" for p in platforms.split("."))]
        case "npm":
            return ["npm", "pack", "--loglevel=error", f"{name}@{version}"]
        case "debian":
            return ["apt-get", "download", f"{name}={version}"]
    raise ValueError(f"unknown registry {registry!r} of package {name}")
