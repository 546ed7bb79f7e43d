"""A job runs the code that it was planned with on inputs that are there, or says why not."""

import hashlib
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from provenance import record
from provenance.digest import sha256_of
from provenance.job import shortage
from provenance.record import machine, read_record
from provenance.sources import WORKFLOW, closure, code_digest, digest_of_trees
from workflow_copy import Copy

SCRIPT = '''"""Act: edit accuracy.py as told, import it, and edit it again."""
from pathlib import Path

from provenance.job import Job

if __name__ == "__main__":
    with Job.from_command_line() as job:
        code = Path(__file__).with_name("accuracy.py")
        if job.params.before_import:
            code.write_text(job.params.before_import)
        from accuracy import score

        if job.params.after_import:
            code.write_text(job.params.after_import)
        job.output.score.write_text(str(score()))
        job.output.score.chmod(0o600)  # as safetensors does
'''
PLANNED = "def score():\n    return 20.0\n"
EDITED = "def score():\n    return 99.9\n"
COMMENTED = f"# a comment\n{PLANNED}"
AT_START = "the code in workflow/ is not the code that this job was planned with; it was edited "
AT_START += "meanwhile: run Snakemake again"
AT_IMPORT = "accuracy.py was edited before this job imported it; run Snakemake again"


@pytest.fixture
def folder(tmp_path) -> Path:
    """A folder with a script and the module that it imports late."""
    (tmp_path / "act.py").write_text(SCRIPT)
    (tmp_path / "accuracy.py").write_text(PLANNED)
    return tmp_path


def act(folder: Path, before: str = "", after: str = "", start: str = "", **changed):
    """Plan the job, edit its code to `start`, and run it."""
    job = {
        "rule": "act",
        "wildcards": {"results": str(folder)},
        "params": {"before_import": before, "after_import": after},
        "reproduces": "bits",
        "imports": [],
        "code": code_digest(closure(folder / "act.py")),
    }
    if start:
        (folder / "accuracy.py").write_text(start)
    inputs = {name: str(folder / file) for name, file in changed.items()}
    outputs = {"score": str(folder / "score"), "record": str(folder / "score.record.json")}
    files = {"input": inputs, "output": outputs}
    return subprocess.run(
        [sys.executable, "act.py", json.dumps(job), json.dumps(files), "--log", "log"],
        cwd=folder,
        env=os.environ | {"PYTHONPATH": str(WORKFLOW), "PYTHONDONTWRITEBYTECODE": "1"},
        capture_output=True,
        text=True,
    )


def test_a_job_removes_what_a_killed_one_left_of_its_files_and_nothing_else(folder):
    left = ".partial.12.score", ".partial.3.score.record.json", ".partial.4..partial.score"
    others = ".partial.12.a.score", ".partial.12.score.txt", "partial.12.score"
    for name in (*left, *others):
        (folder / name).write_text("half")
    assert act(folder).returncode == 0
    assert not any((folder / name).exists() for name in left)
    assert all((folder / name).exists() for name in others)


@pytest.mark.parametrize(
    ("edits", "error"),
    [
        ({}, None),
        ({"start": COMMENTED}, None),
        ({"before": COMMENTED}, None),
        ({"after": EDITED}, None),  # what ran is what was planned
        ({"start": EDITED}, AT_START),
        ({"start": EDITED, "before": PLANNED}, AT_START),
        ({"start": "def score(:"}, "invalid syntax (accuracy.py, line 1)"),
        ({"start": "def score():\n    return 20.0\n\0"}, "source code string cannot contain null"),
        ({"before": "def score(:"}, "invalid syntax (accuracy.py, line 1)"),
        ({"before": " "}, AT_IMPORT),
        ({"before": EDITED}, AT_IMPORT),
        ({"before": EDITED, "after": PLANNED}, AT_IMPORT),  # undone
    ],
)
def test_a_job_runs_the_code_that_it_was_planned_with_or_fails_in_one_line(edits, error, folder):
    planned = sha256_of(folder / "accuracy.py")
    ran = act(folder, **edits)
    if error:
        assert re.fullmatch(rf"error: act {folder}: {re.escape(error)}.*\n", ran.stderr)
        assert ran.returncode == 1 and not list(folder.glob("*score*"))
        return
    assert ran.returncode == 0, ran.stderr
    assert (folder / "score").read_text() == "20.0"
    assert (folder / "score").stat().st_mode == (folder / "act.py").stat().st_mode  # of a new file
    code = read_record(folder / "score.record.json")["code"]
    assert digest_of_trees(code["trees"]) == code["digest"]
    if "start" not in edits:
        (digest,) = (of for file, of in code["files"].items() if file.endswith("accuracy.py"))
        assert digest == planned


REMOVE_CHECKPOINTS = "__import__('shutil').rmtree(job.checkpoints.parent)"
INTERRUPT = """import signal, sys
        def interrupt(event, arguments):
            if event == "os.rename" and str(arguments[1]).endswith(".record.json"):
                signal.raise_signal(signal.SIGINT)
        sys.addaudithook(interrupt)"""


def test_a_finished_job_stays_if_another_one_removes_the_folder_of_checkpoints(folder):
    (folder / "act.py").write_text(f"{SCRIPT}        {REMOVE_CHECKPOINTS}\n")
    ran = act(folder)
    assert ran.returncode == 0, ran.stderr
    assert (folder / "score").exists() and read_record(folder / "score.record.json")


