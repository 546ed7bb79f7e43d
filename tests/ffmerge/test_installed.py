"""The package as others install it: a wheel of ffmerge alone, with the dependencies it declares."""

import json
import os
import shutil
import subprocess
import sys
import zipfile
from functools import partial
from importlib.metadata import Distribution, distribution
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

import own_models
from experiment.cli import COMMANDS as ALL_COMMANDS
from families import FAMILIES
from ffmerge.__main__ import COMMANDS, OF_A_CLONE
from provenance import record
from provenance.record import read_record

REPOSITORY = Path(__file__).parent.parent.parent
PIP = [sys.executable, "-m", "pip", "--disable-pip-version-check"]
OFFLINE = ["--no-index", "--no-deps", "--quiet"]
long = partial(pytest.param, marks=pytest.mark.long)


def source(folder: Path) -> Path:
    """A copy of what the build reads: it leaves a folder build/ beside it."""
    folder.mkdir()
    for name in ("pyproject.toml", "setup.py", "LICENSE"):
        shutil.copy(REPOSITORY / name, folder / name)
    ignored = shutil.ignore_patterns("__pycache__", "*.egg-info")
    shutil.copytree(REPOSITORY / "workflow", folder / "workflow", ignore=ignored)
    return folder


def build(source: Path, to: Path) -> subprocess.CompletedProcess:
    command = [*PIP, "wheel", *OFFLINE, "--no-build-isolation", "--wheel-dir", to, source]
    return subprocess.run(command, capture_output=True, text=True)


@pytest.fixture(scope="module")
def wheel(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    built = build(source(folder / "source"), folder)
    assert built.returncode == 0, built.stderr
    [file] = folder.glob("*.whl")
    return file


@pytest.fixture(scope="module")
def installed(wheel, tmp_path_factory) -> dict[str, Path]:
    """The wheel and its declared dependencies in folders of their own, in somebody's repository."""
    repository = tmp_path_factory.mktemp("repository")
    package, dependencies = repository / "package", repository / "dependencies"
    subprocess.run([*PIP, "install", *OFFLINE, "--target", package, wheel], check=True)
    dependencies.mkdir()
    for needed in required(next(iter(Distribution.discover(name="ffmerge", path=[str(package)])))):
        for top in {file.parts[0] for file in needed.files} - {"..", "__pycache__"}:
            (dependencies / top).symlink_to(needed.locate_file(top))
    git = ["git", "-C", repository, "-c", "user.name=n", "-c", "user.email=e"]
    subprocess.run([*git, "init", "--quiet"], check=True)
    subprocess.run([*git, "commit", "--allow-empty", "--quiet", "-m", "theirs"], check=True)
    return {"package": package, "dependencies": dependencies}


def required(package: Distribution) -> list[Distribution]:
    """The distributions that a package needs without its extras, directly or not."""
    needed: dict[str, Distribution] = {}
    todo = list(package.requires or [])
    while todo:
        wanted = Requirement(todo.pop())
        name = canonicalize_name(wanted.name)
        if name in needed or (wanted.marker and not wanted.marker.evaluate({"extra": ""})):
            continue
        needed[name] = distribution(name)
        assert wanted.specifier.contains(needed[name].version, prereleases=True), wanted
        todo += needed[name].requires or []
    return list(needed.values())


def python(installed: dict[str, Path], *arguments: str | Path) -> subprocess.CompletedProcess:
    """Run Python with the installed package and its dependencies, and nothing else but Python's."""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(map(str, installed.values()))}
    environment |= {"PYTHONSAFEPATH": "1", "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-S", *map(str, arguments)]  # -S: no site-packages, no .pth
    return subprocess.run(command, capture_output=True, text=True, env=environment)


def ffmerge(installed: dict[str, Path], *arguments: str | Path) -> subprocess.CompletedProcess:
    return python(installed, installed["package"] / "bin/ffmerge", *arguments)


ONE_BY_ONE = """
import contextlib, io, json, sys
from ffmerge.__main__ import main

printed = []
for request in json.loads(sys.argv[1]):
    with contextlib.redirect_stdout(io.StringIO()) as said:
        assert main(request) == 0, request
    printed.append(said.getvalue())
print(json.dumps(printed))
"""


def one_by_one(installed: dict[str, Path], *requests: tuple[str | Path, ...]) -> list[str]:
    """Run several commands in one process, which imports once; return what each printed."""
    asked = json.dumps([[str(word) for word in request] for request in requests])
    ran = python(installed, "-c", ONE_BY_ONE, asked)
    assert ran.returncode == 0, ran.stderr
    return json.loads(ran.stdout)


# --- the wheel ------------------------------------------------------------------------------------


@pytest.mark.slow
def test_the_wheel_has_the_tool_and_nothing_of_the_paper(wheel):
    with zipfile.ZipFile(wheel) as archive:
        names = [Path(name) for name in archive.namelist()]
    assert {name.parts[0] for name in names} == {"ffmerge", "ffmerge-0.1.0.dist-info"}
    packaged = {name for name in names if name.parts[0] == "ffmerge"}
    workflow = REPOSITORY / "workflow"
    tool = {file.relative_to(workflow) for file in (workflow / "ffmerge").rglob("*.py")}
    private = {Path("ffmerge/_provenance", f"{name}.py") for name in ("digest", "record")}
    assert packaged >= tool | private
    assert {file.parent for file in packaged - tool} == {Path("ffmerge/_provenance")}
    assert len(packaged - tool) < 10  # not the commands about a run's numbers


