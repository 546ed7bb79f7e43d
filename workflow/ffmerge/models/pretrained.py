"""Load a pretrained model from its repository's files and convert it to the project's form.

That form is float32 safetensors named after the modules in `transformers` 5 (see
`ffmerge.models.checkpoint`), beside the files of the tokenizer or image processor.
"""

import json
import pickle
import re
import shutil
import sys
import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import transformers
from torch import nn
from transformers import PreTrainedModel
from transformers.conversion_mapping import get_model_conversion_mapping
from transformers.core_model_loading import WeightConverter, WeightRenaming, rename_source_key
from transformers.models.auto.modeling_auto import MODEL_MAPPING_NAMES

from ffmerge.models import checkpoint, tensor_file
from ffmerge.models.format import GROUPS, OWN_ENTRY, WEIGHTS
from ffmerge.models.tensor_file import Stored
from ffmerge.models.tied_model import tied_model_class
from ffmerge.models.towers import architecture_of_config, attribute, towers
from provenance.digest import sha256_of

PICKLE, INDEX = "pytorch_model.bin", ".index.json"  # an index lists the file of each tensor
STATE_DICTS = ("state_dict", "model_state_dict")  # keys of a training checkpoint's weights
WRAPPERS = ("module.", "_orig_mod.", "base_model.model.", "model.")  # in front of tensors' names
LFS_POINTER = b"version https://git-lfs"
CONFIGURATION = ("config.json", "generation_config.json")
SOURCE = "source.json"  # the origin of a converted model


@dataclass(frozen=True)
class Fit:
    """How the tensors of files fill a model.

    dtypes: name of the model's tensor -> its dtype in the files. missing: tensors of the model that
    the files lack.
    """

    dtypes: dict[str, torch.dtype]
    missing: frozenset[str]


def check_fetched(files: Iterable[Path]) -> None:
    """Raise ValueError naming a file that is a pointer of Git LFS in place of its content."""
    for file in files:
        with file.open("rb") as stream:
            if stream.read(len(LFS_POINTER)) == LFS_POINTER:
                raise ValueError(
                    f"{file} is a pointer of Git LFS, not the file itself: run `git lfs pull` there"
                )


def weights_of(directory: Path) -> tuple[Path, ...]:
    """The files of a model's weights: safetensors or, if there are none, pickles.

    Raises FileNotFoundError if there are none, or one is missing. Raises ValueError if their index
    is damaged.
    """
    for name in (WEIGHTS, PICKLE):
        if (directory / name).exists():
            return (directory / name,)
        index = directory / f"{name}{INDEX}"
        if index.exists():
            names = sorted(set(_index_of(index).values()))
            if missing := [name for name in names if not (directory / name).exists()]:
                raise FileNotFoundError(
                    f"{directory} lacks {', '.join(missing)}, which {index.name} names: fetch the "
                    "model again"
                )
            return tuple(directory / name for name in names)
    there = ", ".join(sorted(file.name for file in directory.iterdir())[:8])
    raise FileNotFoundError(
        f"{directory} has no {WEIGHTS} and no {PICKLE} (it has: {there}); save it from "
        "transformers with save_pretrained"
    )


def _index_of(index: Path) -> dict[str, str]:
    """Read which file holds each tensor."""
    try:
        content = json.loads(index.read_text())
        places = content["weight_map"]
        plain = all(name == Path(name).name for name in places.values())
        if not places or not plain or not isinstance(content["metadata"], dict):
            raise ValueError("it names no files beside it, or has no metadata")
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise ValueError(
            f"{index} is no index of a model's files ({error}): fetch it again"
        ) from None
    return places


def stored_in(files: Iterable[Path]) -> dict[str, Stored]:
    """The tensors of safetensors files by name; none for pickles.

    Raises ValueError as `read_head` does, or naming a tensor that is not where the index of the
    files says.
    """
    stored: dict[str, Stored] = {}
    for file in files:
        if file.suffix == ".safetensors":
            stored |= tensor_file.read_head(file)
            index = file.with_name(f"{WEIGHTS}{INDEX}")
    if stored and file.name != WEIGHTS:
        names = _index_of(index).keys()
        if other := sorted(names ^ stored.keys()):
            where = "index" if other[0] in names else "files"
            raise ValueError(
                f"{index} is not of the files beside it: only the {where} has {other[0]}"
            )
    return stored


def unpickle(files: Sequence[Path], directory: Path) -> None:
    """Write pickled weights as safetensors, with the configuration beside them.

    Tensors that share memory are written separately. A training checkpoint's weights are taken from
    its `state_dict`. directory: a new one.
    Raises ValueError naming a file that holds something other than named tensors, such as code
    (`weights_only`).
    """
    tensors: dict[str, torch.Tensor] = {}
    for file in files:
        try:
            content = torch.load(file, map_location="cpu", weights_only=True)
        except pickle.UnpicklingError:
            raise ValueError(
                f"{file} holds no plain tensors: it is damaged, or reading it would run code that "
                "it brings; save the model as safetensors"
            ) from None
        except Exception as error:  # RuntimeError of a damaged archive, EOFError, …
            reason = (str(error) or type(error).__name__).split("\n")[0].split(". ")[0]
            raise ValueError(f"{file} holds no plain tensors, or is damaged: {reason}") from None
        for key in STATE_DICTS:
            if isinstance(content, dict) and isinstance(content.get(key), dict):
                content = content[key]
        if not isinstance(content, dict) or not content:
            raise ValueError(f"{file} holds {_kind(content)}, not tensors by their names")
        for name, tensor in content.items():
            is_strided = isinstance(tensor, torch.Tensor) and tensor.layout == torch.strided
            if not (isinstance(name, str) and is_strided and tensor.dtype in tensor_file.CODES):
                raise ValueError(
                    f"{file} holds more than plain tensors by their names: {name!r} is "
                    f"{_kind(tensor)}; save the model's state_dict() alone"
                )
        tensors |= content
    directory.mkdir(parents=True, exist_ok=True)
    tensor_file.write_all(directory / WEIGHTS, tensors)
    for name in CONFIGURATION:
        if (files[0].parent / name).exists():
            shutil.copyfile(files[0].parent / name, directory / name)


def _kind(value: Any) -> str:
    if isinstance(value, torch.Tensor):
        return f"a tensor with dtype {value.dtype} and layout {value.layout}"
    return f"a value of type {type(value).__name__}"


def load_whole(
    directory: Path,
    dtype: torch.dtype = torch.float32,
    architecture: Mapping[str, Any] | None = None,
    partial: bool = False,
) -> nn.Module:
    """Load a model from a directory of a repository's files, computing in `dtype`.

    What is merged is tied. Code that comes with a model is not run. Tensors for which the model has
    no place are a warning.
    architecture: an entry of the table of architectures for a model without one; it is kept in the
    model's configuration. partial: tensors that the files lack, such as those of a pooler, are NaN,
    so that no result can depend on them.
    Raises ValueError if the architecture has no entry, as `fit` does, and, unless `partial`, naming
    the tensors that are missing, to which transformers would give random values.
    """
    stored = stored_in(weights_of(directory))
    outline = outlined(directory, stored, architecture)
    found, name = fit(outline, stored, directory), type(outline).__name__
    if found.missing and not partial:
        raise ValueError(f"{directory} does not fill {name}: missing {_listed(found.missing)}")
    with quiet():  # its report has what `found` has
        model, report = type(outline).from_pretrained(
            directory,
            config=outline.config,
            dtype=dtype,
            use_safetensors=True,
            local_files_only=True,
            output_loading_info=True,
        )
    for fault in ("missing_keys", "mismatched_keys", "error_msgs"):
        if faults := sorted(map(str, set(report.get(fault) or []) - found.missing)):
            raise ValueError(f"{directory} does not fill {name}: {fault} {', '.join(faults)}")
    for name in found.missing:
        if (tensor := model.get_parameter_or_buffer(name)).is_floating_point():
            tensor.data.fill_(torch.nan)
    if unused := sorted(report.get("unexpected_keys") or []):
        warnings.warn(f"{name} has no place for {', '.join(unused)}", stacklevel=2)
    return model.eval()


@contextmanager
def quiet() -> Iterator[None]:
    """Hide the warnings of transformers: what is wrong is said here, in one line."""
    level = transformers.utils.logging.get_verbosity()
    transformers.utils.logging.set_verbosity_error()
    try:
        yield
    finally:
        transformers.utils.logging.set_verbosity(level)


def outlined(
    directory: Path,
    stored: Mapping[str, Stored],
    architecture: Mapping[str, Any] | None = None,
    known: bool = True,
) -> nn.Module:
    """Make a model on torch's meta device: modules and shapes, no values.

    Raises ValueError like `configured`, and naming the key, if config.json has more layers than the
    files have tensors, or if no such model can be built.
    """
    config, model_class = configured(directory, architecture, known)
    for key in _counts(config):
        count = _value(config, key)
        if isinstance(count, int) and stored and count > len(stored):  # it would take very long
            raise ValueError(
                f"{directory / 'config.json'}: {key} is {count}, but the files of weights hold "
                f"only {len(stored)} tensors"
            )
    try:
        with torch.device("meta"), quiet():
            model = model_class(config)
        model.tie_weights()
    except Exception as error:  # any: every class fails in its own way on values it cannot take
        reason = " ".join(str(error).split("Exception raised from")[0].split())[:200]
        raise ValueError(
            f"{directory / 'config.json'} describes no {model_class.__name__} that can be built: "
            f"{reason or 'no reason given'} ({type(error).__name__})"
        ) from None
    return model.eval()


def fit(model: nn.Module, stored: Mapping[str, Stored], directory: Path) -> Fit:
    """Find the place in a model of each tensor of its files, by the rules of transformers.

    model: may be an outline. directory: of the files, for messages.
    Raises ValueError naming tensors of another shape or type, layers that only the files or only
    config.json have, or the names that the files have if these are not the model's.
    """
    places = model.state_dict()
    conversions = get_model_conversion_mapping(model)
    renamings = [each for each in conversions if isinstance(each, WeightRenaming)]
    converters = [each for each in conversions if isinstance(each, WeightConverter)]
    dtypes: dict[str, torch.dtype] = {}
    unused: set[str] = set()  # places that the model does not have
    for name, tensor in stored.items():
        rules = [renamings, converters, model.base_model_prefix, places]
        place, pattern = rename_source_key(name, *rules)
        if place not in places and name in places:
            place, pattern = name, None
        if place not in places:
            unused.add(place)
            continue
        dtypes.setdefault(place, tensor.dtype)
        for rule in converters:  # several tensors may become one, or one several
            if pattern in rule.source_patterns:
                first = rule.target_patterns[0]
                made = (place.replace(first, target) for target in rule.target_patterns)
                dtypes = dict.fromkeys(set(made) & places.keys(), tensor.dtype) | dtypes
        shape = tuple(places[place].shape)
        if pattern is None and tensor.shape != shape:
            raise ValueError(
                f"{directory}: {name} has the shape {tensor.shape}, but config.json says {shape}"
            )
        if places[place].is_floating_point() and not tensor.dtype.is_floating_point:
            raise ValueError(
                f"{directory}: {name} is stored as {tensor.dtype}: the model is quantized; take "
                "the model that it was made from"
            )
    if not dtypes:
        wrapped = next((p for p in WRAPPERS if all(name.startswith(p) for name in stored)), None)
        way_out = (
            f"save the model without the wrapper that puts {wrapped!r} in front"
            if wrapped
            else "config.json may be of another model"
        )
        raise ValueError(
            f"{directory}: the files hold none of the tensors of {type(model).__name__} (they "
            f"have: {_listed(stored)}): {way_out}"
        )
    tied: dict[str, set[str]] = {}
    for target, source in model.all_tied_weights_keys.items():
        tied.setdefault(source, {source}).add(target)
    present = {name for names in tied.values() if names & dtypes.keys() for name in names}
    left_out = re.compile("|".join(model._keys_to_ignore_on_load_missing or ()) or "$^")
    missing = {n for n in places.keys() - dtypes.keys() - present if not left_out.search(n)}
    _check_layers(model, set(dtypes), missing, unused, directory)
    return Fit(dtypes, frozenset(missing))


