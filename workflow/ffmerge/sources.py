"""The source closure of a script: the script and every module of this package it can reach.

Snakemake does not look into what a script imports. Each rule therefore carries the digest of its
closure among its parameters (design: change), so that a job reruns when code on its path changes
and only then: the digest is of the syntax tree without docstrings and `description=…` arguments, so
that comments, documentation, formatting and modification times rerun nothing.
"""

import ast
import hashlib
from collections.abc import Iterable, Iterator
from functools import cache
from pathlib import Path

PACKAGE = Path(__file__).parent
REPOSITORY = PACKAGE.parent.parent


def closure(script: Path, without: Iterable[str] = ()) -> list[Path]:
    """The files whose code a script runs or may run: itself, and what it imports of ffmerge.

    without: modules (dotted names) that this job cannot reach though its imports name them, such
    as the two tasks that it is not about.
    Raises FileNotFoundError for a script that does not exist.
    """
    left_out = {_file(name) for name in without}
    found: set[Path] = set()
    todo = [script.resolve()]
    while todo:
        file = todo.pop()
        if file in found or file in left_out:
            continue
        found.add(file)
        todo += _imports(file)
    return sorted(found)


def code_digest(files: Iterable[Path]) -> str:
    """sha256 over the files' names and syntax trees; comments and formatting do not count."""
    whole = hashlib.sha256()
    for file in files:
        whole.update(f"{_name(file)} {_tree_digest(file)}\n".encode())
    return whole.hexdigest()


@cache
def _imports(file: Path) -> list[Path]:
    """Files of this package that a file's import statements name, wherever they stand in it.

    But for those in a module's `__getattr__`, which only runs for who asks for a name of its own.
    """
    files = []
    statements = (each for each in _parsed(file).body if getattr(each, "name", "") != "__getattr__")
    for node in (node for statement in statements for node in ast.walk(statement)):
        names = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            names = [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
        for name in names:
            files += _modules(name)
    return files


def _modules(name: str) -> Iterator[Path]:
    """The files behind a dotted name of this package, its parent packages included."""
    parts = name.split(".")
    if parts[0] == PACKAGE.name:
        for n in range(1, len(parts) + 1):
            file = _file(".".join(parts[:n]))
            if file is not None:
                yield file


def _file(name: str) -> Path | None:
    base = PACKAGE.parent.joinpath(*name.split("."))
    candidates = (base / "__init__.py", base.with_suffix(".py"))
    return next((path for path in candidates if path.is_file()), None)


@cache
def _parsed(file: Path) -> ast.Module:
    return ast.parse(file.read_text(), str(file))


@cache
def _tree_digest(file: Path) -> str:
    tree = ast.parse(file.read_text(), str(file))
    for node in ast.walk(tree):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            has_docstring = ast.get_docstring(node, clean=False) is not None
            node.body = node.body[1:] if has_docstring else node.body
        elif isinstance(node, ast.Call):
            node.keywords = [word for word in node.keywords if word.arg != "description"]
    return hashlib.sha256(ast.dump(tree).encode()).hexdigest()


def _name(file: Path) -> str:
    return file.relative_to(REPOSITORY).as_posix() if REPOSITORY in file.parents else file.name
