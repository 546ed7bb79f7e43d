"""`ffmerge audit` draws numbers so that each job has its chance, and says what follows for all."""

import json
import os
import shutil
import signal
import subprocess
import sys
from itertools import takewhile
from pathlib import Path

import pytest
from scipy.stats import beta

import small_run
from experiment.cli import main
from provenance.audit.command import Population, upper_bound
from provenance.records import Records

REPOSITORY = Path(__file__).parents[2]


@pytest.fixture
def population(tmp_path, monkeypatch) -> Population:
    """The numbers of a run of four jobs: a window that two make, and a score that three make."""
    small_run.write(tmp_path)
    monkeypatch.chdir(tmp_path)
    return Population(Records())


@pytest.mark.parametrize("n", [1, 3, 5, 59, 1500])
def test_without_failures_the_bound_is_in_closed_form(n):
    assert upper_bound(0, n) == pytest.approx(1 - 0.05 ** (1 / n))


@pytest.mark.parametrize(("failures", "n"), [(1, 5), (4, 5), (2, 40), (700, 1500)])
def test_with_failures_it_is_the_one_of_clopper_and_pearson(failures, n):
    assert upper_bound(failures, n) == pytest.approx(beta.ppf(0.95, failures + 1, n - failures))


def test_if_all_fail_all_may_be_wrong():
    assert upper_bound(5, 5) == 1


def test_each_job_has_the_same_chance_and_each_number_some(population):
    """Of the 3 jobs one leads to the score alone, two to both: 1/3 + 2/3 * (1/3)/(1/3 + 1/2)."""
    drawn = [number.id for _, number in population.draw(4000, 1)]
    assert set(drawn) == {"table1:1:window", "table1:1:ppl"}
    assert drawn.count("table1:1:ppl") / 4000 == pytest.approx(0.6, abs=0.03)
    assert len(population.by_job) == 3  # not the table's, whose numbers are computed from theirs
    assert population.seconds(set(population.by_job)) == 3


def test_a_seed_draws_the_same_numbers_again_and_another_one_others(population):
    def ids(seed: int) -> list[str]:
        return [number.id for _, number in population.draw(50, seed)]

    assert ids(1) == ids(1) != ids(2)


def test_a_number_that_is_copied_from_the_repository_is_not_drawn(population):
    ledger = Path("results/demo", small_run.LEDGER)
    ledger.write_text(ledger.read_text().replace("results/demo/m/test.json", "config/paper.csv"))
    found = Population(Records())
    assert found.others == ["table1:1:ppl"]
    assert {number.id for _, number in found.draw(20, 1)} == {"table1:1:window"}


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--sample", "0", "--seed", "1"], "0 is not a number of draws"),
        (["--sample", "x", "--seed", "1"], "x is not a number of draws"),
        (["--sample", "3"], "--seed"),
        (["--sample", "3", "--seed", "1"], "at the top of the repository"),
    ],
)
def test_a_request_that_cannot_be_met_is_told(population, arguments, said, capsys):
    try:
        status = main(["audit", *arguments])
    except SystemExit as error:  # of argparse
        status = error.code
    assert status == 2
    assert said in capsys.readouterr().err


def test_nothing_of_a_collected_folder_is_executed(population, capsys):
    Path("left-behind.txt").touch()
    assert main(["audit", "--sample", "1", "--seed", "1"]) == 2
    assert "this folder was collected" in capsys.readouterr().err


@pytest.fixture(scope="module")
def copied(finished, tmp_path_factory) -> Path:
    """A copy of the finished run that tests may change."""
    root = tmp_path_factory.mktemp("audited") / "run"
    return Path(shutil.copytree(finished.root, root, symlinks=True))


@pytest.fixture
def quick(copied, monkeypatch) -> list[str]:
    """Arguments that draw two numbers of few jobs, in the copy."""
    monkeypatch.chdir(copied)
    population = Population(Records(Path("results/pico")))

    def cost(seed: int) -> tuple[bool, float]:
        jobs = set().union(*(made.jobs for made, _ in population.draw(2, seed)))
        return len(jobs) == 1, population.seconds(jobs)

    seed = min(range(200), key=cost)
    return ["audit", "--sample", "2", "--seed", str(seed), "--configfile", "config/run.yaml"]


@pytest.mark.slow
def test_the_sample_comes_out_again_and_the_report_says_what_follows(quick, copied, capfd):
    status = main([*quick, "--json"])
    printed = capfd.readouterr()
    assert status == 0, printed.err
    found = json.loads(printed.out)
    assert [draw["holds"] for draw in found["draws"]] == [True, True]
    assert found["at_most_wrong"] == pytest.approx(1 - 0.05**0.5)
    times = found["processor_seconds"]
    assert times["for_all_numbers"] > times["now"] > 0 < found["seconds"]
    [folder] = (copied / ".cache/reproduced").glob("audit-2-*")
    assert json.loads((folder / "audit.json").read_text()) == found
    text = (folder / "audit.txt").read_text()
    assert "2 of 2 came out again as their rules promise." in text
    assert "at most 78% of the" in text
    assert main(quick) == 2  # what is there is not overwritten
    assert "--resume" in capfd.readouterr().err


@pytest.mark.long
def test_a_killed_audit_goes_on(quick, copied, capfd):
    arguments = [*quick, "--in", "killed"]
    program = [sys.executable, "-m", "experiment.cli", *arguments]
    environment = os.environ | {"PYTHONPATH": str(REPOSITORY / "workflow")}
    options = {"start_new_session": True, "stderr": subprocess.PIPE, "text": True}
    with subprocess.Popen(program, env=environment, **options) as process:
        list(takewhile(lambda line: "1 of " not in line, process.stderr))  # steps done
        os.killpg(process.pid, signal.SIGKILL)
    kept = {path: path.stat().st_mtime_ns for path in copied.glob("killed/**/*.record.json")}
    assert not (copied / "killed/audit.json").exists()
    assert main([*arguments, "--resume"]) == 0, capfd.readouterr().err
    assert kept and all(path.stat().st_mtime_ns == at for path, at in kept.items())
    assert json.loads((copied / "killed/audit.json").read_text())["failures"] == 0


@pytest.mark.long
def test_a_number_that_is_not_made_again_raises_the_bound(quick, copied, capfd):
    changed = Path("config/changed.yaml")
    changed.write_text(Path("config/run.yaml").read_text().replace("seed: 1", "seed: 2"))
    status = main([*quick[:-1], str(changed), "--in", "changed", "--json"])
    found = json.loads(capfd.readouterr().out)
    assert (status, found["failures"]) == (1, 2)
    assert found["at_most_wrong"] == 1
