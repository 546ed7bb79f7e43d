"""The whole DAG on pico models, run by Snakemake, also after a kill."""

import csv
import json
import os
import random
import re
import resource
import shutil
import signal
import subprocess
import time
from contextlib import suppress
from pathlib import Path

import psutil
import pytest

from provenance.cells import Cell, Source
from provenance.csv_files import read_csv
from provenance.digest import sha256_of
from provenance.record import read_record
from provenance.verify.command import verify
from workflow_copy import CEILING, Copy

pytestmark = pytest.mark.slow

N_JOBS = 174  # of everything, but for the rule that names it all


def test_table5_has_a_row_for_each_ratio_of_each_task(finished):
    with (finished.results / "tables/table5.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert list(rows[0]) == [
        "Model",
        "Metric",
        "Merged Indices",
        "FFs Removed",
        "Vanilla",
        "Permute",
    ]
    assert [row["FFs Removed"] for row in rows] == [
        *("0/4", "1/4", "2/4", "3/4"),
        *("0/4", "1/4", "2/4", "3/4"),
        *("0/8", "2/8", "4/8", "6/8"),
    ]
    assert rows[-1]["Merged Indices"] == "0-3/0-3"
    assert all(float(row["Permute"]) > 0 for row in rows[:4])


def test_every_tidy_score_lies_in_its_interval_and_every_merged_model_is_smaller(finished):
    with (finished.results / "tables/table5_tidy.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert all(float(row["low"]) <= float(row["score"]) <= float(row["high"]) for row in rows)
    assert all((float(row["reduction_percent"]) > 0) == bool(row["method"]) for row in rows)


def test_every_window_is_scored_once_by_every_method(finished):
    with (finished.results / "gpt2/windows.csv").open(newline="") as file:
        scored = [(r["method"], int(r["k"]), int(r["start"])) for r in csv.DictReader(file)]
    assert sorted(scored) == sorted(
        (method, k, start)
        for method in ("permute", "vanilla")
        for k in (2, 3, 4)
        for start in range(4 - k + 1)
    )


def test_windows_spread_over_two_jobs_are_all_there(finished):
    assert len(list((finished.results / "vit/windows").glob("*.csv"))) == 2
    with (finished.results / "vit/windows.csv").open(newline="") as file:
        assert len(list(csv.DictReader(file))) == 3 + 2 + 1


def test_every_job_has_a_record_that_fits_its_files(finished):
    records = list(finished.results.rglob("*record.json"))
    assert len(records) == N_JOBS
    for file in records:
        record = json.loads(file.read_text())
        for kind in ("input", "output"):
            for entry in record[kind].values():
                for named in entry if isinstance(entry, list) else [entry]:
                    assert sha256_of(finished.root / named["path"]) == named["sha256"]
        for source, digest in record["code"]["files"].items():
            assert sha256_of(finished.root / source) == digest
        assert record["machine"]["threads"] >= 1 and record["time"]["peak_memory_bytes"] > 1e6


def test_a_job_of_one_kind_of_task_does_not_depend_on_the_code_of_another(finished):
    file = finished.results / "gpt2/models/base-tuned/test.record.json"
    sources = json.loads(file.read_text())["code"]["files"]
    assert "workflow/experiment/tasks/language_modeling.py" in sources
    assert "workflow/experiment/tasks/translation.py" not in sources


def test_every_table_and_figure_is_there(finished):
    for n in range(1, 9):
        assert (finished.results / f"tables/table{n}.csv").stat().st_size > 0
    for n in range(1, 7):
        assert (finished.results / f"figures/figure{n}.pdf").stat().st_size > 0


def test_the_configuration_of_a_dropped_model_has_its_number_of_layers(finished):
    for task, count in (("gpt2", "n_layer"), ("vit", "num_hidden_layers")):
        model = finished.results / task / "models/drop-k2-best/tuned/config.json"
        assert json.loads(model.read_text())[count] == 2


def test_a_quantized_model_is_smaller_and_names_what_was_not_quantized(finished):
    for task in ("gpt2", "vit", "marian"):
        (file,) = (finished.results / task).glob("models/*-int8/storage.json")
        sizes = json.loads(file.read_text())
        assert sizes["measured_percent"] < sizes["merged_percent"] < 100
        assert sizes["not_quantized"]


def test_every_claim_has_a_verdict_and_every_printed_number_its_row(finished):
    with (finished.results / "tables/claims.csv").open(newline="") as file:
        assert {row["verdict"] for row in csv.DictReader(file)} <= {"holds", "fails", "undecided"}
    reported = 0
    for name in ("scores", "hyperparameters", "text"):
        with (finished.root / f"config/paper_reported/{name}.csv").open(newline="") as file:
            reported += len(list(csv.DictReader(file)))
    with (finished.results / "tables/comparison.csv").open(newline="") as file:
        assert len(list(csv.DictReader(file))) == reported


TABLES = [*(f"table{n}" for n in range(1, 9)), "comparison", "claims"]
FIGURES = [f"figure{n}" for n in range(1, 7)]
NUMBER = re.compile(r"[×+-]?\d[\d./e+-]*( (%|PPL|BLEU))?( \(\d+ of \d+\).*)?")
NOT_OURS = {"comparison": {"paper", "tolerance"}, "claims": {"section", "removed"}}  # columns


def ledger_of(finished: Copy, name: str) -> dict:
    folder = "figures" if name.startswith("figure") else "tables"
    return json.loads((finished.results / folder / f"{name}.ledger.json").read_text())


@pytest.mark.parametrize("name", TABLES)
def test_every_number_of_a_table_is_in_its_ledger_as_it_is_shown(finished, name):
    with (finished.results / f"tables/{name}.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    ledger = ledger_of(finished, name)
    answered = {(cell["row"], cell["column"]): cell["shown"] for cell in ledger["cells"]}
    numbers = {
        (n, column): value
        for n, row in enumerate(rows, start=1)
        for column, value in row.items()
        if NUMBER.fullmatch(value) and column not in NOT_OURS.get(name, ())
    }
    assert numbers and numbers.items() <= answered.items()
    assert all(rows[n - 1][column] == shown for (n, column), shown in answered.items())
    assert ledger["rows"] == [list(row.values()) for row in rows]


@pytest.mark.parametrize("name", FIGURES)
def test_every_point_of_a_figure_has_a_number(finished, name):
    ledger = ledger_of(finished, name)
    assert {cell["row"] for cell in ledger["cells"]} == set(range(1, len(ledger["rows"]) + 1))


@pytest.mark.parametrize("name", [*TABLES, *FIGURES])
def test_every_number_comes_from_its_sources_again(finished, name):
    ledger = ledger_of(finished, name)
    for file, digest in ledger["files"].items():
        assert sha256_of(finished.root / file) == digest
    for cell in ledger["cells"]:
        sources = tuple(Source(finished.root / s["file"], s["pointer"]) for s in cell["sources"])
        again = Cell(sources, cell["rule"], cell["derivation"], computed=cell["raw"])
        assert (again.raw, str(again)) == (cell["raw"], cell["shown"]), cell["id"]
        assert {source["file"] for source in cell["sources"]} <= ledger["files"].keys()
        assert sources, cell["id"]


def test_no_checkpoint_or_partial_file_is_left(finished):
    assert not [p for p in finished.results.rglob("*") if p.name.startswith(".partial")]
    assert not list(finished.results.rglob("checkpoint-*"))


def test_a_finished_run_has_nothing_to_do(finished):
    assert "Nothing to be done" in finished.run()


N_KILLS = 25  # of each of two runs


def everything(run: subprocess.Popen) -> None:
    """Kill a run and all its jobs."""
    os.killpg(run.pid, signal.SIGKILL)


def only_snakemake(run: subprocess.Popen) -> None:
    """Kill Snakemake; its jobs go on, and the next run waits for them."""
    for child in psutil.Process(run.pid).children():
        child.kill()


def one_job(run: subprocess.Popen) -> None:
    """Kill a process that Snakemake has started, if there is any."""
    for process in psutil.Process(run.pid).children(recursive=True)[-1:]:
        process.kill()


@pytest.mark.long
@pytest.mark.parametrize("seed", range(2))
def test_a_run_killed_25_times_at_random_moments_ends_with_the_same_table(tmp_path, finished, seed):
    repository, chance = Copy(tmp_path / "killed", ["vit"]), random.Random(seed)
    for _ in range(N_KILLS):
        run = repository.start(target="main")
        time.sleep(chance.uniform(1, 15))
        with suppress(psutil.NoSuchProcess, ProcessLookupError):
            chance.choice([everything, only_snakemake, one_job])(run)
        run.communicate(timeout=CEILING)
        if run.returncode == 0:  # the kill came too late: begin anew
            _is_the_same(repository, finished)
            shutil.rmtree(repository.results)
    _ends_the_same(repository, finished)


@pytest.mark.long
def test_a_run_on_disks_that_are_full_ends_with_the_same_table_once_there_is_room(
    tmp_path, finished
):
    repository = Copy(tmp_path / "full", ["vit"])
    for most_bytes in (1 << 10, 1 << 13, 1 << 15, 1 << 17):
        run = repository.start("--keep-going", target="main")
        resource.prlimit(run.pid, resource.RLIMIT_FSIZE, (most_bytes, most_bytes))
        run.communicate(timeout=CEILING)
        if run.returncode == 0:
            break
        for file in repository.results.rglob("*.record.json"):
            read_record(file)  # whole
    _ends_the_same(repository, finished)


def _ends_the_same(repository: Copy, finished: Copy) -> None:
    """Run to the end, and compare."""
    repository.run(target="main")
    _is_the_same(repository, finished)


def _is_the_same(repository: Copy, finished: Copy) -> None:
    """Hold the table and every file against a run that nothing happened to."""
    assert _rows(repository) == [row for row in _rows(finished) if row["Model"] == "pico ViT"]
    assert verify(Path("results/pico"), root=repository.root, configuration=None).faults == []
    left = [path for path in repository.results.rglob("*") if path.name.startswith(".partial")]
    assert left == [] and not list(repository.results.rglob(".checkpoints/*"))


def _rows(repository: Copy) -> list[dict[str, str]]:
    path: Path = repository.results / "tables/table5.csv"
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


@pytest.mark.long
def test_strategies_are_compared_at_the_same_number_removed(tmp_path, finished):
    shutil.copytree(finished.root, tmp_path / "strategies", symlinks=True)
    repository = Copy.at(tmp_path / "strategies")
    merging = repository.config["tasks"]["gpt2"]["merge"]
    merging["anchor"] = "middle"  # its windows need 4 of 6 pairs
    repository.write_config()
    repository.run(target="results/pico/tables/strategies.csv")
    assert len(read_csv(repository.results / "gpt2/other_alignment.csv")) == 2
    rows = read_csv(repository.results / "tables/strategies.csv")
    assert len(rows) == 3 * (1 + 2 * 3)  # of each task the base model; ratios × strategies
    for task, n_towers in (("gpt2", 1), ("vit", 1), ("marian", 2)):
        proposals = json.loads((repository.results / task / "groups.json").read_text())
        for k, strategies in proposals.items():
            assert set(strategies) == {"window", "correlation", "cka"}
            for groups in strategies.values():
                assert len(groups) == n_towers
                for of_tower in groups.values():
                    assert sum(len(layers) - 1 for layers in of_tower) == int(k) - 1
        # the window's score is that of its own search, which another job did
        (window,) = [
            row
            for row in read_csv(repository.results / task / "windows.csv")
            if row["method"] == "permute"
            and row["k"] == "2"
            and int(row["start"]) == next(iter(proposals["2"]["window"].values()))[0][0]
        ]
        (again,) = [
            row
            for row in read_csv(repository.results / task / "groups.csv")
            if (row["strategy"], row["k"]) == ("window", "2")
        ]
        assert float(again["loss"]) == pytest.approx(float(window["loss"]), rel=1e-6)
    # its numbers are answered for like those of `everything`
    configuration = Path("config/run.yaml")
    verified = verify(Path("results/pico"), ["strategies"], repository.root, configuration)
    assert not verified.faults and len(verified.numbers) > 30
    # a model of several groups stores as many sublayers fewer as one of a window
    removed = {
        json.loads(file.read_text())["n_sublayers_removed"]
        for file in repository.results.glob("gpt2/models/permute-k2-middle-*/test.json")
        if "int8" not in str(file)
    }
    assert removed == {1}
