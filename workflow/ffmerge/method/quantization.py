"""LLM.int8() on top of a merged model (Table 4): int8 linear maps, the rest in half precision.

bitsandbytes' own loaders take tied sublayers for tied heads and leave them in floating point. Here
every linear map of the layers is quantized, and sublayers that share weights go on sharing them, in
memory and on disk: otherwise none of the paper's sizes would follow.
"""

import logging
from functools import cache
from pathlib import Path
from types import ModuleType

import torch
from torch import Tensor, nn
from transformers.pytorch_utils import Conv1D

from ffmerge.models import checkpoint, tensor_file
from ffmerge.models.format import INT8, WEIGHTS
from ffmerge.models.tensor_file import Stored
from ffmerge.models.towers import towers

THRESHOLD = 6.0  # inputs at least this large are outliers, multiplied in floating point
SCALES = ".SCB"  # largest absolute value of each row of an int8 weight, as bitsandbytes names it


@torch.no_grad()
def quantize(model: nn.Module) -> nn.Module:
    """Make every linear map in the layers of every tower int8, in place and where the model is.

    Everything else is rounded to float16, in which it is stored; a processor goes on to compute in
    float32, a GPU in float16. Tied sublayers become one module in several places. Outlier columns
    are found over a whole batch, so an example's output depends a little on its neighbours.
    Raises ValueError for a quantized model, and naming the tensors that float16 cannot hold.
    """
    if hasattr(model.config, INT8):
        raise ValueError("the model is quantized already")
    floats = {name: t for name, t in _stored(model).items() if t.is_floating_point()}
    if too_large := [name for name, t in floats.items() if not t.half().isfinite().all()]:
        raise ValueError(f"not finite, or beyond the ±65504 of float16: {', '.join(too_large)}")
    for tensor in floats.values():
        tensor.copy_(tensor.half())
    model.to(_dtype(model.device))
    for linear, places in linear_maps(model):
        weight = _out_in(linear).half().contiguous()
        int8, scales, _ = _bitsandbytes().functional.int8_vectorwise_quant(weight)
        _replace(model, places, int8, scales, linear.bias, THRESHOLD)
    setattr(model.config, INT8, {"threshold": THRESHOLD})
    return model.eval()


def save(model: nn.Module, directory: Path) -> None:
    """Write a quantized model: weights int8, their scales float32, all else float16, ties once."""
    checkpoint.save_configuration(model, directory)
    tensors = _stored(model)
    entries = {
        name: Stored(_dtype_on_disk(name, tensor), tuple(tensor.shape))
        for name, tensor in tensors.items()
    }
    tensor_file.write(directory / WEIGHTS, entries, tensors.__getitem__)


@torch.no_grad()
def load(directory: Path, device: str = "cpu") -> nn.Module:
    """A quantized model from disk: its int8 weights and scales as they are, ties kept, for use.

    It has to stay on its device: a module's int8 state does not move with the model around it.
    Raises ValueError naming the tensors if one is missing, left over, or not of its shape or type.
    """
    directory = Path(directory)
    model = checkpoint.build(directory)
    model.to(device, _dtype(torch.device(device)))
    threshold = getattr(model.config, INT8)["threshold"]
    for linear, places in linear_maps(model):
        int8 = torch.empty(_out_in(linear).shape, dtype=torch.int8, device=device)
        scales = torch.empty(len(int8), device=device)
        _replace(model, places, int8, scales, linear.bias, threshold)
    found = tensor_file.read_head(directory / WEIGHTS)
    _check_fit(_stored(model), found, directory)
    for name, tensor in _stored(model).items():
        tensor.copy_(tensor_file.read(directory / WEIGHTS, found[name]))
    return model.eval()


