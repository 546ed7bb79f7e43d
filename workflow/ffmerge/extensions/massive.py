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

from ffmerge.method.features import token_mask
from ffmerge.models.towers import towers

MASSIVE = 10.0  # on SmolLM2-135M its layers 2, 11 and 28 have 10.9, 185 and 21, others at most 8.6

Ratios = dict[str, list[float]]
"""Tower -> of each layer, the largest norm of an FF output by the typical norm.

The typical norm is the median over the tokens of a batch, of the FF's outputs or of the residual
stream before the layer, whichever is larger. Padding counts for neither norm.
"""


@contextmanager
def measured(model: nn.Module) -> Iterator[Ratios]:
    """Measure the forward passes inside, of this very module, with named inputs."""
    model_towers = towers(model)
    ratios = {name: [0.0] * len(tower) for name, tower in model_towers.items()}
    typical: dict[tuple[str, int], Tensor] = {}
    masks: dict[str, Tensor | None] = {}

    def beginning(_module: nn.Module, _given: tuple, batch: dict[str, Tensor]) -> None:
        masks.update({name: token_mask(tower, batch) for name, tower in model_towers.items()})

    def entering(key: tuple[str, int], _module: nn.Module, given: tuple, named: dict) -> None:
        stream = next((v for v in (*given, *named.values()) if isinstance(v, Tensor)), None)
        typical[key] = torch.zeros(()) if stream is None else _norms(stream, masks[key[0]]).median()

    def leaving(key: tuple[str, int], _module: nn.Module, _given: Any, output: Tensor) -> None:
        name, layer = key
        norms = _norms(output, masks[name])
        if not len(norms):
            return
        unit = max(norms.median().item(), typical[key].item())
        if unit:
            ratios[name][layer] = max(ratios[name][layer], norms.max().item() / unit)

    hooks = [model.register_forward_pre_hook(beginning, with_kwargs=True)]
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


def _norms(values: Tensor, mask: Tensor | None) -> Tensor:
    """Norms at the positions that carry tokens; at all if the mask is not of these positions."""
    norms = values.float().norm(dim=-1)
    if mask is None:
        return norms.flatten()
    if norms.ndim == mask.ndim:
        norms = norms[:, : mask.shape[1]]  # the rest is padding by the model itself
    norms = norms.flatten()
    return norms[mask.flatten().bool()] if len(norms) == mask.numel() else norms
