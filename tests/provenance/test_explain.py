"""`ffmerge explain` names what is stale and the change that made it so."""

import json
from pathlib import Path

import pytest
import yaml

import small_run
from experiment.cli import main
from provenance.dag import PlannedJob
from provenance.explain.causes import ABSENT, causes, differences
from provenance.explain.command import Staleness
from provenance.numbers import Ledger
from provenance.project import find_configuration
from provenance.record import digests, write_record
from provenance.records import Records
from provenance.sources import code_digest, read_source

SCRIPT = "workflow/scripts/fine_tune.py"
OUTPUTS = {"model": "results/r/vit/tuned.json", "record": "results/r/vit/tuned.record.json"}
PARAMS = {"task": {"fine_tuning": {"learning_rate": 5e-4}}, "seed": 1, "inputs": {"train": "a"}}


@pytest.fixture
def folder(tmp_path, monkeypatch) -> Path:
    """A repository with a script, an input, an output and the record of the job that made it."""
    monkeypatch.chdir(tmp_path)
    for file, text in (
        (SCRIPT, "rate = 1\n"),
        ("data.csv", "a\n1\n"),
        (OUTPUTS["model"], "{}"),
    ):
        Path(file).parent.mkdir(parents=True, exist_ok=True)
        Path(file).write_text(text)
    record = {
        "rule": "fine_tune",
        "params": PARAMS,
        "reproduces": {"score": 0.5},
        "input": digests({"data": "data.csv"}),
        "output": digests({"model": OUTPUTS["model"]}),
        "code": {
            "digest": code_digest([Path(SCRIPT).resolve()]),
            "files": {SCRIPT: digests({"s": SCRIPT})["s"]["sha256"]},
            "trees": {SCRIPT: read_source(Path(SCRIPT)).tree},
        },
        "git": {"commit": small_run.commit(SCRIPT), "dirty": False},
    }
    write_record(Path(OUTPUTS["record"]), record)
    return tmp_path


def planned(params: dict = PARAMS, reason: str = "", **changed) -> PlannedJob:
    return PlannedJob(
        "fine_tune",
        {"results": "results/r", "task": "vit"},
        params,
        {"data": "data.csv"},
        OUTPUTS,
        reproduces={"score": 0.5},
        reason=reason or "Input files updated by another job: x",
        **({"code": code_digest([Path(SCRIPT).resolve()])} | changed),
    )


def said(job: PlannedJob, made_before: frozenset[str] = frozenset()) -> list[str]:
    found = causes(job, Records(Path("results/r")), set(made_before))
    return [f"{cause.kind}: {cause.text}" for cause in found]


def test_a_job_that_only_waits_for_another_has_no_cause_of_its_own(folder):
    assert said(planned()) == []


def test_a_changed_parameter_is_named_with_task_and_both_values(folder):
    params = json.loads(json.dumps(PARAMS))
    params["task"]["fine_tuning"]["learning_rate"] = 2e-3
    params["seed"] = 2
    assert said(planned(params)) == [
        "parameter: fine_tuning.learning_rate of task vit: 0.0005 -> 0.002",
        "parameter: seed: 1 -> 2",
    ]


def test_values_that_swap_places_are_two_differences():
    assert list(differences({"a": 1, "b": {"c": 2}}, {"a": 2, "b": {"c": 1}})) == [
        ("a", 1, 2),
        ("b.c", 2, 1),
    ]
    assert list(differences({"a": 1}, {"b": 1})) == [("a", 1, ABSENT), ("b", ABSENT, 1)]


def test_changed_code_is_named_with_the_way_to_see_it(folder):
    Path(SCRIPT).write_text("rate = 2\n")
    job = planned(code="another")
    assert said(job) == [f"code: {SCRIPT}"]
    (cause,) = causes(job, Records(Path("results/r")), set())
    (hint,) = cause.details
    assert hint.startswith("git diff ") and hint.endswith(f" -- {SCRIPT}")


