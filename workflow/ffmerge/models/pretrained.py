"""Load a pretrained model from its repository's files and convert it to the project's form.

That form is float32 safetensors named after the modules in `transformers` 5 (see
`ffmerge.models.checkpoint`), beside the files of the tokenizer or image processor.
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
from torch import nn

from ffmerge.models import checkpoint, tensor_file
from ffmerge.models.format import OWN_ENTRY
from ffmerge.models.towers import architecture_of_config
from provenance.digest import sha256_of

CONFIGURATION = ("config.json", "generation_config.json")
SOURCE = "source.json"  # the origin of a converted model


def unpickle(files: list[Path], safetensors: Path) -> None:
    """Write pickled weights as safetensors; tensors that share memory are written separately.

    Raises ValueError naming a file that holds more than tensors, such as code (`weights_only`).
    """
    tensors: dict[str, torch.Tensor] = {}
    for file in files:
        try:
            tensors |= torch.load(file, map_location="cpu", weights_only=True)
        except Exception as error:  # pickle.UnpicklingError, RuntimeError of a damaged archive, …
            reason = str(error).split("\n")[0]
            raise ValueError(f"{file.name} holds no plain tensors: {reason}") from None
    tensor_file.write_all(safetensors, tensors)


def load_whole(
    directory: Path,
    dtype: torch.dtype = torch.float32,
    architecture: Mapping[str, Any] | None = None,
) -> nn.Module:
    """Load a model from a directory of a repository's files, computing in `dtype`.

    Code that comes with a model is not run. Tensors for which the model has no place are a warning.
    architecture: an entry of the table of architectures for a model without one; it is kept in the
    model's configuration.
    Raises ValueError if the architecture has no entry, or naming the tensors that are missing or of
    another shape, to which transformers would give random values.
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
    for fault in ("missing_keys", "mismatched_keys", "error_msgs"):
        if faults := sorted(map(str, report.get(fault) or [])):
            raise ValueError(f"the weights do not fill {name}: {fault} {', '.join(faults)}")
    if unused := sorted(report.get("unexpected_keys") or []):
        warnings.warn(f"{name} has no place for {', '.join(unused)}", stacklevel=2)
    return model.eval()


def configured(
    directory: Path, architecture: Mapping[str, Any] | None = None, known: bool = True
) -> tuple[transformers.PreTrainedConfig, type[nn.Module]]:
    """A model's configuration and class. known: whether its architecture must have an entry.

    Raises ValueError unless config.json names one class of transformers, or as `load_whole` does.
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
    """Convert the model in a repository's files, write it to `directory`, and return it.

    snapshot: the fetched files. n_layers: number of layers that every tower must have.
    scratch: a directory for safetensors made from pickled weights. source: repository and revision,
    or package, written to `source.json` with the digests of the files. architecture: see
    `load_whole`.
    Raises ValueError as `load_whole`, `unpickle` and `checkpoint.check_layers` do.
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
