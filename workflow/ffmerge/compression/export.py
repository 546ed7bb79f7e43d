"""Write a merged model in another form, its weights unchanged: `ffmerge.export`."""

import time
import warnings
from dataclasses import replace
from functools import reduce
from pathlib import Path

import torch

from ffmerge.compression import record, write
from ffmerge.compression.card import export_card
from ffmerge.compression.pipeline import size_of
from ffmerge.compression.settings import FORMS
from ffmerge.compression.source import groups_in, load, object_in
from ffmerge.compression.summary import Exported
from ffmerge.extensions.relax import corrections
from ffmerge.method.groups import Group
from ffmerge.models import tensor_file
from ffmerge.models.format import GROUPS, INT8, WEIGHTS
from ffmerge.models.pretrained import fit, outlined, quiet
from ffmerge.models.size import count_parameters, count_sublayers
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
    write.check_new(out)
    write.check_outside(out, [model, *([Path(processor)] if processor else [])])
    if form not in FORMS:
        raise ValueError(f"form {form!r}: allowed are {', '.join(FORMS)}")
    groups = _merged_groups(model)
    lineage = record.lineage_of(model)
    beside = _processor_directory(model, lineage, processor)
    inputs = {
        "model": {file.name: sha256_of(file) for file in (model / "config.json", model / WEIGHTS)},
        "lineage": lineage.as_json(),
        "processor": {
            file.relative_to(beside).as_posix(): sha256_of(file)
            for file in write.processor_files(beside)
        },
    }
    with warnings.catch_warnings(record=True) as noted:
        tensors = tensor_file.read_head(model / WEIGHTS)
        stored = fit(outlined(model, tensors), tensors, model)
        # Transformers would take the most frequent dtype and round others. 8 bits fit into any.
        floats = {d for d in stored.dtypes.values() if d.is_floating_point and d.itemsize > 1}
        widest = reduce(torch.promote_types, floats or {torch.float32})
        loaded = load(model, dtype=widest)
        write.keep_stored_tensors(loaded, stored)
        write.to_stored_dtypes(loaded, stored)
        vars(loaded.config).pop("auto_map", None)  # `store` writes it again for the form `code`
        whole = form == "expanded"
        kept = loaded.state_dict().values() if whole else loaded.parameters()
        n_bytes = sum(tensor.numel() * tensor.element_size() for tensor in kept)
        with write.new_directory(out, n_bytes) as directory:
            write.store(loaded, form, stored, directory)
            write.copy_processor(beside, directory)
            result = Exported(
                model=str(model),
                out=out,
                form=form,
                groups=groups,
                sublayers=count_sublayers(loaded),
                parameters=count_parameters(loaded),
                bytes=size_of(directory.glob("*.safetensors")),
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


def _processor_directory(model: Path, lineage: record.Lineage, chosen: str | Path | None) -> Path:
    """Find the tokenizer or processor. Raises ValueError or FileNotFoundError if there is none."""
    if chosen is not None:
        if not write.processor_files(Path(chosen)):
            raise FileNotFoundError(f"{chosen} has no files of a tokenizer or processor")
        return Path(chosen)
    for directory in (model, lineage.base_model):
        if directory is not None and write.processor_files(directory):
            return directory
    raise ValueError(
        f"neither {model} nor a base model that its record names has a tokenizer or processor: "
        "name the directory of one with --processor DIR"
    )