def test_a_job_that_is_interrupted_while_it_writes_its_record_leaves_no_output(folder):
    (folder / "act.py").write_text(f"{SCRIPT}        {INTERRUPT}\n")
    ran = act(folder)
    assert (ran.returncode, ran.stderr) == (1, f"error: act {folder}: KeyboardInterrupt\n")
    assert not list(folder.glob("*score*"))


def test_the_patch_of_a_changed_tree_gives_its_bytes_again(tmp_path, monkeypatch):
    tree, clone = tmp_path / "tree", tmp_path / "clone"

    def git(*arguments: str, **options) -> None:
        identity = ["-c", "user.name=A", "-c", "user.email=a@b"]
        subprocess.run(["git", *identity, *arguments], check=True, cwd=tree, **options)

    tree.mkdir()
    git("init", "-q")
    names = ("lines.txt", "latin.txt", "image.png")
    for name in names:
        (tree / name).write_bytes(b"before\r\n")
    git("add", ".")
    git("commit", "-qm", "All")
    git("clone", "-q", ".", str(clone))
    for key, value in (("color.ui", "always"), ("diff.external", "true"), ("diff.noprefix", "1")):
        git("config", key, value)
    for name, content in zip(names, (b"a\r\nb\n", b"\xe9t\xe9\n", bytes(range(256))), strict=True):
        (tree / name).write_bytes(content)
    monkeypatch.setattr(record, "REPOSITORY", tree)
    state, patch = record.git_state(Path("patches"))
    assert state["patch"] == f"patches/{hashlib.sha256(patch).hexdigest()}.patch"
    git("-C", str(clone), "apply", input=patch)
    for name in names:
        assert (clone / name).read_bytes() == (tree / name).read_bytes()


def pipe(path: Path) -> None:
    os.mkfifo(path)


@pytest.mark.parametrize(
    ("make", "error"),
    [
        (lambda path: None, "is missing"),
        (pipe, "is no file or folder"),
        (lambda path: path.symlink_to("/dev/zero"), "is no file or folder"),
        (lambda path: path.symlink_to("nowhere"), "is missing"),
        (lambda path: path.symlink_to(path.name), "is missing"),
    ],
)
def test_an_input_that_cannot_be_read_is_named_in_one_line(make, error, folder):
    make(folder / "data")
    ran = act(folder, data="data")
    assert ran.stderr == f"error: act {folder}: input data: {folder}/data {error}\n"
    assert ran.returncode == 1 and not list(folder.glob("*score*"))


@pytest.mark.long
def test_code_that_is_edited_once_snakemake_has_planned_and_then_undone_leaves_no_record(tmp_path):
    repository = Copy(tmp_path / "edited", ["vit"])
    snakefile, code = repository.root / "workflow/Snakefile", "workflow/experiment/base_model.py"
    planned, rules = (repository.root / code).read_text(), snakefile.read_text()
    edit = f'Path("{code}").write_text(Path("{code}").read_text() + "EDITED = 99.9\\n")'
    snakefile.write_text(f"{rules}\n\nonstart:\n    {edit}\n")
    target = "results/pico/vit/trained_base_model"
    run = repository.start(target=target)
    said = run.communicate(timeout=600)[0]
    assert run.returncode == 1
    assert f"error: train_base_model results/pico vit: {AT_START}" in said
    assert "Traceback" not in said
    (repository.root / code).write_text(planned)
    snakefile.write_text(rules)
    assert not list(repository.results.rglob("*.record.json"))
    assert "train_base_model" in repository.run(target=target)


def torch_saves() -> None:
    import torch

    torch.save(torch.zeros(1 << 20), "/dev/full")


def torch_allocates() -> None:
    import torch

    torch.empty(1 << 60)


def numpy_allocates() -> None:
    import numpy

    numpy.zeros(1 << 55)


def python_writes() -> None:
    Path("/dev/full").write_text("a")


def nested() -> None:
    json.loads("[" * 100_000)


@pytest.mark.parametrize(
    ("act", "said"),
    [
        (torch_saves, "the disk is full, or a limit on the size of files is reached ("),
        (python_writes, "the disk is full, or a limit on the size of files is reached ("),
        (torch_allocates, "there is not enough memory: "),
        (numpy_allocates, "there is not enough memory: "),
        (nested, "something that it reads is nested too deeply"),
        (lambda: {}["key"], None),
    ],
)
def test_an_error_of_any_library_that_means_no_room_is_one_line(act, said):
    with pytest.raises(Exception) as error:
        act()
    line = shortage(error.value)
    assert line == said or (line.startswith(said) and "\n" not in line)


def test_a_record_names_the_gpus_that_had_tensors(monkeypatch):
    import torch

    used = {None: 0, 0: 0, 1: 7}
    monkeypatch.setattr(torch.cuda, "is_initialized", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "max_memory_allocated", lambda device=None: used[device])
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device=None: f"GPU {device}")
    assert machine(1)["gpu"] == "GPU 1"
    used[0] = 1
    assert machine(1)["gpu"] == "GPU 0, GPU 1"
    used[0] = used[1] = 0
    assert machine(1)["gpu"] is None
