"""The plan of a run: the table of rates, the longest path, and the plan of the paper's own run."""

import csv
import itertools
import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from experiment.plan import (
    find_rate,
    job_table,
    longest_path,
    minutes_or_hours,
    plan_text,
    rates_for,
    read_rates,
    summarize,
)
from provenance.dag import PlannedJob, dry_run
from workflow_copy import REPOSITORY, Copy

RATES = REPOSITORY / "config/rates.yaml"
PARTS = {"paper": "config/paper.yaml", "demo": "config/demo.yaml"}
OUTSIDE = {  # rules of which `everything` needs none with the base models and data of these parts
    *("fetch_package", "unpack_ilsvrc2012", "convert_dataset", "unpack_base_model"),
    *("train_base_model", "rebuild_data", "build_text", "build_images", "build_translation_pairs"),
    *("measure_alignment", "report_stages", "plan"),
    *("make_strategies", "propose_groups", "score_groups", "make_sizes"),  # asked for by name
}


def configuration(part: str) -> dict:
    """A configuration of `config`, with the keys that add rules."""
    file = PARTS.get(part, f"config/examples/{part}.yaml")
    return yaml.safe_load((REPOSITORY / file).read_text()) | {"further_seeds": [2, 3]}


# --- the longest path -----------------------------------------------------------------------------


def waiting(*after: int) -> PlannedJob:
    return PlannedJob("rule", {}, {}, {}, {}, after=after)


def test_the_longest_path_is_the_one_with_the_most_seconds():
    #   0 ─ 1 ─┬─ 2 ─┬─ 5
    #          ├─ 3 ─┤
    #          └─ 4 ─┘
    diamond = [waiting(), waiting(0), *[waiting(1)] * 3, waiting(2, 3, 4)]
    assert longest_path(diamond, [5, 10, 20, 30, 10, 1]) == [0, 1, 3, 5]


def test_a_job_that_nothing_waits_for_can_be_the_end_of_the_longest_path():
    assert longest_path([waiting(), waiting(0), waiting(0)], [1, 2, 3]) == [0, 2]
    assert longest_path([waiting(), waiting(), waiting(1)], [9, 2, 3]) == [0]


# --- the table of rates ---------------------------------------------------------------------------


def test_a_rate_of_a_split_comes_before_that_of_its_task():
    rates = read_rates(RATES, "paper")
    train = find_rate(rates, "fetch_dataset", "vit", "train")
    assert train.gb > 10 * find_rate(rates, "fetch_dataset", "vit", "validation").gb
    assert find_rate(rates, "fine_tune", "vit", "train") == rates["fine_tune", "vit"]
    assert find_rate(rates, "make_report") == rates["make_report", "all"]


def test_a_rule_or_task_without_a_rate_is_named():
    rates = read_rates(RATES, "paper")
    with pytest.raises(ValueError, match="rule bake_a_cake has no rate for all"):
        find_rate(rates, "bake_a_cake")
    with pytest.raises(ValueError, match="rule fine_tune has no rate for llama"):
        find_rate(rates, "fine_tune", "llama")


@pytest.mark.parametrize("part", PARTS)
def test_a_configuration_is_planned_with_the_rates_of_its_own_base_models(part):
    assert rates_for(configuration(part), RATES) == read_rates(RATES, part)


def test_a_task_of_any_name_has_the_rates_of_its_base_model():
    settings, rates = configuration("paper"), read_rates(RATES, "paper")
    settings["tasks"] = {"mine": settings["tasks"]["gpt2"], "again": settings["tasks"]["gpt2"]}
    mine = rates_for(settings, RATES)
    for task in settings["tasks"]:
        assert find_rate(mine, "fine_tune", task) == rates["fine_tune", "gpt2"]
        assert find_rate(mine, "fetch_dataset", task, "test") == rates["fetch_dataset", "gpt2 test"]
    assert find_rate(mine, "make_table1") == rates["make_table1", "all"]
    assert ("fine_tune", "vit") not in mine


def test_base_models_without_rates_are_named():
    settings = configuration("paper")
    settings["tasks"]["gpt2"]["base_model"]["repository"] = "openai-community/gpt2-xl"
    with pytest.raises(ValueError, match=r"no part for base models .*openai-community/gpt2-xl"):
        rates_for(settings, RATES)


@pytest.mark.parametrize(
    ("change", "at_fault"),
    [
        ({"source": "somebody said"}, "(?s)paper, fine_tune, gpt2.*source"),
        ({"source": None}, "(?s)paper, fine_tune, gpt2.*source"),
        ({"vit": {"seconds": "long", "gb": 1}}, "(?s)paper, fine_tune, vit.*seconds"),
        ({"vit": {"seconds": 1}}, "(?s)paper, fine_tune, vit.*gb"),
    ],
)
def test_a_rate_has_seconds_and_gigabytes_and_says_whether_it_was_measured(
    tmp_path, change, at_fault
):
    content = yaml.safe_load(RATES.read_text())
    content["paper"]["rules"]["fine_tune"] |= change
    (tmp_path / "rates.yaml").write_text(yaml.safe_dump(content))
    with pytest.raises(ValueError, match=at_fault):
        read_rates(tmp_path / "rates.yaml", "paper")


def test_durations_are_in_the_unit_that_fits():
    assert [minutes_or_hours(seconds) for seconds in (30, 5400, 864000)] == [
        "0.5 min",
        "1.5 h",
        "240.0 h",
    ]


# --- plans of the paper's and the demo's configurations, by the real Snakemake --------------------


