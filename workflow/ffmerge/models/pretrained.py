"""A pretrained model as its repository has it, to the project's own form, with nothing left out.

Its own form: float32 safetensors with the names that the modules have in `transformers` 5 (see
`ffmerge.models.checkpoint`), and the tokenizer's or image processor's files beside it.
"""

import json
import shutil
import sys
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
import transformers
from safetensors.torch import save_file
from torch import nn

from ffmerge.models import checkpoint
from ffmerge.models.format import OWN_ENTRY
from ffmerge.models.towers import architecture_of_config
from provenance.digest import sha256_of

CONFIGURATION = ("config.json", "generation_config.json")
SOURCE = "source.json"  # where a converted model is from


def unpickle(files: list[Path], safetensors: Path) -> None:
    """Write pickled weights as safetensors, every tensor by itself.

    Tensors only: a pickle that would run code is refused (`weights_only`).
    Raises ValueError naming such a file.
    """
    tensors: dict[str, torch.Tensor] = {}
    for file in files:
        try:
            tensors |= torch.load(file, map_location="cpu", weights_only=True)
        except Exception as error:  # pickle.UnpicklingError, RuntimeError of a damaged archive, …
            reason = str(error).split("\n")[0]
            raise ValueError(f"{file.name} holds no plain tensors: {reason}") from None
    whole = {name: tensor.clone().contiguous() for name, tensor in tensors.items()}
    save_file(whole, safetensors, metadata={"format": "pt"})


def load_whole(
    directory: Path,
    dtype: torch.dtype = torch.float32,
    architecture: Mapping[str, Any] | None = None,
) -> nn.Module:
    """The model in a directory of a repository's files, computing in `dtype`.

    Code that comes with a model is not run. What the file has and the model has no place for is
    given as a warning. architecture: an entry of the table of architectures, for a model that has
    none there; it is kept in the model's configuration.
    Raises ValueError naming the tensors that the file lacks or has in another shape: transformers
    would give them random values; or if the architecture has no entry in the table.
    """
    config, model_class = configured(directory, architecture)
    name = model_class.__name__
    model, report = model_class.from_pretrained(
        directory,
        config=config,
        dtype=dtype,
        use_safetensors=True,
        local_files_only=True,
        output_loading_info=True,
    )
    for what in ("missing_keys", "mismatched_keys", "error_msgs"):
        if found := sorted(map(str, report.get(what) or [])):
            raise ValueError(f"the weights do not fill {name}: {what} {', '.join(found)}")
    if unused := sorted(report.get("unexpected_keys") or []):
        warnings.warn(f"{name} has no place for {', '.join(unused)}", stacklevel=2)
    return model.eval()


def configured(
    directory: Path, architecture: Mapping[str, Any] | None = None, known: bool = True
) -> tuple[transformers.PreTrainedConfig, type[nn.Module]]:
    """A model's configuration and its class. known: whether its architecture has to be.

    Raises ValueError if that is not one class of transformers, or as `load_whole`.
    """
    config = transformers.AutoConfig.from_pretrained(directory, trust_remote_code=False)
    if architecture is not None:
        setattr(config, OWN_ENTRY, architecture)
    if known:
        architecture_of_config(config)
    names = config.architectures or []
    if len(names) != 1 or not hasattr(transformers, names[0]):
        raise ValueError(f"architectures {names}: has to be one class of transformers")
    return config, getattr(transformers, names[0])


def convert(
    snapshot: Path,
    n_layers: int,
    directory: Path,
    scratch: Path,
    source: dict[str, Any],
    architecture: Mapping[str, Any] | None = None,
) -> nn.Module:
    """Write the model that a repository's files hold to `directory`, and return it.

    snapshot: the files, as fetched. n_layers: layers a tower, checked.
    scratch: a directory, for pickled weights that are made safetensors. source: repository and
    revision, or package, kept in `source.json` with the digests of the files. architecture: see
    `load_whole`.
    Raises ValueError for whatever `load_whole`, `unpickle` or `checkpoint.check_layers` refuse.
    """
    files = sorted(f for f in snapshot.iterdir() if f.is_file() and not f.name.startswith("."))
    pickles = [file for file in files if file.suffix == ".bin"]
    if pickles:
        scratch.mkdir(parents=True, exist_ok=True)
        unpickle(pickles, scratch / checkpoint.WEIGHTS)
        for file in files:
            if file.name in CONFIGURATION:
                shutil.copyfile(file, scratch / file.name)
    model = load_whole(scratch if pickles else snapshot, architecture=architecture)
    checkpoint.check_layers(model, n_layers)
    checkpoint.save(model, directory)
    for file in files:
        weights = file.name.endswith((".bin", ".safetensors", ".index.json"))
        if file.name not in CONFIGURATION and not weights:
            shutil.copyfile(file, directory / file.name)
    digests = {file.name: sha256_of(file) for file in files}
    text = json.dumps({**source, "files": digests}, indent=2)
    (directory / SOURCE).write_text(f"{text}\n")
    return model


def show_bars_on_a_terminal_only() -> None:
    """Hide transformers' own progress bars where nobody watches."""
    if not sys.stderr.isatty():
        transformers.utils.logging.disable_progress_bar()
