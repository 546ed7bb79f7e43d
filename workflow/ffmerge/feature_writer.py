"""A file of features that is written while the model runs."""

import json
import struct
from pathlib import Path
from types import TracebackType

import numpy
from torch import Tensor

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
