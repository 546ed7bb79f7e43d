"""Read examples from a user's files: texts, tables of texts or pairs, and images."""

import csv
import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from itertools import chain
from pathlib import Path
from random import Random
from typing import Any

Example = dict[str, Any]
"""Values by role: `text`; `source` and `target`; `image` (a file's path, or its bytes), with
`label` (a number or a name) or `text` beside it, if there are any."""
Row = dict[str, Any]
Columns = Mapping[str, str | None]
"""Role of a column -> its name as the user gave it, `translation.en` within a nested one."""

TEXT_SUFFIXES = (".txt", ".md")
IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff")
ROLES = {  # kind of example that a model takes -> the roles that an example needs
    "text": ("text",),
    "pairs": ("source", "target"),
    "images": ("image",),
    "images with text": ("image", "text"),
}
WAYS = {  # kind of example -> how to give it
    "text": "give .txt files, or a table (.jsonl, .csv, .tsv, .parquet) with a column of texts",
    "pairs": "give a table (.jsonl, .csv, .tsv, .parquet) with a column of sources and one of "
    "targets, named by --source and --target",
    "images": "give a folder of images, or a Parquet table with a column of images",
    "images with text": "give a Parquet table with a column of images and one of texts, named by "
    "--image and --text",
}
GUESSES = {  # role -> usual names of its column, if the user names none
    "text": ("text", "content", "sentence", "caption"),
    "source": ("source", "src", "input", "document", "article"),
    "target": ("target", "tgt", "output", "summary", "highlights"),
    "image": ("image", "img", "picture", "jpg", "png"),
    "label": ("label", "labels", "fine_label", "class"),
}
SHUFFLED = 0  # seed for the order of images, whose folders are often sorted by class
ROWS_PER_BATCH = 64


def read_examples(paths: Sequence[Path], wanted: str, columns: Columns) -> Iterator[Example]:
    """Read the examples of files and directories, lazily.

    wanted: a key of ROLES. Images in folders come in a fixed random order; a subfolder's name is
    the label of its images.
    Raises ValueError or OSError naming the unsuitable file or column, and what would be suitable.
    """
    for path in paths:
        if not path.exists():
            raise FileNotFoundError(f"there is no file or directory {path}")
        if path.is_dir():
            yield from _in_directory(path, wanted, columns)
        else:
            yield from _in_file(path, wanted, columns)


def _in_directory(directory: Path, wanted: str, columns: Columns) -> Iterator[Example]:
    files = sorted(f for f in directory.rglob("*") if f.is_file() and not f.name.startswith("."))
    images = [file for file in files if file.suffix.lower() in IMAGE_SUFFIXES]
    others = [file for file in files if file.suffix in (*TEXT_SUFFIXES, *READERS)]
    if wanted == "images" and images:
        for file in Random(SHUFFLED).sample(images, len(images)):
            label = file.relative_to(directory).parts[0] if file.parent != directory else None
            yield {"image": file, "label": label}
    elif others:
        for file in others:
            yield from _in_file(file, wanted, columns)
    elif images:
        raise ValueError(_unfit(directory, "a folder of images", wanted))
    else:
        raise ValueError(f"{directory} holds no file that can be read here: give {_known()}")


def _in_file(file: Path, wanted: str, columns: Columns) -> Iterator[Example]:
    if file.suffix in TEXT_SUFFIXES:
        if wanted != "text":
            raise ValueError(_unfit(file, "a text", wanted))
        for paragraph in _paragraphs(file):
            yield {"text": paragraph}
    elif file.suffix in READERS:
        optional = ["label"] if wanted == "images" else []
        for row in _rows(file, ROLES[wanted], columns, optional):
            yield _with_image(file, row) if "image" in row else row
    elif file.suffix.lower() in IMAGE_SUFFIXES and wanted == "images":
        yield {"image": file, "label": None}
    elif file.suffix.lower() in IMAGE_SUFFIXES:
        raise ValueError(_unfit(file, "an image", wanted))
    else:
        raise ValueError(f"{file}: this kind of file cannot be read here: give {_known()}")


def _with_image(file: Path, row: Example) -> Example:
    image = row["image"]
    if isinstance(image, dict):  # as the library `datasets` stores it
        image = image.get("bytes") or image.get("path")
    return {**row, "image": file.parent / image if isinstance(image, str) else image}


def _paragraphs(file: Path) -> Iterator[str]:
    """Paragraphs, which blank lines separate."""
    lines: list[str] = []
    for line in _text_lines(file):
        if line.strip():
            lines.append(line.rstrip("\r\n"))
        elif lines:
            yield "\n".join(lines)
            lines = []
    if lines:
        yield "\n".join(lines)


def _unfit(path: Path, what: str, wanted: str) -> str:
    return f"{path} is {what}, but this model takes {wanted}: {WAYS[wanted]}"


def _known() -> str:
    return f"{', '.join((*TEXT_SUFFIXES, *READERS))}, or a folder of images"


# --- tables ---------------------------------------------------------------------------------------


def _rows(
    file: Path, wanted: Sequence[str], columns: Columns, optional: Sequence[str]
) -> Iterator[Row]:
    """Read the rows of a table, keyed by the roles of its columns.

    wanted: roles that a row needs; optional: roles that it may have. Rows that lack a wanted value
    are skipped.
    Raises ValueError naming the file and its columns if a column is not there.
    """
    rows = READERS[file.suffix](file)
    first = next(rows, None)
    if first is None:
        raise ValueError(f"{file} has no rows")
    names = {role: _column(file, first, role, columns.get(role)) for role in wanted}
    for role in optional:
        guess = next((name for name in GUESSES[role] if name in first), None)
        if columns.get(role) or guess:
            names[role] = _column(file, first, role, columns.get(role))
    for row in chain([first], rows):
        values = {role: _value(row, name) for role, name in names.items()}
        if all(values[role] not in (None, "") for role in wanted):
            yield values


def _column(file: Path, row: Row, role: str, name: str | None) -> str:
    """The column of a role: the one that the user named, or a usual name that is there."""
    nested = [f"{k}.{inner}" for k, v in row.items() if isinstance(v, dict) for inner in v]
    names = [*row, *nested]
    if name is not None:
        if _value(row, name) is None and name not in names:
            raise ValueError(f"{file} has no column {name!r} (it has: {', '.join(names)})")
        return name
    for guess in GUESSES[role]:
        if guess in row:
            return guess
    raise ValueError(
        f"{file} has no column for the {role}: name one with --{role} (it has: {', '.join(names)})"
    )


def _value(row: Row, name: str) -> Any:
    value: Any = row
    for part in [name] if name in row else name.split("."):
        value = value.get(part) if isinstance(value, dict) else None
    return value


def _json_lines(file: Path) -> Iterator[Row]:
    for number, line in enumerate(_text_lines(file), start=1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except ValueError as error:
            raise ValueError(f"{file}, line {number} is not JSON: {error}") from None
        if not isinstance(row, dict):
            raise ValueError(f"{file}, line {number} is not a JSON object, with a key per column")
        yield row


def _separated(file: Path) -> Iterator[Row]:
    csv.field_size_limit(sys.maxsize)
    delimiter = "\t" if file.suffix == ".tsv" else ","
    yield from csv.DictReader(_text_lines(file), delimiter=delimiter)


def _parquet(file: Path) -> Iterator[Row]:
    import pyarrow
    from pyarrow import parquet

    try:
        for batch in parquet.ParquetFile(file).iter_batches(batch_size=ROWS_PER_BATCH):
            yield from batch.to_pylist()
    except pyarrow.ArrowInvalid as error:
        raise ValueError(f"{file} is not a Parquet file: {error}") from None


def _text_lines(file: Path) -> Iterator[str]:
    """Read the lines of a text. Raises ValueError naming the file if it is not UTF-8."""
    try:
        with file.open(encoding="utf-8-sig", newline="") as stream:
            yield from stream
    except UnicodeDecodeError as error:
        raise ValueError(f"{file} is not UTF-8 text: {error}") from None


READERS = {".jsonl": _json_lines, ".csv": _separated, ".tsv": _separated, ".parquet": _parquet}
