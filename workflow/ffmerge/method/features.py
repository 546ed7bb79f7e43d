"""What linear maps put out on real tokens: one forward pass for every layer of every tower.

A file holds one float32 tensor a layer: `tower.layer` for the features of Section 3.3, the outputs
of W_in, and `sublayer.tower.layer` for the outputs of whole sublayers, which CKA compares.
"""

from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from ffmerge.method.feature_writer import FeatureWriter
from ffmerge.models import tensor_file
from ffmerge.models.format import IGNORED
from ffmerge.models.towers import Tower, towers

SUBLAYERS = {"feed_forward": "down", "attention": "attention"}
"""Sublayer -> its last linear map, which puts out what is then added to the residual stream."""

Aligned = Literal["pre_activation", "up", "neuron"]
"""Which values of a neuron are its features: `pre_activation`, what φ is applied to (Section 3.3:
the output of W_in, or of the gate of a gated sublayer); `up`, the output of W_in; `neuron`, what
W_out takes in: φ(W_in x), or φ(gate)·up."""
PLAIN: Aligned = "pre_activation"
GATED: Aligned = "neuron"  # measured: docs/own_model.md


class Features:
    """Outputs on disk: a layer is read when it is asked for, into memory of its own.

    sublayer: of which one, in a file that has several; None for a file of features.
    """

    def __init__(self, file: Path, sublayer: str | None = None) -> None:
        self._file, self._places = file, tensor_file.read_head(file)
        self._prefix = _prefix(sublayer)

    def towers(self) -> dict[str, int]:
        """Each tower's number of layers."""
        layers: dict[str, int] = {}
        for name in self._places:  # as written: an encoder before its decoder
            if name.startswith(self._prefix):
                tower, layer = name.removeprefix(self._prefix).split(".")
                layers[tower] = max(layers.get(tower, 0), int(layer) + 1)
        return layers

    def layer(self, tower: str, layer: int) -> Tensor:
        """(n_tokens, d) float32, where d is d_ff for features and d_model for whole sublayers."""
        return tensor_file.read(self._file, self._places[f"{self._prefix}{tower}.{layer}"])


def collect_features(
    model: nn.Module,
    batches: Iterable[dict[str, Tensor]],
    n_tokens: int,
    file: Path,
    device: str = "cpu",
    aligned: Aligned | None = None,
) -> None:
    """Write the features of every layer's neurons, as `collect_outputs` does.

    aligned: None for those that align best: PLAIN, or GATED where the sublayer is gated.
    """
    collect_outputs(model, batches, {None: aligned}, n_tokens, file, device)


@torch.inference_mode()
def collect_outputs(
    model: nn.Module,
    batches: Iterable[dict[str, Tensor]],
    maps: Mapping[str | None, str | None],
    n_tokens: int,
    file: Path,
    device: str = "cpu",
) -> None:
    """Write the output of linear maps of every layer at exactly n_tokens positions.

    maps: sublayer -> one of `Aligned`, or of the maps in the table of architectures; `SUBLAYERS`
    are those of CKA.
    Each tower gets the first n_tokens of its own tokens, padding excluded; an encoder-decoder's
    encoder thus counts source tokens and its decoder target tokens of the same examples. Tensors
    are named `sublayer.tower.layer` (no more than `tower.layer` for a sublayer None) and are
    (n_tokens, width of the map's output) float32.
    Raises ValueError if the data hold fewer tokens, or naming the layer that is not finite.
    """
    found = towers(model)
    taps = {
        f"{_prefix(sublayer)}{name}.{layer}": Tap(model, tower, layer, what)
        for sublayer, what in maps.items()
        for name, tower in found.items()
        for layer in range(len(tower))
    }
    with FeatureWriter(file, {name: (n_tokens, tap.width) for name, tap in taps.items()}) as writer:

        def keep(name: str) -> Callable[[Tensor], None]:
            return lambda output: writer.append(
                name, _token_rows(output, masks[name.split(".")[-2]], name)
            )

        hooks = [tap.call(keep(name)) for name, tap in taps.items()]
        try:
            for batch in batches:
                batch = {key: value.to(device) for key, value in batch.items()}
                masks = {name: token_mask(tower, batch) for name, tower in found.items()}
                model(**batch)
                if all(n == n_tokens for n in writer.written.values()):
                    return
        finally:
            for hook in hooks:
                hook.remove()
        short = {name: n for name, n in writer.written.items() if n < n_tokens}
        raise ValueError(f"the data hold fewer than n_tokens = {n_tokens} positions: {short}")


class Tap:
    """Where values of one layer are taken: what one of its linear maps puts out or takes in.

    what: one of `Aligned`, None for the one of them that aligns best, or a map in the table of
    architectures. width: of the values.
    """

    def __init__(self, model: nn.Module, tower: Tower, layer: int, what: str | None) -> None:
        form = tower.feed_forward
        what = what or (GATED if form.gate else PLAIN)
        which = {"neuron": "down", "pre_activation": "gate" if form.gate else "up"}.get(what, what)
        self._module = model.get_submodule(tower.module(layer, which))
        n_out, n_in = self._module.weight.shape[:: {"out_in": 1, "in_out": -1}[form.layout]]
        self._is_input = what == "neuron"
        self._half = (what != "pre_activation") if form.fused and which in ("up", "gate") else None
        self.width = n_in if self._is_input else n_out if self._half is None else n_out // 2

    def call(self, take: Callable[[Tensor], None]) -> RemovableHandle:
        """Hand the values of each forward pass, (…, width), to `take` until it is removed."""

        def hook(_module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
            values = inputs[0] if self._is_input else output
            take(values if self._half is None else values.chunk(2, dim=-1)[self._half])

        return self._module.register_forward_hook(hook)


def _prefix(sublayer: str | None) -> str:
    return f"{sublayer}." if sublayer else ""


def token_mask(tower: Tower, batch: Mapping[str, Tensor]) -> Tensor | None:
    """Which positions carry tokens, (batch, length); None where all do.

    A decoder's are those with a label, where the batch has no mask for it; a decoder by itself has
    the mask of any model.
    """
    key = tower.feed_forward.mask
    if key != "decoder_attention_mask" or key in batch:
        return batch.get(key)
    if "labels" in batch:
        return batch["labels"] != IGNORED
    return None if "decoder_input_ids" in batch else batch.get("attention_mask")


def _token_rows(output: Tensor, mask: Tensor | None, name: str) -> Tensor:
    """(batch, length, d), or (batch · length, d) -> (n, d) of the positions that carry tokens."""
    rows = output.flatten(0, -2)
    if mask is not None:
        rows = rows[mask.flatten().bool()]
    if not torch.isfinite(rows).all():
        *sublayer, tower, layer = name.split(".")
        what = f"{sublayer[0]} outputs" if sublayer else "features"
        raise ValueError(f"the {what} of {tower}.{layer} (tower.layer) are not all finite")
    return rows
