"""From a tied model back to a stock one: full size, and any tool loads it."""

import copy
import json
from pathlib import Path
from typing import Any

from ffmerge.models.tied_model import (
    CODE,
    GROUPS,
    MODEL_TYPE,
    STOCK_TYPE,
    shared_modules,
    shared_tensors,
)


def save_expanded(model: Any, directory: Path) -> None:
    """Write a tied model as a checkpoint of its stock class, a merged sublayer once a layer.

    model: of a tied class (tied_model); it stays as it is.
    Raises ValueError for a quantized one.
    """
    if hasattr(model.config, "quantization_config"):
        raise ValueError("the model is quantized: expand the model that it was made from")
    tensors = model.state_dict()
    for name in shared_tensors(model):
        tensors[name] = tensors[name].clone()
    model.save_pretrained(directory, state_dict=tensors)
    (directory / CODE).unlink(missing_ok=True)
    file = directory / "config.json"
    config = json.loads(file.read_text())
    stock = {"model_type": config[STOCK_TYPE]} | {
        key: value
        for key, value in config.items()
        if key not in ("model_type", "auto_map") and not key.startswith(f"{MODEL_TYPE}_")
    }
    file.write_text(json.dumps(stock, indent=2, sort_keys=True) + "\n")


def untie(model: Any) -> None:
    """Give each layer of a tied model a sublayer of its own again, in place, of its stock class.

    Before `merge_and_unload` of peft, which adds every layer's delta to the layer's weight: while
    layers share one, each of them would get the deltas of all.
    """
    for target, source in shared_modules(model).items():
        if hasattr(model.get_submodule(source), "base_layer"):  # wrapped by peft's adapters
            target, source = f"{target}.base_layer", f"{source}.base_layer"
        model.set_submodule(target, copy.deepcopy(model.get_submodule(source)))
    for key in (GROUPS, "auto_map"):
        if hasattr(model.config, key):
            delattr(model.config, key)
    for each in (model, model.config):
        each.__class__ = type(each).__bases__[1]  # after the mixin
    model.all_tied_weights_keys = model.get_expanded_tied_weights_keys(all_submodels=True)
