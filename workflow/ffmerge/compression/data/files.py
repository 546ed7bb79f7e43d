"""Examples in a user's files: text, pairs of texts, images."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from random import Random
from typing import Any

from ffmerge.compression.data.tables import READERS, Columns, read_rows, text_lines

Example = dict[str, Any]
"""Values by role: `text`; `source` and `target`; `image` (a file's path, or its bytes), with
`label` (a number or a name) or `text` beside it, if there are any."""

TEXTS = (".txt", ".md")
IMAGES = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff")
ROLES = {  # what a model takes -> what an example of it needs
    "text": ("text",),
    "pairs": ("source", "target"),
    "images": ("image",),
    "images with text": ("image", "text"),
}
SHUFFLED = 0  # seed of the order of images, whose folders are often sorted by class


def read_examples(paths: Sequence[Path], wanted: str, columns: Columns) -> Iterator[Example]:
    """The examples of files, or of those in directories, read as they are asked for.

    wanted: a key of ROLES. Images of folders come in a random order, always the same; a folder
    within the one that is named is their label.
    Raises ValueError or OSError naming the file or column that does not do, and what would.
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
    images = [file for file in files if file.suffix.lower() in IMAGES]
    others = [file for file in files if file.suffix in (*TEXTS, *READERS)]
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
        raise ValueError(f"{directory} holds no file of a kind that is known here: {_known()}")


def _in_file(file: Path, wanted: str, columns: Columns) -> Iterator[Example]:
    if file.suffix in TEXTS:
        if wanted != "text":
            raise ValueError(_unfit(file, "a text", wanted))
        for paragraph in _paragraphs(file):
            yield {"text": paragraph}
    elif file.suffix in READERS:
        optional = ["label"] if wanted == "images" else []
        for row in read_rows(file, ROLES[wanted], columns, optional):
            yield _with_image(file, row) if "image" in row else row
    elif file.suffix.lower() in IMAGES and wanted == "images":
        yield {"image": file, "label": None}
    elif file.suffix.lower() in IMAGES:
        raise ValueError(_unfit(file, "an image", wanted))
    else:
        raise ValueError(f"{file}: this kind of file is not known here, but {_known()}")


def _with_image(file: Path, row: Example) -> Example:
    image = row["image"]
    if isinstance(image, dict):  # as the library `datasets` stores it
        image = image.get("bytes") or image.get("path")
    return {**row, "image": file.parent / image if isinstance(image, str) else image}


def _paragraphs(file: Path) -> Iterator[str]:
    """What blank lines separate."""
    lines: list[str] = []
    for line in text_lines(file):
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
    return f"{', '.join((*TEXTS, *READERS))}, or a folder of images"


WAYS = {
    "text": "give .txt files, or a table (.jsonl, .csv, .tsv, .parquet) with a column of texts",
    "pairs": "give a table (.jsonl, .csv, .tsv, .parquet) with a column of sources and one of "
    "targets, named by --source and --target",
    "images": "give a folder of images, or a Parquet table with a column of images",
    "images with text": "give a Parquet table with a column of images and one of texts, named by "
    "--image and --text",
}
