"""A proposal for the table of architectures: where a model's feed-forward sublayers seem to be.

A sublayer is two linear maps of a layer that undo each other's shapes, d_model → d_ff → d_model,
outside of its attention; three if it is gated. What is found is for a person to check.
"""

import re
from collections.abc import Iterator, Mapping
from typing import Any

from torch import nn
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES
from transformers.pytorch_utils import Conv1D

from ffmerge.models.architectures import Architecture

ATTENTION = re.compile(r"attn|attention|crossatt", re.IGNORECASE)
GATES = re.compile(r"gate|wi_0|\bw1\b", re.IGNORECASE)  # as gates are called


def proposed(model: nn.Module) -> dict[str, Any]:
    """The entry of a model, as `Architecture.from_entry` reads it.

    Raises ValueError if no list of layers has such maps.
    """
    forms: dict[str, list[dict[str, Any]]] = {}
    for path, layers in _stacks(model.base_model).items():
        found = _sublayer(layers[0])
        if found is None:
            continue
        name = _tower(path, model)
        form = {"layers": path, **found, **_count(model.config, len(layers), name)}
        if (mask := _mask(name, model)) != "attention_mask":
            form["mask"] = mask
        forms.setdefault(name, []).append(form)
    if not forms:
        raise ValueError(
            f"no list of layers of {type(model).__name__} has two linear maps d_model → d_ff → "
            "d_model, so that there is nothing to merge in it"
        )
    return Architecture.from_entry({"prefix": model.base_model_prefix, "towers": forms}).entry()


def _stacks(base: nn.Module) -> dict[str, list[nn.Module]]:
    """Path of the layers of a stack, `*` for a number -> the layers."""
    stacks: dict[str, list[nn.Module]] = {}
    for name, module in base.named_modules():
        if re.search(r"(^|\.)\d+$", name) and any(True for _ in module.parameters()):
            stacks.setdefault(re.sub(r"(^|(?<=\.))\d+(?=\.|$)", "*", name), []).append(module)
    found = {path: layers for path, layers in stacks.items() if _sublayer(layers[0]) is not None}
    return {  # the innermost that holds whole sublayers: `layers.*.blocks.*`, not `layers.*`
        path: layers
        for path, layers in found.items()
        if not any(other.startswith(f"{path}.") for other in found)
    }


def _sublayer(layer: nn.Module) -> dict[str, Any] | None:
    """The maps of a layer's sublayer, by the keys of an entry; None if there are none."""
    maps = {name: module for name, module in layer.named_modules() if _is_linear(module)}
    outside = {name: _shape(module) for name, module in maps.items() if not ATTENTION.search(name)}
    pairs = [
        (n_in, up, down)
        for down, (n_in, n_out) in outside.items()
        for up, (up_in, up_out) in outside.items()
        if up != down and up_in == n_out and up_out in (n_in, 2 * n_in) and n_in != n_out
    ]
    if not pairs:
        return None
    d_ff, _, down = max(pairs, key=lambda pair: pair[0])
    ups = [up for width, up, other in pairs if (width, other) == (d_ff, down)]
    found = {"up": ups[0], "down": down}
    if outside[ups[0]][1] == 2 * d_ff:
        found = {"gate": ups[0], **found}
    elif len(ups) > 1:
        gate = next((up for up in ups if GATES.search(up)), ups[0])
        found = {"gate": gate, "up": next(up for up in ups if up != gate), "down": down}
    if attention := _attention(maps, outside[down][1]):
        found["attention"] = attention
    return {**found, "layout": "in_out" if isinstance(maps[down], Conv1D) else "out_in"}


def _attention(maps: Mapping[str, nn.Module], d_model: int) -> str | None:
    """The last map of the first attention: what is then added to the residual stream."""
    inside = [name for name in maps if ATTENTION.search(name)]
    if not inside:
        return None
    part = next(p for p in inside[0].split(".") if ATTENTION.search(p))
    own = [name for name in inside if part in name.split(".") and _shape(maps[name])[1] == d_model]
    named = [n for n in own if re.search(r"(o|out|c)_?(proj|lin)$|output|dense$|\.o$|proj$", n)]
    return (named or own or [None])[-1]


def _is_linear(module: nn.Module) -> bool:
    return isinstance(module, nn.Linear | Conv1D)


def _shape(module: nn.Module) -> tuple[int, int]:
    """Width of what a linear map takes, and of what it puts out."""
    shape = tuple(module.weight.shape)
    return shape if isinstance(module, Conv1D) else shape[::-1]


def _tower(path: str, model: nn.Module) -> str:
    for name in ("encoder", "decoder"):
        if model.config.is_encoder_decoder and re.search(rf"\b{name}\b", path):
            return name
    parts = [part for part in ("vision", "text", "audio") if part in path]
    if parts:
        return parts[0]
    causal = MODEL_FOR_CAUSAL_LM_MAPPING_NAMES.get(model.config.model_type) is not None
    only_causal = causal and not re.search(r"\bencoder\b", path)
    return "decoder" if only_causal else "encoder"


def _mask(tower: str, model: nn.Module) -> str | None:
    if tower == "vision" or model.main_input_name in ("pixel_values", "input_features"):
        return "decoder_attention_mask" if tower == "decoder" else None
    is_second = tower == "decoder" and model.config.is_encoder_decoder
    return "decoder_attention_mask" if is_second else "attention_mask"


def _count(config: Any, n_layers: int, tower: str) -> dict[str, str | None]:
    """The key of the configuration that holds the number of layers."""
    keys = [
        name
        for name, value in _values(config)
        if value == n_layers and not isinstance(value, bool) and "layer" in name
    ]
    keys.sort(key=lambda name: (tower not in name, name != "num_hidden_layers", len(name)))
    return {} if keys and keys[0] == "num_hidden_layers" else {"count": keys[0] if keys else None}


def _values(config: Any, within: str = "") -> Iterator[tuple[str, Any]]:
    for name, value in config.to_dict().items() if hasattr(config, "to_dict") else config.items():
        if isinstance(value, dict):
            yield from _values(value, f"{within}{name}.")
        else:
            yield f"{within}{name}", value
