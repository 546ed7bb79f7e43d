"""Tying: k feed-forward sublayers that share one set of weights (Section 3.3)."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from torch import nn

from ffmerge.architectures import FeedForward, towers


def tie(model: nn.Module, tower: FeedForward, layers: Sequence[int]) -> None:
    """Make every FF sublayer in `layers` use the weights of the first of them, in place."""
    first, *rest = layers
    for layer in rest:
        for which in ("up", "down"):
            source = model.get_submodule(tower.module(first, which))
            target = model.get_submodule(tower.module(layer, which))
            target.weight, target.bias = source.weight, source.bias


@contextmanager
def untouched(model: nn.Module) -> Iterator[None]:
    """Give the model its own FF sublayers back on leaving: the same tensors, bit for bit."""
    modules = [
        model.get_submodule(tower.module(layer, which))
        for tower in towers(model.config.model_type).values()
        for layer in range(len(model.get_submodule(tower.layers)))
        for which in ("up", "down")
    ]
    kept = [(module, module.weight, module.bias) for module in modules]
    try:
        yield
    finally:
        for module, weight, bias in kept:
            module.weight, module.bias = weight, bias


def count_parameters(model: nn.Module) -> int:
    """Number of distinct parameters: a tensor that several modules share counts once."""
    return sum(parameter.numel() for parameter in model.parameters())


def count_sublayers(model: nn.Module) -> tuple[int, int]:
    """Number of FF sublayers a model computes, and of those it stores: ties count once."""
    weights = [
        model.get_submodule(tower.module(layer, "up")).weight
        for tower in towers(model.config.model_type).values()
        for layer in range(len(model.get_submodule(tower.layers)))
    ]
    return len(weights), len({id(weight) for weight in weights})
