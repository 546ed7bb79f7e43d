"""Sentence pairs from a tar of line-aligned text, as the Tatoeba Challenge releases them.

The archive of a pair of languages (Tiedemann 2020) holds `train.src.gz`, `train.trg.gz`, `dev.src`,
`dev.trg`, `test.src`, `test.trg`. Mind the sides: a pair is released once, its languages in
alphabetical order, so that in eng-zho.tar `.src` is English whichever way one translates.
"""

import gzip
import io
import tarfile
import zlib
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pyarrow as pa

from experiment.inputs.parquet import Row


def schema(sides: dict[str, str]) -> pa.Schema:
    """A column of text for each side. sides: suffix -> column."""
    return pa.schema([(column, pa.string()) for column in sides.values()])


def pairs(archive: Path, member: str, sides: dict[str, str]) -> Iterator[Row]:
    """Rows of a split, in the archive's order, streamed.

    member: name of the split's files without the suffix of the side, in any directory of the tar
    (`train`); a suffix may be followed by `.gz`. sides: suffix -> column (`src` -> `en`).
    White space around a sentence is dropped; a line ends with "\\n" and with nothing else.
    Raises ValueError for a member that is missing, sides of different length, a tar that is
    damaged or cut off, text that is not UTF-8.
    """
    columns = list(sides.values())
    with ExitStack() as stack:
        try:
            # one handle for each side, for they are read in turns
            tars = [stack.enter_context(tarfile.open(archive, "r:")) for _ in sides]
            texts = [_lines(t, f"{member}.{suffix}") for t, suffix in zip(tars, sides, strict=True)]
            for lines in zip(*texts, strict=True):
                yield dict(zip(columns, (line.strip() for line in lines), strict=True))
        except (tarfile.TarError, EOFError, zlib.error, gzip.BadGzipFile) as error:
            raise ValueError(f"{archive} is damaged or cut off: {error}") from None
        except UnicodeDecodeError as error:
            raise ValueError(f"{archive}: {member} is not UTF-8: {error}") from None
        except ValueError as error:
            if "zip()" not in str(error):
                raise
            raise ValueError(f"{archive}: the sides of {member} differ in length") from None


def _lines(archive: tarfile.TarFile, name: str) -> Iterator[str]:
    """The lines of a member, which may be compressed; ValueError if it is not there once."""
    files = [m for m in archive if m.isfile() and Path(m.name).name in (name, f"{name}.gz")]
    if len(files) != 1:
        there = ", ".join(m.name for m in archive if m.isfile())
        raise ValueError(f"{archive.name} holds {len(files)} files {name}, not 1; it has {there}")
    stream = archive.extractfile(files[0])
    if files[0].name.endswith(".gz"):
        stream = gzip.GzipFile(fileobj=stream)
    return io.TextIOWrapper(stream, encoding="utf-8", newline="\n")
