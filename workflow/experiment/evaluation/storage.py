"""Size of models on disk after LLM.int8(): the compression ratios of Table 4."""

import json
import re
import shutil
from collections import Counter
from pathlib import Path
from typing import Any

from torch import nn

from ffmerge.method.quantization import SCALES, linear_maps
from ffmerge.method.tie import count_parameters
from ffmerge.models import checkpoint
from ffmerge.models.format import WEIGHTS


def inventory(directory: Path) -> dict[str, Any]:
    """Bytes of the parts of a quantized model's file.

    Tensors that are not int8 are listed by name, with `*` for the number of a layer.
    """
    n, int8, scales, rest = 0, 0, 0, {}
    for name, entry in _header(directory).items():
        size = entry["data_offsets"][1] - entry["data_offsets"][0]
        if entry["dtype"] == "I8":
            n, int8 = n + 1, int8 + size
        elif name.endswith(SCALES):
            scales += size
        else:
            group = rest.setdefault(re.sub(r"\.\d+\.", ".*.", name), Counter())
            group.update(n_tensors=1, bytes=size)
    return {
        "file_bytes": (directory / WEIGHTS).stat().st_size,
        "n_quantized_linear_maps": n,  # one where several layers share it
        "int8_bytes": int8,
        "scales_bytes": scales,
        "not_quantized_bytes": sum(group["bytes"] for group in rest.values()),
        "not_quantized": {name: dict(group) for name, group in rest.items()},
    }


def computed_ratio(
    model: nn.Module, n_original: int, weight_bytes: int = 1, rest_bytes: int = 2
) -> float:
    """Size of a model's parameters as a share of n_original float32 parameters.

    weight_bytes: bytes of a weight in the layers' linear maps; rest_bytes: of any other parameter.
    """
    weights = sum(linear.weight.numel() for linear, _ in linear_maps(model))
    rest = count_parameters(model) - weights
    return (weights * weight_bytes + rest * rest_bytes) / (4 * n_original)


def storage(base_model: Path, merged: Path, quantized: Path, scratch: Path) -> dict[str, Any]:
    """Table 4's ratios, measured on the files and computed from the parameters.

    scratch: directory for a temporary copy of the base model in float32.
    Raises ValueError naming the merged model's types if it is not float32.
    """
    if types := {entry["dtype"] for entry in _header(merged).values()} - {"F32"}:
        raise ValueError(f"{merged / WEIGHTS} has to be float32 throughout, not {sorted(types)}")
    original, model = checkpoint.load(base_model), checkpoint.build(merged)
    checkpoint.save(original, scratch / "original")
    original_bytes = (scratch / "original" / WEIGHTS).stat().st_size
    shutil.rmtree(scratch / "original")
    merged_bytes = (merged / WEIGHTS).stat().st_size
    parts, n_original = inventory(quantized), count_parameters(original)
    return {
        "units": {
            "bytes": f"of {WEIGHTS}, its header included",
            "percent": "of original_bytes: the base model in float32",
            "computed_percent": "of its parameters × 4 bytes, without scales and headers",
        },
        "original_bytes": original_bytes,
        "merged_bytes": merged_bytes,
        "merged_percent": 100 * merged_bytes / original_bytes,
        "merged_computed_percent": 100 * computed_ratio(model, n_original, 4, 4),
        "measured_percent": 100 * parts["file_bytes"] / original_bytes,
        "computed_percent": 100 * computed_ratio(model, n_original),
        **parts,
    }


def _header(directory: Path) -> dict[str, dict[str, Any]]:
    """Type, shape and offsets of every tensor in a safetensors file."""
    with (directory / WEIGHTS).open("rb") as file:
        header = json.loads(file.read(int.from_bytes(file.read(8), "little")))
    return {name: entry for name, entry in header.items() if name != "__metadata__"}
