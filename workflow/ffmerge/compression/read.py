"""Read examples from a user's files: texts, tables of texts or pairs, and images.

A fault is a ValueError of one line: the file with the line or row, what is wrong, the way out.
"""

import csv
import json
import math
import os
import re
import sys
import warnings
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import chain
from pathlib import Path
from random import Random
from typing import Any

import yaml

Example = dict[str, Any]
"""Values by role: `text`; `source` and `target`; `image` (a file's path, or its bytes), with
`label` (a number or a name) or `text` beside it, if there are any. `place`: file with line or row,
for messages. `continues`: whether the next example continues this text."""
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
    "targets",
    "images": "give a folder of images, or a Parquet table with a column of images",
    "images with text": "give a Parquet table with a column of images and one of texts",
}
GUESSES = {  # role -> usual names of its column, if the user names none
    "text": ("text", "content", "sentence", "caption"),
    "source": ("source", "src", "input", "document", "article"),
    "target": ("target", "tgt", "output", "summary", "highlights"),
    "image": ("image", "img", "picture", "jpg", "png"),
    "label": ("label", "labels", "fine_label", "class"),
    "article": ("article",),
    "page": ("page",),
}
NAMES = ("label", "article", "page")  # roles whose values name something, and that may be missing
SHUFFLED = 0  # seed for the order of images, whose folders are often sorted by class
ROWS_PER_BATCH = 64
PIECE = 2**16  # characters of a text that are read and tokenized at a time
LONGEST_PATH = 4096
NOT_DATA = re.compile(r"\.|__MACOSX$|__pycache__$")  # begins the name of such a file or folder
ABOUT = (  # names of texts in a folder that are about its data
    *("readme", "license", "licence", "copying", "notice", "authors", "citation"),
    *("changelog", "contributing"),
)
QUOTED = re.compile('"([^"]|"")*"')  # a whole field
NOT_IN_TEXT = re.compile("[\0\ud800-\udfff]")  # NUL, and halves, which UTF-8 cannot write


@dataclass(frozen=True)
class Request:
    """What to read. wanted: a key of ROLES.

    columns: names of columns. naming: how the user names the column of a role, for messages.
    complete: whether a row that lacks a value is an error. If not, it is left out with a warning.
    more: roles that are read, too, where a table has them.
    """

    wanted: str
    columns: Columns
    naming: str = "name one with --{}"
    complete: bool = False
    more: tuple[str, ...] = ()


def read_examples(paths: Sequence[Path], request: Request) -> Iterator[Example]:
    """Read the examples of files and directories, lazily.

    Images in folders come in a fixed random order; a subfolder's name is the label of its images.
    Raises ValueError or OSError naming the unsuitable file, row or column, and what would be
    suitable.
    """
    for path in paths:
        if not path.exists():
            raise FileNotFoundError(f"there is no file or directory {path}")
        yield from _in_directory(path, request) if path.is_dir() else _in_file(path, request)


def files_below(directory: Path, above: tuple[Path, ...] = ()) -> Iterator[Path]:
    """Yield the files of a folder and of those in it, linked ones too, without hidden ones.

    above: the folders that it is in, which a link may lead back to.
    """
    here = (*above, directory.resolve())
    for path in directory.iterdir():
        if NOT_DATA.match(path.name):
            continue
        if path.is_dir() and path.resolve() not in here:
            yield from files_below(path, here)
        elif path.is_file():
            yield path


def _in_directory(directory: Path, request: Request) -> Iterator[Example]:
    files = sorted(files_below(directory))
    images = [file for file in files if _suffix(file) in IMAGE_SUFFIXES]
    others = [file for file in files if is_read(file)]
    if request.wanted == "images" and images:
        for file in Random(SHUFFLED).sample(images, len(images)):
            label = file.relative_to(directory).parts[0] if file.parent != directory else None
            yield {"image": file, "label": label, "place": str(file)}
    elif others:
        for file in others:
            yield from _in_file(file, request)
    elif images:
        raise ValueError(_unfit(directory, "a folder of images", request.wanted))
    else:
        raise ValueError(f"{directory} holds no file that can be read here: give {KNOWN}")


def is_read(file: Path) -> bool:
    """Whether a file in a folder is a text or a table of data."""
    if _suffix(file) in TEXT_SUFFIXES:
        return file.name.lower().partition(".")[0] not in ABOUT
    return _suffix(file) in READERS


