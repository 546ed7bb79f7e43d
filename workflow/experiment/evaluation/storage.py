"""Size of models on disk after LLM.int8(): the compression ratios of Table 4."""

import re
import shutil
from collections import Counter
from pathlib import Path
from typing import Any

import torch
from torch import nn

from ffmerge.method.quantization import SCALES, linear_maps
from ffmerge.models import checkpoint
from ffmerge.models.format import WEIGHTS
from ffmerge.models.size import count_parameters
from ffmerge.models.tensor_file import CODES, read_head


def inventory(directory: Path) -> dict[str, Any]:
    """Bytes of the parts of a quantized model's file.

    Tensors that are not int8 are listed by name, with `*` for the number of a layer.
    """
    n, int8, scales, rest = 0, 0, 0, {}
    for name, stored in read_head(directory / WEIGHTS).items():
        if stored.dtype == torch.int8:
            n, int8 = n + 1, int8 + stored.n_bytes
        elif name.endswith(SCALES):
            scales += stored.n_bytes
        else:
            group = rest.setdefault(re.sub(r"\.\d+\.", ".*.", name), Counter())
            group.update(n_tensors=1, bytes=stored.n_bytes)
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
    types = {CODES[stored.dtype] for stored in read_head(merged / WEIGHTS).values()}
    if others := types - {"F32"}:
        raise ValueError(f"{merged / WEIGHTS} has to be float32 throughout, not {sorted(others)}")
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
