"""Train low-rank adapters instead of a model's weights (LoRA, Hu et al. 2022), then merge them.

Only the linear maps of layers get adapters: y = W x + SCALE · B A x, with A and B of rank r. Maps
that share their weights share one adapter, so a merged model stays tied.
"""

from collections.abc import Iterator
from math import sqrt

import torch
from torch import Tensor, nn
from transformers.pytorch_utils import Conv1D

from ffmerge.models.towers import towers

SCALE = 2.0  # α / r of the paper, here the same for every rank
IN, OUT = "lora_in", "lora_out"  # A and B, transposed: (d_in, r) and (r, d_out)


def add_adapters(model: nn.Module, rank: int, seed: int) -> int:
    """Freeze a model in place and add an adapter to each linear map of its layers.

    B is 0, so that outputs stay as they are. Adapters are drawn with `seed`, and are parameters
    of their maps. Returns their number of parameters.
    Raises ValueError if no layer has a linear map.
    """
    model.requires_grad_(False)
    generator = torch.Generator().manual_seed(seed)
    adapters: dict[int, dict[str, nn.Parameter]] = {}
    for module in _linear_maps(model):
        weight = module.weight
        if id(weight) not in adapters:
            d_in, d_out = weight.shape if isinstance(module, Conv1D) else weight.shape[::-1]
            drawn = torch.empty(d_in, rank).uniform_(-1, 1, generator=generator) / sqrt(d_in)
            adapters[id(weight)] = {
                IN: nn.Parameter(drawn.to(weight)),
                OUT: nn.Parameter(weight.new_zeros(rank, d_out)),
            }
        for name, parameter in adapters[id(weight)].items():
            module.register_parameter(name, parameter)
        module.register_forward_hook(_adapted)
    if not adapters:
        raise ValueError(f"the layers of {type(model).__name__} have no linear map to adapt")
    return sum(p.numel() for adapter in adapters.values() for p in adapter.values())


@torch.no_grad()
def merge_adapters(model: nn.Module) -> None:
    """Add each adapter to the weights of its map, once where maps share them, and remove it."""
    merged = set()
    for module in _linear_maps(model):
        if id(module.weight) not in merged:
            merged.add(id(module.weight))
            change = SCALE * getattr(module, IN) @ getattr(module, OUT)  # (d_in, d_out)
            module.weight += change if isinstance(module, Conv1D) else change.T
        for name in (IN, OUT):
            del module._parameters[name]
        for key, hook in list(module._forward_hooks.items()):
            if hook is _adapted:
                del module._forward_hooks[key]
    model.requires_grad_(True)


def _adapted(module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> Tensor:
    return output + inputs[0] @ getattr(module, IN) @ getattr(module, OUT) * SCALE


def _linear_maps(model: nn.Module) -> Iterator[nn.Module]:
    for path in dict.fromkeys(path for tower in towers(model).values() for path in tower.paths):
        for module in model.get_submodule(path).modules():
            if isinstance(module, nn.Linear | Conv1D):
                yield module