def _in_file(file: Path, request: Request) -> Iterator[Example]:
    suffix = _suffix(file)
    if not file.is_file():
        raise ValueError(f"{file} is a pipe or a device, not a file: save the data in one")
    if suffix in TEXT_SUFFIXES:
        if request.wanted != "text":
            raise ValueError(_unfit(file, "a text", request.wanted))
        yield from _paragraphs(file)
    elif suffix in READERS:
        yield from _rows(file, request)
    elif suffix in IMAGE_SUFFIXES and request.wanted == "images":
        yield {"image": file, "label": None, "place": str(file)}
    elif suffix in IMAGE_SUFFIXES:
        raise ValueError(_unfit(file, "an image", request.wanted))
    else:
        raise ValueError(f"{file}: this kind of file cannot be read here: give {KNOWN}")


def _suffix(file: Path) -> str:
    return file.suffix.lower()


def _unfit(path: Path, what: str, wanted: str) -> str:
    return f"{path} is {what}, but this model takes {wanted}: {WAYS[wanted]}"


# --- texts ----------------------------------------------------------------------------------------


def _paragraphs(file: Path) -> Iterator[Example]:
    """Yield paragraphs, which blank lines separate; a long one in pieces."""
    lines: list[str] = []
    size = 0
    for line in _text_lines(file, newline=None, longest=PIECE):
        if line.strip():
            lines.append(line)
            size += len(line)
            if size > PIECE:
                *whole, rest = pieces("".join(lines))
                for piece in whole:
                    yield {"text": piece, "continues": True, "place": str(file)}
                lines, size = [rest], len(rest)
        elif lines:
            yield {"text": "".join(lines).removesuffix("\n"), "place": str(file)}
            lines, size = [], 0
    if lines:
        yield {"text": "".join(lines).removesuffix("\n"), "place": str(file)}


def pieces(text: str) -> Iterator[str]:
    """Cut a text into pieces of at most PIECE characters, before white space if there is any."""
    start = 0
    while len(text) - start > PIECE:
        end = start + PIECE
        cut = max(text.rfind(space, start + 1, end) for space in " \n")
        yield text[start : (start := cut if cut > 0 else end)]
    yield text[start:]


def _text_lines(file: Path, newline: str | None = "", longest: int = -1) -> Iterator[str]:
    """Read the lines of a text, those above `longest` characters in parts.

    Raises ValueError naming the file and the line if it is not UTF-8, or holds NUL.
    """
    number = 0
    try:
        with file.open(encoding="utf-8-sig", newline=newline) as stream:
            for line in iter(partial(stream.readline, longest), ""):
                if "\0" in line:  # which UTF-8 allows
                    raise ValueError(
                        f"{file}, line {number + 1} holds NUL, as text in UTF-16 and binary files "
                        "do: save the file as UTF-8"
                    )
                number += line.endswith("\n")
                yield line
    except UnicodeDecodeError as error:
        at = number + 1 + error.object[: error.start].count(b"\n")
        raise ValueError(
            f"{file}, line {at} is not UTF-8 text ({error.reason}): save the file as UTF-8"
        ) from None


# --- tables ---------------------------------------------------------------------------------------


def _rows(file: Path, request: Request) -> Iterator[Example]:
    """Read the rows of a table, keyed by the roles of its columns.

    Raises ValueError naming the file and its columns if a column is not there, or the row of a
    value that does not fit its role.
    """
    wanted = ROLES[request.wanted]
    roles = [*wanted, *(["label"] if request.wanted == "images" else []), *request.more]
    named: dict[str, str] = {}  # role -> its column, from the first row that has it
    there: dict[str, None] = {}  # names of columns
    n_rows = n_used = 0
    for n_rows, (place, row) in enumerate(READERS[_suffix(file)](file), start=1):
        if len(named) < len(roles):
            names = [*row, *(f"{k}.{i}" for k, v in row.items() if isinstance(v, dict) for i in v)]
            there |= dict.fromkeys(names)
            for role in roles:
                if role not in named and (name := _column(row, names, role, request.columns)):
                    named[role] = name
            if request.complete or _suffix(file) != ".jsonl":  # all rows have the same columns
                _check_columns(file, there, named, roles, request)
        place = f"{file}, {place}"
        values = {
            role: _read_value(_value(row, name), role, file, place, request)
            for role, name in named.items()
        }
        if lacking := [role for role in wanted if values.get(role) is None]:
            fault = f"{place} has no {' and no '.join(lacking)}"
            if request.complete:
                raise ValueError(f"{fault}: take out such rows, or fill them in")
            if n_rows == n_used + 1:
                warnings.warn(f"{fault}; it was left out, as are others like it", stacklevel=2)
            continue
        n_used += 1
        yield {**values, "place": place}
    if n_rows == 0:
        raise ValueError(f"{file} has no rows")
    _check_columns(file, there, named, roles, request)
    if n_used == 0:
        raise ValueError(f"none of the {n_rows} rows of {file} has {' and '.join(wanted)}")


