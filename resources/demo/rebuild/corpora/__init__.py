"""Make the embedded demo data from package files.

Every function reads a package file on disk; nothing uses the network. `resources/demo/sources.yaml`
names the packages, their licences and the digests of all files.
"""

import hashlib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from experiment.inputs.packages import iter_members

Row = dict[str, Any]

REBUILD_ADVICE = (
    "The rebuilt file differs from the shipped one. The packages were checked before, so the code "
    "in resources/demo/rebuild has changed, or the libraries are not those named under "
    "`written_with` in resources/demo/sources.yaml."
)


def read_member(package: Path, pattern: str) -> bytes:
    """Content of the one file in `package` that matches `pattern`; ValueError if not one."""
    members = list(iter_members(package, pattern))
    if len(members) != 1:
        raise ValueError(f"{package.name} holds {len(members)} files that match {pattern!r}, not 1")
    return members[0][1]


def order_key(text: str) -> str:
    """Sort key for a fixed but arbitrary order of names, the same on every machine."""
    return hashlib.sha256(text.encode()).hexdigest()


def write_split(rows: Iterable[Row], features: Mapping[str, Any], path: Path) -> None:
    """Write rows as Parquet with the feature types that `datasets.load_dataset` restores.

    features: a `datasets.Features`. The bytes depend only on the rows and on the pyarrow version:
    there are no time stamps, one thread and fixed row groups.
    """
    schema: pa.Schema = features.arrow_schema
    table = pa.Table.from_pylist(list(rows), schema=schema)
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(table, path, compression="zstd", compression_level=19, row_group_size=10_000)
