"""LLM.int8() on top of a merged model (Table 4): int8 linear maps, the rest in half precision.

The quantizer in transformers mistakes tied sublayers for tied heads and leaves them in floating
point. Here every linear map of the layers is quantized, and sublayers that share weights still
share them in memory and on disk; the paper's sizes follow only then.
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
from ffmerge.models.memory import check_device
from ffmerge.models.tensor_file import Stored
from ffmerge.models.tied_model import relaxed_modules
from ffmerge.models.towers import towers

THRESHOLD = 6.0  # inputs at least this large are outliers, multiplied in floating point
SCALES = ".SCB"  # largest absolute value of each row of an int8 weight, as bitsandbytes names it


@torch.no_grad()
def quantize(model: nn.Module) -> nn.Module:
    """Quantize every linear map in the layers of every tower to int8, in place, on its device.

    Everything else is rounded to float16, as it is stored; a processor then computes in float32, a
    GPU in float16. Tied sublayers become one module in several places. Outlier columns are
    determined per batch, so that an example's output depends slightly on the rest of its batch.
    Raises ValueError if the model is quantized or relaxed, or naming the tensors that float16
    cannot hold.
    """
    if hasattr(model.config, INT8):
        raise ValueError("the model is quantized already")
    if relaxed_modules(model):
        raise ValueError(
            "low-rank maps and corrections cannot be quantized: quantize an export in the form "
            "`expanded`"
        )
    floats = {name: t for name, t in _stored(model).items() if t.is_floating_point()}
    if too_large := [name for name, t in floats.items() if not t.half().isfinite().all()]:
        raise ValueError(f"not finite, or beyond the ±65504 of float16: {', '.join(too_large)}")
    for tensor in floats.values():
        tensor.copy_(tensor.half())
    _move(model, model.device)
    for linear, places in linear_maps(model):
        weight = _out_in(linear).half().contiguous()
        int8, scales, _ = _bitsandbytes().functional.int8_vectorwise_quant(weight)
        _replace(model, places, int8, scales, linear.bias, THRESHOLD)
    setattr(model.config, INT8, {"threshold": THRESHOLD})
    return model.eval()


def save(model: nn.Module, directory: Path) -> None:
    """Write a quantized model: int8 weights, float32 scales, the rest float16; ties once."""
    checkpoint.save_configuration(model, directory)
    tensors = _stored(model)
    entries = {
        name: Stored(_dtype_on_disk(name, tensor), tuple(tensor.shape))
        for name, tensor in tensors.items()
    }
    tensor_file.write(directory / WEIGHTS, entries, tensors.__getitem__)


@torch.no_grad()
def load(directory: Path, device: str = "cpu") -> nn.Module:
    """Read a quantized model, with its int8 weights and scales unchanged and its ties kept.

    It has to stay on its device: the int8 state of a module does not move with the model.
    Raises ValueError for a device that is not here, and naming the tensors that are missing, left
    over, or of another shape or type.
    """
    check_device(device)
    directory = Path(directory)
    model = checkpoint.build(directory)
    _move(model, torch.device(device))
    threshold = getattr(model.config, INT8)["threshold"]
    for linear, places in linear_maps(model):
        int8 = torch.empty(_out_in(linear).shape, dtype=torch.int8, device=device)
        scales = torch.empty(len(int8), device=device)
        _replace(model, places, int8, scales, linear.bias, threshold)
    in_file = tensor_file.read_head(directory / WEIGHTS)
    _check_fit(_stored(model), in_file, directory)
    for name, tensor in _stored(model).items():
        tensor.copy_(tensor_file.read(directory / WEIGHTS, in_file[name]))
    return model.eval()


def linear_maps(model: nn.Module) -> list[tuple[nn.Module, list[str]]]:
    """The linear maps in the layers of the towers, each with the names of all its places."""
    maps: dict[int, tuple[nn.Module, list[str]]] = {}
    for layer in (path for tower in towers(model).values() for path in tower.paths):
        for path, module in model.get_submodule(layer).named_modules(remove_duplicate=False):
            if isinstance(module, nn.Linear | Conv1D):
                _, places = maps.setdefault(id(module.weight), (module, []))
                places.append(f"{layer}.{path}")
    return list(maps.values())


def _check_fit(expected: dict[str, Tensor], in_file: dict[str, Stored], directory: Path) -> None:
    both = [name for name in expected if name in in_file]
    wrong_type = [n for n in both if in_file[n].dtype != _dtype_on_disk(n, expected[n])]
    missing = [name for name in expected if name not in in_file]
    faults = {
        "not quantized": [n for n in wrong_type if expected[n].dtype == torch.int8],
        "int8 without its scales": [n for n in missing if n.endswith(SCALES)],
        "missing": [n for n in missing if not n.endswith(SCALES)],
        "left over": [name for name in in_file if name not in expected],
        "of another shape": [n for n in both if in_file[n].shape != expected[n].shape],
        "of another type": [n for n in wrong_type if expected[n].dtype != torch.int8],
    }
    if any(faults.values()):
        listed = "; ".join(f"{kind}: {', '.join(names)}" for kind, names in faults.items() if names)
        raise ValueError(
            f"{directory / WEIGHTS} is not the int8 model that config.json describes ({listed}); "
            f"remove {directory} and quantize the model again"
        )


def _out_in(linear: nn.Module) -> Tensor:
    """The (n_out, n_in) weight of a linear map; Conv1D stores its transpose."""
    return linear.weight.T if isinstance(linear, Conv1D) else linear.weight


def _replace(
    model: nn.Module,
    places: list[str],
    int8: Tensor,
    scales: Tensor,
    bias: nn.Parameter | None,
    threshold: float,
) -> None:
    """Put one int8 linear map into all places. int8: (n_out, n_in); scales: (n_out,)."""
    layers = _bitsandbytes().nn
    n_out, n_in = int8.shape
    linear = layers.Linear8bitLt(
        n_in, n_out, bias is not None, has_fp16_weights=False, threshold=threshold, device="meta"
    )
    linear.weight = layers.Int8Params(int8, requires_grad=False, CB=int8, SCB=scales)
    linear.bias = bias
    linear.init_8bit_state()  # as the first forward does; the state is fixed from here on
    for place in places:
        model.set_submodule(place, linear)


def _stored(model: nn.Module) -> dict[str, Tensor]:
    """The tensors that a file holds: each one once, by the name of its first place."""
    stored: dict[int, tuple[str, Tensor]] = {}
    for name, tensor in model.state_dict(keep_vars=True).items():
        if not name.endswith(".weight_format"):  # of bitsandbytes, always 0
            stored.setdefault(id(tensor), (name, tensor))
    return dict(stored.values())


def _dtype_on_disk(name: str, tensor: Tensor) -> torch.dtype:
    if name.endswith(SCALES) or not tensor.is_floating_point():
        return tensor.dtype
    return torch.float16


def _move(model: nn.Module, device: torch.device) -> None:
    """Move a model to a device, in the dtype of its unquantized operations there.

    Rotary frequencies stay float32, as transformers keeps them: positions multiply them, so that
    float16's relative error of 5e-4 is an error of 0.7 rad at position 2000.
    """
    frequencies = [
        (module, name, buffer)
        for module in model.modules()
        for name, buffer in module.named_buffers(recurse=False)
        if name.endswith("inv_freq")
    ]
    model.to(device, _dtype(device))
    for module, name, buffer in frequencies:
        setattr(module, name, buffer.to(device))


def _dtype(device: torch.device) -> torch.dtype:
    """The dtype of unquantized operations; a processor computes few of them fast in float16."""
    return torch.float32 if device.type == "cpu" else torch.float16


@cache
def _bitsandbytes() -> ModuleType:
    """Import the library, without two messages that are alarming and harmless.

    On a processor it reports that a 4-bit kernel is missing, and at every product that float32
    inputs are cast, which LLM.int8() always does.
    """
    for logger, message in (
        ("bitsandbytes.backends.cpu.ops", "Failed to load CPU gemm_4bit_forward"),
        ("bitsandbytes.autograd._functions", "MatMul8bitLt: inputs will be cast"),
    ):
        logging.getLogger(logger).addFilter(
            lambda record, message=message: not record.getMessage().startswith(message)
        )
    import bitsandbytes  # takes seconds, so only int8 models import it

    return bitsandbytes
