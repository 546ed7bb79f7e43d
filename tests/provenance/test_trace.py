"""`ffmerge trace` leads from every number to data and base model, and says what is missing."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from experiment.cli import main
from provenance.digest import sha256_of
from provenance.numbers import named, read_ledgers
from provenance.record import digests, write_record
from provenance.records import Records
from provenance.trace.command import Chain

pytestmark = pytest.mark.slow

RESULTS = Path("results/pico")
MODEL = "results/pico/gpt2/models/permute-k2-first-best"
TABLE = "results/pico/tables/table5.csv"
NUMBER = "table5:2:permute"  # of that model


@pytest.fixture
def run(finished, monkeypatch) -> Path:
    """The finished run, as the working directory."""
    monkeypatch.chdir(finished.root)
    return finished.root


@pytest.fixture
def gone(run):
    """gone(file): remove a file for the rest of the test."""
    kept = []

    def take(name: str) -> None:
        file = Path(name)
        kept.append((file, file.read_bytes(), file.stat()))
        file.unlink()

    yield take
    for file, content, status in kept:
        file.write_bytes(content)
        os.utime(file, ns=(status.st_atime_ns, status.st_mtime_ns))  # or Snakemake would run jobs


def chain(number: str = NUMBER) -> Chain:
    return Chain(named(read_ledgers(RESULTS)[0], number), Records(RESULTS))


def test_every_number_of_every_table_and_figure_comes_from_what_is_embedded(run):
    ledgers, broken = read_ledgers(RESULTS)
    records = Records(RESULTS)
    assert len(ledgers) == 16 and broken == []
    for ledger in ledgers:
        for number in ledger.numbers:
            traced = Chain(number, records)
            assert traced.missing == [], number.id
            kinds = {origin["is"] for origin in traced.started_from}
            assert "data" in kinds and kinds <= {"data", "paper's numbers", "settings"}, number.id
            rules = [job["rule"] for job in traced.jobs]
            assert "train_base_model" in rules, number.id  # the pico models come from data, too


def test_a_chain_has_the_jobs_of_the_number_and_not_those_of_its_table(run):
    jobs = chain().jobs
    assert [job["rule"] for job in jobs] == [
        *("train_base_model", "collect_features", "align_feed_forwards", "score_windows"),
        *("select_windows", "compress", "tokenize_text", "fine_tune", "score_test"),
        "make_tables_2_to_5",
    ]
    read = {each["path"] for job in jobs for each in job["inputs"]}
    assert f"{MODEL}/test.json" in read and not any("vit" in path for path in read)
    assert jobs[-1]["n_other_inputs"] > 0


def test_an_input_names_the_job_that_made_it_before(run):
    jobs = chain().jobs
    outputs = {each["path"]: job["n"] for job in jobs for each in job["outputs"]}
    for job in jobs:
        for each in job["inputs"]:
            assert each["made_by"] == outputs.get(each["path"])
            assert each["made_by"] is None or each["made_by"] < job["n"]


def test_a_trace_says_what_an_auditor_asks_for(run, capsys):
    assert main(["trace", TABLE, "--row", "GPT-2 1/4", "--column", "permute"]) == 0
    said = capsys.readouterr().out
    cell = chain().number.cell
    assert said.startswith(f"{NUMBER}   {cell['shown']}\n")
    for text in (str(cell["raw"]), cell["rule"], cell["paper"]["value"], "bootstrap"):
        assert text in said
    assert f"{MODEL}/test.json" in said and "at /score" in said
    record = json.loads(Path(f"{MODEL}/tuned.record.json").read_text())
    short = (record["output"]["model"]["sha256"][:12], record["code"]["digest"][:12])
    assert all(digest in said for digest in short)
    assert "envs/cpu.txt" in said and "task.fine_tuning.learning_rate 0.001" in said
    assert said.count(record["git"]["commit"]) == said.count(record["machine"]["host"] + ",") == 1
    assert "python workflow/scripts" not in said
    assert main(["trace", NUMBER, "--results", str(RESULTS), "--commands"]) == 0
    assert record["command"] in capsys.readouterr().out


def test_machines_are_told_the_same_in_full(run, capsys):
    assert main(["trace", NUMBER, "--results", str(RESULTS), "--json"]) == 0
    said = json.loads(capsys.readouterr().out)
    assert said["number"]["id"] == NUMBER and said["missing"] == []
    record = json.loads(Path(f"{MODEL}/tuned.record.json").read_text())
    job = next(job for job in said["jobs"] if job["rule"] == "fine_tune")
    for key in ("params", "seed", "command", "git", "environment", "machine", "time"):
        assert job[key] == record[key]
    assert job["outputs"][0]["sha256"] == record["output"]["model"]["sha256"]
    assert {origin["path"] for origin in said["origins"]} >= {
        "resources/demo/data/text/test.parquet"
    }


@pytest.mark.parametrize(
    ("file", "why", "shown"),
    [
        (f"{MODEL}/test.record.json", f"made {MODEL}/test.json", "make_tables_2_to_5 5"),
        (f"{MODEL}/compressed.record.json", f"made {MODEL}/compressed", "fine_tune gpt2"),
        (
            f"{MODEL}/test.json",
            f"{MODEL}/test.json, where the number stands, is gone",
            "score_test",
        ),
        ("results/pico/gpt2/selection/k2.json", "k2.json is gone", "select_windows gpt2"),
        ("results/pico/tables/table5.record.json", "made results/pico/tables", "score_test gpt2"),
    ],
)
def test_missing_evidence_is_said_and_the_rest_shown(file, why, shown, gone, capsys):
    gone(file)
    assert main(["trace", NUMBER, "--results", str(RESULTS)]) == 1
    first, _, rest = capsys.readouterr().out.partition("Comes from")
    assert why in first and shown in rest


def test_altered_evidence_is_said(run, gone, capsys):
    record, table = Path(f"{MODEL}/tuned.record.json"), Path(TABLE)
    text, rows = record.read_text(), table.read_text()
    gone(str(record))
    gone(str(table))
    record.write_text(text.replace('"learning_rate": 0.001', '"learning_rate": 0.002'))
    table.write_text(rows.replace("7", "8", 1))
    assert main(["trace", NUMBER, "--results", str(RESULTS)]) == 1
    said = capsys.readouterr().out
    assert f"{record} is not what fine_tune" in said and "RECORD ALTERED" in said
    assert f"{TABLE} is altered" in said and "ALTERED" in said.partition("Missing")[0]


def test_a_number_of_a_file_of_the_repository_itself_misses_nothing(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    base, table = Path("resources/demo/models/base/config.json"), Path("results/r/figures/f.pdf")
    for file in (base, table):
        file.parent.mkdir(parents=True)
        file.write_text('{"n_layer": 12}')
    cell = {"id": "f:1:layers", "row": 1, "column": "layers", "shown": "12", "rule": "{}"}
    cell |= {"raw": 12, "derivation": "value", "interval": None, "paper": None}
    cell["sources"] = [{"file": str(base), "pointer": "/n_layer"}]
    ledger = {"about": digests({"pdf": table}), "files": {str(base): sha256_of(base)}}
    ledger |= {"columns": ["layers"], "rows": [["12"]], "cells": [cell]}
    file = table.with_name("f.ledger.json")
    file.write_text(json.dumps(ledger))
    made = {"pdf": table, "ledger": file}
    record = {"rule": "plot", "input": digests({"base": base.parent}), "output": digests(made)}
    write_record(table.with_name("f.record.json"), record)
    (number,) = read_ledgers(Path("results/r"))[0][0].numbers
    traced = Chain(number, Records(Path("results/r")))
    assert traced.missing == []
    assert traced.origins == {
        str(base.parent): sha256_of(base.parent),
        str(base): sha256_of(base),
    }
    assert {each["is"] for each in traced.started_from} == {"base model"}
    base.write_text('{"n_layer": 13}')
    missing = Chain(number, Records(Path("results/r"))).missing
    assert missing == [f"{base}, where the number stands, is altered"]


def test_a_table_alone_lists_its_numbers(run, capsys):
    assert main(["trace", TABLE]) == 0
    names = re.findall(r"^(table5:\d+:[a-z-]+) ", capsys.readouterr().out, re.MULTILINE)
    cells = json.loads(Path("results/pico/tables/table5.ledger.json").read_text())["cells"]
    assert names == [cell["id"] for cell in cells]


@pytest.mark.parametrize(
    ("request_", "said"),
    [
        (["table5:99:permute"], "'table5:99:permute' is not one of the numbers; there are\n"),
        ([TABLE, "--row", "GPT-2", "--column", "Permute"], "is 4 numbers; there are\n"),
        ([TABLE, "--row", "1/4", "--column", "No such"], "table5:2:permute"),
        (["results/pico/gpt2/selection.json"], "is no table or figure with a ledger"),
    ],
)
def test_an_unknown_or_ambiguous_number_lists_the_candidates(request_, said, run, capsys):
    assert main(["trace", *request_, "--results", str(RESULTS)]) == 2
    assert said in capsys.readouterr().err


def test_a_table_without_a_ledger_says_how_to_make_one(gone, capsys):
    gone("results/pico/tables/table5.ledger.json")
    assert main(["trace", TABLE, "--row", "2", "--column", "Permute"]) == 2
    said = capsys.readouterr().err
    assert f"{TABLE} was made without results/pico/tables/table5.ledger.json" in said
    assert "snakemake results/pico/tables/table5.ledger.json" in said
    assert "--configfile config/pico.yaml" in said


def test_a_trace_imports_nothing_heavy(run):
    script = (
        "import sys; from experiment.cli import main; main(sys.argv[1:]); "
        "print(sorted({'torch', 'numpy', 'pandas', 'snakemake', 'scipy'} & set(sys.modules)))"
    )
    command = [sys.executable, "-c", script, "trace", NUMBER, "--results", str(RESULTS)]
    printed = subprocess.run(
        command,
        capture_output=True,
        text=True,
        check=True,
        env={"PYTHONPATH": str(Path(__file__).parents[2] / "workflow")},
    ).stdout
    assert printed.endswith("[]\n")
