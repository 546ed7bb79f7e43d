"""The user's original model: its files, its outline without weights, and the loaded model.

Whatever can be checked from the files alone is checked before any work begins.
"""

import json
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import nn

from ffmerge.compression.load import load
from ffmerge.method.groups import Group
from ffmerge.models import tensor_file
from ffmerge.models.format import BESIDE, GROUPS, PICKLES, SAFETENSORS, WEIGHTS
from ffmerge.models.pretrained import configured, load_whole, unpickle
from ffmerge.models.tensor_file import Stored
from provenance.progress import progress

INDEX = ".index.json"  # lists which of several files holds each tensor
REFUSED = {  # key of config.json -> what such a model is, and what to do instead
    "quantization_config": "quantized; take the model that it was made from",
    "ffmerge_int8": "quantized; take the model that it was made from",
    GROUPS: "merged already; take the model that it was made from, and remove more of it",
}
VALUES_AT_A_TIME = 2**20  # checked at a time


@dataclass(frozen=True)
class SourceModel:
    """A model's files. name: as the user gave it. revision: commit on the hub, if it is from there.

    weights: safetensors files or, if there are none, pickles.
    """

    name: str
    directory: Path
    weights: tuple[Path, ...]
    revision: str | None

    @cached_property
    def groups(self) -> list[Group]:
        """The merged layers, if there are any."""
        return groups_in(json.loads((self.directory / "config.json").read_text()))

    @cached_property
    def stored(self) -> dict[str, Stored]:
        """Every tensor by its name in the files; empty for pickles."""
        files = [file for file in self.weights if file.suffix == ".safetensors"]
        return {n: stored for file in files for n, stored in tensor_file.read_head(file).items()}


def find(model: str | Path, revision: str | None = None, merged: bool = False) -> SourceModel:
    """Find a model's files: in a directory, or on the hub, from which they are fetched.

    merged: whether it may be merged already.
    Raises OSError if there is no such model. Raises ValueError naming a file that is missing or
    truncated, or if the model is quantized, or merged when it may not be.
    """
    directory = Path(model) if Path(model).is_dir() else _fetched(str(model), revision)
    commit = directory.name if directory.parent.name == "snapshots" else None
    _check_configuration(directory, merged)
    source = SourceModel(str(model), directory, _weights(directory), commit)
    for name, stored in source.stored.items():
        if name.endswith("weight") and not stored.dtype.is_floating_point:
            raise ValueError(
                f"{model} is {REFUSED['quantization_config']} ({name} is {stored.dtype})"
            )
    return source


def groups_in(config: Mapping[str, Any]) -> list[Group]:
    """The merged groups that a config.json lists."""
    return [
        Group(group["tower"], tuple(group["layers"]), group["anchor"])
        for group in config.get(GROUPS, [])
    ]


def _check_configuration(directory: Path, merged: bool) -> None:
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
        if config.get(key) and not (merged and key == GROUPS):
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
    except Exception as error:  # unknown name, terms to accept, no connection, offline mode, …
        if isinstance(error, OSError) and error.errno is not None:
            raise  # a full disk, a missing permission
        reason = " ".join(str(error).split())[:200]
        raise OSError(
            f"there is no directory {model}, and fetching a model of that name from the hub failed "
            f"({type(error).__name__}: {reason})"
        ) from None


def outline(
    source: SourceModel, architecture: Mapping[str, Any] | None, known: bool = True
) -> nn.Module:
    """Make the model on torch's meta device: modules and shapes, no values.

    architecture: an entry of the table of architectures. known: whether it must be in the table.
    Raises ValueError like `pretrained.configured`.
    """
    config, model_class = configured(source.directory, architecture, known)
    with torch.device("meta"):
        model = model_class(config)
    model.tie_weights()
    return model.eval()


def with_safetensors(source: SourceModel, scratch: Path) -> SourceModel:
    """Convert pickled weights to safetensors in `scratch`; other sources are returned unchanged.

    Raises ValueError like `pretrained.unpickle`.
    """
    if source.weights[0].suffix != ".bin":
        return source
    directory = scratch / "unpickled"
    directory.mkdir(parents=True)
    unpickle(list(source.weights), directory / WEIGHTS)
    for name in ("config.json", "generation_config.json"):
        if (source.directory / name).exists():
            shutil.copyfile(source.directory / name, directory / name)
    return replace(source, weights=(directory / WEIGHTS,))


def load_original(
    source: SourceModel,
    dtype: torch.dtype = torch.float32,
    architecture: Mapping[str, Any] | None = None,
) -> nn.Module:
    """Load the model in evaluation mode, with parameters of `dtype`.

    A merged model is loaded tied. architecture: an entry for a model that is not in the table of
    architectures.
    Raises ValueError naming a tensor that is not finite, or like `pretrained.load_whole`.
    """
    _check_finite(source.weights)
    if source.groups:
        return load(source.directory, dtype=dtype)
    return load_whole(source.weights[0].parent, dtype, architecture)


def _check_finite(files: tuple[Path, ...]) -> None:
    places = [(file, item) for file in files for item in tensor_file.read_head(file).items()]
    for file, (name, stored) in progress(places, desc="weights"):
        if stored.dtype.is_floating_point:
            for values in tensor_file.read(file, stored).flatten().split(VALUES_AT_A_TIME):
                if not torch.isfinite(values).all():
                    what = "NaN" if torch.isnan(values).any() else "an infinity"
                    raise ValueError(f"{file}: {name} holds {what}; the model is damaged")
