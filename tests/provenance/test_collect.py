"""`ffmerge collect` copies what answers for tables, but no weights, and writes all or nothing."""

import json
import shutil
from contextlib import chdir
from pathlib import Path

import pytest

from experiment.cli import main
from provenance import cells
from provenance.cells import DERIVATIONS, JOB, Source, shown
from provenance.collect import command, paper
from provenance.collect.collection import collection
from provenance.digest import sha256_of
from provenance.numbers import read_ledgers
from provenance.record import read_record, write_record
from provenance.records import Records
from provenance.verify.command import verify

RESULTS = Path("results/pico")
SELECTION = "results/pico/vit/selection.json"  # of few jobs
METADATA = "ro-crate-metadata.json"

pytestmark = pytest.mark.slow  # needs a finished run


def run(root: Path, *arguments: object) -> int:
    """Run `ffmerge collect` in a repository; return its exit status."""
    with chdir(root):
        return main(["collect", "--results", str(RESULTS), *map(str, arguments)])


def entities(folder: Path) -> dict[str, dict]:
    """Return the entities of a crate by identifier."""
    return {each["@id"]: each for each in json.loads((folder / METADATA).read_text())["@graph"]}


@pytest.fixture(scope="module")
def collected(finished, tmp_path_factory) -> Path:
    """A folder with all tables and figures of a run, moved after it was collected."""
    made = tmp_path_factory.mktemp("made") / "crate"
    assert run(finished.root, "--to", made) == 0
    return Path(shutil.move(made, tmp_path_factory.mktemp("elsewhere") / "moved"))


@pytest.fixture
def repository(finished, tmp_path) -> Path:
    """A copy of the finished run that tests may change."""
    return shutil.copytree(finished.root, tmp_path / "repository", symlinks=True)


def test_everything_that_is_shown_comes_along_and_weights_and_data_stay(finished, collected):
    all_records = Records(RESULTS, finished.root)
    ledgers, broken = read_ledgers(RESULTS, finished.root)
    shows = {path for ledger in ledgers for path in ledger.about}
    read = {path for ledger in ledgers for path in ledger.content["files"]}
    records = {str(record.file) for record in all_records.ancestry(*shows)}
    assert not broken
    assert len(ledgers) > 10
    assert len(records) > 100
    models = {path for path in read if (finished.root / path).suffix == ".safetensors"}
    for path in (shows | read | records) - models:
        assert sha256_of(collected / path) == sha256_of(finished.root / path), path
    kinds = {file.suffix for file in collected.rglob("*") if file.is_file()}
    assert not kinds & {".safetensors", ".parquet", ".npz", ".sif", ".pyc"}
    for name in ("Snakefile", "workflow/Snakefile", "config/run.yaml", "envs/cpu.txt"):
        assert sha256_of(collected / name) == sha256_of(finished.root / name)


def test_every_number_has_its_ancestry_and_its_value_in_the_folder_that_was_moved(
    finished, collected
):
    ledgers, broken = read_ledgers(RESULTS, collected)
    at_home, moved = Records(RESULTS, finished.root), Records(RESULTS, collected)
    assert not broken
    assert not moved.broken
    assert not any(record.altered for record in moved.by_file.values())
    numbers = [number for ledger in ledgers for number in ledger.numbers]
    assert len(numbers) > 500
    for files in {tuple(number.files) for number in numbers}:
        expected = [record.file for record in at_home.ancestry(*files)]
        assert [record.file for record in moved.ancestry(*files)] == expected
        assert moved.origins(*files) == at_home.origins(*files)
    cells._content.cache_clear()
    with chdir(collected):
        for cell in (number.cell for number in numbers):
            if cell["derivation"] == JOB:
                continue
            values = [Source(Path(s["file"]), s["pointer"]).value() for s in cell["sources"]]
            assert DERIVATIONS[cell["derivation"]](values) == cell["raw"], cell["id"]
            assert shown(cell["raw"], cell["rule"]) == cell["shown"], cell["id"]
    cells._content.cache_clear()


def test_trace_and_verify_miss_nothing_in_the_folder_that_was_moved(collected, capsys):
    with chdir(collected):
        assert main(["trace", "table5:7:permute", "--results", str(RESULTS)]) == 0
        assert "left behind" in capsys.readouterr().out
    found = verify(RESULTS, root=collected)
    assert found.faults == []
    assert found.counts.numbers > 500
    assert any("did not come along" in remark.why for remark in found.remarks)


def test_every_column_of_a_table_is_explained(finished):
    records = Records(RESULTS, finished.root)
    rows = paper.data_dictionary(collection(records), finished.root)
    assert len({row["file"] for row in rows}) > 10
    assert [(row["file"], row["column"]) for row in rows if not row["means"]] == []


@pytest.mark.parametrize("file", ["results/pico/vit/models/base/test.json", "left-behind.txt"])
def test_verify_finds_what_was_edited_after_it_was_collected(collected, tmp_path, file):
    folder = shutil.copytree(collected, tmp_path / "copy")
    text = (folder / file).read_text()
    digit = next(n for n, letter in enumerate(text) if letter.isdigit())
    other = str((int(text[digit]) + 1) % 10)
    (folder / file).write_text(text[:digit] + other + text[digit + 1 :])
    assert verify(RESULTS, root=folder).faults


def test_one_table_brings_its_own_ancestry_and_no_other(finished, collected, tmp_path):
    assert run(finished.root, "results/pico/tables/table2.csv", "--to", tmp_path / "crate") == 0
    records = {path.relative_to(tmp_path / "crate") for path in tmp_path.rglob("*.record.json")}
    ancestry = Records(RESULTS, finished.root).ancestry("results/pico/tables/table2.csv")
    assert records == {record.file for record in ancestry}
    assert [each.name for each in tmp_path.rglob("*.ledger.json")] == ["table2.ledger.json"]
    actions = [each for each in entities(tmp_path / "crate") if each.startswith("#job/")]
    assert len({each for each in actions if each + "/seconds" in actions}) == len(ancestry)


