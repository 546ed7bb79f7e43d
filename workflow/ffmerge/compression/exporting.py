"""Another form of a merged model: its files read, its weights written again as they are."""

import json
import time
import warnings
from dataclasses import replace
from pathlib import Path
from typing import Any

from ffmerge.compression.lineage import Lineage, lineage_of
from ffmerge.compression.loading import load
from ffmerge.compression.output import record
from ffmerge.compression.output.card import export_card
from ffmerge.compression.output.directory import (
    check_new,
    check_space,
    full_disk_told,
    new_directory,
)
from ffmerge.compression.output.summary import Exported
from ffmerge.compression.output.weights import (
    copy_processor,
    keep_what_was_stored,
    processor_files,
    store,
)
from ffmerge.compression.settings import FORMS
from ffmerge.method.groups import Group
from ffmerge.method.tie import count_parameters, count_sublayers
from ffmerge.models import tensor_file
from ffmerge.models.format import GROUPS, INT8, WEIGHTS
from provenance.digest import sha256_of


def export(
    model: str | Path,
    *,
    out: str | Path,
    form: str = "tied",
    processor: str | Path | None = None,
    command: str | None = None,
) -> Exported:
    """Write a merged model to a new directory, in one of the forms that `compress` has.

    model: a directory of `compress` or of the workflow. processor: the directory of its tokenizer
    or processor, by default its own, or that of the base model that its record names. command: for
    the record.
    Raises ValueError or OSError in words for the user; then nothing is at `out`.
    """
    model, out, started = Path(model), Path(out), time.time()
    check_new(out)
    if form not in FORMS:
        raise ValueError(f"form {form!r}: allowed are {', '.join(FORMS)}")
    groups = _merged_groups(model)
    lineage = lineage_of(model)
    beside = _processor_directory(model, lineage, processor)
    given = {
        "model": {file.name: sha256_of(file) for file in (model / "config.json", model / WEIGHTS)},
        "lineage": lineage.as_json(),
        "processor": {file.name: sha256_of(file) for file in processor_files(beside)},
    }
    with warnings.catch_warnings(record=True) as noted:
        loaded = load(model, dtype="auto")
        stored = tensor_file.read_head(model / WEIGHTS)
        keep_what_was_stored(loaded, stored)
        vars(loaded.config).pop("auto_map", None)  # of the form `code`, which `store` says anew
        needed = {"weights": _bytes(loaded, form)}
        with new_directory(out) as directory, full_disk_told(needed):
            check_space(directory, needed)
            store(loaded, form, stored, directory)
            copy_processor(beside, directory)
            result = Exported(
                model=str(model),
                out=out,
                form=form,
                groups=groups,
                sublayers=count_sublayers(loaded),
                parameters=count_parameters(loaded),
                bytes=sum(file.stat().st_size for file in directory.glob("*.safetensors")),
                score=lineage.score,
                warnings=tuple(dict.fromkeys(str(each.message) for each in noted)),
            )
            params = {"form": form}
            digest = record.write(directory, given, params, result.as_json(), started, command)
            result = replace(result, record=digest)
            card = export_card(result, lineage, given["model"], type(loaded).__name__)
            (directory / "README.md").write_text(card)
    return result


def _merged_groups(model: Path) -> list[Group]:
    """What is merged. Raises FileNotFoundError or ValueError for what cannot be exported."""
    for name in ("config.json", WEIGHTS):
        if not (model / name).is_file():
            raise FileNotFoundError(f"{model} has no {name}: name the directory of a merged model")
    config = json.loads((model / "config.json").read_text())
    if INT8 in config:
        raise ValueError(f"{model} is quantized: export the model that it was made from")
    if not config.get(GROUPS):
        raise ValueError(
            f"nothing is merged in {model} (config.json has no {GROUPS}): transformers loads it as "
            "it is"
        )
    return [Group(each["tower"], tuple(each["layers"]), each["anchor"]) for each in config[GROUPS]]


def _processor_directory(model: Path, lineage: Lineage, chosen: str | Path | None) -> Path:
    """Where tokenizer or processor are. Raises ValueError or FileNotFoundError if nowhere."""
    if chosen is not None:
        if not processor_files(Path(chosen)):
            raise FileNotFoundError(f"{chosen} has no files of a tokenizer or processor")
        return Path(chosen)
    for directory in (model, lineage.base_model):
        if directory is not None and processor_files(directory):
            return directory
    raise ValueError(
        f"neither {model} nor a base model that its record names has a tokenizer or processor: "
        "name the directory of one with --processor DIR"
    )


def _bytes(model: Any, form: str) -> int:
    """Bytes that the weights will have in a file."""
    if form == "expanded":
        tensors = model.state_dict().values()
    else:
        tensors = model.parameters()
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors)
