"""A file of features that is written while the model runs."""

from pathlib import Path
from types import TracebackType

import torch
from torch import Tensor

from ffmerge.models.tensor_file import Stored, write_head, write_rows

Shapes = dict[str, tuple[int, int]]


class FeatureWriter:
    """A safetensors file that is filled row by row, so that it never has to fit into memory.

    shapes: name -> (n_rows, d). Rows are float32.
    """

    def __init__(self, file: Path, shapes: Shapes) -> None:
        self._stream = file.open("wb")
        entries = {name: Stored(torch.float32, shape) for name, shape in shapes.items()}
        self._places = write_head(self._stream, entries)
        self.written = dict.fromkeys(shapes, 0)

    def append(self, name: str, rows: Tensor) -> None:
        """Append (n, d) rows; those past the end are left out."""
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