def test_a_file_with_a_new_comment_is_not_blamed(folder):
    Path(SCRIPT).write_text("rate = 1  # new\n")
    assert SCRIPT not in " ".join(said(planned(code="another")))


def test_an_input_of_another_content_is_named_unless_a_job_makes_it_anew(folder):
    Path("data.csv").write_text("a\n2\n")
    (line,) = said(planned())
    assert line.startswith("input: data.csv: ")
    assert said(planned(), frozenset({"data.csv"})) == []


def test_a_missing_output_and_a_job_that_never_ran_are_told_apart(folder):
    Path(OUTPUTS["model"]).unlink()
    assert said(planned()) == ["missing: outputs are missing"]
    Path(OUTPUTS["record"]).unlink()
    assert said(planned()) == ["new: not made yet"]


def test_what_no_record_tells_is_said_in_snakemakes_words(folder):
    assert said(planned(reason="Software environment definition has changed")) == [
        "environment: the environment or image is another"
    ]
    assert said(planned(reason="Params have changed: before: a now: b")) == [
        "order: the same parameters in another order"
    ]
    assert said(planned(reason="The moon")) == ["other: Snakemake says: The moon"]


def number(name: str, file: str) -> dict:
    return {"id": name, "sources": [{"file": file, "pointer": ""}]}


def test_a_number_is_stale_if_its_file_is_and_not_because_its_table_is_made_again(folder):
    files = {"tuned": OUTPUTS["model"], "other": "results/r/other.json"}
    cells = [number(name, file) for name, file in files.items()]
    ledger = Ledger(Path("results/r/t.ledger.json"), {"cells": cells})
    table = PlannedJob(
        "make_table",
        {},
        {},
        {},
        {"ledger": "results/r/t.ledger.json", "record": "results/r/t.record.json"},
        after=(0,),
    )
    records = Records(Path("results/r"))
    tuned = Staleness([planned(), table], [causes(planned({}), records, set()), []], [ledger])
    assert [each.id for each in tuned.numbers()] == ["tuned"]
    edited = Staleness([table], [causes(table, records, set())], [ledger])
    assert [each.id for each in edited.numbers()] == ["tuned", "other"]


def test_a_folder_of_results_that_two_configurations_name_is_refused(folder):
    Path("workflow/Snakefile").touch()
    Path("config").mkdir()
    for name, seed in (("a", 1), ("b", 2)):
        Path(f"config/{name}.yaml").write_text(f"{{results: results/r, seed: {seed}, tasks: {{}}}}")
    with pytest.raises(ValueError, match=r"config/a.yaml, config/b.yaml may write to results/r"):
        find_configuration(None, None, ["results/r/tables/table5.csv"])
    assert find_configuration(None, Path("config/b.yaml"))[1]["seed"] == 2
    assert find_configuration(Path("results/r"), Path("config/b.yaml"))[1]["seed"] == 2
    with pytest.raises(ValueError, match=r"b.yaml writes to results/r, not to results/s: name"):
        find_configuration(Path("results/s"), Path("config/b.yaml"))
    Path("config/a.yaml").unlink()
    assert find_configuration(Path("results/r"), None)[0] == Path("config/b.yaml")
    with pytest.raises(ValueError, match=r"none of config/b.yaml may write to results/demo"):
        find_configuration(None, None)


@pytest.fixture
def run(finished, monkeypatch) -> Path:
    """The finished run, as the working directory."""
    monkeypatch.chdir(finished.root)
    return finished.root


@pytest.mark.slow
def test_nothing_is_stale_after_a_run(run, capsys):
    assert main(["explain", "--configfile", "config/run.yaml"]) == 0
    assert capsys.readouterr().out.startswith("Nothing is stale: everything by config/run.yaml.")


