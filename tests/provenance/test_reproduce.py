"""`ffmerge reproduce` makes a number again, and compares each job with what its rule promises."""

import json
import shutil
from pathlib import Path

import numpy
import pytest
from safetensors.numpy import save_file

from experiment.cli import main
from provenance.numbers import Ledger, Number
from provenance.record import digests
from provenance.records import Record, Records
from provenance.reproduce.agreement import Agreement, Pair, distances, made_files, remade
from provenance.reproduce.command import elsewhere, folder_for

FOLDERS = ("results/r", "again")
TOLERANCE = {"score": 0.5}


@pytest.fixture
def pair(tmp_path, monkeypatch):
    """pair(promised, old, new, …): make two runs of a job that wrote these texts to `file`."""
    monkeypatch.chdir(tmp_path)

    def run(folder: str, promised, file: str, text: str, read: str, changed: dict) -> Record:
        files = {name: Path(folder, name) for name in ("input.csv", file)}
        for path, content in zip(files.values(), (read, text), strict=True):
            path.parent.mkdir(exist_ok=True, parents=True)
            path.write_text(content)
        content = {
            "rule": "score",
            "params": {},
            "code": {"digest": "c"},
            "reproduces": promised,
            "input": digests({"read": files["input.csv"]}),
            "output": digests({"score": files[file]}),
            "machine": {"cpu": "old", "threads": 2},
            "environment": {"packages": {"torch": "1"}},
        }
        return Record(Path(folder, "file.record.json"), content | changed)

    def of(promised, old, new, file="file.json", reads=("a", "a"), tolerances=None, **changed):
        first = run(FOLDERS[0], promised, file, old, reads[0], {})
        second = run(FOLDERS[1], promised, file, new, reads[1], changed)
        return Pair(first, second, FOLDERS, tolerances or {})

    return of


def test_the_same_bytes_are_in_every_class(pair):
    for promised in ("bits", "decisions", TOLERANCE):
        assert pair(promised, "{}", "{}").agreement() == Agreement(True, "same bits")


def test_a_text_that_names_its_folder_of_results_is_the_same(pair):
    old, new = ('{"file": "results/r/a"}', '{"file": "again/a"}')
    assert pair("bits", old, new).agreement().bits


@pytest.mark.parametrize("folder", ["out", "results", "results/r/x", ".cache/a", "x-a", "1"])
def test_a_folder_of_results_may_be_called_like_a_part_of_a_word(folder, pair, monkeypatch):
    monkeypatch.setitem(globals(), "FOLDERS", ("results/r", folder))
    old = (
        '{"about": ["results/r/a-out", "/x/results/r/b"], "in": "results/r", "x-a": "fall out: 1"}'
    )
    there = old.replace("results/r", folder)
    assert pair("bits", old, there, file="t.json").agreement().bits
    other = there.replace("about", "abut")
    assert not pair("bits", old, other, file="t.json").agreement().holds


def test_other_bytes_break_a_promise_of_bits(pair):
    agreement = pair("bits", "{}", "[]").agreement()
    assert agreement == Agreement(False, "other bits in results/r/file.json")


def test_decisions_are_all_but_floating_point_numbers(pair):
    kept = pair("decisions", '{"best": 3, "score": 1.5}', '{"best": 3, "score": 1.6}')
    assert kept.agreement() == Agreement(True, "same decisions")
    other = pair("decisions", '{"best": 3}', '{"best": 4}')
    assert other.agreement().holds is False


def test_metrics_hold_within_their_tolerance_in_json_and_csv(pair):
    assert pair(TOLERANCE, '{"score": 1.0}', '{"score": 1.5}').agreement().holds
    assert not pair(TOLERANCE, '{"score": 1.0}', '{"score": 1.6}').agreement().holds
    table = "k,score\n1,1.0\n2,{}\n"
    for last, holds in (("2.2", True), ("3", False), ("nan", False)):
        found = pair(TOLERANCE, table.format(2), table.format(last), "file.csv").agreement()
        assert found.holds is holds


def test_a_table_that_lacks_a_row_is_not_within_tolerance(pair):
    found = pair(TOLERANCE, "score\n1\n2\n", "score\n1\n", "file.csv").agreement()
    assert found.holds is False


def test_a_metric_that_no_output_has_is_no_agreement(pair):
    assert pair(TOLERANCE, '{"loss": 1}', '{"loss": 2}').agreement().holds is None


def test_an_old_file_that_was_altered_is_no_evidence(pair):
    found = pair(TOLERANCE, '{"score": 1.0}', '{"score": 1.1}')
    Path("results/r/file.json").write_text('{"score": 1.1 }')
    assert found.agreement().holds is None


def test_what_follows_from_other_inputs_is_held_to_their_tolerance(pair):
    reads = ("a", "b")
    assert pair("bits", "{}", "[]", reads=reads).agreement().reason.startswith("not judged")
    strict = {"score": 0.05}
    apart = ('{"score": 1.0}', '{"score": 1.4}')
    assert not pair(strict, *apart, reads=reads).agreement().holds
    assert pair(strict, *apart, reads=reads, tolerances=TOLERANCE).agreement().holds
    assert not pair(strict, *apart, tolerances=TOLERANCE).agreement().holds  # of the same inputs


