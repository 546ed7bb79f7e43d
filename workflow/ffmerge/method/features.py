"""Collect features with forward hooks: one pass serves every layer of every tower.

A file holds one float32 tensor per layer: `tower.layer` for the features of Section 3.3, which are
outputs of W_in, and `sublayer.tower.layer` for outputs of whole sublayers, which CKA compares.
"""

from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from types import TracebackType
from typing import Literal

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from ffmerge.models import tensor_file
from ffmerge.models.format import IGNORED
from ffmerge.models.tensor_file import Stored, write_head, write_rows
from ffmerge.models.towers import Tower, towers

SUBLAYERS = {"feed_forward": "down", "attention": "attention"}
"""Sublayer -> its last linear map, whose output is added to the residual stream."""

Aligned = Literal["pre_activation", "up", "neuron"]
"""The values used as a neuron's features. `pre_activation`: the input of φ (Section 3.3), that is
the output of W_in, or of the gate in a gated sublayer. `up`: the output of W_in. `neuron`: the
input of W_out, that is φ(W_in x), or φ(gate)·up."""
PLAIN: Aligned = "pre_activation"
GATED: Aligned = "neuron"  # measured: docs/beyond_the_paper.md


class Features:
    """Outputs on disk. A layer is read into memory when it is asked for.

    sublayer: the one to read from a file that has several; None for a file of features.
    """

    def __init__(self, file: Path, sublayer: str | None = None) -> None:
        self._file, self._places = file, tensor_file.read_head(file)
        self._prefix = _prefix(sublayer)

    def towers(self) -> dict[str, int]:
        """Number of layers by tower."""
        layers: dict[str, int] = {}
        for name in self._places:  # in the order written: an encoder before its decoder
            if name.startswith(self._prefix):
                tower, layer = name.removeprefix(self._prefix).split(".")
                layers[tower] = max(layers.get(tower, 0), int(layer) + 1)
        return layers

    def shape(self, tower: str, layer: int) -> tuple[int, ...]:
        """(n_tokens, d) of a layer."""
        return self._places[f"{self._prefix}{tower}.{layer}"].shape

    def layer(self, tower: str, layer: int, first: int = 0, n: int | None = None) -> Tensor:
        """Read one layer: (n_tokens, d) float32, d_ff wide for features, d_model for sublayers.

        first, n: the positions to read, if not all; fewer at the end.
        """
        place = self._places[f"{self._prefix}{tower}.{layer}"]
        n_tokens, d = place.shape
        begin = place.begin + first * d * place.dtype.itemsize
        n = n_tokens - first if n is None else min(n, n_tokens - first)
        return tensor_file.read(self._file, Stored(place.dtype, (n, d), begin))