def test_files_that_stay_behind_are_named_by_their_digest(finished, collected):
    known, named = entities(collected), 0
    for record in Records(RESULTS, finished.root).by_file.values():
        for path, digest in (record.inputs | record.outputs).items():
            entity = known.get(path) if (collected / path).is_file() else known.get(f"#{path}")
            assert entity, path
            assert entity["sha256"] == digest
            named += entity["@id"].startswith("#")
    assert named > 100
    for identifier, entity in known.items():
        if "sha256" in entity and not identifier.startswith("#"):
            assert sha256_of(collected / identifier) == entity["sha256"]


def test_the_same_run_gives_the_same_bytes(finished, tmp_path):
    for name in ("first", "second"):
        run(finished.root, SELECTION, "--to", tmp_path / name)
    assert (tmp_path / "first" / METADATA).read_bytes() == (
        tmp_path / "second" / METADATA
    ).read_bytes()


def test_weights_come_along_when_asked_for(finished, tmp_path):
    assert run(finished.root, SELECTION, "--weights", "--to", tmp_path / "crate") == 0
    for record in Records(RESULTS, finished.root).ancestry(SELECTION):
        for path, digest in (record.inputs | record.outputs).items():
            if (finished.root / path).exists():  # Snakemake removes some when they were read
                assert sha256_of(tmp_path / "crate" / path) == digest
    assert (tmp_path / "crate/results/pico/vit/trained_base_model/model.safetensors").is_file()


@pytest.mark.parametrize("where", ["there", "a/file", "repository/results/pico/crate"])
def test_a_folder_is_neither_written_into_nor_made_among_what_is_collected(
    finished, repository, tmp_path, where, capsys
):
    (tmp_path / "there").mkdir()
    (tmp_path / "a").mkdir()
    (tmp_path / "a/file").write_text("mine")
    before = sorted(tmp_path.rglob("*"))
    assert run(repository, SELECTION, "--to", tmp_path / where) == 2
    assert str(tmp_path / where) in capsys.readouterr().err
    assert sorted(tmp_path.rglob("*")) == before


def test_nothing_is_left_of_a_collection_that_failed(finished, tmp_path, monkeypatch, capsys):
    def full(*_):
        raise OSError("No space left on device")

    monkeypatch.setattr(command, "write_crate", full)
    assert run(finished.root, SELECTION, "--to", tmp_path / "to" / "crate") == 2
    assert "No space left" in capsys.readouterr().err
    assert list((tmp_path / "to").iterdir()) == []


def test_what_was_edited_is_told_and_not_taken_for_what_the_job_wrote(repository, tmp_path, capsys):
    written = sha256_of(repository / SELECTION)
    (repository / SELECTION).write_text((repository / SELECTION).read_text() + " ")
    assert run(repository, SELECTION, "--to", tmp_path / "crate") == 1
    assert f"altered: {SELECTION}" in capsys.readouterr().err
    known = entities(tmp_path / "crate")
    assert known[f"#{SELECTION}"]["sha256"] == written
    assert known[SELECTION]["sha256"] == sha256_of(repository / SELECTION) != written
    action = known["#job/results/pico/vit/selection"]
    assert {"@id": f"#{SELECTION}"} in action["result"]
    assert {"@id": SELECTION} not in action["result"]


def test_a_record_that_was_edited_is_told(repository, tmp_path, capsys):
    record = repository / "results/pico/vit/selection.record.json"
    record.write_text(record.read_text().replace('"rule": "select', '"rule":  "select'))
    assert run(repository, SELECTION, "--to", tmp_path / "crate") == 1
    assert "altered: results/pico/vit/selection.record.json" in capsys.readouterr().err
    action = entities(tmp_path / "crate")["#job/results/pico/vit/selection"]
    assert "altered" in action["description"]


@pytest.mark.parametrize(
    "gone", ["results/pico/vit/windows/1-of-2.csv", "results/pico/vit/permutations.record.json"]
)
def test_what_is_missing_is_told_and_the_run_is_not_called_complete(
    repository, tmp_path, gone, capsys
):
    (repository / gone).rename(tmp_path / "away")
    if gone.endswith("record.json"):
        gone = "results/pico/vit/permutations.safetensors"  # which now nothing answers for
    assert run(repository, SELECTION, "--to", tmp_path / "crate") == 1
    assert f"missing: {gone}" in capsys.readouterr().err
    whole = entities(tmp_path / "crate")["#run"]
    assert whole["actionStatus"].endswith("FailedActionStatus")
    assert gone in whole["error"]


def test_the_patch_of_a_changed_tree_comes_along(repository, tmp_path):
    patch = "results/pico/patches/some.patch"
    (repository / patch).parent.mkdir()
    (repository / patch).write_text("- a\n+ b\n")
    file = repository / "results/pico/vit/selection.record.json"
    record = read_record(file)
    record.pop("digest")
    write_record(file, record | {"git": {"commit": "0" * 40, "dirty": True, "patch": patch}})
    assert run(repository, SELECTION, "--to", tmp_path / "crate") == 0
    assert (tmp_path / "crate" / patch).read_text() == "- a\n+ b\n"


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["table9"], "table5"),
        (["results/pico/tables/table55.csv"], "table5"),
        (["--results", "results/none"], "results/none"),
    ],
)
def test_a_request_that_cannot_be_met_says_what_there_is(
    finished, tmp_path, arguments, said, capsys
):
    assert run(finished.root, *arguments, "--to", tmp_path / "crate") == 2
    assert said in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []
