"""Turn a tied model back into a stock one, of full size, which any tool loads."""

import copy
import json
from pathlib import Path
from typing import Any

from ffmerge.models import tied_model


def save_expanded(model: Any, directory: Path) -> None:
    """Write a tied model as a checkpoint of its stock class, with a merged sublayer in each layer.

    Low-rank corrections are added to the weights of their layers, low-rank maps become whole.

    model: of a tied class (tied_model); it stays unchanged. Raises ValueError if it is quantized.
    """
    if hasattr(model.config, "quantization_config"):
        raise ValueError("the model is quantized: expand the model that it was made from")
    tensors, dtype = model.state_dict(), str(model.config.dtype or model.dtype)
    for name in tied_model.shared_tensors(model):
        tensors[name] = tensors[name].clone()
    for name in tied_model.relaxed_modules(model):
        tensors[f"{name}.weight"] = tied_model.absorbed(model.get_submodule(name))
        for own in tied_model.OWN:
            tensors.pop(f"{name}.{own}", None)
    model.save_pretrained(directory, state_dict=tensors)
    (directory / tied_model.CODE).unlink(missing_ok=True)
    file = directory / "config.json"
    config = json.loads(file.read_text())
    stock = {"model_type": config[tied_model.STOCK_TYPE], "dtype": dtype.removeprefix("torch.")} | {
        key: value
        for key, value in config.items()
        if key not in ("model_type", "dtype", "auto_map")
        and not key.startswith(f"{tied_model.MODEL_TYPE}_")
    }
    file.write_text(json.dumps(stock, indent=2, sort_keys=True) + "\n")


def untie(model: Any) -> None:
    """Give every layer of a tied model its own copy of the sublayer, in place, in its stock class.

    Call it before peft's `merge_and_unload`, which adds each layer's delta to the layer's weight: a
    shared weight would get the deltas of all its layers.
    """
    relaxed = tied_model.relaxed_modules(model)
    for name in relaxed:
        module = model.get_submodule(name)
        tied_model.absorb(getattr(module, "base_layer", module))
    for target, source in tied_model.shared_modules(model).items():
        if target in relaxed:
            continue
        if hasattr(model.get_submodule(source), "base_layer"):  # wrapped by peft's adapters
            target, source = f"{target}.base_layer", f"{source}.base_layer"
        model.set_submodule(target, copy.deepcopy(model.get_submodule(source)))
    for key in (tied_model.GROUPS, "auto_map"):
        if hasattr(model.config, key):
            delattr(model.config, key)
    for tied in (model, model.config):
        tied.__class__ = type(tied).__bases__[1]  # after the mixin
    model.all_tied_weights_keys = model.get_expanded_tied_weights_keys(all_submodels=True)
