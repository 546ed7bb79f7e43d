"""Find layers whose FF makes massive activations of the residual stream (Sun et al. 2024).

A few positions, such as the first one, get values a thousand times larger than others, and later
layers rely on them. An average with other FF sublayers does not give these values. The source is
"Massive Activations in Large Language Models".
"""

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from ffmerge.models.towers import towers

MASSIVE = 10.0  # on SmolLM2-135M its layers 2, 11 and 28 have 10.9, 185 and 21, others at most 8.6

Ratios = dict[str, list[float]]
"""Tower -> of each layer, the largest norm of an FF output by the typical norm.

The typical norm is the median over the positions of a batch, of the FF's outputs or of the residual
stream before the layer, whichever is larger.
"""


@contextmanager
def measured(model: nn.Module) -> Iterator[Ratios]:
    """Measure the forward passes inside."""
    model_towers = towers(model)
    ratios = {name: [0.0] * len(tower) for name, tower in model_towers.items()}
    typical: dict[tuple[str, int], Tensor] = {}

    def entering(key: tuple[str, int], _module: nn.Module, given: tuple, named: dict) -> None:
        stream = next((v for v in (*given, *named.values()) if isinstance(v, Tensor)), None)
        typical[key] = torch.zeros(()) if stream is None else _norms(stream).median()

    def leaving(key: tuple[str, int], _module: nn.Module, _given: Any, output: Tensor) -> None:
        norms, (name, layer) = _norms(output), key
        unit = max(norms.median().item(), typical[key].item())
        if unit:
            ratios[name][layer] = max(ratios[name][layer], norms.max().item() / unit)

    hooks = []
    for name, tower in model_towers.items():
        for layer, path in enumerate(tower.paths):
            of_layer, down = (
                model.get_submodule(module) for module in (path, tower.module(layer, "down"))
            )
            key = (name, layer)
            hooks += [
                of_layer.register_forward_pre_hook(partial(entering, key), with_kwargs=True),
                down.register_forward_hook(partial(leaving, key)),
            ]
    try:
        yield ratios
    finally:
        for hook in hooks:
            hook.remove()


def massive(ratios: Ratios) -> dict[str, list[int]]:
    """The layers of each tower that make massive activations; towers without any are left out."""
    found = {
        name: [layer for layer, ratio in enumerate(of_layers) if ratio >= MASSIVE]
        for name, of_layers in ratios.items()
    }
    return {name: layers for name, layers in found.items() if layers}


def _norms(values: Tensor) -> Tensor:
    return values.float().norm(dim=-1)
