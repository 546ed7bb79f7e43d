"""Check the feed-forward sublayers that a user declares, as an architecture's entry in a model.

Permuting the neurons of a sublayer leaves its outputs unchanged. Maps that are no sublayer, or not
all of one, have the right shapes too, but other outputs then.
"""

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from ffmerge.method.merge import permute
from ffmerge.method.tie import temporary_changes
from ffmerge.models.format import OWN_ENTRY
from ffmerge.models.towers import towers

APART = 0.01  # relative difference that rounding never makes in 32 bits, ten times that in 16
Outputs = dict[str, Tensor]


@torch.inference_mode()
def check_declared(model: nn.Module, outputs: Callable[[], Outputs]) -> None:
    """Permute the neurons of every sublayer, and put them back; only if a user declared them.

    outputs: makes a forward pass, always of the same batch, and gives the model's outputs by name.
    Raises ValueError naming the first layer whose output changes, or if only the model's do.
    """
    if not hasattr(model.config, OWN_ENTRY):
        return
    before = _with_sublayers(model, outputs)
    random = torch.Generator().manual_seed(0)
    with temporary_changes(model):
        for tower in towers(model).values():
            for layer in range(len(tower)):
                names = tower.tensors(layer)
                sublayer = {role: model.get_parameter(name) for role, name in names.items()}
                down = model.get_submodule(tower.module(layer, "down")).weight
                d_ff = down.shape[1 if tower.feed_forward.layout == "out_in" else 0]
                order = torch.randperm(d_ff, generator=random)
                try:
                    permuted = permute(sublayer, order, tower.feed_forward)
                except (IndexError, RuntimeError) as error:
                    raise _no_sublayer(tower.paths[layer], str(error)) from None
                for role, values in permuted.items():
                    module = model.get_submodule(names[role].rpartition(".")[0])
                    setattr(module, role.split(".")[1], nn.Parameter(values, requires_grad=False))
        try:
            after = _with_sublayers(model, outputs)
        except (ValueError, RuntimeError) as error:  # of shapes that do not fit
            raise _no_sublayer(next(iter(before)), str(error)) from None
    tolerance = APART if model.dtype.itemsize >= 4 else 10 * APART
    for name, values in before.items():
        apart = ((after[name] - values).norm() / values.norm().clamp_min(1e-30)).item()
        if not apart <= tolerance:
            raise _no_sublayer(name, f"permuting its neurons changes the output by {apart:.1%}")


def logits_or_states(model: nn.Module, batch: Mapping[str, Tensor], device: str) -> Outputs:
    """The logits or last states that a model computes of a batch."""
    output = model(**{name: values.to(device) for name, values in batch.items()})
    return {name: output[name] for name in ("logits", "last_hidden_state") if name in output}


def _no_sublayer(name: str, reason: str) -> ValueError:
    return ValueError(
        f"the entry of the architecture names no feed-forward sublayer in {name} ({reason}): name "
        "other maps for up, down and gate, or leave that tower out"
    )


def _with_sublayers(model: nn.Module, outputs: Callable[[], Outputs]) -> Outputs:
    """The outputs of every sublayer by its layer's name, then those of the model."""
    found: Outputs = {}

    def keep(name: str) -> Any:
        def hook(_module: nn.Module, _inputs: tuple[Any, ...], output: Tensor) -> None:
            found[name] = output.float().cpu()

        return hook

    hooks = [
        model.get_submodule(tower.module(layer, "down")).register_forward_hook(keep(path))
        for tower in towers(model).values()
        for layer, path in enumerate(tower.paths)
    ]
    try:
        whole = outputs()
    finally:
        for hook in hooks:
            hook.remove()
    return found | {f"the model's {name}": values.float().cpu() for name, values in whole.items()}
