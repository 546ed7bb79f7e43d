"""The source closure of a script has all code that it can run; only code changes its digest."""

import ast
import textwrap
from pathlib import Path

import pytest

import ffmerge
from experiment.config.tasks import KINDS
from provenance import sources
from provenance.sources import WORKFLOW, closure, code_digest

# --- the closure, of the package itself -----------------------------------------------------------


SCRIPTS = WORKFLOW / "scripts"
LOADERS = ["ffmerge.models.checkpoint", "ffmerge.method.quantization"]


@pytest.fixture
def modules(tmp_path):
    """modules(code, imports): return the modules that a script with this code reaches."""

    def reached(code: str, imports: tuple[str, ...] = ()) -> set[str]:
        script = tmp_path / "script.py"
        script.write_text(code)
        files = closure(script, imports)
        assert script in files
        return names(files)

    return reached


def names(files) -> set[str]:
    """Return the dotted names of the workflow's modules and packages among some files."""
    inside = (file.relative_to(WORKFLOW) for file in files if WORKFLOW in file.parents)
    dotted = (".".join(file.with_suffix("").parts) for file in inside)
    return {name.removesuffix(".__init__") for name in dotted}


@pytest.mark.parametrize(
    "statement",
    [
        "import ffmerge.method.groups",
        "import ffmerge.method.groups as g",
        "from ffmerge.method import groups",
        "from ffmerge.method.groups import group",
        "def f():\n    from ffmerge.method.groups import group",
    ],
)
def test_every_kind_of_import_leads_to_the_module_and_to_its_packages(modules, statement):
    assert modules(statement) == {"ffmerge", "ffmerge.method", "ffmerge.method.groups"}


def test_a_script_reaches_what_its_imports_import_and_nothing_else(modules):
    reached = modules("import json, torch\nfrom ffmerge.method.merge import merge_in_model")
    method = {name.removeprefix("ffmerge.method.") for name in reached if ".method." in name}
    assert method == {"correlation", "groups", "merge", "permutation", "tie"}
    models = {name.split(".")[2] for name in reached if ".models." in name}
    assert models == {"architectures", "format", "towers"}
    assert {name.split(".")[0] for name in reached} == {"ffmerge"}


def test_a_script_without_the_packages_reaches_only_itself(modules):
    assert modules("import ffmergers, torch\nfrom os import path") == set()


def test_a_module_beside_the_script_is_reached(tmp_path):
    (tmp_path / "beside").mkdir()
    (tmp_path / "beside/__init__.py").write_text("")
    (tmp_path / "script.py").write_text("import beside")
    assert closure(tmp_path / "script.py") == sorted(tmp_path.rglob("*.py"))


def test_of_the_kinds_of_task_a_job_reaches_the_one_that_its_parameters_name(modules):
    code = "from experiment.tasks import task_for"
    kinds = {f"experiment.tasks.{kind}" for kind in KINDS}
    assert not modules(code) & kinds
    reached = modules(code, imports=("experiment.tasks.translation",))
    assert reached & kinds == {"experiment.tasks.translation"}
    assert "ffmerge.evaluation.bleu" in reached - modules(code)


def test_a_missing_script_or_module_is_an_error(tmp_path):
    with pytest.raises(FileNotFoundError):
        closure(tmp_path / "missing.py")
    with pytest.raises(FileNotFoundError, match=r"experiment\.tasks\.chess"):
        closure(SCRIPTS / "fine_tune.py", ["experiment.tasks.chess"])


def test_no_job_reaches_an_import_that_the_closure_does_not_follow():
    named_by_parameters = {
        "experiment/tasks/__init__.py",
        "provenance/job.py",
        "score_test.py",
        "measure_cost.py",
    }
    imports = [*LOADERS, *(f"experiment.tasks.{kind}" for kind in KINDS)]
    files = {file for script in SCRIPTS.glob("*.py") for file in closure(script, imports)}
    for file in files:
        for node in ast.walk(ast.parse(file.read_text())):
            assert not (isinstance(node, ast.ImportFrom) and node.level), f"{file}: relative import"
            named = getattr(node, "id", getattr(node, "attr", None))
            if not file.as_posix().endswith(tuple(named_by_parameters)):
                assert named not in {"import_module", "__import__"}, f"{file}: {named}"
            if isinstance(node, ast.ImportFrom) and node.module == "ffmerge":
                asked = {alias.name for alias in node.names} & {*ffmerge.__all__}
                assert not asked, f"{file}: {asked}, which the package's __getattr__ imports"