def _check_layers(
    model: nn.Module, filled: set[str], missing: set[str], unused: Iterable[str], directory: Path
) -> None:
    """Raise ValueError unless the files have all tensors of as many layers as config.json says."""
    try:
        found = towers(model)
    except ValueError as error:
        raise ValueError(f"{directory}, by its config.json: {error}") from None
    for name, tower in found.items():
        if (key := tower.feed_forward.count) and _value(model.config, key) is None:
            raise ValueError(
                f"{directory / 'config.json'} has no key {key}, which the architecture's entry "
                f"names as count of the {name}: name the one for the number of layers, or null"
            )
        key = key or "the number of layers"
        empty = [p for p in tower.paths if not any(n.startswith(f"{p}.") for n in filled)]
        layer = re.compile(re.sub(r"\d+", r"\\d+", re.escape(tower.paths[0])) + r"\.")
        paths = tuple(f"{path}." for path in tower.paths)
        more = {match[0] for match in map(layer.match, unused) if match} - set(paths)
        if empty or more:
            raise ValueError(
                f"{directory / 'config.json'}: {key} is {len(tower)}, but the files of weights "
                f"hold {len(tower) - len(empty) + len(more)} layers of the {name}; put that number "
                "there"
            )
        if lacking := [name for name in missing if name.startswith(paths)]:
            raise ValueError(
                f"{directory} does not fill {type(model).__name__}: missing {_listed(lacking)}"
            )


def _counts(config: transformers.PreTrainedConfig) -> list[str]:
    """The configuration's keys for numbers of layers."""
    try:
        forms = [form for t in architecture_of_config(config).towers.values() for form in t]
    except ValueError:  # not in the table
        return ["num_hidden_layers"]
    return list(dict.fromkeys(form.count for form in forms if form.count))


def _value(config: Any, key: str) -> Any:
    try:
        return attribute(config, key)
    except AttributeError:
        return None


def _listed(names: Iterable[str]) -> str:
    """The first few names."""
    names = sorted(names)
    return ", ".join(names[:5]) + (f" and {len(names) - 5} more" if len(names) > 5 else "")


def configured(
    directory: Path, architecture: Mapping[str, Any] | None = None, known: bool = True
) -> tuple[transformers.PreTrainedConfig, type[nn.Module]]:
    """A model's configuration and class, which ties what is merged.

    known: whether its architecture must have an entry in the table.

    Raises ValueError unless config.json names one class of models of its `model_type`, or as
    `load_whole` does.
    """
    file = directory / "config.json"
    try:
        with quiet():
            config = checkpoint.read_configuration(directory)
    except Exception as error:  # OSError, KeyError, TypeError, errors of huggingface_hub, …
        reason = " ".join(str(error).split())[:200]
        raise ValueError(f"{file}: transformers cannot read it: {reason}") from None
    for name in ("transformers_weights", "auto_map"):  # other weights, code that is not run
        vars(config).pop(name, None)
    if architecture is not None:
        setattr(config, OWN_ENTRY, architecture)
    if known:
        architecture_of_config(config)
    names = config.architectures
    name = names[0] if isinstance(names, list) and len(names) == 1 else None
    model_class = getattr(transformers, name, None) if isinstance(name, str) else None
    is_model = isinstance(model_class, type) and issubclass(model_class, PreTrainedModel)
    if not is_model or not isinstance(config, model_class.config_class or ()):
        base = MODEL_MAPPING_NAMES.get(config.model_type)
        such = f", such as {base}" if isinstance(base, str) else ""
        raise ValueError(
            f"{file}: architectures is {json.dumps(names)}: has to be a list of one class of "
            f"transformers for {config.model_type}, the one that was saved{such}"
        )
    return config, tied_model_class(model_class) if hasattr(config, GROUPS) else model_class


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
    check_fetched(files)
    pickles = [file for file in files if file.suffix == ".bin"]
    if pickles:
        unpickle(pickles, scratch)
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
