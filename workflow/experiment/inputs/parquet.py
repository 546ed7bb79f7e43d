"""Write rows to Parquet files of bounded size with bounded memory."""

from collections.abc import Iterable, Iterator
from itertools import chain, islice
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

Row = dict[str, Any]


def write_shards(
    rows: Iterable[Row], schema: pa.Schema, directory: Path, rows_a_group: int, rows_a_file: int
) -> int:
    """Write rows to `directory/00000.parquet`, `00001.parquet`, … and return their number.

    At most rows_a_group rows are in memory at a time; rows_a_file is a multiple of it.
    Raises ValueError if there are no rows.
    """
    directory.mkdir(parents=True, exist_ok=True)
    groups = _groups(iter(rows), rows_a_group)
    n_rows = 0
    for group in groups:
        file = directory / f"{n_rows // rows_a_file:05d}.parquet"
        with pq.ParquetWriter(file, schema, compression="zstd") as writer:
            for group_of_file in chain([group], islice(groups, rows_a_file // rows_a_group - 1)):
                writer.write_table(pa.Table.from_pylist(group_of_file, schema=schema))
                n_rows += len(group_of_file)
    if n_rows == 0:
        raise ValueError(f"no rows for {directory}")
    return n_rows


def _groups(rows: Iterator[Row], size: int) -> Iterator[list[Row]]:
    while group := list(islice(rows, size)):
        yield group
