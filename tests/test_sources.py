"""The source closure of a script: what it may run, and a digest that only code changes."""

import ast
import textwrap
from pathlib import Path

import pytest

from ffmerge import sources
from ffmerge.config import KINDS
from ffmerge.sources import PACKAGE, closure, code_digest

# --- the closure, of the package itself -----------------------------------------------------------


@pytest.fixture
def modules(tmp_path):
    """modules(code, without): names of the package's files that a script with this code reaches."""

    def reached(code: str, without: tuple[str, ...] = ()) -> set[str]:
        script = tmp_path / "script.py"
        script.write_text(code)
        sources._imports.cache_clear()
        sources._parsed.cache_clear()
        files = closure(script, without)
        assert script in files
        return {file.relative_to(PACKAGE).as_posix() for file in files if file != script}

    return reached


# the package, and what it has any process that imports transformers run
ALWAYS = {"__init__.py", "import_hook.py", "tied_model.py"}


@pytest.mark.parametrize(
    "statement",
    [
        "import ffmerge.windows",
        "import ffmerge.windows as w",
        "from ffmerge import windows",
        "from ffmerge.windows import starts",
        "def f():\n    from ffmerge.windows import starts",
    ],
)
def test_every_kind_of_import_leads_to_the_module_and_to_its_package(modules, statement):
    assert modules(statement) == ALWAYS | {"windows.py"}


def test_a_script_reaches_what_its_imports_import_and_nothing_else(modules):
    assert modules("import json, torch\nfrom ffmerge.merge import merge_in_model") == ALWAYS | {
        "architectures/__init__.py",
        "architectures/decoders.py",
        "architectures/encoder_decoders.py",
        "architectures/encoders.py",
        "architectures/entry.py",
        "architectures/vision.py",
        "correlation.py",
        "groups.py",
        "merge.py",
        "permutation.py",
        "tie.py",
        "towers.py",
        "windows.py",
    }


def test_a_script_without_the_package_reaches_only_itself(modules):
    assert modules("import ffmergers, torch\nfrom os import path") == set()


def test_all_kinds_of_task_are_reached_through_the_imports_inside_task_for(modules):
    assert {f"tasks/{kind}.py" for kind in KINDS} <= modules("from ffmerge.tasks import task_for")


def test_a_module_left_out_takes_what_only_it_needs_along(modules):
    code = "from ffmerge.tasks import task_for"
    everything = modules(code)
    left = modules(code, without=("ffmerge.tasks.translation",))
    assert everything - left == {"tasks/translation.py", "bleu.py"}


def test_a_missing_script_is_an_error(tmp_path):
    with pytest.raises(FileNotFoundError):
        closure(tmp_path / "missing.py")


def test_no_job_reaches_an_import_that_the_closure_does_not_follow():
    scripts = (PACKAGE.parent / "scripts").glob("*.py")
    for file in {file for script in scripts for file in closure(script)}:
        for node in ast.walk(ast.parse(file.read_text())):
            assert not (isinstance(node, ast.ImportFrom) and node.level), f"{file}: relative import"
            named = getattr(node, "id", getattr(node, "attr", None))
            assert named not in {"import_module", "__import__"}, f"{file}: {named}"
            if isinstance(node, ast.ImportFrom) and node.module == "ffmerge":
                asked = {alias.name for alias in node.names} & {"compress", "load"}
                assert not asked, f"{file}: {asked}, which the package's __getattr__ imports"


# --- the digest, of a small package ---------------------------------------------------------------

FILES = {
    "workflow/scripts/act.py": '''
        """Act."""
        from ffmerge.near import value

        print(value(1))
    ''',
    "workflow/ffmerge/__init__.py": '"""A package."""',
    "workflow/ffmerge/near.py": '''
        """Near."""
        from ffmerge.far import FACTOR

        class Number:
            """A number."""

            size: int = 1

        def value(x):
            """Doubled."""
            return FACTOR * x
    ''',
    "workflow/ffmerge/far.py": "FACTOR = 2",
    "workflow/ffmerge/other.py": "SPARE = 3",
}


@pytest.fixture
def digest(tmp_path, monkeypatch):
    """digest({file: (old, new)}): of the small package's script after these replacements."""
    trees = iter(range(100))

    def of(changes: dict[str, tuple[str, str]] | None = None) -> str:
        root: Path = tmp_path / str(next(trees))
        for name, text in FILES.items():
            text = textwrap.dedent(text).strip() + "\n"
            old, new = (changes or {}).get(name, ("", ""))
            assert old in text
            (root / name).parent.mkdir(parents=True, exist_ok=True)
            (root / name).write_text(text.replace(old, new) if old else text)
        monkeypatch.setattr(sources, "REPOSITORY", root)
        monkeypatch.setattr(sources, "PACKAGE", root / "workflow" / "ffmerge")
        return code_digest(closure(root / "workflow" / "scripts" / "act.py"))

    return of


NEAR = "workflow/ffmerge/near.py"


@pytest.mark.parametrize(
    ("file", "old", "new"),
    [
        ("workflow/scripts/act.py", "print(value(1))", "print(value(1))  # a comment"),
        ("workflow/scripts/act.py", '"""Act."""\n', ""),
        ("workflow/scripts/act.py", "value(1)", "value(\n    1,\n)"),
        (NEAR, '"""Near."""', '"""Quite near."""'),
        (NEAR, '    """A number."""\n\n', ""),
        (NEAR, '"""Doubled."""', "'''Twice.'''\n\n    # why"),
        ("workflow/ffmerge/far.py", "FACTOR = 2", "\n\nFACTOR   =   (2)\n"),
    ],
)
def test_comments_docstrings_and_formatting_do_not_change_the_digest(digest, file, old, new):
    assert digest({file: (old, new)}) == digest()


@pytest.mark.parametrize(
    ("file", "old", "new"),
    [
        ("workflow/scripts/act.py", "value(1)", "value(2)"),
        (NEAR, "FACTOR * x", "FACTOR + x"),
        (NEAR, "size: int = 1", "size: int = 2"),
        (NEAR, "def value(x)", "def value(x=0)"),
        (NEAR, "return FACTOR * x", 'return "FACTOR * x"'),
        ("workflow/ffmerge/far.py", "2", "2.0"),
        ("workflow/ffmerge/__init__.py", '"""A package."""', "import os"),
    ],
)
def test_any_code_that_the_script_reaches_changes_the_digest(digest, file, old, new):
    assert digest({file: (old, new)}) != digest()


def test_code_that_the_script_does_not_reach_does_not_change_the_digest(digest):
    assert digest({"workflow/ffmerge/other.py": ("3", "4")}) == digest()


def test_importing_one_more_module_changes_the_digest(digest):
    change = ("FACTOR = 2", "import ffmerge.other\n\nFACTOR = 2")
    assert digest({"workflow/ffmerge/far.py": change}) != digest()


def test_the_digest_says_which_file_holds_the_code(tmp_path):
    for name in ("one.py", "two.py"):
        (tmp_path / name).write_text("x = 1")
    assert code_digest([tmp_path / "one.py"]) != code_digest([tmp_path / "two.py"])
