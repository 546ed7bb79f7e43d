"""Read sentence pairs from a tar of line-aligned text, as the Tatoeba Challenge releases them.

The archive of a language pair (Tiedemann 2020) holds `train.src.gz`, `train.trg.gz`, `dev.src`,
`dev.trg`, `test.src`, `test.trg`. A pair is released once, with its languages in alphabetical
order: in eng-zho.tar, `.src` is English whatever the direction of translation.
"""

import gzip
import io
import tarfile
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pyarrow as pa

from experiment.inputs import whole
from experiment.inputs.parquet import Row

MAX_LINE = 1 << 24  # characters


def schema(sides: dict[str, str]) -> pa.Schema:
    """Schema with a column of text for each side. sides: suffix -> column."""
    return pa.schema([(column, pa.string()) for column in sides.values()])


def pairs(archive: Path, member: str, sides: dict[str, str]) -> Iterator[Row]:
    """Yield the rows of a split in the archive's order.

    member: name of the split's files (`train`) without the suffix of the side, in any directory of
    the tar; `.gz` may follow the suffix. sides: suffix -> column (`src` -> `en`).
    White space around a sentence is stripped; only "\\n" ends a line.
    Raises ValueError for a missing member, sides of different length, a damaged or truncated tar,
    or text that is not UTF-8.
    """
    columns = list(sides.values())
    with whole(archive), ExitStack() as stack:
        try:
            # sides are read in turns, so each has its own handle
            tars = [stack.enter_context(tarfile.open(archive, "r:")) for _ in sides]
            texts = [_lines(t, f"{member}.{suffix}") for t, suffix in zip(tars, sides, strict=True)]
            for lines in zip(*texts, strict=True):
                yield dict(zip(columns, (line.strip() for line in lines), strict=True))
        except UnicodeDecodeError as error:
            raise ValueError(f"{archive}: {member} is not UTF-8: {error}") from None
        except ValueError as error:
            if "zip()" not in str(error):
                raise
            raise ValueError(f"{archive}: the sides of {member} differ in length") from None


def _lines(archive: tarfile.TarFile, name: str) -> Iterator[str]:
    """Lines of a member, compressed or not; raises ValueError unless there is exactly one."""
    files = [m for m in archive if m.isfile() and Path(m.name).name in (name, f"{name}.gz")]
    if len(files) != 1:
        there = ", ".join(m.name for m in archive if m.isfile())
        raise ValueError(f"{archive.name} holds {len(files)} files {name}, not 1; it has {there}")
    stream = archive.extractfile(files[0])
    if files[0].name.endswith(".gz"):
        stream = gzip.GzipFile(fileobj=stream)
    text = io.TextIOWrapper(stream, encoding="utf-8", newline="\n")
    for line in iter(lambda: text.readline(MAX_LINE), ""):
        if len(line) == MAX_LINE and not line.endswith("\n"):
            raise ValueError(
                f"{archive.name}: {name} has a line of {MAX_LINE:,} characters or more"
            )
        yield line
