"""Sizes of models: parameters, feed-forward sublayers and bytes. What layers share counts once."""

from itertools import chain

import torch
from torch import nn

from ffmerge.models.towers import towers


def count_parameters(model: nn.Module) -> int:
    """Number of distinct parameters. A tensor that several modules share counts once."""
    return sum(parameter.numel() for parameter in model.parameters())


def count_sublayers(model: nn.Module) -> tuple[int, int]:
    """Numbers of FF sublayers that a model computes and that it stores; ties count once."""
    weights = [
        model.get_submodule(tower.module(layer, "up")).weight
        for tower in towers(model).values()
        for layer in range(len(tower))
    ]
    return len(weights), len({id(weight) for weight in weights})


def weight_bytes(model: nn.Module) -> int:
    """Bytes of memory of a model's parameters, buffers and int8 scales, each counted once."""
    states = (getattr(module, "state", None) for module in model.modules())
    scales = (getattr(state, "SCB", None) for state in states)  # bitsandbytes
    tensors = chain(model.parameters(), model.buffers(), filter(torch.is_tensor, scales))
    memory = {tensor.untyped_storage().data_ptr(): tensor.untyped_storage() for tensor in tensors}
    return sum(storage.nbytes() for storage in memory.values())
