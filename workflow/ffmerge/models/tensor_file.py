"""Read and write safetensors files one tensor at a time, with plain reads and writes.

Streaming a file takes the memory of one tensor, and a full disk is an OSError. Touched pages of a
memory map would count towards the process's memory until it is closed, and writing to one on a full
disk would end the process with a signal that names nothing.
"""

import json
import math
import os
import struct
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import numpy
import torch
from torch import Tensor

DTYPES = {
    "I64": torch.int64,
    "F64": torch.float64,
    "F32": torch.float32,
    "I32": torch.int32,
    "BF16": torch.bfloat16,
    "F16": torch.float16,
    "I16": torch.int16,
    "F8_E4M3": torch.float8_e4m3fn,
    "F8_E5M2": torch.float8_e5m2,
    "I8": torch.int8,
    "U8": torch.uint8,
    "BOOL": torch.bool,
}
"""In the order in which the safetensors library writes them: wide ones first keeps all aligned."""
CODES = {dtype: code for code, dtype in DTYPES.items()}
BLOCK = 1 << 24  # bytes of a tensor to hold in memory while it is copied
FORMAT = {"format": "pt"}  # metadata that marks the tensors as torch's


@dataclass(frozen=True)
class Stored:
    """A tensor's place in a file. begin: offset of its first byte from the file's beginning."""

    dtype: torch.dtype
    shape: tuple[int, ...]
    begin: int = 0

    @property
    def n_values(self) -> int:
        return math.prod(self.shape)

    @property
    def n_bytes(self) -> int:
        return self.n_values * self.dtype.itemsize


def read_head(file: Path) -> dict[str, Stored]:
    """The tensors of a file by name, in the order of their places.

    Raises ValueError naming the file, and the tensor, if it is not a safetensors file, if its head
    contradicts itself, or if the file has another length than its head says.
    """
    size = file.stat().st_size
    with file.open("rb") as stream:
        length = int.from_bytes(stream.read(8), "little")
        if size < 8 or length > size - 8:
            raise ValueError(f"{file} is no safetensors file, or is cut off")
        try:
            head = json.loads(stream.read(length))
            head.pop("__metadata__", None)
        except (ValueError, TypeError, AttributeError, RecursionError) as error:
            raise ValueError(f"{file} is no safetensors file: its head has {error}") from None
    entries: dict[str, Stored] = {}
    for name, entry in head.items():
        try:
            begin, end = entry["data_offsets"]
            dtype, shape = DTYPES[entry["dtype"]], tuple(entry["shape"])
            entries[name] = stored = Stored(dtype, shape, 8 + length + begin)
        except (ValueError, KeyError, TypeError) as error:
            raise ValueError(f"{file}: {name} has no dtype that is read here: {error}") from None
        numbers = [begin, end, *shape]
        if not all(type(n) is int and n >= 0 for n in numbers):
            raise ValueError(f"{file}: {name} has impossible sizes in the head: {numbers}")
        if end - begin != stored.n_bytes:
            raise ValueError(
                f"{file}: {name} has {end - begin} bytes where {stored.n_bytes} belong: the file "
                "is damaged"
            )
    entries = dict(sorted(entries.items(), key=lambda item: (item[1].begin, item[1].n_bytes)))
    place = 8 + length
    for name, stored in entries.items():
        if stored.begin != place:
            raise ValueError(f"{file}: {name} does not begin where the tensor before it ends")
        place += stored.n_bytes
    if place > size:
        raise ValueError(f"{file} is cut off: it has {size:,} bytes of {place:,}")
    if place < size:
        raise ValueError(f"{file} has {size - place:,} bytes after its last tensor: it is damaged")
    return entries


def read(file: Path, stored: Stored) -> Tensor:
    """Read one tensor."""
    if not stored.n_values:  # a view of no bytes fails
        return torch.empty(stored.shape, dtype=stored.dtype)
    raw = numpy.fromfile(file, numpy.uint8, stored.n_bytes, offset=stored.begin)
    return torch.from_numpy(raw).view(stored.dtype).view(stored.shape)


def read_rows(file: Path, stored: Stored) -> Iterator[Tensor]:
    """Read one tensor in blocks of rows, at most `BLOCK` bytes at a time (but at least one row)."""
    if not stored.shape:
        yield read(file, stored)
        return
    n_rows, *rest = stored.shape
    row = Stored(stored.dtype, tuple(rest)).n_bytes
    rows_per_block = max(1, BLOCK // max(1, row))
    for first in range(0, n_rows, rows_per_block):
        n = min(rows_per_block, n_rows - first)
        yield read(file, Stored(stored.dtype, (n, *rest), stored.begin + first * row))


def write_head(
    stream: BinaryIO, entries: Mapping[str, Stored], metadata: Mapping[str, str] | None = None
) -> dict[str, Stored]:
    """Write a file's head and extend the file to its full length. Returns the entries' places.

    Tensors are placed in the order of `entries`; they are aligned if wide dtypes come first. The
    head has the same bytes as the safetensors library writes.
    """
    head: dict = {"__metadata__": dict(metadata)} if metadata else {}
    offset = 0
    for name, entry in entries.items():
        span = [offset, offset := offset + entry.n_bytes]
        head[name] = {"dtype": CODES[entry.dtype], "shape": entry.shape, "data_offsets": span}
    text = json.dumps(head, ensure_ascii=False, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    stream.write(struct.pack("<Q", len(text)) + text)
    stream.truncate(8 + len(text) + offset)
    return {
        name: Stored(entry.dtype, entry.shape, 8 + len(text) + head[name]["data_offsets"][0])
        for name, entry in entries.items()
    }


def write_rows(stream: BinaryIO, begin: int, rows: Tensor) -> None:
    """Write rows of a tensor to a file. begin: offset of their first byte."""
    if not rows.numel():
        return
    stream.seek(begin)
    stream.write(rows.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data)


def write(
    file: Path,
    entries: Mapping[str, Stored],
    tensor: Callable[[str], Tensor | Iterable[Tensor]],
) -> None:
    """Write a file one tensor at a time, cast to the dtypes of `entries`.

    entries: name -> dtype and shape. tensor: name -> its value, whole or in blocks of rows, as from
    `read_rows`. The bytes are those of `safetensors.torch.save_file`, which needs all tensors at
    once and memory for all of them again.
    Raises OSError on a full disk, and ValueError naming a tensor of another shape.
    """
    order = list(CODES)
    ordered = sorted(entries, key=lambda name: (order.index(entries[name].dtype), name))
    with file.open("wb") as stream:
        head = {name: entries[name] for name in ordered}
        for name, stored in write_head(stream, head, FORMAT).items():
            _write(stream, name, stored, tensor(name))
        stream.flush()
        os.fsync(stream.fileno())


def _write(stream: BinaryIO, name: str, stored: Stored, value: Tensor | Iterable[Tensor]) -> None:
    whole = isinstance(value, Tensor)
    if whole and tuple(value.shape) != stored.shape:
        raise ValueError(f"{name}: {tuple(value.shape)} values where {stored.shape} belong")
    place = stored.begin
    for rows in [value] if whole else value:
        write_rows(stream, place, rows.detach().to(stored.dtype))
        place += rows.numel() * stored.dtype.itemsize
    if place != stored.begin + stored.n_bytes:
        raise ValueError(f"{name}: has not as many values as {stored.shape} says")


def write_all(file: Path, tensors: Mapping[str, Tensor]) -> None:
    """Write tensors in their own dtypes and shapes; see `write`."""
    entries = {name: Stored(value.dtype, tuple(value.shape)) for name, value in tensors.items()}
    write(file, entries, tensors.__getitem__)
