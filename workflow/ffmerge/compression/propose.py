"""Propose an entry for the table of architectures, by the shapes of a model's linear maps.

A sublayer is two linear maps outside of a layer's attention whose shapes are d_model → d_ff →
d_model, or three maps if it is gated. A person has to check the proposal.
"""

import re
from collections.abc import Iterator, Mapping
from itertools import count
from typing import Any

import yaml
from torch import nn
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES
from transformers.pytorch_utils import Conv1D

from ffmerge.models.architectures import Architecture

ATTENTION = re.compile(r"attn|attention|crossatt", re.IGNORECASE)
GATES = re.compile(r"gate|wi_0|\bw1\b", re.IGNORECASE)  # usual names of gates


def proposed(model: nn.Module) -> dict[str, Any]:
    """Propose the entry of a model, in the form that `Architecture.from_entry` reads.

    Raises ValueError if no stack of layers has such maps.
    """
    forms: dict[str, dict[str, Any]] = {}
    for path, layers in _stacks(model.base_model).items():
        maps = _sublayer(layers[0])
        if maps is None:
            continue
        name = _tower(path, model)
        if name in forms:  # two stacks: a name of its own for each
            name = next(n for n in (f"{name}{i}" for i in count(2)) if n not in forms)
        form = {"layers": path, **maps, **_count(model.config, len(layers), name)}
        if (mask := _mask(name, model)) != "attention_mask":
            form["mask"] = mask
        forms[name] = form
    if not forms:
        raise ValueError(
            f"no list of layers of {type(model).__name__} has two linear maps d_model → d_ff → "
            "d_model, so that there is nothing to merge in it"
        )
    return Architecture.from_entry({"prefix": model.base_model_prefix, "towers": forms}).entry()


def as_yaml(model: nn.Module) -> str:
    """The proposed entry as a YAML file with instructions. Raises ValueError like `proposed`."""
    head = (
        f"# {type(model).__name__}: what looks like feed-forward sublayers, by shape. Check which "
        "map\n# is the gate, and `attention`. Then: ffmerge compress … --architecture THIS_FILE\n"
    )
    return head + yaml.safe_dump(proposed(model), sort_keys=False)


def _stacks(base: nn.Module) -> dict[str, list[nn.Module]]:
    """Path of a stack's layers, with `*` for the layer's number -> the layers.

    Stacks whose layers are not all of one form are left out.
    Raises ValueError naming one if there are no others.
    """
    stacks: dict[str, list[nn.Module]] = {}
    for name, module in base.named_modules():
        if re.search(r"(^|\.)\d+$", name) and any(True for _ in module.parameters()):
            stacks.setdefault(re.sub(r"(^|(?<=\.))\d+(?=\.|$)", "*", name), []).append(module)
    found = {path: [_sublayer(layer) for layer in layers] for path, layers in stacks.items()}
    whole = {path: stacks[path] for path, sublayers in found.items() if _are_alike(sublayers)}
    mixed = [path for path, sublayers in found.items() if any(sublayers) and path not in whole]
    if mixed and not whole:
        raise ValueError(
            f"the layers {mixed[0]} have FF sublayers of different forms, or only some have one "
            "(beside experts): there is nothing to merge in it"
        )
    return {  # the innermost that hold whole sublayers: `layers.*.blocks.*`, not `layers.*`
        path: layers
        for path, layers in whole.items()
        if not any(other.startswith(f"{path}.") for other in whole)
    }


def _are_alike(sublayers: list[dict[str, Any] | None]) -> bool:
    """Whether every layer has a sublayer, all of the same maps."""
    maps = [s and [s.get(which) for which in ("gate", "up", "down")] for s in sublayers]
    return None not in maps and all(each == maps[0] for each in maps)


def _sublayer(layer: nn.Module) -> dict[str, Any] | None:
    """The maps of a layer's FF sublayer, by the keys of an entry; None if it has none."""
    modules = layer.named_modules()
    maps = {name: module for name, module in modules if isinstance(module, nn.Linear | Conv1D)}
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
    sublayer = {"up": ups[0], "down": down}
    if outside[ups[0]][1] == 2 * d_ff:
        sublayer = {"gate": ups[0], **sublayer}
    elif len(ups) > 1:
        gate = next((up for up in ups if GATES.search(up)), ups[0])
        sublayer = {"gate": gate, "up": next(up for up in ups if up != gate), "down": down}
    if attention := _attention(maps, outside[down][1]):
        sublayer["attention"] = attention
    return {**sublayer, "layout": "in_out" if isinstance(maps[down], Conv1D) else "out_in"}


def _attention(maps: Mapping[str, nn.Module], d_model: int) -> str | None:
    """The output map of the first attention, whose result is added to the residual stream."""
    inside = [name for name in maps if ATTENTION.search(name)]
    if not inside:
        return None
    part = next(p for p in inside[0].split(".") if ATTENTION.search(p))
    outputs = [n for n in inside if part in n.split(".") and _shape(maps[n])[1] == d_model]
    named = [n for n in outputs if re.search(r"(o|out|c)_?(proj|lin)$|output|dense$|\.o$|proj$", n)]
    return (named or outputs or [None])[-1]


def _shape(module: nn.Module) -> tuple[int, int]:
    """Input and output width of a linear map."""
    shape = tuple(module.weight.shape)
    return shape if isinstance(module, Conv1D) else shape[::-1]


def _tower(path: str, model: nn.Module) -> str:
    if model.config.is_encoder_decoder and (match := re.search(r"\b(encoder|decoder)\b", path)):
        return match[0]
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
    """The configuration's key for the number of layers, unless it is `num_hidden_layers`."""
    keys = [
        name
        for name, value in _values(config.to_dict())
        if value == n_layers and not isinstance(value, bool) and "layer" in name
    ]
    keys.sort(key=lambda name: (tower not in name, name != "num_hidden_layers", len(name)))
    return {} if keys and keys[0] == "num_hidden_layers" else {"count": keys[0] if keys else None}


def _values(config: Mapping[str, Any], within: str = "") -> Iterator[tuple[str, Any]]:
    for name, value in config.items():
        if isinstance(value, dict):
            yield from _values(value, f"{within}{name}.")
        else:
            yield f"{within}{name}", value
