"""Find and hash the source closure of a script: the workflow's modules that it can import.

Snakemake does not look at what a script imports. Each rule therefore has the digest of its closure
among its parameters, so that a job reruns exactly when code that it can reach changes. The digest
covers the syntax tree without docstrings and `description=…` arguments: comments, documentation,
formatting and modification times rerun nothing.
"""

import ast
import hashlib
from collections.abc import Iterable, Iterator
from functools import cache
from pathlib import Path

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
            todo += _imports(file, roots)
    return sorted(reached)


def code_digest(files: Iterable[Path]) -> str:
    """Hash the names and syntax trees of files; comments and formatting do not count."""
    whole = hashlib.sha256()
    for file in files:
        whole.update(f"{_name(file)} {_tree_digest(file)}\n".encode())
    return whole.hexdigest()


@cache
def _imports(file: Path, roots: tuple[Path, ...]) -> list[Path]:
    """Return the files below the roots that a file imports, at any level of nesting.

    Imports in a module's `__getattr__` do not count: no job asks a package for such a name.
    """
    files = []
    todo = [each for each in _parsed(file).body if getattr(each, "name", "") != "__getattr__"]
    while todo:
        node = todo.pop()
        for block in BLOCKS:  # an import is a statement: expressions need no look
            todo += getattr(node, block, ())
        names = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            names = [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
        for name in names:
            files += _modules(name, roots)
    return files


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


@cache
def _parsed(file: Path) -> ast.Module:
    return ast.parse(file.read_text(), str(file))


@cache
def _tree_digest(file: Path) -> str:
    tree = _parsed(file)  # what is removed from it here holds no imports
    for node in ast.walk(tree):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            has_docstring = ast.get_docstring(node, clean=False) is not None
            node.body = node.body[1:] if has_docstring else node.body
        elif isinstance(node, ast.Call):
            node.keywords = [word for word in node.keywords if word.arg != "description"]
    return hashlib.sha256(ast.dump(tree).encode()).hexdigest()


def _name(file: Path) -> str:
    return file.relative_to(REPOSITORY).as_posix() if REPOSITORY in file.parents else file.name