# --- what each job's digest holds -----------------------------------------------------------------

CONFIGURATION = "experiment.config"
MODELS = "ffmerge.models"
CLOSURES = {  # scripts -> what their closure has nothing of
    "fetch_*": {CONFIGURATION, "experiment.tasks", MODELS, "ffmerge.method"},
    "unpack_*": {CONFIGURATION, "experiment.tasks", MODELS, "ffmerge.method"},
    "align_feed_forwards": {CONFIGURATION, "experiment", f"{MODELS}.tied_model"},
    "compress": {CONFIGURATION, "experiment", f"{MODELS}.tied_model"},
    "compute_cka": {CONFIGURATION, "experiment", f"{MODELS}.tied_model", "ffmerge.method.merge"},
    "collect_*": {"ffmerge.training", "ffmerge.method.merge", "ffmerge.method.quantization"},
    "score_*": {"ffmerge.training", "experiment.tables", "ffmerge.method.quantization"},
    "fine_tune": {"experiment.tables", "experiment.claims", "ffmerge.method.quantization"},
    "quantize": {CONFIGURATION, "experiment.tasks", "ffmerge.training"},
    "make_[hst]*": {MODELS, "ffmerge.method.merge", "ffmerge.training", "experiment.figures"},
    "plot_*": {f"{MODELS}.checkpoint", "ffmerge.training", "experiment.claims"},
}
ALLOWED = {  # what of that the names of a model's files are worth
    "fetch_base_model": {MODELS, f"{MODELS}.format"},
    "unpack_base_model": {MODELS, f"{MODELS}.format"},
}


@pytest.mark.parametrize(("pattern", "unreached"), CLOSURES.items())
def test_a_job_does_not_depend_on_code_that_it_does_not_compute_with(pattern, unreached):
    scripts = sorted(SCRIPTS.glob(f"{pattern}.py"))
    assert scripts
    for script in scripts:
        reached = names(closure(script)) - ALLOWED.get(script.stem, set())
        wrong = {n for n in reached if any(f"{n}.".startswith(f"{each}.") for each in unreached)}
        assert not wrong, script.stem


def test_only_jobs_that_make_tables_figures_and_claims_import_pandas():
    """It takes half a second to import."""
    makers = ("make_", "plot_", "evaluate_claims", "compare_with_paper", "plan", "report_stages")
    imports = [*LOADERS, *(f"experiment.tasks.{kind}" for kind in KINDS)]
    for script in SCRIPTS.glob("*.py"):
        if not script.stem.startswith(makers):
            modules = {node for file in closure(script, imports) for node in imported(file)}
            assert "pandas" not in modules, script.stem


def imported(file: Path) -> set[str]:
    """The packages that a file imports, anywhere in it."""
    nodes = list(ast.walk(ast.parse(file.read_text())))
    modules = {node.module for node in nodes if isinstance(node, ast.ImportFrom) and node.module}
    modules |= {name.name for node in nodes if isinstance(node, ast.Import) for name in node.names}
    return {module.partition(".")[0] for module in modules}


def test_a_download_of_data_depends_on_no_module_of_ffmerge():
    for name in ("fetch_archive", "fetch_dataset", "fetch_package"):
        assert not {each for each in names(closure(SCRIPTS / f"{name}.py")) if "ffmerge" in each}


def test_no_job_depends_on_the_shim_for_transformers_auto_classes():
    imports = [*LOADERS, *(f"experiment.tasks.{kind}" for kind in KINDS)]
    for script in SCRIPTS.glob("*.py"):
        assert "ffmerge.auto" not in names(closure(script, imports))


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
    """digest({file: (old, new)}): hash the small package's script after these replacements."""
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
        monkeypatch.setattr(sources, "WORKFLOW", root / "workflow")
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