@pytest.mark.slow
def test_a_hyperparameter_is_followed_to_the_numbers_it_reaches(run, tmp_path, capsys):
    chosen = yaml.safe_load(Path("config/run.yaml").read_text())
    chosen["tasks"]["vit"]["fine_tuning"]["learning_rate"] = 2e-3
    changed = tmp_path / "changed.yaml"
    changed.write_text(yaml.safe_dump(chosen, sort_keys=False))
    assert main(["explain", "--configfile", str(changed), "--json"]) == 1
    found = json.loads(capsys.readouterr().out)
    (cause,) = found["causes"]
    assert cause["text"] == "fine_tuning.learning_rate of task vit: 0.001 -> 0.002"
    assert len(cause["begins_with"]) == 9 and cause["begins_with"][0].startswith("fine_tune vit")
    assert {"score_test vit drop-k1-best", "make_tables_2_to_5 5"} <= set(cause["reruns"])
    reached = {name for name in found["numbers"] if name.startswith("table5")}
    assert "table5:6:permute" in reached  # of a tuned ViT
    assert not {"table5:2:permute", "table5:5:permute"} & reached  # GPT-2, and ViT as it was
    assert main(["explain", "table5:6:permute", "--configfile", str(changed)]) == 1
    printed = capsys.readouterr().out
    assert "parameter: fine_tuning.learning_rate of task vit: 0.001 -> 0.002" in printed
    assert "begins with 3 fine_tune" in printed


def without_plan(capsys, *targets: str) -> tuple[int, list[str]]:
    """Ask without the workflow; return the status and the lines."""
    arguments = ["explain", "--no-plan", "--results", "results/r", *targets]
    return main(arguments), capsys.readouterr().out.splitlines()


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda: Path(SCRIPT).write_text("rate = 2\n"), f"code: {SCRIPT}"),
        (lambda: Path(SCRIPT).unlink(), f"code: {SCRIPT}"),
        (lambda: Path("data.csv").write_text("b"), "input: data.csv: "),
        (lambda: Path("data.csv").unlink(), "-> nothing"),
        (lambda: Path(OUTPUTS["model"]).unlink(), "missing: outputs are missing"),
    ],
)
@pytest.mark.parametrize("targets", [(), (OUTPUTS["model"],)])
def test_without_the_workflow_records_are_compared_with_what_is_on_disk(
    change, said, targets, folder, capsys
):
    Path("workflow").mkdir(exist_ok=True)
    assert without_plan(capsys, *targets)[0] == 0
    change()
    status, lines = without_plan(capsys, *targets)
    assert status == 1
    assert said in lines[0] and "1 job would run: fine_tune" in lines
    assert lines[-1].startswith("Not compared with the workflow, of which nothing is executed")


def test_without_the_workflow_comments_and_times_make_nothing_stale(folder, capsys):
    Path(SCRIPT).write_text("rate = 1  # as before\n")
    Path("data.csv").touch()
    status, lines = without_plan(capsys)
    assert status == 0 and lines[0].startswith("Nothing is stale: everything by the records")


def test_without_the_workflow_what_follows_a_change_is_stale_too(folder, capsys):
    score = Path("results/r/vit/score.json")
    score.write_text("1")
    record = {"rule": "score", "input": digests({"model": OUTPUTS["model"]})}
    record |= {"output": digests({"score": str(score)}), "params": {}}
    write_record(score.with_name("score.record.json"), record)
    Path("data.csv").write_text("b")
    status, lines = without_plan(capsys)
    assert status == 1 and "2 jobs would run: fine_tune, score" in lines
    Path(OUTPUTS["model"]).unlink()  # is read by another job: Snakemake would not miss it
    assert "outputs are missing" not in "".join(without_plan(capsys)[1])


@pytest.mark.parametrize("target", ["everything.csv", "main", "../x", "/etc/passwd"])
def test_without_the_workflow_only_what_a_job_made_can_be_asked_about(target, folder, capsys):
    assert main(["explain", "--no-plan", "--results", "results/r", target]) == 2
    assert "no record says what made" in capsys.readouterr().err
