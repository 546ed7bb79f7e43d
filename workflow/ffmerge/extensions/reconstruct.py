"""Fit merged FF sublayers to what each layer gave before: local reconstruction.

The shared weights of a group are fitted so that every layer's FF gives back its own outputs on its
own inputs, both collected from the original model. No pass through the model is needed. The paper
does not do this; layer-wise reconstruction is known from pruning and quantization (ThiNet, Luo et
al. 2017; AdaRound, Nagel et al. 2020).
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial

import torch
from torch import Tensor, nn
from torch.nn.functional import linear
from transformers.activations import ACT2FN

from ffmerge.method.features import Features, Tap
from ffmerge.method.groups import Group
from ffmerge.method.merge import Sublayer
from ffmerge.models.architectures import FeedForward
from ffmerge.models.towers import Tower, towers
from provenance.progress import progress

INPUT, OUTPUT = "input", "output"  # sublayers in the file of features
MAPS = {INPUT: "input", OUTPUT: "down"}
"""What has to be collected: see `features.collect_outputs`."""
BLOCK, BLOCKS = 32, 8  # adjacent positions that are read together; blocks of a step, of each layer
RATE = 0.02  # of Adam, as a share of the root mean square of a map's weights
BETAS = (0.9, 0.99)
SEED = 0
ACTIVATIONS = (
    *("relu", "gelu", "gelu_new", "gelu_pytorch_tanh", "quick_gelu", "silu"),
    *("relu2", "tanh", "mish", "leaky_relu", "sigmoid", "linear"),
)
SAME = 1e-4  # relative squared error up to which an activation explains a sublayer (16 bits: 1e-5)

Activation = Callable[[Tensor], Tensor]


class Reconstruction:
    """Fits the merged FF sublayers of the original model or of copies of it, in place.

    activations: φ of each tower.
    model: the original. run: a forward pass of it on some data. inputs, outputs: of every FF
    sublayer of it, (n_tokens, d_model).
    Raises ValueError naming a tower whose sublayers are of another form than its entry in the table
    of architectures says.
    """

    def __init__(
        self, model: nn.Module, run: Callable[[], object], inputs: Features, outputs: Features
    ) -> None:
        self._inputs, self._outputs = inputs, outputs
        self.activations = activations(model, run)
        self._known: dict[Group, Sublayer] = {}

    def fit_once(self, model: nn.Module, groups: Sequence[Group], steps: int) -> None:
        """Fit merged groups that are tried again and again: each once, then what it gave."""
        for group in groups:
            names = towers(model)[group.tower].tensors(group.layers[0])
            shared = {role: model.get_parameter(name) for role, name in names.items()}
            if group in self._known:
                for role, tensor in shared.items():
                    tensor.data.copy_(self._known[group][role])
            else:
                self._fit(model, group, steps, lambda: None)
                self._known[group] = {role: t.detach().clone() for role, t in shared.items()}

    def fit(
        self, model: nn.Module, groups: Sequence[Group], steps: int
    ) -> list[tuple[float, float]]:
        """Take steps of Adam on the shared weights of merged groups, and on layers' corrections.

        The loss is the relative squared error Σ‖y - y₀‖² / Σ‖y₀‖² of each layer's outputs, summed
        over a group's layers; each step sees BLOCKS · BLOCK positions of each. The rate falls
        linearly to 0. Weights stay as they were if the error did not fall.
        Returns the mean error of each group's layers before and after.
        """
        bar = progress(total=steps * len(groups), desc="reconstruction steps")
        errors = [self._fit(model, group, steps, bar.update) for group in groups]
        bar.close()
        return errors

    @torch.enable_grad()
    def _fit(
        self, model: nn.Module, group: Group, steps: int, tick: Callable[[], object]
    ) -> tuple[float, float]:
        tower = towers(model)[group.tower]
        stored = {layer: _parameters(model, tower, layer) for layer in group.layers}
        copies: dict[int, tuple[float, nn.Parameter, Tensor]] = {}  # by object: layers share most
        for sublayer in stored.values():
            for role, tensor in sublayer.items():
                dtype = torch.promote_types(tensor.dtype, torch.float32)
                if id(tensor) not in copies:
                    copy = tensor.detach().to(dtype, copy=True).requires_grad_()
                    copies[id(tensor)] = RATE * _scale(role, sublayer), tensor, copy
        fitted = {
            layer: {role: copies[id(tensor)][2] for role, tensor in sublayer.items()}
            for layer, sublayer in stored.items()
        }
        forward = partial(
            feed_forward, form=tower.feed_forward, activation=self.activations[group.tower]
        )
        sizes = {
            layer: self._outputs.layer(group.tower, layer).double().square().mean().item()
            for layer in group.layers
        }
        before = self._error(group, forward, fitted, sizes)
        adam = torch.optim.Adam(
            [{"params": [copy], "lr": rate} for rate, _, copy in copies.values()], betas=BETAS
        )
        falling = torch.optim.lr_scheduler.LambdaLR(adam, lambda step: 1 - step / steps)
        n_tokens = self._inputs.shape(group.tower, group.layers[0])[0]
        for _, firsts in zip(range(steps), _blocks(n_tokens), strict=False):
            adam.zero_grad()
            for layer in group.layers:  # one at a time: the memory of one layer's positions
                x, y = self._rows(group.tower, layer, firsts, fitted[layer]["up.weight"])
                error = (forward(fitted[layer], x=x) - y).square().mean() / (sizes[layer] or 1)
                error.backward()
            adam.step()
            falling.step()
            tick()
        after = self._error(group, forward, fitted, sizes)
        if after < before:
            for _, tensor, copy in copies.values():
                tensor.data.copy_(copy.detach())
        return before, min(before, after)

    @torch.no_grad()
    def _error(
        self,
        group: Group,
        forward: Callable[..., Tensor],
        sublayers: Mapping[int, Sublayer],
        sizes: Mapping[int, float],
    ) -> float:
        """Mean relative squared error of a group's layers over all positions."""
        total = 0.0
        for layer in group.layers:
            n_tokens, d_model = self._outputs.shape(group.tower, layer)
            apart = 0.0
            for first in range(0, n_tokens, BLOCK * BLOCKS):
                firsts = range(first, min(first + BLOCK * BLOCKS, n_tokens), BLOCK)
                x, y = self._rows(group.tower, layer, firsts, sublayers[layer]["up.weight"])
                apart += (forward(sublayers[layer], x=x) - y).double().square().sum().item()
            total += apart / (n_tokens * d_model * (sizes[layer] or 1))
        return total / len(group.layers)

    def _rows(self, tower: str, layer: int, firsts: Sequence[int], like: Tensor) -> list[Tensor]:
        """Inputs and outputs of blocks of positions. firsts: of each block."""
        return [
            torch.cat([of.layer(tower, layer, first, BLOCK) for first in firsts]).to(like)
            for of in (self._inputs, self._outputs)
        ]


