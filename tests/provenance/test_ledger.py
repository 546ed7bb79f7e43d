"""A ledger names the sources of every number, and accepts only inputs of its job."""

import json

import pytest

from provenance import cells
from provenance.cells import JOB, Cell, Interval, Printed, Source
from provenance.digest import sha256_of
from provenance.ledger import slug, write_ledger

OUTPUTS = {"table": "table5.csv", "text": "table5.txt", "ledger": "table5.ledger.json"}


@pytest.fixture
def score(tmp_path):
    """The summary of a test run of a model."""
    (tmp_path / "test.json").write_text('{"score": 87.03, "n": [4, 12]}')
    return tmp_path / "test.json"


@pytest.fixture
def written(tmp_path, job_with):
    """written(rows, inputs): write the ledger of these rows, and read it."""

    def made(rows: list[dict], inputs: list) -> dict:
        job = job_with(tmp_path / "tables", inputs, **OUTPUTS)
        job.output.table.write_text("the table")
        job.output.text.write_text("the text")
        write_ledger(job, rows)
        return json.loads(job.output.ledger.read_text())

    return made


def test_a_number_has_its_name_its_text_and_all_that_it_comes_from(written, score):
    interval = Interval(86.0, 88.0, 0.95, "bootstrap over test examples")
    cell = cells.of(
        score, "/score", "{:.1f}", interval=interval, printed=Printed("79.2", "Table 5")
    )
    ledger = written(
        [{"Model": "A", "FF Merge (%)": ""}, {"Model": "B", "FF Merge (%)": cell}], [score]
    )
    assert ledger["cells"] == [
        {
            "id": "table5:2:ff-merge",
            "row": 2,
            "column": "FF Merge (%)",
            "shown": "87.0",
            "rule": "{:.1f}",
            "raw": 87.03,
            "derivation": "value",
            "sources": [{"file": str(score), "pointer": "/score"}],
            "interval": {
                "low": 86.0,
                "high": 88.0,
                "confidence": 0.95,
                "method": "bootstrap over test examples",
            },
            "paper": {"value": "79.2", "where": "Table 5"},
        }
    ]
    assert ledger["columns"] == ["Model", "FF Merge (%)"]
    assert ledger["rows"] == [["A", ""], ["B", "87.0"]]


def test_it_names_the_digest_of_what_it_is_about_and_of_every_file(written, score, tmp_path):
    ledger = written([{"n": cells.of(score, "/n", "{}/{}")}], [score])
    assert ledger["files"] == {str(score): sha256_of(score)}
    assert ledger["about"] == {
        key: {
            "path": str(tmp_path / "tables" / OUTPUTS[key]),
            "sha256": sha256_of(tmp_path / "tables" / OUTPUTS[key]),
        }
        for key in ("table", "text")
    }


def test_a_file_in_a_directory_that_is_an_input_is_one(written, score):
    ledger = written([{"Score": cells.of(score, "/score")}], [score.parent])
    assert ledger["files"] == {str(score): sha256_of(score)}


@pytest.mark.parametrize("computed", [None, 87.03])
def test_a_number_from_a_file_that_is_no_input_is_refused(written, score, tmp_path, computed):
    other = tmp_path / "other.json"
    other.write_text("{}")
    derivation = "value" if computed is None else JOB
    cell = Cell((Source(score, "/score"),), derivation=derivation, computed=computed)
    with pytest.raises(ValueError, match=r"test\.json is no input of this job"):
        written([{"Score": cell}], [other])


def test_two_numbers_of_one_name_are_refused(written, score):
    row = {"PPL": cells.of(score, "/score"), "PPL ↓": cells.of(score, "/score")}
    with pytest.raises(ValueError, match=r"numbers of the same name: table5:1:ppl$"):
        written([row], [score])


@pytest.mark.parametrize(
    ("column", "name"),
    [
        ("Permute", "permute"),
        ("+LLM.int8() Compression", "llm-int8-compression"),
        ("parameters removed (%)", "parameters-removed"),
    ],
)
def test_a_column_s_name_is_plain_in_that_of_a_number(column, name):
    assert slug(column) == name