def _column(row: Row, names: list[str], role: str, columns: Columns) -> str | None:
    """The column of a role in a row: the one that the user named, or one with a usual name."""
    if name := columns.get(role):
        return name if name in names or _value(row, name) is not None else None
    return next((guess for guess in GUESSES[role] if guess in row), None)


def _check_columns(
    file: Path, there: Mapping, named: Mapping, roles: Sequence[str], request: Request
) -> None:
    has = f"(it has: {_short(', '.join(there), 200)})"
    for role in (role for role in roles if role not in named):
        if name := request.columns.get(role):
            raise ValueError(f"{file} has no column {name!r} {has}")
        if role not in NAMES:
            way = request.naming.format(role)
            raise ValueError(f"{file} has no column for the {role}: {way} {has}")


def _value(row: Row, name: str) -> Any:
    value: Any = row
    for part in [name] if name in row else name.split("."):
        value = value.get(part) if isinstance(value, dict) else None
    return value


def _read_value(value: Any, role: str, file: Path, place: str, request: Request) -> Any:
    """A value as its role takes it; None for a gap (null, NaN, white space, no bytes)."""
    if role == "image" and isinstance(value, dict):  # as the library `datasets` stores it
        value = value.get("bytes") or value.get("path")
    is_blank = isinstance(value, str | bytes) and not value.strip()
    if value is None or is_blank or (isinstance(value, float) and math.isnan(value)):
        return None
    fits = "text"
    if role == "image":
        fits = "the path of a file or its bytes"
        if isinstance(value, bytes):
            return value
        if isinstance(value, str):
            if len(value) > LONGEST_PATH or not os.path.isfile(file.parent / value):
                raise ValueError(
                    f"{place}: there is no image {_short(repr(value), 60)}; give the path of a "
                    "file, or its bytes in a Parquet table"
                )
            return file.parent / value
    elif role in NAMES:
        fits = "a whole number or a name"
        if isinstance(value, int | str):
            return int(value) if isinstance(value, bool) else value
        if isinstance(value, float) and value.is_integer():
            return int(value)
    elif isinstance(value, str):
        if wrong := NOT_IN_TEXT.search(value):
            what = "NUL" if wrong[0] == "\0" else "half a character (a lone surrogate)"
            raise ValueError(
                f"{place}: the {role} holds {what}, {wrong[0]!r}: write the table again from "
                "text that is whole"
            )
        return value
    chat = isinstance(value, list) and any(isinstance(each, dict) for each in value)
    way = request.naming.format(role).replace("one", "another column", 1)
    if chat and fits == "text":
        way = "write chat messages out as text first (the tokenizer's apply_chat_template)"
    shown = _short(repr(value), 60)
    raise ValueError(f"{place}: the {role} is {_kind(value)} ({shown}), not {fits}: {way}")


def _kind(value: Any) -> str:
    kinds = {bool: "true or false", dict: "a group of values", list: "a list", bytes: "bytes"}
    return kinds.get(type(value), "a number" if isinstance(value, int | float) else "of a type")


def _short(text: str, most: int) -> str:
    return text if len(text) <= most else f"{text[:most]}…"


def _once(names: Sequence[str], where: str) -> None:
    twice = [name for name, n in Counter(names).items() if n > 1 and name]
    if twice:
        raise ValueError(f"{where} has {twice[0]!r} twice: rename one of them")


def _json_lines(file: Path) -> Iterator[tuple[str, Row]]:
    for number, line in enumerate(_text_lines(file), start=1):
        if not line.strip():
            continue
        try:
            row = json.loads(line, object_pairs_hook=json_object)
        except (ValueError, RecursionError) as error:
            raise ValueError(f"{file}, line {number} is not JSON: {error}") from None
        if not isinstance(row, dict):
            raise ValueError(f"{file}, line {number} is not a JSON object, with a key per column")
        yield f"line {number}", row