@pytest.fixture(scope="module")
def repository(tmp_path_factory) -> Path:
    """A copy of the repository, without results."""
    return Copy(tmp_path_factory.mktemp("plan")).root


@pytest.fixture(scope="module")
def jobs(repository) -> dict[str, list[PlannedJob]]:
    return {part: dry_run(configuration(part), root=repository) for part in PARTS}


@pytest.mark.parametrize("part", PARTS)
def test_every_job_has_a_rate_and_every_rate_a_job(part, jobs):
    rates, used = read_rates(RATES, part), set()
    for job in jobs[part]:
        task, split = job.wildcards.get("task", ""), job.wildcards.get("split", "")
        rate = find_rate(rates, job.rule, task, split)
        used |= {key for key, value in rates.items() if value is rate}
    assert used == set(rates)


def test_every_rule_has_a_rate_or_is_known_to_be_outside_of_a_plan():
    rules = {
        rule
        for file in REPOSITORY.glob("**/*.smk")
        for rule in re.findall(r"^rule (\w+):", file.read_text(), re.MULTILINE)
    }
    rated = {rule for part in PARTS for rule, _ in read_rates(RATES, part)}
    # a rule of some figures is named twice, for one and for the rest
    assert {"fine_tune", "make_seeds"} <= rules
    assert rules - rated == OUTSIDE


def test_the_example_with_a_base_model_of_the_paper_is_planned(repository):
    settings = configuration("blank_lines")
    planned = dry_run(settings, root=repository)
    table = job_table(planned, rates_for(settings, RATES))
    assert set(table.task) == {"", "gpt2_blank_lines"} and "make_seeds" in set(table.rule)


def test_the_table_has_a_row_for_each_rule_and_task_and_counts_every_job_and_hour(jobs):
    table = job_table(jobs["paper"], read_rates(RATES, "paper"))
    by_task = summarize(table, ["rule", "task"]).set_index(["rule", "task"])
    assert set(by_task.index) == {
        (job.rule, job.wildcards.get("task", "")) for job in jobs["paper"]
    }
    assert by_task.jobs.sum() == len(jobs["paper"])
    assert by_task.hours.sum() == pytest.approx(table.seconds.sum() / 3600, abs=0.1)
    assert by_task.gb.sum() == pytest.approx(table.gb.sum(), abs=0.1)
    assert by_task.loc[("fine_tune", "vit")].runs_on == "GPU"
    assert by_task.loc[("align_feed_forwards", "gpt2")].runs_on == "CPU"
    features = summarize(table, ["rule"]).set_index("rule").loc["collect_features"]
    assert features.gb == pytest.approx(9.83, abs=0.01)  # float32, every layer, token and neuron


def test_a_rule_s_mean_time_its_number_of_jobs_is_its_hours(jobs):
    table = job_table(jobs["paper"], read_rates(RATES, "paper"))
    for row in summarize(table, ["rule"]).itertuples():
        assert row.hours == pytest.approx(row.jobs * row.mean_seconds / 3600, rel=0.01, abs=2e-3)


@pytest.mark.parametrize("part", PARTS)
def test_each_job_of_the_longest_path_waits_for_the_one_before(part, jobs):
    table = job_table(jobs[part], read_rates(RATES, part))
    path = longest_path(jobs[part], table.seconds)
    assert all(a in jobs[part][b].after for a, b in itertools.pairwise(path))
    assert table.seconds.max() <= table.seconds[path].sum() <= table.seconds.sum()


def test_the_text_has_the_totals_and_tells_measured_from_assumed(jobs):
    rates = read_rates(RATES, "paper")
    table, printed = job_table(jobs["paper"], rates), plan_text(jobs["paper"], rates)
    hours = table.seconds.groupby(table.basis).sum() / 3600
    assert printed.startswith(f"{len(jobs['paper'])} jobs")
    assert f"{hours['measured']:.1f} are measured and {hours['assumed']:.1f} are" in printed
    words = " ".join(printed.split())
    assert all(rate.source in words for rate in rates.values())
    assert "0.0 are assumed" in plan_text(jobs["demo"], read_rates(RATES, "demo"))


def test_only_compressed_models_are_removed_on_the_way(jobs):
    table = job_table(jobs["paper"], read_rates(RATES, "paper"))
    removed = table[table.temporary_gb > 0]
    assert set(removed.rule) == {"compress", "drop_layers"}
    assert removed.temporary_gb.sum() < table.gb.sum()


def test_the_rule_writes_the_table_the_text_and_a_record_beside_existing_results(repository):
    command = [sys.executable, "-m", "snakemake", "results/plan.csv", "--cores", "1"]
    command += ["--configfile", "config/paper.yaml", "--workflow-profile", "none"]
    python = f"{Path(sys.executable).parent}:/usr/bin:/bin"

    def run() -> str:
        done = subprocess.run(
            command, cwd=repository, capture_output=True, text=True, env={"PATH": python}
        )
        assert done.returncode == 0, done.stderr
        return done.stdout + done.stderr

    run()
    with (repository / "results/plan.csv").open(newline="") as file:
        table = list(csv.DictReader(file))
    assert {"fine_tune", "score_windows"} <= {row["rule"] for row in table}
    assert (
        (repository / "results/plan.txt")
        .read_text()
        .startswith(f"{sum(int(r['jobs']) for r in table)} jobs")
    )
    record = json.loads((repository / "results/plan.record.json").read_text())
    assert record["rule"] == "plan" and record["params"]["rules"]
    assert "Nothing to be done" in run()
