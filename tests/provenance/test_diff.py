"""`ffmerge diff` names the first job at which two runs part, and how each number differs."""

import json
import os
import shutil
from pathlib import Path

import pytest

import small_run
from experiment.cli import main
from provenance.reproduce.agreement import SAME_BITS, SAME_DECISIONS

THERE = {"host": "there", "cpu": "other", "threads": 4}
WITHIN, DIFFERENT, FOLLOWS = "within tolerance", "different", "reads what differs"
JOBS = ("train", "choose", "score_test", "make_table1")


@pytest.fixture
def diff(tmp_path, capsys):
    """diff(**changes): status, and what `diff --json` says of a run and one with these changes."""

    def compared(*targets: str, **changes) -> tuple[int, dict]:
        small_run.write(tmp_path / "a")
        small_run.write(tmp_path / "b", machine=THERE, **changes)
        folders = (str(tmp_path / "a"), str(tmp_path / "b"))
        status = main(["diff", *folders, *targets, "--json"])
        return status, json.loads(capsys.readouterr().out)

    return compared


def kinds(found: dict) -> dict[str, str]:
    return {job["job"]: job["kind"] for job in found["jobs"]}


@pytest.mark.parametrize(
    ("changes", "status", "jobs", "first", "window", "score"),
    [
        ({}, 0, (SAME_BITS,) * 4, None, SAME_BITS, SAME_BITS),
        (
            {"weights": "other", "loss": 3.25, "score": 20.25},
            *(0, (WITHIN, SAME_DECISIONS, WITHIN, FOLLOWS), "train", SAME_BITS, WITHIN),
        ),
        (
            {"weights": "other", "loss": 4.0, "best": 5, "score": 21.0},
            *(1, (DIFFERENT, DIFFERENT, DIFFERENT, FOLLOWS), "train", DIFFERENT, DIFFERENT),
        ),
        (
            {"score": 20.5},
            *(0, (SAME_BITS, SAME_BITS, WITHIN, FOLLOWS), "score_test", SAME_BITS, WITHIN),
        ),
        (
            {"best": 5},
            *(1, (SAME_BITS, DIFFERENT, SAME_BITS, FOLLOWS), "choose", DIFFERENT, SAME_BITS),
        ),
        (
            {"results": "results/other", "score": 20.5},
            *(0, (SAME_BITS, SAME_BITS, WITHIN, FOLLOWS), "score_test", SAME_BITS, WITHIN),
        ),
    ],
)
def test_jobs_and_numbers_are_judged_by_what_their_rules_promise(
    diff, changes, status, jobs, first, window, score
):
    found_status, found = diff(**changes)
    assert found_status == status
    assert kinds(found) == dict(zip(JOBS, jobs, strict=True))
    parting = [job["job"] for job in found["jobs"] if job["parts"]]
    assert parting[:1] == ([first] if first else [])
    numbers = {each["number"]: each for each in found["numbers"]}
    assert numbers["table1:1:window"]["kind"] == window
    assert numbers["table1:1:ppl"]["kind"] == score
    for each in numbers.values():
        assert (each["parts_at"] is None) is (each["kind"] == SAME_BITS)


def test_what_differs_between_the_machines_is_named_where_they_part(diff, tmp_path, capsys):
    _, found = diff(score=20.5)
    [job] = [job for job in found["jobs"] if job["parts"]]
    assert job["differs"] == ["host here -> there", "cpu one -> other", "threads 1 -> 4"]
    assert main(["diff", str(tmp_path / "a"), str(tmp_path / "b"), "table1:1:ppl"]) == 0
    told = capsys.readouterr().out
    assert "The first job at which they part\n  score_test: within tolerance" in told
    assert "threads 1 -> 4" in told
    assert "same bits          choose\n  within tolerance   score_test\n" in told
    assert "20.0         20.5   within tolerance, at score_test" in told


def test_other_data_are_named_before_the_machine(diff):
    _, found = diff(weights="other", data="more data")
    assert found["jobs"][0]["differs"][0] == f"input {small_run.DATA}"
    assert found["jobs"][0]["parts"]


