"""Find and hash the source closure of a script: the workflow's modules that it can import.

Snakemake does not look at what a script imports. Each rule therefore has the digest of its closure
among its parameters, so that a job reruns exactly when code that it can reach changes. The digest
covers the syntax tree without docstrings and `description=…` arguments: comments, documentation,
formatting and modification times rerun nothing.
"""

import ast
import hashlib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from importlib.machinery import PathFinder
from pathlib import Path
from typing import Any

WORKFLOW = Path(__file__).parent.parent
REPOSITORY = WORKFLOW.parent
BLOCKS = ("body", "orelse", "finalbody", "handlers", "cases")  # of statements, in a syntax tree


def closure(script: Path, imports: Iterable[str] = ()) -> list[Path]:
    """Return the script, and all modules of the workflow or beside it that it can import.

    imports: dotted names of modules that the job imports because its parameters name them, such as
    its kind of task. Raises FileNotFoundError for a script or a module that does not exist.
    """
    script = script.resolve()
    roots = (WORKFLOW, script.parent)
    todo = [script]
    for name in imports:
        if _file(tuple(name.split(".")), roots) is None:
            raise FileNotFoundError(f"{script.name} imports {name}, which does not exist")
        todo += _modules(name, roots)
    reached: set[Path] = set()
    while todo:
        file = todo.pop()
        if file not in reached:
            reached.add(file)
            todo += [each for name in read_source(file).imports for each in _modules(name, roots)]
    return sorted(reached)


def code_digest(files: Iterable[Path]) -> str:
    """Hash the names and syntax trees of files; comments and formatting do not count."""
    return digest_of_trees({_name(file): read_source(file).tree for file in files})


def digest_of_trees(trees: Mapping[str, str]) -> str:
    """Return the code digest of files by name and digest of their syntax trees, in this order."""
    lines = [f"{name} {tree}\n" for name, tree in trees.items()]
    return hashlib.sha256("".join(lines).encode()).hexdigest()


class RunningCode:
    """The source closure of a job as it was when the job began.

    sources: file -> its source. As an entry of `sys.meta_path` it stops the job before it imports a
    module that has been edited since: the code that ran is then the code with this digest.
    """

    def __init__(self, script: Path, imports: Iterable[str]) -> None:
        self.sources = {file: read_source(file) for file in closure(script, imports)}
        parts = (part for file in self.sources for part in file.parts)
        self._packages = {part.removesuffix(".py") for part in parts}  # and more, to no harm

    @property
    def trees(self) -> dict[str, str]:
        """Name -> digest of the syntax tree of every file."""
        return {_name(file): source.tree for file, source in self.sources.items()}

    def find_spec(self, name: str, path: Any = None, target: Any = None) -> None:
        """Raise SystemExit for an edited module; else leave it to Python to find it."""
        if name.partition(".")[0] not in self._packages:
            return
        spec = PathFinder.find_spec(name, path, target)
        file = Path(spec.origin) if spec and spec.origin else None
        if file in self.sources and read_source(file).tree != self.sources[file].tree:
            raise SystemExit(
                f"{_name(file)} was edited before this job imported it; run Snakemake again"
            )


@dataclass(frozen=True)
class Source:
    """A source file. tree: digest of its code. imports: the dotted names that it imports."""

    sha256: str
    tree: str
    imports: tuple[str, ...]


def read_source(file: Path) -> Source:
    """Read and parse a file, once until it changes. Raises SyntaxError, and OSError."""
    if not file.is_file():  # a pipe would never end
        raise FileNotFoundError(f"{file} is no file")
    status = file.stat()
    return _read_source(file, status.st_size, status.st_mtime_ns, status.st_ctime_ns)


@cache
def _read_source(file: Path, *_: int) -> Source:
    """Read and parse a file. The numbers identify its version.

    Imports count at any level of nesting, but not in a module's `__getattr__`: no job asks a
    package for such a name.
    """
    content = file.read_bytes()
    tree = ast.parse(content, str(file))
    todo = [each for each in tree.body if getattr(each, "name", "") != "__getattr__"]
    names: list[str] = []
    while todo:
        node = todo.pop()
        for block in BLOCKS:  # an import is a statement: expressions need no look
            todo += getattr(node, block, ())
        if isinstance(node, ast.Import):
            names += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            names += [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
    for node in ast.walk(tree):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            has_docstring = ast.get_docstring(node, clean=False) is not None
            node.body = node.body[1:] if has_docstring else node.body
        elif isinstance(node, ast.Call):
            node.keywords = [word for word in node.keywords if word.arg != "description"]
    digest = hashlib.sha256(ast.dump(tree).encode()).hexdigest()
    return Source(hashlib.sha256(content).hexdigest(), digest, tuple(names))


def _modules(name: str, roots: tuple[Path, ...]) -> Iterator[Path]:
    """Yield the files of a dotted name and its parent packages; none outside the roots."""
    parts = tuple(name.split("."))
    for n in range(1, len(parts) + 1):
        file = _file(parts[:n], roots)
        if file is not None:
            yield file


@cache
def _file(parts: tuple[str, ...], roots: tuple[Path, ...]) -> Path | None:
    bases = [root.joinpath(*parts) for root in roots]
    candidates = (
        path for base in bases for path in (base / "__init__.py", base.with_suffix(".py"))
    )
    return next((path for path in candidates if path.is_file()), None)


def _name(file: Path) -> str:
    """Return the name of a source file in records: its path in the repository."""
    return file.relative_to(REPOSITORY).as_posix() if REPOSITORY in file.parents else file.name
