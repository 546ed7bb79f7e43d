"""Read the records of a run: which job made a file, and from what.

A missing, altered or malformed record is data here, never an error: the commands report it. Anybody
may have altered a JSON file, so records and ledgers are checked against a shape when they are read.
A shape is a type, or a union of types; a predicate; a dict of the keys that an object must have (it
may have more); a list of one shape for all entries; a tuple of alternatives; `Maybe` or `Mapped`.
"""

import json
import os
import re
import reprlib
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from inspect import isfunction
from pathlib import Path
from typing import Any

from provenance.digest import is_of_the_system
from provenance.hashing import read_bounded
from provenance.project import PROJECT, read_mapping
from provenance.record import read_record

MAX_NESTING = 100  # of a record or ledger
MAX_VALUES = 300_000  # in a record or ledger; the demo's have up to 38,481
MAX_RECORD_VALUES = 20_000  # the demo's have up to 711
SHOWN = ("tables", "figures")  # in a folder of results
PATH_BYTES, NAME_BYTES = 1000, 255  # more than any file's path and name have


class Misfit(ValueError):
    """A value that does not have its shape, in words."""


@dataclass(frozen=True)
class Maybe:
    """The value of a key that may be absent or null."""

    of: Any


@dataclass(frozen=True)
class Mapped:
    """An object with any keys, or keys of a shape."""

    of: Any
    keys: Any = object


def a_path(value: Any) -> bool:
    """Return whether a value can name a file, and is no option to a command that takes files."""
    if not isinstance(value, str) or not re.fullmatch(r"[^-\0\r\n][^\0\r\n]*", value):
        return False
    encoded = value.encode(errors="replace")
    return len(encoded) <= PATH_BYTES and max(map(len, encoded.split(b"/"))) <= NAME_BYTES


def a_source_file(value: Any) -> bool:
    """Return whether a value is a path that does not lead out of the repository."""
    return a_path(value) and not Path(value).is_absolute() and ".." not in Path(value).parts


def a_command(value: Any) -> bool:
    """Return whether a value can be a command line: Linux takes no word of 128 KiB."""
    return isinstance(value, str) and len(value) < 1 << 17


def a_name(value: Any) -> bool:
    """Return whether a value is the name of a rule, or the dotted name of a module."""
    return isinstance(value, str) and bool(re.fullmatch(r"\w{1,200}(\.\w{1,200})*", value))


def a_commit(value: Any) -> bool:
    """Return whether a value is a git commit, and so no option to git and no path."""
    return isinstance(value, str) and bool(re.fullmatch(r"[0-9a-f]{40}", value))


def is_inside(path: Path, folders: Iterable[Path]) -> bool:
    """Return whether a file, and all in it if it is a directory, is in one of some folders.

    Links are followed: a link that leads out of the folders is not inside.
    """
    resolved = [os.path.realpath(folder) for folder in folders]
    within = [path, *path.rglob("*")] if path.is_dir() else [path]
    real = (Path(os.path.realpath(each)) for each in within)  # of a link to itself, too
    return all(any(map(each.is_relative_to, resolved)) for each in real)


def is_elsewhere(path: str, root: Path, results: Path) -> bool:
    """Return whether a path is absolute, begins with `..`, or is behind a link out of both."""
    return not a_source_file(path) or not is_inside(root / path, [root, root / results])


def a_line(value: Any) -> bool:
    """Return whether a value is a text that cannot look like further lines of a command's."""
    return isinstance(value, str) and not re.search(r"[\n\r\v\f\x85\u2028\u2029]", value)


def a_number(value: Any) -> bool:
    """Return whether a value is a number that can be formatted."""
    return isinstance(value, int | float) and abs(value) < 1e300


FILE = {"path": a_path, "sha256": str}
FILES = Mapped((FILE, [FILE]))
SHAPE = {  # of a record; see Job._record
    "rule": a_name,
    "wildcards": Maybe(Mapped(a_line)),
    "params": Maybe(dict),
    "reproduces": Maybe((str, Mapped(a_number))),
    "imports": Maybe([a_name]),
    "command": Maybe(a_command),
    "input": FILES,
    "output": FILES,
    "code": Maybe(
        {
            "digest": Maybe(str),
            **dict.fromkeys(("files", "trees"), Maybe(Mapped(str, keys=a_source_file))),
        }
    ),
    "git": Maybe({"commit": Maybe(a_commit), "patch": Maybe(a_path)}),
    "environment": Maybe(
        {
            **dict.fromkeys(("python", "image_sha256"), Maybe(a_line)),
            "packages": Maybe(Mapped(a_line, keys=a_line)),
            "lock": Maybe(FILE),
            "image": Maybe(a_path),
        }
    ),
    "machine": Maybe(
        {
            **dict.fromkeys(("host", "cpu", "gpu", "slurm_job", "slurm_node"), Maybe(a_line)),
            "threads": Maybe(a_number),
        }
    ),
    "time": Maybe(
        {
            **dict.fromkeys(("started", "ended"), Maybe(a_line)),
            **dict.fromkeys(("seconds", "start_up_seconds", "cpu_seconds"), Maybe(a_number)),
            "peak_memory_bytes": Maybe(a_number),
        }
    ),
    "warnings": Maybe([str]),
}


@dataclass(frozen=True)
class Record:
    """The record of a job.

    file: relative to the repository. content: of this module's SHAPE. altered: whether it is not
    what the job wrote.
    """

    file: Path
    content: dict[str, Any]
    altered: bool = False

    def __str__(self) -> str:
        """Name the job by its rule and its wildcards, without the folder of results."""
        chosen = [value for name, value in self.part("wildcards").items() if name != "results"]
        return " ".join([self.rule, *chosen])

    def part(self, name: str) -> dict[str, Any]:
        """Return a part such as `git` or `time`; {} if the record has none."""
        return self.content.get(name) or {}

    @property
    def rule(self) -> str:
        """The rule that the job ran."""
        return self.content.get("rule", "?")

    @property
    def patch(self) -> str | None:
        """The file with the changes of the working tree, if there were any."""
        return self.part("git").get("patch")

    @property
    def code_digest(self) -> str | None:
        """Digest of the code that the job could reach."""
        return self.part("code").get("digest")

    @property
    def sources(self) -> dict[str, str]:
        """Path -> sha256 of the source files that ran."""
        return self.part("code").get("files") or {}

    @property
    def trees(self) -> dict[str, str]:
        """Path -> digest of the syntax tree of every source file that the job could import."""
        return self.part("code").get("trees") or {}

    @cached_property
    def inputs(self) -> dict[str, str]:
        """Path -> sha256, as they were when the job ran."""
        return {path: digest for _, path, digest in self.files("input")}

    @cached_property
    def outputs(self) -> dict[str, str]:
        """Path -> sha256, as the job left them."""
        return {path: digest for _, path, digest in self.files("output")}

    def files(self, kind: str) -> Iterator[tuple[str, str, str]]:
        """Yield name, path and sha256 of each `input` or `output`."""
        for name, value in self.part(kind).items():
            for entry in value if isinstance(value, list) else [value]:
                yield name, entry["path"], entry["sha256"]


