"""The user's original model: its files, its outline without weights, and the loaded model.

Whatever can be checked from the files alone is checked before any work begins.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import nn

from ffmerge.compression.read import json_object
from ffmerge.method.groups import Group
from ffmerge.models import pretrained, tensor_file
from ffmerge.models.format import BESIDE, GROUPS, INT8, PICKLES, SAFETENSORS, WEIGHTS
from ffmerge.models.tensor_file import Stored
from provenance.progress import progress

REFUSED = {  # key of config.json -> what such a model is, and what to do instead
    "quantization_config": "quantized; take the model that it was made from",
    INT8: "quantized; take the model that it was made from",
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
        return pretrained.stored_in(self.weights)


def find(model: str | Path, revision: str | None = None, merged: bool = False) -> SourceModel:
    """Find a model's files: in a directory, or on the hub, from which they are fetched.

    merged: whether it may be merged already.
    Raises OSError if there is no such model. Raises ValueError naming a file that is missing or
    truncated, or if the model is quantized, an adapter, or merged when it may not be.
    """
    directory = Path(model) if Path(model).is_dir() else _fetched(str(model), revision)
    commit = directory.name if directory.parent.name == "snapshots" else None
    for path in directory.iterdir():
        if path.exists() and not (path.is_file() or path.is_dir()):
            raise ValueError(f"{path} is a pipe or a device, not a file of a model: take it away")
    pretrained.check_fetched(
        file for part in BESIDE for file in directory.glob(part) if file.is_file()
    )
    _check_configuration(directory, merged)
    source = SourceModel(str(model), directory, pretrained.weights_of(directory), commit)
    pretrained.check_fetched(source.weights)
    return source


def groups_in(config: Mapping[str, Any]) -> list[Group]:
    """The merged groups that a config.json lists."""
    return [Group.from_json(entry) for entry in config.get(GROUPS, [])]


def _check_configuration(directory: Path, merged: bool) -> None:
    file = directory / "config.json"
    if (directory / "adapter_config.json").exists():
        raise ValueError(
            f"{directory} holds an adapter (adapter_config.json, as of LoRA): merge it into its "
            "base model (merge_and_unload) and save that in another directory; if the files of "
            "weights are whole, remove adapter_config.json"
        )
    if not file.exists():
        raise FileNotFoundError(f"{directory} has no config.json")
    config = object_in(file)
    model_type = config.get("model_type")
    if (directory / "generation_config.json").exists():
        object_in(directory / "generation_config.json")  # transformers would ignore a broken one
    if not isinstance(model_type, str):
        raise ValueError(f"{file} names no model_type: transformers cannot tell what it is")
    for key, what in REFUSED.items():
        if config.get(key) is not None and not (merged and key == GROUPS):
            raise ValueError(f"{directory} is {what} (config.json has {key})")


def object_in(file: Path) -> dict[str, Any]:
    """Read a JSON object. Raises ValueError naming the file if it has none, or a key twice."""
    try:
        content = json.loads(file.read_text(), object_pairs_hook=json_object)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{file} is not JSON: {error}") from None
    if not isinstance(content, dict):
        raise ValueError(f"{file} is not a JSON object, with the keys of a model's configuration")
    return content


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

    architecture: an entry of the table of architectures. known: whether it must be in the table;
    then the tensors of the files have to fit, too.
    Raises ValueError like `pretrained.outlined` and `pretrained.fit`.
    """
    model = pretrained.outlined(source.directory, source.stored, architecture, known)
    if known and source.stored:
        pretrained.fit(model, source.stored, source.directory)
    return model


def with_safetensors(source: SourceModel, scratch: Path) -> SourceModel:
    """Convert pickled weights to safetensors in `scratch`; other sources are returned unchanged.

    Raises ValueError like `pretrained.unpickle`.
    """
    if source.weights[0].suffix != ".bin":
        return source
    directory = scratch / "unpickled"
    pretrained.unpickle(source.weights, directory)
    return replace(source, weights=(directory / WEIGHTS,))


def load(path: str | Path, device: str = "cpu", **options: Any) -> nn.Module:
    """Load a model as the class that its config.json names, in evaluation mode.

    options: as `from_pretrained` takes them, such as dtype.
    Raises ValueError if config.json does not name one class of transformers.
    """
    config, model_class = pretrained.configured(Path(path), known=False)
    if hasattr(config, INT8):
        from ffmerge.method import quantization  # importing bitsandbytes takes seconds

        return quantization.load(Path(path), device)
    return model_class.from_pretrained(path, **options).to(device).eval()


def load_original(
    source: SourceModel,
    dtype: torch.dtype = torch.float32,
    architecture: Mapping[str, Any] | None = None,
) -> nn.Module:
    """Load the model in evaluation mode, with parameters of `dtype`.

    A merged model is loaded tied. Tensors that the files lack are NaN. architecture: an entry for a
    model that is not in the table of architectures.
    Raises ValueError naming a tensor that is not finite, or like `pretrained.load_whole`.
    """
    _check_finite(source.weights)
    directory = source.weights[0].parent
    try:
        return pretrained.load_whole(directory, dtype, architecture, partial=True)
    except ValueError as error:  # of pickled weights: name the directory that the user knows
        raise ValueError(str(error).replace(str(directory), str(source.directory))) from None


def _check_finite(files: tuple[Path, ...]) -> None:
    places = [(file, item) for file in files for item in tensor_file.read_head(file).items()]
    for file, (name, stored) in progress(places, desc="weights"):
        if stored.dtype.is_floating_point:
            for values in tensor_file.read(file, stored).flatten().split(VALUES_AT_A_TIME):
                values = values.float() if stored.dtype.itemsize == 1 else values  # of 8 bits
                if not torch.isfinite(values).all():
                    what = "NaN" if torch.isnan(values).any() else "an infinity"
                    raise ValueError(f"{file}: {name} holds {what}; the model is damaged")
