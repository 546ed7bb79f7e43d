"""Write a merged model in another form, its weights unchanged: `ffmerge.export`."""

import time
import warnings
from dataclasses import replace
from pathlib import Path
from typing import Any

from ffmerge.compression import record
from ffmerge.compression.card import export_card
from ffmerge.compression.load import load
from ffmerge.compression.record import Lineage, lineage_of
from ffmerge.compression.settings import FORMS
from ffmerge.compression.source import groups_in, object_in
from ffmerge.compression.summary import Exported
from ffmerge.compression.write import (
    check_new,
    check_outside,
    copy_processor,
    keep_stored_tensors,
    new_directory,
    processor_files,
    store,
)
from ffmerge.method.groups import Group
from ffmerge.method.relax import corrections
from ffmerge.method.tie import count_parameters, count_sublayers
from ffmerge.models import tensor_file
from ffmerge.models.format import GROUPS, INT8, WEIGHTS
from ffmerge.models.pretrained import configured, fit, outlined, quiet
from ffmerge.models.tied_model import tied_model_class
from provenance.digest import sha256_of


@quiet()
def export(
    model: str | Path,
    *,
    out: str | Path,
    form: str = "tied",
    processor: str | Path | None = None,
    command: str | None = None,
) -> Exported:
    """Write a merged model to a new directory, in one of the forms that `compress` writes.

    model: a directory that `compress` or the workflow wrote. processor: the directory of its
    tokenizer or processor; by default the model's, or that of the base model in its record.
    command: for the record.
    Raises ValueError or OSError with a message for the user; then nothing is at `out`.
    """
    model, out, started = Path(model), Path(out), time.time()
    check_new(out)
    check_outside(out, [model, *([Path(processor)] if processor else [])])
    if form not in FORMS:
        raise ValueError(f"form {form!r}: allowed are {', '.join(FORMS)}")
    groups = _merged_groups(model)
    lineage = lineage_of(model)
    beside = _processor_directory(model, lineage, processor)
    inputs = {
        "model": {file.name: sha256_of(file) for file in (model / "config.json", model / WEIGHTS)},
        "lineage": lineage.as_json(),
        "processor": {
            file.relative_to(beside).as_posix(): sha256_of(file) for file in processor_files(beside)
        },
    }
    with warnings.catch_warnings(record=True) as noted:
        tensors = tensor_file.read_head(model / WEIGHTS)
        config, model_class = configured(model)
        stored = fit(
            outlined(config, tied_model_class(model_class), model, tensors), tensors, model
        )
        loaded = load(model, dtype="auto")
        keep_stored_tensors(loaded, stored)
        vars(loaded.config).pop("auto_map", None)  # `store` writes it again for the form `code`
        with new_directory(out, _bytes(loaded, form)) as directory:
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
                method=lineage.method,
                corrections=corrections(loaded),
                warnings=tuple(dict.fromkeys(str(warning.message) for warning in noted)),
            )
            params = {"form": form}
            digest = record.write(
                directory, inputs, params, result.as_json(), started, command, "export"
            )
            result = replace(result, record=digest)
            card = export_card(result, lineage, inputs["model"], type(loaded).__name__)
            (directory / "README.md").write_text(card)
    return result


def _merged_groups(model: Path) -> list[Group]:
    """Read the groups. Raises FileNotFoundError or ValueError for a model that is not merged."""
    for name in ("config.json", WEIGHTS):
        if not (model / name).is_file():
            raise FileNotFoundError(f"{model} has no {name}: name the directory of a merged model")
    config = object_in(model / "config.json")
    if INT8 in config:
        raise ValueError(f"{model} is quantized: export the model that it was made from")
    if not config.get(GROUPS):
        raise ValueError(
            f"nothing is merged in {model} (config.json has no {GROUPS}): transformers loads it as "
            "it is"
        )
    try:
        return groups_in(config)
    except (KeyError, TypeError, AttributeError) as error:
        raise ValueError(
            f"{model / 'config.json'}: {GROUPS} is not as ffmerge writes it ({error})"
        ) from None


def _processor_directory(model: Path, lineage: Lineage, chosen: str | Path | None) -> Path:
    """Find the tokenizer or processor. Raises ValueError or FileNotFoundError if there is none."""
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
    """Bytes that the weights will take in the file."""
    if form == "expanded":
        tensors = model.state_dict().values()
    else:
        tensors = model.parameters()
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors)