def test_a_job_or_number_of_one_run_only_is_a_difference(diff, tmp_path, capsys):
    diff()
    (tmp_path / "b/results/demo" / small_run.LEDGER).unlink()
    (tmp_path / "b/results/demo/m/test.record.json").unlink()
    assert main(["diff", str(tmp_path / "a"), str(tmp_path / "b"), "--json"]) == 1
    found = json.loads(capsys.readouterr().out)
    assert found["in_one_run_only"] == ["results/demo/m/test.record.json"]
    assert {each["b"] for each in found["numbers"]} == {None}
    assert main(["diff", str(tmp_path / "b"), str(tmp_path / "a")]) == 1
    told = capsys.readouterr().out.split("\n\n")[1]
    assert told.splitlines()[1].split() == ["B", "score_test,", "2", "numbers", "of", "table1"]


@pytest.mark.parametrize("folder", ["{}", "{}/results", "{}/results/demo", "{}/results/demo/m"])
def test_a_run_is_found_from_its_folder_or_its_results(tmp_path, folder, capsys):
    small_run.write(tmp_path / "a")
    small_run.write(tmp_path / "b")
    assert main(["diff", str(tmp_path / "a"), folder.format(tmp_path / "b")]) == 0
    assert "4 same bits" in capsys.readouterr().out


def test_a_file_that_was_not_collected_is_no_evidence(diff, tmp_path, capsys):
    diff(score=20.5)
    (tmp_path / "b/results/demo/m/test.json").unlink()
    main(["diff", str(tmp_path / "a"), str(tmp_path / "b"), "--json"])
    found = json.loads(capsys.readouterr().out)
    assert kinds(found)["score_test"] == "cannot be judged"


@pytest.mark.parametrize("place", ["/etc/hostname", "../outside.json", "results/demo/m/link.json"])
def test_nothing_outside_the_folder_is_read(diff, tmp_path, place, capsys):
    """A record of B names a file elsewhere as its output; reading a FIFO there would never end."""
    diff(score=20.5)
    fifo = tmp_path / "outside.json"
    os.mkfifo(fifo)
    (tmp_path / "b/results/demo/m/link.json").symlink_to(fifo)
    for side in "ab":
        record = tmp_path / side / "results/demo/m/test.record.json"
        record.write_text(record.read_text().replace("results/demo/m/test.json", place))
    main(["diff", str(tmp_path / "a"), str(tmp_path / "b"), "--json"])
    assert kinds(json.loads(capsys.readouterr().out))["score_test"] == "cannot be judged"


def test_altered_records_are_told(diff, tmp_path, capsys):
    diff()
    record = tmp_path / "b/results/demo/m/test.record.json"
    record.write_text(record.read_text().replace("there", "where"))
    main(["diff", str(tmp_path / "a"), str(tmp_path / "b")])
    assert "1 ALTERED" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["{0}/a", "{0}/none"], "holds no records"),
        (["{0}/a", "{0}/a", "table2"], "table2 is no number, table or figure of these"),
    ],
)
def test_a_request_that_cannot_be_met_is_told_in_a_line(tmp_path, arguments, said, capsys):
    small_run.write(tmp_path / "a")
    assert main(["diff", *(each.format(tmp_path) for each in arguments)]) == 2
    error = capsys.readouterr().err
    assert said in error and error.count("\n") == 1


@pytest.mark.long
def test_two_runs_with_other_kernels_part_at_the_training(finished, tmp_path, monkeypatch, capfd):
    root = Path(shutil.copytree(finished.root, tmp_path / "run", symlinks=True))
    monkeypatch.chdir(root)
    monkeypatch.setenv("ATEN_CPU_CAPABILITY", "default")
    monkeypatch.setenv("MKL_CBWR", "COMPATIBLE")
    main(["reproduce", "table5:5:permute", "--configfile", "config/run.yaml", "--in", "again"])
    capfd.readouterr()
    main(["diff", "results/pico", "again", "table5:5:permute", "--json"])
    found = json.loads(capfd.readouterr().out)
    first = next(job for job in found["jobs"] if job["parts"])
    assert first["job"] == "train_base_model vit"
    assert any("ATEN_CPU_CAPABILITY" in each for each in first["differs"])