class Records:
    """All records in a folder of results.

    results: relative to root, as are all paths in records. root: the repository, or a folder into
    which records were collected. broken: files named like records that cannot be read as one.
    """

    def __init__(self, results: Path = PROJECT.results, root: Path = Path()) -> None:
        self.results, self.root = results, root
        found, self.broken = read_all(results, root, "*.record.json", _read)
        self.by_file = {file: Record(file, *read) for file, read in found.items()}
        self._makers = {path: record for record in self.by_file.values() for path in record.outputs}
        self.made = self._makers.keys()  # including the outputs of nested results
        files = (*self.by_file, *self.broken)
        self._beside = {str(file).removesuffix(".record.json"): file for file in files}
        self._leave_out_nested()

    def _leave_out_nested(self) -> None:
        """Keep records of other results in these, such as results/demo in results, if read here."""
        own = {
            file: record
            for file, record in self.by_file.items()
            if not _is_within(file, record.part("wildcards").get("results"), self.results)
        }
        if len(own) == len(self.by_file):
            return
        made = [path for record in own.values() for path in record.outputs]
        kept = {*own, *(record.file for record in self.ancestry(*made))}
        self.by_file = {file: record for file, record in self.by_file.items() if file in kept}
        self.broken = [each for each in self.broken if not is_nested(each, self.results, self.root)]

    def maker(self, path: str | Path) -> Record | None:
        """Return the record of the job that made a file, or the directory that it is in.

        A record that is itself read as a file answers for itself.
        """
        makers = filter(None, map(self._makers.get, upwards(path)))
        return next(makers, self.by_file.get(Path(path)))

    def is_origin(self, path: str | Path) -> bool:
        """Return whether a file begins a chain: no job made it, and it is not in these results."""
        return self.maker(path) is None and not Path(path).is_relative_to(self.results)

    def silent_record(self, path: str | Path) -> Path | None:
        """Return the record file that should name a file, by its own name, and does not.

        A job writes `x.record.json` beside its outputs, such as `x.csv`. None if a record names it.
        """
        if self.maker(path):
            return None
        for each in upwards(path):
            folder, slash, stem = each.rpartition("/")
            while stem:
                file = self._beside.get(folder + slash + stem)
                if file and file != Path(path):
                    return file
                stem = stem.rpartition(".")[0]
        return None

    def ancestry(self, *paths: str | Path) -> list[Record]:
        """Return the records of all jobs behind some files, each after those it builds on."""
        reached: dict[Path, Record] = {}

        def visit(path: str | Path) -> None:
            record = self.maker(path)
            if record and record.file not in reached:
                reached[record.file] = record  # before its inputs, so that a loop ends
                for each in record.inputs:
                    visit(each)
                reached[record.file] = reached.pop(record.file)  # and then behind them

        for path in paths:
            visit(path)
        return list(reached.values())

    def origins(self, *paths: str | Path) -> dict[str, str]:
        """Path -> sha256 of the inputs in the ancestry that no record says what made.

        They are data and models of the repository, or something whose record is missing.
        """
        return {
            path: digest
            for record in self.ancestry(*paths)
            for path, digest in record.inputs.items()
            if self.maker(path) is None
        }

    def deployment(self) -> list[str]:
        """Return Snakemake's options to run jobs where these ran: in an image, or not.

        With the other choice every job would count as changed.
        """
        images = [record.part("environment").get("image") for record in self.by_file.values()]
        return ["--software-deployment-method", "apptainer"] if any(images) else []


def upwards(path: str | Path) -> Iterator[str]:
    """Yield a path and the folders that it is in, the innermost first."""
    text = str(Path(path))
    while text:
        yield text
        text = text.rpartition("/")[0]


def _read(file: Path) -> tuple[dict[str, Any], bool]:
    """Return the content of a record, and whether its seal is broken."""
    content = read_json(file, SHAPE)
    try:
        read_record(file)
    except ValueError:
        return content, True
    return content, False


def read_all(
    results: Path, root: Path, pattern: str, read: Callable[[Path], Any]
) -> tuple[dict[Path, Any], list[Path]]:
    """Read the files of a run whose names fit. Return path -> what was read, and what cannot be.

    A link that leads out of the repository and its results is not read. Hidden files are left out:
    a job that runs or was killed may leave them half-written.
    Raises ValueError if the folder cannot be one of results.
    """
    folder, found, broken = root / results, {}, []
    if is_of_the_system(folder) and folder.resolve() != Path.cwd():
        raise ValueError(f"{folder} is no folder of results")
    for file in sorted(folder.rglob(pattern)):
        name = file.relative_to(root)
        if any(part.startswith(".") for part in file.relative_to(folder).parts):
            continue
        try:
            if file.is_symlink() and not is_inside(file, [root, folder]):
                raise ValueError(f"{name} is a link out of this folder")
            found[name] = read(file)
        except ValueError:
            broken.append(name)
    return found, broken


def is_nested(file: Path, results: Path, root: Path = Path()) -> bool:
    """Return whether a file is in other results in these, by the record beside or above it."""
    beside = file.with_name(f"{file.name.partition('.')[0]}.record.json")
    try:
        inner = read_json(root / beside, {"wildcards": {"results": a_path}})["wildcards"]["results"]
    except Misfit:
        inner = results_of(str(file.parent), root)
    return _is_within(file, inner, results)


def _is_within(file: Path, inner: str | Path | None, results: Path) -> bool:
    """Return whether a file is in a folder of results that is itself in others.

    No record can say so of a table or figure of these: it would not be checked any more.
    """
    folder = Path(inner or results)
    nested = folder != results and folder.is_relative_to(results)
    return nested and folder.name not in SHOWN and file.is_relative_to(folder)


