"""An invalid configuration ends a Snakemake run before any job, with a line for each error."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from experiment.cli import ANYWHERE, COMMANDS, main
from workflow_copy import CEILING, Copy

pytestmark = pytest.mark.slow  # Snakemake starts several times


@pytest.fixture
def copy(tmp_path) -> Copy:
    """A copy of the repository to break."""
    return Copy(tmp_path, ["gpt2"])


def refused(copy: Copy, *options: str, at: Path | None = None, **environment: str) -> list[str]:
    """The lines on stderr of a run that starts no job."""
    run = subprocess.run(
        [sys.executable, "-m", "snakemake", *options],
        cwd=at or copy.root,
        env=os.environ | {"PYTHONPATH": "", **environment},
        capture_output=True,
        text=True,
        timeout=CEILING,
    )
    assert run.returncode == 1
    assert "rule" not in run.stdout
    assert not copy.results.exists()
    return run.stderr.splitlines()


def test_a_run_reports_each_error_in_one_line_and_starts_no_job(copy):
    task = copy.config["tasks"]["gpt2"]
    task["features"]["n_token"] = task["features"].pop("n_tokens")
    task["merge"]["k"]["third"] = 1
    copy.write_config()
    assert refused(copy, "--cores", "1", "--configfile", "config/run.yaml") == [
        "error: configuration: tasks.gpt2.features.n_token: is not a key here, the nearest is "
        "n_tokens (is 500)",
        "error: configuration: tasks.gpt2.merge.k.third: should be greater than 1 (is 1)",
    ]


@pytest.mark.long
def test_a_dry_run_looks_for_the_files_that_are_named(copy):
    copy.config["tasks"]["gpt2"]["dataset"]["train"]["path"] = "nothing.parquet"
    copy.write_config()
    assert refused(copy, "--dry-run", "--configfile", "config/run.yaml") == [
        "error: configuration: tasks.gpt2.dataset.train.path: nothing.parquet does not exist, "
        f"seen from {copy.root}"
    ]


@pytest.mark.long
def test_a_key_that_comes_twice_is_refused_with_its_line(copy):
    file = copy.root / "config/run.yaml"
    file.write_text(f"{file.read_text()}seed: 3\n")
    line = file.read_text().splitlines().index(f"seed: {copy.config['seed']}") + 1
    assert refused(copy, "--dry-run", "--configfile", "config/run.yaml") == [
        f"error: configuration: config/run.yaml, line {line}: the key 'seed' comes twice"
    ]


def test_a_key_on_the_command_line_is_checked_and_does_not_replace_the_demo(copy):
    assert refused(copy, "--dry-run", "--config", "sead=2") == [
        "error: configuration: sead: is not a key here, the nearest is seed (is 2)"
    ]


@pytest.mark.long
def test_a_file_without_tasks_does_not_become_the_demo(copy):
    (copy.root / "config/run.yaml").write_text("results: results/mine\n")
    assert refused(copy, "--dry-run", "--configfile", "config/run.yaml") == [
        "error: configuration: tasks: is missing, allowed: names, each with group of keys"
    ]


def test_a_recipe_is_built_before_the_first_job(copy):
    recipe = copy.config["tasks"]["gpt2"]["base_model"]["from_scratch"]
    recipe["architecture"]["n_head"] = 3
    copy.write_config()
    told = refused(copy, "--cores", "1", "--configfile", "config/run.yaml", "--quiet", "all")
    begin = "error: configuration: tasks.gpt2.base_model.from_scratch.architecture: GPT2LMHeadModel"
    assert [line for line in told if line.startswith("error")] == told[-1:]
    assert told[-1].startswith(begin)


def test_a_run_from_another_folder_is_told_where_to_run(copy, tmp_path):
    (tmp_path / "elsewhere").mkdir()
    snakefile = str(copy.root / "workflow/Snakefile")
    told = refused(copy, "-n", "-s", snakefile, "--cores", "1", at=tmp_path / "elsewhere")
    where = f"error: {tmp_path}/elsewhere is not the top of the repository; "
    assert told[-1] == f"{where}add --directory {copy.root}"


def test_a_locale_that_is_not_utf_8_is_named(copy):
    other = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    told = refused(copy, "--dry-run", "--configfile", "config/run.yaml", **other)
    assert told[-1] == "error: the locale is not UTF-8; set PYTHONUTF8=1 in the environment"


@pytest.mark.parametrize("command", sorted(set(COMMANDS) - ANYWHERE))
def test_a_command_about_a_run_says_so_where_there_is_none(command, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main([command]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"error: {tmp_path} holds no run; `ffmerge {command}` has to run at")
    assert list(tmp_path.iterdir()) == []