@pytest.mark.slow
@pytest.mark.parametrize(
    "line, error",
    [
        ("from provenance.nothing import x", "imports ffmerge._provenance.nothing"),
        long("from experiment import cli", "not part of the tool"),
        long("import provenance.record", "without `as`"),
    ],
)
def test_a_wheel_that_could_not_run_is_not_built(line, error, tmp_path):
    folder = source(tmp_path / "source")
    (folder / "workflow/ffmerge/stray.py").write_text(f"{line}\n")
    built = build(folder, tmp_path)
    assert built.returncode != 0 and error in built.stdout + built.stderr
    assert not list(tmp_path.glob("*.whl"))


@pytest.mark.slow
def test_an_editable_install_has_all_packages_and_all_commands(tmp_path):
    folder = source(tmp_path / "source")
    program = (  # as pip calls it
        "from setuptools.build_meta import *; import sys; out = sys.argv[1]; "
        "metadata = prepare_metadata_for_build_editable(out); "
        "build_editable(out, metadata_directory=f'{out}/{metadata}')"
    )
    command = [sys.executable, "-c", program, str(tmp_path)]
    subprocess.run(command, cwd=folder, check=True, capture_output=True)
    [wheel] = tmp_path.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        [path] = [name for name in archive.namelist() if name.endswith(".pth")]
        assert archive.read(path).decode().strip() == str(folder / "workflow")
        entry_points = archive.read("ffmerge-0.1.0.dist-info/entry_points.txt").decode()
    assert "ffmerge = experiment.cli:main" in entry_points


def test_the_tool_knows_which_commands_belong_to_a_clone():
    assert {*OF_A_CLONE} == ALL_COMMANDS.keys() - COMMANDS.keys()


# --- using it -------------------------------------------------------------------------------------


@pytest.mark.slow
def test_the_installed_tool_needs_only_its_declared_dependencies(installed, tmp_path):
    model = own_models.save("gpt2", tmp_path / "model")
    texts = own_models.data_for(FAMILIES["gpt2"], tmp_path / "texts")
    shown = ffmerge(installed, "inspect", model, "--json")
    assert shown.returncode == 0, shown.stderr
    [share] = [each for each in json.loads(shown.stdout)["removals"] if each["share"] == "1/3"]
    out, tuned = tmp_path / "smaller", tmp_path / "tuned"
    request = ("--remove", "1/3", "--features", texts, "--out", out, "--n-tokens", "40", "--json")
    made, _, evaluated, _ = one_by_one(
        installed,
        ("compress", model, *request),
        ("tune", out, "--data", texts, "--steps", "2", "--out", tuned),
        ("evaluate", tuned, "--against", model, "--data", texts, "--json"),
        ("export", out, "--form", "code", "--out", tmp_path / "code"),
    )
    parameters = json.loads(made)["parameters"]
    assert [parameters["before"] - parameters["after"]] * 2 == share["parameters"]
    sizes = [scored["parameters"] for scored in json.loads(evaluated)["models"]]
    assert sizes == [parameters["before"], parameters["after"]]
    assert (tmp_path / "code/modeling_ffmerge.py").is_file()
    program = (
        "import importlib.util, sys, ffmerge, ffmerge.auto; "
        "from transformers import AutoModelForCausalLM as Auto; "
        "models = ffmerge.load(sys.argv[1]), Auto.from_pretrained(sys.argv[1]); "
        "absent = 'snakemake', 'datasets', 'pandas', 'provenance', 'experiment'; "
        "assert not any(importlib.util.find_spec(name) for name in absent); "
        "print(ffmerge.__file__, *(sum(p.numel() for p in m.parameters()) for m in models))"
    )
    loaded = python(installed, "-c", program, out)
    assert loaded.returncode == 0, loaded.stderr
    file, *n_parameters = loaded.stdout.split()
    assert Path(file).is_relative_to(installed["package"])
    assert n_parameters == [str(parameters["after"])] * 2
    content = read_record(out / "ffmerge_record.json")
    assert content["git"] is None  # not the commit of the repository around the environment
    assert "ffmerge/_provenance/record.py" in content["code"]["files"]
    assert content["environment"]["packages"]["ffmerge"] == "0.1.0"


@pytest.mark.slow
def test_what_needs_an_extra_or_a_clone_is_said_in_one_line(installed, tmp_path):
    model = own_models.save("gpt2", tmp_path / "model")
    (tmp_path / "a.parquet").write_text("")
    request = ("--remove", "1/3", "--features", tmp_path / "a.parquet", "--out", tmp_path / "out")
    refused = ffmerge(installed, "compress", model, *request)
    assert refused.returncode == 2 and "pip install 'ffmerge[data]'" in refused.stderr
    traced = ffmerge(installed, "trace", "table5:6:permute")
    assert traced.returncode == 2 and "belongs to a clone of the workflow" in traced.stderr
    for ended in (refused, traced):
        assert ended.stderr.startswith("error: ") and ended.stderr.count("\n") == 1


def test_a_record_names_a_commit_of_this_project_alone(tmp_path, monkeypatch):
    git = ["git", "-C", tmp_path, "-c", "user.name=n", "-c", "user.email=e"]
    subprocess.run([*git, "init", "--quiet"], check=True)
    subprocess.run([*git, "commit", "--allow-empty", "--quiet", "-m", "a commit"], check=True)
    (tmp_path / "site-packages").mkdir()
    monkeypatch.setattr(record, "REPOSITORY", tmp_path / "site-packages")
    assert record.git_state() == (None, b"")
    monkeypatch.setattr(record, "REPOSITORY", tmp_path)
    state, _ = record.git_state()
    assert len(state["commit"]) == 40 and not state["dirty"]
