"""What linear maps put out on real tokens: one forward pass for every layer of every tower.

A file holds one float32 tensor a layer: `tower.layer` for the features of Section 3.3, the outputs
of W_in, and `sublayer.tower.layer` for the outputs of whole sublayers, which CKA compares.
"""

from collections.abc import Iterable, Mapping
from pathlib import Path

import torch
from safetensors import safe_open
from torch import Tensor, nn

from ffmerge.architectures import towers
from ffmerge.feature_writer import FeatureWriter

SUBLAYERS = {"feed_forward": "down", "attention": "attention"}
"""Sublayer -> its last linear map, which puts out what is then added to the residual stream."""


class Features:
    """Outputs on disk, memory-mapped: a layer is read when it is asked for.

    sublayer: of which one, in a file that has several; None for a file of features.
    """

    def __init__(self, file: Path, sublayer: str | None = None) -> None:
        self._file = safe_open(str(file), framework="pt")
        self._prefix = _prefix(sublayer)

    def towers(self) -> dict[str, int]:
        """Each tower's number of layers."""
        layers: dict[str, int] = {}
        for name in self._file.offset_keys():  # as written: an encoder before its decoder
            if name.startswith(self._prefix):
                tower, layer = name.removeprefix(self._prefix).split(".")
                layers[tower] = max(layers.get(tower, 0), int(layer) + 1)
        return layers

    def layer(self, tower: str, layer: int) -> Tensor:
        """(n_tokens, d) float32, where d is d_ff for features and d_model for whole sublayers."""
        return self._file.get_tensor(f"{self._prefix}{tower}.{layer}")


def collect_features(
    model: nn.Module,
    batches: Iterable[dict[str, Tensor]],
    n_tokens: int,
    file: Path,
    device: str = "cpu",
) -> None:
    """Write every layer's output of W_in, before the activation, as `collect_outputs` does."""
    collect_outputs(model, batches, {None: "up"}, n_tokens, file, device)


@torch.inference_mode()
def collect_outputs(
    model: nn.Module,
    batches: Iterable[dict[str, Tensor]],
    maps: Mapping[str | None, str],
    n_tokens: int,
    file: Path,
    device: str = "cpu",
) -> None:
    """Write the output of linear maps of every layer at exactly n_tokens positions.

    maps: sublayer -> which of the maps in the table of architectures; `SUBLAYERS` are those of CKA.
    Each tower gets the first n_tokens of its own tokens, padding excluded; an encoder-decoder's
    encoder thus counts source tokens and its decoder target tokens of the same examples. Tensors
    are named `sublayer.tower.layer` (no more than `tower.layer` for a sublayer None) and are
    (n_tokens, width of the map's output) float32.
    Raises ValueError if the data hold fewer tokens, or naming the layer that is not finite.
    """
    table = towers(model.config.model_type)
    modules = {
        f"{_prefix(sublayer)}{name}.{layer}": model.get_submodule(tower.module(layer, which))
        for sublayer, which in maps.items()
        for name, tower in table.items()
        for layer in range(len(model.get_submodule(tower.layers)))
    }
    widths = {name: module.bias.numel() for name, module in modules.items()}
    with FeatureWriter(file, {name: (n_tokens, d) for name, d in widths.items()}) as writer:
        hooks = [
            module.register_forward_hook(
                lambda _module, _inputs, output, name=name: writer.append(
                    name, _token_rows(output, masks[name.split(".")[-2]], name)
                )
            )
            for name, module in modules.items()
        ]
        try:
            for batch in batches:
                batch = {key: value.to(device) for key, value in batch.items()}
                masks = {name: batch.get(tower.mask) for name, tower in table.items()}
                model(**batch)
                if all(n == n_tokens for n in writer.written.values()):
                    return
        finally:
            for hook in hooks:
                hook.remove()
        short = {name: n for name, n in writer.written.items() if n < n_tokens}
        raise ValueError(f"the data hold fewer than n_tokens = {n_tokens} positions: {short}")


def _prefix(sublayer: str | None) -> str:
    return f"{sublayer}." if sublayer else ""


def _token_rows(output: Tensor, mask: Tensor | None, name: str) -> Tensor:
    """(batch, length, d) -> (n, d) of the positions that carry tokens."""
    rows = output.flatten(0, -2) if mask is None else output[mask.bool()]
    if not torch.isfinite(rows).all():
        *sublayer, tower, layer = name.split(".")
        what = f"{sublayer[0]} outputs" if sublayer else "features"
        raise ValueError(f"the {what} of {tower}.{layer} (tower.layer) are not all finite")
    return rows