def json_object(pairs: list[tuple[str, Any]]) -> Row:
    """Make a JSON object of its pairs. Raises ValueError naming a key that comes twice."""
    _once([key for key, _ in pairs], "an object")
    return dict(pairs)


def _separated(file: Path) -> Iterator[tuple[str, Row]]:
    """Rows of a CSV or TSV; a row of another number of fields than the header's is an error."""
    tabs = _suffix(file) == ".tsv"
    rows = _tab_separated(file) if tabs else _comma_separated(file)
    _, header = next(rows, (0, []))
    _once(header, f"the header of {file}")
    for number, fields in rows:
        if len(fields) != len(header):
            way = "take tabs out of the fields" if tabs else "quote a field that has a comma in it"
            raise ValueError(
                f"{file}, line {number} has {len(fields)} fields, but the header has {len(header)}:"
                f" {way}"
            )
        yield f"line {number}", dict(zip(header, fields, strict=True))


def _comma_separated(file: Path) -> Iterator[tuple[int, list[str]]]:
    """Records with their first line's number; blank lines are skipped."""
    csv.field_size_limit(sys.maxsize)
    rows, begins = csv.reader(_text_lines(file), strict=True), 1
    try:
        for fields in rows:
            if "".join(fields).strip() or len(fields) > 1:
                yield begins, fields
            begins = rows.line_num + 1
    except csv.Error as error:
        raise ValueError(
            f"{file}, line {begins}: {error}; a quoted field needs a quote at its end, and quotes "
            "in it doubled"
        ) from None


def _tab_separated(file: Path) -> Iterator[tuple[int, list[str]]]:
    """Lines with their numbers; a quote counts only in a pair around a whole field."""
    for number, line in enumerate(_text_lines(file), start=1):
        if line.strip():
            fields = line.rstrip("\r\n").split("\t")
            quoted = map(QUOTED.fullmatch, fields)
            whole = zip(fields, quoted, strict=True)
            yield number, [f[1:-1].replace('""', '"') if found else f for f, found in whole]


def _parquet(file: Path) -> Iterator[tuple[str, Row]]:
    import pyarrow
    from pyarrow import parquet

    try:
        table = parquet.ParquetFile(file)
        _once(table.schema_arrow.names, f"the header of {file}")
        batches = (batch.to_pylist() for batch in table.iter_batches(batch_size=ROWS_PER_BATCH))
        for number, row in enumerate(chain.from_iterable(batches), start=1):
            yield f"row {number}", row
    except (pyarrow.ArrowException, OSError, UnicodeDecodeError) as error:
        if isinstance(error, OSError) and error.errno is not None:
            raise  # no permission
        raise ValueError(
            f"{file} is not a Parquet file that can be read: {one_line(error)}"
        ) from None


READERS = {".jsonl": _json_lines, ".csv": _separated, ".tsv": _separated, ".parquet": _parquet}
KNOWN = f"{', '.join((*TEXT_SUFFIXES, *READERS))}, or a folder of images"


# --- settings -------------------------------------------------------------------------------------


class _UniqueKeys(yaml.SafeLoader):
    """Refuses a key that comes twice, of which YAML's readers take the last."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict:
        names = [key.value for key, _ in node.value if isinstance(key, yaml.ScalarNode)]
        for key, _ in node.value:
            if names.count(key.value) > 1:
                problem = f"the key {key.value!r} comes twice"
                raise yaml.constructor.ConstructorError(None, None, problem, key.start_mark)
        return super().construct_mapping(node, deep)


def read_yaml(file: Path) -> Any:
    """Read a YAML file. Raises ValueError naming the line of a fault, such as a key given twice."""
    if file.exists() and not file.is_file():
        raise ValueError(f"{file} is a folder, a pipe or a device, not a file")
    try:
        return yaml.load(file.read_text(encoding="utf-8"), _UniqueKeys)
    except yaml.MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else 1
        raise ValueError(f"{file}, line {line}: {error.problem}") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ValueError(f"{file} is not YAML: {one_line(error)}") from None


def one_line(error: Exception) -> str:
    """The message of an error in one line, without what would make it a page."""
    return _short(" ".join(str(error).split()), 200) or type(error).__name__