def split_targets(targets: Iterable[str], results: Path | None) -> tuple[Path, list[str]]:
    """Return the folder of results that targets are in, and the targets that are not the folder."""
    targets = list(targets)
    folders = filter(None, map(results_of, targets))
    results = results or next(folders, PROJECT.results)
    return results, [target for target in targets if Path(target) != results]


def results_of(target: str, root: Path = Path()) -> Path | None:
    """Return the folder of results that a file or folder is in, by the records in and above it.

    None for what is in none, such as the short name of a number.
    """
    path = Path(target)
    if not a_source_file(target):  # nor is a folder outside searched, which may be large
        return None
    for folder in [path, *path.parents][:-1]:
        patterns = ["**/*.record.json"] if folder == path else ["*.record.json", "*/*.record.json"]
        for file in (file for pattern in patterns for file in (root / folder).glob(pattern)):
            with suppress(Misfit):
                results = Path(
                    read_json(file, {"wildcards": {"results": a_path}})["wildcards"]["results"]
                )
                if path.is_relative_to(results):
                    return results
    above = (parent.parent for parent in path.parents if parent.name in SHOWN)
    return next(above, None)


def read_json(file: Path, shape: Any) -> Any:
    """Read a JSON file. Raises Misfit, in words, if it holds nothing of this shape."""
    try:
        text = read_bounded(file)
        content = json.loads(text, parse_constant=_no_number)
        if re.search(rb"\\u[dD][89a-fA-F]", text):
            json.dumps(content, ensure_ascii=False).encode()  # fails for half of a character
        depth, n_values = _extent(content)
        if depth > MAX_NESTING:
            raise ValueError(f"it is nested more than {MAX_NESTING} deep")
        most = MAX_RECORD_VALUES if shape is SHAPE else MAX_VALUES
        if n_values > most:
            raise ValueError(f"it holds more than {most:,} values")
    except (OSError, ValueError, RecursionError, MemoryError) as error:
        raise Misfit(str(error)) from None
    check(content, shape)
    return content


def _no_number(name: str) -> None:
    raise ValueError(f"{name} is no number")


def _extent(value: Any) -> tuple[int, int]:
    """Return how deep lists and objects are nested, and how many values they hold."""
    depth, n_values, level = 0, 0, [value]
    while level:
        n_values += len(level)
        containers = [each for each in level if isinstance(each, dict | list)]
        level = [
            of for each in containers for of in (each.values() if isinstance(each, dict) else each)
        ]
        depth += bool(containers)
    return depth, n_values


def check(value: Any, shape: Any, place: str = "") -> None:
    """Raise Misfit, naming the place in the file, if a value does not have a shape."""
    match shape:
        case dict():
            _require(value, dict, place)
            for key, of in shape.items():
                if isinstance(of, Maybe):
                    of = of.of if value.get(key) is not None else object
                elif key not in value:
                    raise Misfit(f"{place}{key} is missing")
                check(value.get(key), of, f"{place}{key}.")
        case list():
            for n, each in enumerate(_require(value, list, place)):
                check(each, shape[0], f"{place}{n}.")
        case tuple():
            misfits = []
            for alternative in shape:
                try:
                    return check(value, alternative, place)
                except Misfit as misfit:
                    misfits.append(misfit)
            raise misfits[0]
        case Mapped():
            for key, each in _require(value, dict, place).items():
                check(key, shape.keys, f"{place}{key[:60]}.")
                check(each, shape.of, f"{place}{key[:60]}.")
        case _:
            _require(value, shape, place)


def read_checked(file: Path, shape: Any) -> dict[str, Any]:
    """Read a YAML file of keys and values; {} if it is not there. Raises ValueError naming it."""
    content = read_mapping(file) if file.is_file() else {}
    try:
        check(content, shape)
    except Misfit as misfit:
        raise ValueError(f"{file} cannot be read: {misfit}") from None
    return content


def _require(value: Any, kind: Any, place: str) -> Any:
    if kind(value) if isfunction(kind) else isinstance(value, kind):
        return value
    expected = getattr(kind, "__name__", str(kind)).replace("_", " ")
    found = (repr if isinstance(value, str) else reprlib.repr)(value)[:60]
    raise Misfit(f"{place[:-1] or 'the content'} is {found}, not {expected}")
