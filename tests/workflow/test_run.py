"""workflow/run.py allows one run at a time in a folder, and recovers from killed runs."""

import importlib.util
import os
import pty
import signal
import subprocess
import sys
import time
from contextlib import suppress
from functools import partial
from pathlib import Path

import psutil
import pytest

from workflow_copy import CEILING

RUN = Path(__file__).parents[2] / "workflow" / "run.py"
spec = importlib.util.spec_from_file_location("run", RUN)
run_module = importlib.util.module_from_spec(spec)
spec.loader.exec_module(run_module)
COMMAND = [sys.executable, RUN, "--cores", "1", "--rerun-incomplete"]

# A job that notes when it starts and ends, and takes long enough to be killed or waited for.
SNAKEFILE = """
rule work:
    output:
        config.get("results", "results/demo") + "/done.txt",
    shell:
        "echo start >> notes; sleep 2; echo end >> notes; touch {output}"
"""


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "Snakefile").write_text(SNAKEFILE)
    (tmp_path / "config").mkdir()
    (tmp_path / "config/demo.yaml").write_text("results: results/demo")
    return tmp_path


def start(folder: Path, *options: str) -> subprocess.Popen:
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
    return subprocess.Popen([*COMMAND, *options], cwd=folder, start_new_session=True, **pipes)


def started(folder: Path, *options: str) -> subprocess.Popen:
    """A run whose job is running."""
    run = start(folder, *options)
    deadline = time.monotonic() + CEILING
    while not (folder / "notes").exists():
        assert time.monotonic() < deadline and run.poll() is None
        time.sleep(0.05)
    return run


def notes(folder: Path) -> list[str]:
    return (folder / "notes").read_text().split()


def snakemake_of(run: subprocess.Popen) -> int:
    """The process that run.py started."""
    (child,) = psutil.Process(run.pid).children()
    return child.pid


@pytest.mark.slow
def test_a_person_sees_progress_and_a_log_has_plain_lines(folder):
    plain = start(folder).communicate()[0]
    assert "1 of 1 steps (100%) done" in plain and "Progress" not in plain
    (folder / "results/demo/done.txt").unlink()
    shown = bytearray()
    here, there = pty.openpty()
    run = subprocess.Popen(COMMAND, cwd=folder, stdout=there, stderr=there, start_new_session=True)
    os.close(there)
    with suppress(OSError):  # a terminal that nobody writes to any more
        while chunk := os.read(here, 4096):
            shown += chunk
    assert run.wait() == 0
    assert b"Progress" in shown and (folder / "results/demo/done.txt").exists()


@pytest.mark.slow
def test_a_second_run_waits_for_the_first_and_finds_its_work_done(folder):
    first = started(folder)
    said = start(folder).communicate(timeout=CEILING)[0]
    assert first.communicate(timeout=CEILING) and first.returncode == 0
    assert f"Waiting for the run in this folder to end, jobs included: process {first.pid}" in said
    assert "Nothing to be done" in said
    assert notes(folder) == ["start", "end"]


@pytest.mark.slow
def test_after_snakemake_is_killed_the_next_run_waits_for_its_job_then_goes_on(folder):
    first = started(folder)
    os.kill(snakemake_of(first), signal.SIGKILL)
    second = start(folder)
    said = second.communicate(timeout=CEILING)[0]
    assert first.wait() == 128 + signal.SIGKILL
    assert second.returncode == 0, said
    assert "The last run here was killed." in said
    # The orphan came to its end before its work was begun again.
    assert notes(folder) == ["start", "end", "start", "end"]


OTHER = ("--configfile=config/other.yaml",)
long = partial(pytest.param, marks=pytest.mark.long)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("options", "then"),
    [
        ((), ()),
        long(OTHER, OTHER),
        long(("--configfile", "config/demo.yaml", "config/other.yaml"), OTHER),
    ],
)
def test_after_everything_is_killed_the_next_run_goes_on_at_once(options, then, folder):
    (folder / "config/other.yaml").write_text("results: results/other")
    first = started(folder, *options)
    os.killpg(first.pid, signal.SIGKILL)
    first.wait()
    second = start(folder, *then)
    said = second.communicate(timeout=CEILING)[0]
    assert second.returncode == 0, said
    assert "Waiting" not in said
    assert notes(folder) == ["start", "start", "end"]


@pytest.mark.long
def test_a_run_of_other_results_after_a_kill_leaves_no_lock_of_the_killed_one(folder):
    (folder / "config/other.yaml").write_text("results: results/other")
    first = started(folder, *OTHER)
    os.killpg(first.pid, signal.SIGKILL)
    first.wait()
    for options in ((), OTHER):
        run = start(folder, *options)
        said = run.communicate(timeout=CEILING)[0]
        assert run.returncode == 0, said


@pytest.mark.parametrize(
    ("arguments", "results"),
    [
        ("", "results/demo/"),
        ("everything --cores 2", "results/demo/"),
        ("--configfile config/other.yaml", "results/other/"),
        ("--configfile=config/other.yaml --cores 2", "results/other/"),
        ("--configfiles config/other.yaml", "results/other/"),
        ("main --configfile config/demo.yaml config/other.yaml --cores 1", "results/other/"),
        ("main --config results=results/x a=b --configfile config/other.yaml", "results/x/"),
        ("--configfile config/slash.yaml", "results/other/"),
    ],
)
def test_the_results_of_a_run_are_told_as_snakemake_tells_them(
    arguments, results, folder, monkeypatch
):
    (folder / "config/other.yaml").write_text("results: results/other")
    (folder / "config/slash.yaml").write_text("results: results/other/")
    monkeypatch.chdir(folder)
    assert run_module.results_of(arguments.split(), run_module.DEFAULT) == results


@pytest.mark.parametrize("content", [None, "a: [", "results: [1]", ""])
def test_results_that_cannot_be_told_are_said_to_and_nothing_is_unlocked(
    content, folder, monkeypatch, capsys
):
    monkeypatch.chdir(folder)
    (folder / ".snakemake/locks").mkdir(parents=True)
    lock = folder / ".snakemake/locks/0.output.lock"
    lock.write_text("results/killed/done.txt")
    if content is not None:
        (folder / "config/killed.yaml").write_text(content)
    run_module.remove_locks_of_killed_run("main --configfile=config/killed.yaml")
    assert lock.exists() and "snakemake --unlock" in capsys.readouterr().out


def test_locks_of_a_run_whose_results_only_end_like_those_of_the_killed_one_stay(
    folder, monkeypatch
):
    monkeypatch.chdir(folder)
    locks = folder / ".snakemake/locks"
    locks.mkdir(parents=True)
    (locks / "0.output.lock").write_text("results/demo/a\n")
    (locks / "1.output.lock").write_text("a\n./demo/a\n")
    run_module.remove_locks_of_killed_run("main --config results=demo")
    assert [file.name for file in locks.iterdir()] == ["0.output.lock"]