def linear_maps(model: nn.Module) -> list[tuple[nn.Module, list[str]]]:
    """The linear maps in the layers of the towers, each with all the places that share it."""
    maps: dict[int, tuple[nn.Module, list[str]]] = {}
    for layer in (path for tower in towers(model).values() for path in tower.paths):
        for path, module in model.get_submodule(layer).named_modules(remove_duplicate=False):
            if isinstance(module, nn.Linear | Conv1D):
                _, places = maps.setdefault(id(module.weight), (module, []))
                places.append(f"{layer}.{path}")
    return list(maps.values())


def _check_fit(expected: dict[str, Tensor], found: dict[str, Stored], directory: Path) -> None:
    both = [name for name in expected if name in found]
    wrong_type = [n for n in both if found[n].dtype != _dtype_on_disk(n, expected[n])]
    missing = [name for name in expected if name not in found]
    faults = {
        "not quantized": [n for n in wrong_type if expected[n].dtype == torch.int8],
        "int8 without its scales": [n for n in missing if n.endswith(SCALES)],
        "missing": [n for n in missing if not n.endswith(SCALES)],
        "left over": [name for name in found if name not in expected],
        "of another shape": [n for n in both if found[n].shape != expected[n].shape],
        "of another type": [n for n in wrong_type if expected[n].dtype != torch.int8],
    }
    if any(faults.values()):
        listed = "; ".join(f"{kind}: {', '.join(names)}" for kind, names in faults.items() if names)
        raise ValueError(
            f"{directory / WEIGHTS} is not the int8 model that config.json describes ({listed}); "
            f"remove {directory} and quantize the model again"
        )


def _out_in(linear: nn.Module) -> Tensor:
    """(n_out, n_in) weight of a linear map; Conv1D stores it the other way round."""
    return linear.weight.T if isinstance(linear, Conv1D) else linear.weight


def _replace(
    model: nn.Module,
    places: list[str],
    int8: Tensor,
    scales: Tensor,
    bias: nn.Parameter | None,
    threshold: float,
) -> None:
    """Put one int8 linear map in all these places. int8: (n_out, n_in); scales: (n_out,)."""
    layers = _bitsandbytes().nn
    n_out, n_in = int8.shape
    linear = layers.Linear8bitLt(
        n_in, n_out, bias is not None, has_fp16_weights=False, threshold=threshold, device="meta"
    )
    linear.weight = layers.Int8Params(int8, requires_grad=False, CB=int8, SCB=scales)
    linear.bias = bias
    linear.init_8bit_state()  # as a first forward does: from now on the state stays as it is
    for place in places:
        model.set_submodule(place, linear)


def _stored(model: nn.Module) -> dict[str, Tensor]:
    """What a file holds: each tensor of the model once, by the name of its first place."""
    stored: dict[int, tuple[str, Tensor]] = {}
    for name, tensor in model.state_dict(keep_vars=True).items():
        if not name.endswith(".weight_format"):  # of bitsandbytes, always 0
            stored.setdefault(id(tensor), (name, tensor))
    return dict(stored.values())


def _dtype_on_disk(name: str, tensor: Tensor) -> torch.dtype:
    if name.endswith(SCALES) or not tensor.is_floating_point():
        return tensor.dtype
    return torch.float16


def _dtype(device: torch.device) -> torch.dtype:
    """What is not quantized computes in this; few operations are fast in float16 on a processor."""
    return torch.float32 if device.type == "cpu" else torch.float16


@cache
def _bitsandbytes() -> ModuleType:
    """The library, without two messages that would alarm and say nothing.

    On a processor it misses a kernel for 4 bits, and tells at every single product that float32
    inputs are cast, which is what LLM.int8() is.
    """
    for logger, message in (
        ("bitsandbytes.backends.cpu.ops", "Failed to load CPU gemm_4bit_forward"),
        ("bitsandbytes.autograd._functions", "MatMul8bitLt: inputs will be cast"),
    ):
        logging.getLogger(logger).addFilter(
            lambda record, message=message: not record.getMessage().startswith(message)
        )
    import bitsandbytes  # takes seconds, which only an int8 model is worth

    return bitsandbytes