def _parameters(model: nn.Module, tower: Tower, layer: int) -> dict[str, nn.Parameter]:
    """An FF sublayer by role, with `up.correction_in` and the like if it is relaxed."""
    return {
        f"{which}.{kind}": parameter
        for which in tower.feed_forward.maps
        for kind, parameter in model.get_submodule(tower.module(layer, which)).named_parameters(
            recurse=False
        )
    }


def feed_forward(
    sublayer: Sublayer, form: FeedForward, activation: Activation, x: Tensor
) -> Tensor:
    """Compute an FF sublayer (Section 3.3). x: (n_tokens, d_model). Returns the same shape."""

    def apply(which: str, x: Tensor) -> Tensor:
        weight = sublayer[f"{which}.weight"]
        weight = weight if form.layout == "out_in" else weight.T
        y = linear(x, weight, sublayer.get(f"{which}.bias"))
        if f"{which}.correction_in" in sublayer:
            within = linear(x, sublayer[f"{which}.correction_in"])
            y = y + linear(within, sublayer[f"{which}.correction_out"])
        return y

    up = apply("up", x)
    if form.fused:
        gate, up = up.chunk(2, dim=-1)
    elif form.gate:
        gate = apply("gate", x)
    return apply("down", activation(gate) * up if form.gate else activation(up))


@torch.no_grad()
def activations(model: nn.Module, run: Callable[[], object]) -> dict[str, Activation]:
    """Find φ of every tower by what its first FF sublayer computes.

    Configurations name φ under many keys, so each known φ is tried. run: a forward pass.
    Raises ValueError naming a tower of another φ, or of another form than W_out φ(W_in x).
    """
    seen: dict[tuple[str, str], Tensor] = {}
    model_towers = towers(model)
    hooks = [
        Tap(model, tower, 0, values).call(
            lambda output, key=(name, values): seen.__setitem__(key, output.float().clone())
        )
        for name, tower in model_towers.items()
        for values in ("pre_activation", "up", "neuron")
    ]
    try:
        run()
    finally:
        for hook in hooks:
            hook.remove()
    found = {}
    for name, tower in model_towers.items():
        before, up, neuron = (seen[name, values] for values in ("pre_activation", "up", "neuron"))
        errors = {}
        for known in ACTIVATIONS:
            computed = ACT2FN[known](before) * (up if tower.feed_forward.gate else 1)
            errors[known] = ((computed - neuron).square().sum() / neuron.square().sum()).item()
        best = min(errors, key=errors.__getitem__)
        if not errors[best] <= SAME:
            raise ValueError(
                f"the FF sublayers of the {name} cannot be fitted: what they compute between their "
                f"linear maps is none of {', '.join(ACTIVATIONS)}; leave --reconstruct out"
            )
        found[name] = ACT2FN[best]
    return found


def _scale(role: str, sublayer: Sublayer) -> float:
    """Root mean square of a correction, or of the weights of a map, to which its bias belongs."""
    which, kind = role.split(".")
    tensor = sublayer[role if kind.startswith("correction") else f"{which}.weight"]
    return tensor.detach().square().mean().sqrt().item()


def _blocks(n_tokens: int) -> Iterator[list[int]]:
    """First positions of the blocks of each step, for ever: all in random order, then again."""
    random = torch.Generator().manual_seed(SEED)
    while True:
        order = (torch.randperm(-(-n_tokens // BLOCK), generator=random) * BLOCK).tolist()
        yield from (order[i : i + BLOCKS] for i in range(0, len(order), BLOCKS))