class FeatureWriter:
    """Write a safetensors file row by row, so that it never has to fit into memory.

    shapes: name -> (n_rows, d), stored as float32. written: name -> rows written so far.
    """

    def __init__(self, file: Path, shapes: Mapping[str, tuple[int, int]]) -> None:
        self._stream = file.open("wb")
        entries = {name: Stored(torch.float32, shape) for name, shape in shapes.items()}
        self._places = write_head(self._stream, entries)
        self.written = dict.fromkeys(shapes, 0)

    def append(self, name: str, rows: Tensor) -> None:
        """Append (n, d) rows. Rows past the end are left out."""
        place, begin = self._places[name], self.written[name]
        n_rows, d = place.shape
        rows = rows[: n_rows - begin].float()
        write_rows(self._stream, place.begin + begin * d * place.dtype.itemsize, rows)
        self.written[name] = begin + len(rows)

    def __enter__(self) -> "FeatureWriter":
        return self

    def __exit__(
        self, kind: type | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stream.close()


def collect_features(
    model: nn.Module,
    batches: Iterable[dict[str, Tensor]],
    n_tokens: int,
    file: Path,
    device: str = "cpu",
    aligned: Aligned | None = None,
) -> None:
    """Write the features of every layer's neurons; see `collect_outputs`.

    aligned: None chooses the values that align best: PLAIN, or GATED if the sublayer is gated.
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

    maps: sublayer -> one of `Aligned`, or a map in the table of architectures; CKA compares
    `SUBLAYERS`. Tensors are named `sublayer.tower.layer`, or `tower.layer` for the sublayer None,
    and are (n_tokens, width of the map's output) float32.
    Each tower gets the first n_tokens of its own tokens, without padding: in an encoder-decoder the
    encoder counts source tokens, and the decoder counts target tokens of the same examples.
    Raises ValueError if the data hold fewer tokens, or naming a layer that is not finite.
    """
    model_towers = towers(model)
    taps = {
        f"{_prefix(sublayer)}{name}.{layer}": Tap(model, tower, layer, values)
        for sublayer, values in maps.items()
        for name, tower in model_towers.items()
        for layer in range(len(tower))
    }
    with FeatureWriter(file, {name: (n_tokens, tap.width) for name, tap in taps.items()}) as writer:

        def keep(name: str) -> Callable[[Tensor], None]:
            return lambda output: writer.append(
                name, token_rows(output, masks[name.split(".")[-2]], name)
            )

        hooks = [tap.call(keep(name)) for name, tap in taps.items()]
        try:
            for batch in batches:
                batch = {key: value.to(device) for key, value in batch.items()}
                masks = {name: token_mask(tower, batch) for name, tower in model_towers.items()}
                model(**batch)
                if all(n == n_tokens for n in writer.written.values()):
                    return
        finally:
            for hook in hooks:
                hook.remove()
        short = {name: n for name, n in writer.written.items() if n < n_tokens}
        raise ValueError(f"the data hold fewer than n_tokens = {n_tokens} positions: {short}")


class Tap:
    """A place in one layer where values are read: the output or the input of a linear map.

    values: one of `Aligned`, None for the one that aligns best, a map in the table of
    architectures, or `input`, what the sublayer gets. width: number of values per token.
    """

    def __init__(self, model: nn.Module, tower: Tower, layer: int, values: str | None) -> None:
        form = tower.feed_forward
        values = values or (GATED if form.gate else PLAIN)
        source = {"neuron": "down", "pre_activation": "gate" if form.gate else "up", "input": "up"}
        which = source.get(values, values)
        self._module = model.get_submodule(tower.module(layer, which))
        n_out, n_in = self._module.weight.shape[:: {"out_in": 1, "in_out": -1}[form.layout]]
        self._is_input = values in ("neuron", "input")
        halved = form.fused and which in ("up", "gate") and not self._is_input
        self._half = (values != "pre_activation") if halved else None  # 0: the gate, 1: up
        self.width = n_in if self._is_input else n_out // 2 if halved else n_out

    def call(self, take: Callable[[Tensor], None]) -> RemovableHandle:
        """Hand the values of each forward pass, (…, width), to `take` until the hook is removed."""

        def hook(_module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
            values = inputs[0] if self._is_input else output
            take(values if self._half is None else values.chunk(2, dim=-1)[self._half])

        return self._module.register_forward_hook(hook)


def token_mask(tower: Tower, batch: Mapping[str, Tensor]) -> Tensor | None:
    """Mask of the positions that carry tokens, (batch, length); None if all do.

    If the batch has no mask for a decoder beside an encoder, its positions with a label count.
    """
    key = tower.feed_forward.mask
    if key != "decoder_attention_mask" or key in batch:
        return batch.get(key)
    if "labels" in batch:
        return batch["labels"] != IGNORED
    return None if "decoder_input_ids" in batch else batch.get("attention_mask")


def token_rows(output: Tensor, mask: Tensor | None, name: str) -> Tensor:
    """(batch, length, d) or (batch · length, d) -> (n, d), the positions that carry tokens.

    Positions past the mask's end are padding by the model itself, as Longformer's.
    """
    if mask is not None and output.ndim == mask.ndim + 1:
        output = output[:, : mask.shape[1]]
    rows = output.flatten(0, -2)
    if mask is not None:
        if len(rows) != mask.numel():
            raise ValueError(f"{name} has {len(rows)} positions, but its mask has {mask.numel()}")
        rows = rows[mask.flatten().bool()]
    if not torch.isfinite(rows).all():
        *sublayer, tower, layer = name.split(".")
        kind = f"{sublayer[0]} outputs" if sublayer else "features"
        raise ValueError(f"the {kind} of {tower}.{layer} (tower.layer) are not all finite")
    return rows


def _prefix(sublayer: str | None) -> str:
    return f"{sublayer}." if sublayer else ""
