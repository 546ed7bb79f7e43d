"""The model that a user names: a directory or a hub's repository, and what its files hold.

All that can be refused is refused here, from the files alone, before any work begins.
"""

import json
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from ffmerge.models import tensor_file
from ffmerge.models.format import BESIDE, PICKLES, SAFETENSORS
from ffmerge.models.tensor_file import Stored

INDEX = ".index.json"  # of weights in several files: which file has which tensor
REFUSED = {  # key of config.json -> what such a model is, and what to do instead
    "quantization_config": "quantized; take the model that it was made from",
    "ffmerge_int8": "quantized; take the model that it was made from",
    "ffmerge_groups": "merged already; take the model that it was made from, and remove more of it",
}


@dataclass(frozen=True)
class Source:
    """A model's files. name: as the user gave it. revision: the hub's commit, if it is from there.

    weights: safetensors or, where there are none, pickled ones.
    """

    name: str
    directory: Path
    weights: tuple[Path, ...]
    revision: str | None

    @cached_property
    def config(self) -> dict[str, Any]:
        """What config.json says."""
        return json.loads((self.directory / "config.json").read_text())

    @cached_property
    def stored(self) -> dict[str, Stored]:
        """Every tensor, by the name that it has in the files; none of pickled ones."""
        files = [file for file in self.weights if file.suffix == ".safetensors"]
        return {n: each for file in files for n, each in tensor_file.read_head(file).items()}


def find(model: str | Path, revision: str | None = None) -> Source:
    """The files of a model: a directory, or a hub's repository, which is fetched into its cache.

    Raises OSError if there is no such model, ValueError naming the file that is missing or cut
    off, or for a model that is quantized or merged already.
    """
    directory = Path(model) if Path(model).is_dir() else _fetched(str(model), revision)
    commit = directory.name if directory.parent.name == "snapshots" else None
    _check_configuration(directory)
    source = Source(str(model), directory, _weights(directory), commit)
    for name, each in source.stored.items():
        if name.endswith("weight") and not each.dtype.is_floating_point:
            raise ValueError(
                f"{model} is {REFUSED['quantization_config']} ({name} is {each.dtype})"
            )
    return source


def _check_configuration(directory: Path) -> None:
    file = directory / "config.json"
    if not file.exists():
        hint = ""
        if (directory / "adapter_config.json").exists():
            hint = "; it holds an adapter (LoRA): merge it into its base model and save that"
        raise FileNotFoundError(f"{directory} has no config.json{hint}")
    try:
        config = json.loads(file.read_text())
        model_type = config.get("model_type")
    except (ValueError, AttributeError) as error:
        raise ValueError(f"{file} is not the configuration of a model: {error}") from None
    if model_type is None:
        raise ValueError(f"{file} names no model_type: transformers cannot tell what it is")
    for key, what in REFUSED.items():
        if config.get(key):
            raise ValueError(f"{directory} is {what} (config.json has {key})")


def _weights(directory: Path) -> tuple[Path, ...]:
    for pattern, index in (
        ("model.safetensors", f"model.safetensors{INDEX}"),
        ("pytorch_model.bin", f"pytorch_model.bin{INDEX}"),
    ):
        if (directory / pattern).exists():
            return (directory / pattern,)
        if (directory / index).exists():
            names = set(json.loads((directory / index).read_text())["weight_map"].values())
            missing = sorted(name for name in names if not (directory / name).exists())
            if missing:
                raise FileNotFoundError(f"{directory} lacks {', '.join(missing)} (see {index})")
            return tuple(directory / name for name in sorted(names))
    there = ", ".join(sorted(file.name for file in directory.iterdir())[:8])
    raise FileNotFoundError(
        f"{directory} has no model.safetensors and no pytorch_model.bin (it has: {there}); save it "
        "from transformers with save_pretrained"
    )


def _fetched(model: str, revision: str | None) -> Path:
    if Path(model).exists():
        raise ValueError(f"{model} is a file; name the directory of a model, with its config.json")
    if model.count("/") > 1 or model.startswith(("/", ".", "~")):
        raise FileNotFoundError(f"there is no directory {model}")
    from huggingface_hub import snapshot_download

    def fetched(*patterns: str) -> Path:
        return Path(snapshot_download(model, revision=revision, allow_patterns=[*patterns]))

    try:
        directory = fetched(*BESIDE, "*.jinja", "README.md", SAFETENSORS)
        return directory if any(directory.glob(SAFETENSORS)) else fetched(*BESIDE, PICKLES)
    except Exception as error:  # names, terms, connections, offline mode, …
        if isinstance(error, OSError) and error.errno is not None:
            raise  # a full disk, a missing permission
        reason = " ".join(str(error).split())[:200]
        raise OSError(
            f"there is no directory {model}, and the hub did not give a model of that name "
            f"({type(error).__name__}: {reason})"
        ) from None
