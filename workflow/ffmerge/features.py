"""Feed-forward features (Section 3.3): one forward pass for every layer of every tower."""

import json
import struct
from collections.abc import Iterable
from pathlib import Path
from types import TracebackType

import numpy
import torch
from safetensors import safe_open
from torch import Tensor, nn

from ffmerge.architectures import towers

Shapes = dict[str, tuple[int, int]]


class FeatureWriter:
    """A safetensors file that is filled row by row, so that it never has to fit into memory.

    shapes: name -> (n_rows, d). Rows are float32.
    """

    def __init__(self, file: Path, shapes: Shapes) -> None:
        offset, header = 0, {}
        for name, shape in shapes.items():
            size = 4 * shape[0] * shape[1]
            header[name] = {
                "dtype": "F32",
                "shape": list(shape),
                "data_offsets": [offset, offset + size],
            }
            offset += size
        text = json.dumps(header).encode()
        text += b" " * (-len(text) % 8)
        with file.open("wb") as stream:
            stream.write(struct.pack("<Q", len(text)) + text)
            stream.truncate(8 + len(text) + offset)
        self._rows = {
            name: numpy.memmap(
                file,
                dtype="<f4",
                mode="r+",
                offset=8 + len(text) + header[name]["data_offsets"][0],
                shape=shape,
            )
            for name, shape in shapes.items()
        }
        self.written = dict.fromkeys(shapes, 0)

    def append(self, name: str, rows: Tensor) -> None:
        """Append (n, d) rows; those past the end are left out."""
        begin = self.written[name]
        rows = rows[: len(self._rows[name]) - begin]
        self._rows[name][begin : begin + len(rows)] = rows.float().cpu().numpy()
        self.written[name] = begin + len(rows)

    def __enter__(self) -> "FeatureWriter":
        return self

    def __exit__(
        self, kind: type | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for rows in self._rows.values():
            rows.flush()


class Features:
    """Features on disk, memory-mapped: a layer is read when it is asked for."""

    def __init__(self, file: Path) -> None:
        self._file = safe_open(str(file), framework="pt")

    def towers(self) -> dict[str, int]:
        """Each tower's number of layers."""
        layers: dict[str, int] = {}
        for name in self._file.keys():  # noqa: SIM118 - not a dict
            tower, layer = name.split(".")
            layers[tower] = max(layers.get(tower, 0), int(layer) + 1)
        return layers

    def layer(self, tower: str, layer: int) -> Tensor:
        """(n_tokens, d_ff) float32."""
        return self._file.get_tensor(f"{tower}.{layer}")


@torch.inference_mode()
def collect_features(
    model: nn.Module,
    batches: Iterable[dict[str, Tensor]],
    n_tokens: int,
    file: Path,
    device: str = "cpu",
) -> None:
    """Write every layer's output of W_in, before the activation, at exactly n_tokens positions.

    Each tower gets the first n_tokens of its own tokens, padding excluded; an encoder-decoder's
    encoder thus counts source tokens and its decoder target tokens of the same examples. Tensors
    are named `tower.layer` and are (n_tokens, d_ff) float32.
    Raises ValueError if the data hold fewer tokens, or naming the layer that is not finite.
    """
    table = towers(model.config.model_type)
    modules = {
        f"{name}.{layer}": model.get_submodule(tower.module(layer, "up"))
        for name, tower in table.items()
        for layer in range(len(model.get_submodule(tower.layers)))
    }
    d_ff = {name: module.bias.numel() for name, module in modules.items()}
    with FeatureWriter(file, {name: (n_tokens, d) for name, d in d_ff.items()}) as writer:
        hooks = [
            module.register_forward_hook(
                lambda _module, _inputs, output, name=name: writer.append(
                    name, _token_rows(output, masks[name.split(".")[0]], name)
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


def _token_rows(output: Tensor, mask: Tensor | None, name: str) -> Tensor:
    """(batch, length, d_ff) -> (n, d_ff) of the positions that carry tokens."""
    rows = output.flatten(0, -2) if mask is None else output[mask.bool()]
    if not torch.isfinite(rows).all():
        raise ValueError(f"the features of {name} (tower.layer) are not all finite")
    return rows
