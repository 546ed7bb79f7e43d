"""An invalid configuration ends a Snakemake run before any job, with a line for each error."""

import os
import subprocess
import sys

import pytest

from workflow_copy import Copy

pytestmark = pytest.mark.slow  # Snakemake starts three times


@pytest.fixture
def copy(tmp_path) -> Copy:
    """A copy of the repository to break."""
    return Copy(tmp_path, ["gpt2"])


def refused(copy: Copy, *options: str) -> list[str]:
    """The lines on stderr of a run that starts no job."""
    run = subprocess.run(
        [sys.executable, "-m", "snakemake", *options],
        cwd=copy.root,
        env=os.environ | {"PYTHONPATH": ""},
        capture_output=True,
        text=True,
        timeout=300,
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


def test_a_dry_run_looks_for_the_files_that_are_named(copy):
    copy.config["tasks"]["gpt2"]["dataset"]["train"]["path"] = "nothing.parquet"
    copy.write_config()
    assert refused(copy, "--dry-run", "--configfile", "config/run.yaml") == [
        "error: configuration: tasks.gpt2.dataset.train.path: nothing.parquet does not exist, "
        f"seen from {copy.root}"
    ]


def test_a_key_on_the_command_line_is_checked_and_does_not_replace_the_demo(copy):
    assert refused(copy, "--dry-run", "--config", "sead=2") == [
        "error: configuration: sead: is not a key here, the nearest is seed (is 2)"
    ]


def test_a_custom_architecture_is_checked_before_any_job(copy):
    base_model = copy.config["tasks"]["gpt2"]["base_model"]
    base_model["architecture"] = {"prefix": "model", "tower": {}}
    copy.write_config()
    told = refused(copy, "--dry-run", "--configfile", "config/run.yaml")
    assert told == [
        "error: configuration: tasks.gpt2.base_model.architecture: is for a model of a repository "
        "or a package; one that is here has it in its config.json, under ffmerge_architecture"
    ]
    del base_model["from_scratch"]
    base_model |= {"repository": "owner/name", "revision": "0" * 40}
    copy.write_config()
    assert refused(copy, "--dry-run", "--configfile", "config/run.yaml") == [
        "error: configuration: tasks.gpt2.base_model.architecture: an architecture has the keys "
        "prefix and towers (found: prefix, tower)"
    ]
