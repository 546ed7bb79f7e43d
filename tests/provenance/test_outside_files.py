"""No file that a record or ledger names can be overwritten, wherever it is."""

import json
from pathlib import Path

import pytest

import small_run
from experiment.cli import main
from provenance.digest import sha256_of
from provenance.explain.causes import committed
from provenance.numbers import Ledger, Number
from provenance.record import digests, write_record
from provenance.records import Records
from provenance.reproduce.agreement import made_files
from provenance.reproduce.command import folder_for
from provenance.verify.command import verify

RESULTS = Path("results/r")
RECORD = RESULTS / "m/test.record.json"


@pytest.fixture
def repository(tmp_path, monkeypatch) -> Path:
    """A repository with a finished job, and two files and a folder of a user beside it."""
    root = tmp_path / "a/repository"
    for file in ("workflow/Snakefile", RESULTS / "m/test.json", "../../climb.txt"):
        (root / file).parent.mkdir(parents=True, exist_ok=True)
        (root / file).write_text("{}")
    mine = tmp_path / "mine/model"
    mine.mkdir(parents=True)
    (mine / "config.json").write_text("mine")
    (mine / "weights.safetensors").write_text("mine")
    monkeypatch.chdir(root)
    return root


def write(inputs: dict[str, str], **changed) -> None:
    """Write the record of a job that read these files."""
    record = {
        "rule": "score_test",
        "wildcards": {"results": str(RESULTS)},
        "params": {},
        "input": digests(inputs),
        "output": digests({"score": str(RESULTS / "m/test.json")}),
    }
    write_record(RECORD, record | changed)


def contents(folder: Path) -> dict[str, str]:
    """Return path -> sha256 of all files below a folder, those behind links included."""
    return {str(file): sha256_of(file) for file in folder.rglob("*") if file.is_file()}


def collected(folder: Path, *options: str) -> int:
    return main(["collect", str(RESULTS / "m/test.json"), *options, "--to", str(folder)])


@pytest.mark.parametrize("options", [(), ("--weights",)])
@pytest.mark.parametrize("kind", ["absolute", "folder", "parent", "link", "linked folder"])
def test_a_file_outside_the_repository_is_neither_copied_nor_changed(
    kind, options, repository, tmp_path, capsys
):
    mine = tmp_path / "mine/model"
    path = {
        "absolute": str(mine / "config.json"),
        "folder": str(mine),
        "parent": "../../climb.txt",
        "link": "resources/link.json",
        "linked folder": "resources/folder",
    }[kind]
    Path("resources/folder").mkdir(parents=True)
    Path("resources/link.json").symlink_to(mine / "config.json")
    Path("resources/folder/model").symlink_to(mine)
    write({"model": path})
    before = contents(tmp_path)
    target = tmp_path / "to/crate"
    assert collected(target, *options) == 0
    made = {file for file in contents(tmp_path) if Path(file).is_relative_to(target)}
    assert {
        file: digest for file, digest in contents(tmp_path).items() if file not in made
    } == before
    assert not [
        file for file in made if Path(file).name in ("climb.txt", "config.json", "link.json")
    ]
    assert not [file for file in target.rglob("*") if file.is_symlink()]
    assert f"  {path}\n" in (target / "left-behind.txt").read_text()
    copied = Path(path).suffix or options  # a folder holds weights, which stay unless asked for
    assert (f"outside the repository, not copied: {path}\n" in capsys.readouterr().err) == bool(
        copied
    )


def test_results_that_are_outside_the_repository_are_not_collected(repository, tmp_path, capsys):
    write({})
    Path("../results").symlink_to(repository / "results")
    target = tmp_path / "crate"
    assert main(["collect", "--results", "../results/r", "--to", str(target)]) == 2
    assert "is outside the repository" in capsys.readouterr().err
    assert not target.exists()


def test_a_workflow_behind_a_link_is_not_collected(repository, tmp_path, capsys):
    write({})
    Path("workflow").rename(tmp_path / "elsewhere")
    Path("workflow").symlink_to(tmp_path / "elsewhere")
    before = contents(tmp_path)
    assert collected(tmp_path / "crate") == 2
    assert "has no workflow/Snakefile to collect" in capsys.readouterr().err
    assert contents(tmp_path) == before


def test_results_on_another_disk_are_collected(repository, tmp_path):
    write({})
    Path("results").rename(tmp_path / "disk")
    Path("results").symlink_to(tmp_path / "disk")
    assert collected(tmp_path / "crate") == 0
    assert sha256_of(tmp_path / "crate" / RESULTS / "m/test.json") == sha256_of(
        RESULTS / "m/test.json"
    )


@pytest.mark.parametrize(
    ("key", "value", "fault"),
    [
        (
            "git",
            {"commit": "--output=climb.txt"},
            "git.commit is '--output=climb.txt', not a commit",
        ),
        ("git", {"commit": "HEAD"}, "git.commit is 'HEAD', not a commit"),
        ("git", {"patch": "--output=x"}, "git.patch is '--output=x', not a path"),
        ("rule", "../../climb", "rule is '../../climb', not a name"),
        ("imports", ["/etc/x"], "imports.0 is '/etc/x', not a name"),
        (
            "code",
            {"files": {"../../climb.txt": "0"}},
            "code.files.../../climb.txt is '../../climb.txt', not a source file",
        ),
    ],
)
def test_a_value_that_would_be_an_option_or_lead_outside_is_a_fault_in_words(
    key, value, fault, repository, tmp_path
):
    write({}, **{key: value})
    before = contents(tmp_path)
    faults = {each.what: each for each in verify(RESULTS, configuration=None).faults}
    assert faults[str(RECORD)].why == "no record that can be read"
    assert faults[str(RECORD)].found == fault
    assert contents(tmp_path) == before


def test_git_takes_no_option_from_a_record(repository, tmp_path):
    Path("tool.py").write_text("rate = 1\n")
    head = small_run.commit("tool.py")
    before = contents(tmp_path)
    assert committed(head, "tool.py") == b"rate = 1\n"
    for commit in (f"--output={tmp_path}/climb.txt", "HEAD", None):
        assert committed(commit, "tool.py") is None
    assert contents(tmp_path) == before


@pytest.mark.parametrize("path", ["/tmp/x.json", "results/r/../../x.json", "results/other/x.json"])
def test_a_number_outside_the_results_is_not_made_again(path, repository):
    cell = {"id": "t:1:a", "derivation": "value", "sources": [{"file": path, "pointer": ""}]}
    ledger = Ledger(RESULTS / "t.ledger.json", {"about": {}})
    with pytest.raises(ValueError, match="which is not in results/r"):
        made_files(Number(ledger, cell), Records(RESULTS))


@pytest.mark.parametrize("name", ["../../climb:1:a", "..", "/tmp/x:1:a"])
def test_the_name_of_a_number_does_not_lead_out_of_the_folder_of_reproductions(name, repository):
    assert Path(folder_for(name, None, str(RESULTS), False)).parent == Path(".cache/reproduced")


def test_a_ledger_that_names_an_option_of_snakemake_is_a_fault_in_words(repository):
    write({})
    content = {"about": {"table": {"path": "--delete-all-output", "sha256": "0"}}}
    content |= {"files": {}, "columns": ["A"], "rows": [["1"]], "cells": []}
    (RESULTS / "t.ledger.json").write_text(json.dumps(content))
    found = [fault.found for fault in verify(RESULTS, configuration=None).faults]
    assert "about.table.path is '--delete-all-output', not a path" in found