def test_tensors_are_compared_by_the_name_of_their_output(tmp_path):
    files = [tmp_path / f"{name}.safetensors" for name in "ab"]
    for file, value in zip(files, (1.0, 1.25), strict=True):
        save_file({"layer": numpy.full((2, 2), value, "float32")}, file)
    assert list(distances("features", *files, {"features"})) == [("features", 0.25)]
    assert list(distances("model", *files, {"features"})) == []


def test_other_code_parameters_threads_and_packages_are_named(pair):
    changed = {
        "params": {"k": 1},
        "machine": {"cpu": "old", "threads": 1},
        "environment": {"packages": {"torch": "2"}},
    }
    found = pair("bits", "{}", "[]", **changed)
    assert found.other_work() == ["parameters"]
    assert found.other_surroundings() == {"threads": "2 -> 1", "torch": "1 -> 2"}


def number(file: str, raw: float, **changed) -> Number:
    cell = {
        "id": "t:1:score",
        "shown": f"{raw:.1f}",
        "rule": "{:.1f}",
        "raw": raw,
        "derivation": "value",
        "sources": [{"file": file, "pointer": "/score"}],
    }
    return Number(Ledger(Path("results/r/t.ledger.json"), {"cells": []}), cell | changed)


def test_the_number_is_read_again_and_held_to_the_tolerance_of_its_metric(pair):
    for new, holds in ((1.0, True), (1.4, True), (1.7, False)):
        found = pair(TOLERANCE, '{"score": 1.0}', json.dumps({"score": new}), f"{new}.json")
        result = remade(number(f"results/r/{new}.json", 1.0), [(found, found.agreement())], FOLDERS)
        assert (result.after, result.shown_after) == (new, f"{new:.1f}")
        assert result.agreement.holds is holds


def test_a_number_that_is_copied_from_the_repository_is_not_made_by_any_job():
    with pytest.raises(ValueError, match=r"stands in config/paper_reported/scores\.csv: no job"):
        made_files(number("config/paper_reported/scores.csv", 1.0), Records(Path("results/r")))


def test_a_configuration_elsewhere_writes_and_reads_nothing_in_the_first_results():
    chosen = {"results": "results/r", "a": [{"path": "results/r/data"}, "results/rest", 1]}
    assert elsewhere(chosen, FOLDERS) == {
        "results": "again",
        "a": [{"path": "again/data"}, "results/rest", 1],
    }


def test_nothing_is_overwritten_and_the_first_results_are_left_alone(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert folder_for("table5:1:x", None, "results/r", False) == ".cache/reproduced/table5-1-x"
    Path("full").mkdir()
    Path("full/file").touch()
    with pytest.raises(ValueError, match=r"full is not empty: .* \(--resume\)"):
        folder_for("t", Path("full"), "results/r", False)
    assert folder_for("t", tmp_path / "full", "results/r", True) == "full"
    with pytest.raises(ValueError, match="is in results/r"):
        folder_for("t", Path("results/r/again"), "results/r", False)


@pytest.fixture(scope="module")
def copied(finished, tmp_path_factory) -> Path:
    """A copy of the finished run that tests may change."""
    root = tmp_path_factory.mktemp("reproduced") / "run"
    return Path(shutil.copytree(finished.root, root, symlinks=True))


@pytest.mark.slow
def test_a_number_comes_out_again_to_the_last_bit(copied, monkeypatch, capfd):
    monkeypatch.chdir(copied)
    cell = ["reproduce", "results/pico/tables/table5.csv", "--row", "5", "--column", "Permute"]
    status = main([*cell, "--configfile", "config/run.yaml", "--json"])
    printed = capfd.readouterr()
    found = json.loads(printed.out)
    assert status == 0, printed.err
    assert found["cell"] == "table5:5:permute"
    assert [job["job"] for job in found["jobs"]] == ["train_base_model vit", "score_test vit base"]
    assert [job["said"] for job in found["jobs"]] == ["same bits"] * 2
    assert found["before"] == found["after"]
    assert "2 jobs" in printed.err  # said before it began
    again = copied / ".cache/reproduced/table5-5-permute/vit/models/base/test.json"
    assert again.read_bytes() == (copied / "results/pico/vit/models/base/test.json").read_bytes()


@pytest.mark.long
def test_a_number_that_does_not_come_out_again_is_told(copied, monkeypatch, capfd):
    """With another seed the number differs; that the seed changed is said before the run."""
    monkeypatch.chdir(copied)
    changed = Path("config/changed.yaml")
    changed.write_text(Path("config/run.yaml").read_text().replace("seed: 1", "seed: 2"))
    cell = ["reproduce", "table5:5:permute", "--configfile", str(changed), "--in", "changed"]
    status = main(cell)
    printed = capfd.readouterr()
    assert "parameter: seed: 1 -> 2" in printed.err
    assert "parameters of train_base_model" in printed.out
    assert status == 1 and "NOT" in printed.out


@pytest.mark.slow
def test_every_rule_promises_something_that_its_outputs_can_be_held_to(finished, monkeypatch):
    monkeypatch.chdir(finished.root)
    for record in Records(Path("results/pico")).by_file.values():
        promised = record.content["reproduces"]
        if isinstance(promised, str):
            assert promised in ("bits", "decisions"), record.file
            continue
        seen = set()
        for name, entries in record.content["output"].items():
            for path in (
                Path(e["path"]) for e in (entries if isinstance(entries, list) else [entries])
            ):
                if path.is_file():
                    seen.update(each for each, _ in distances(name, path, path, set(promised)))
        assert seen == set(promised), record.file
        assert all(tolerance > 0 for tolerance in promised.values())
