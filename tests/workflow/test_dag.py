"""The DAG of each configuration has every job exactly once."""

import json
import re
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest
import yaml

from provenance.dag import dry_run
from provenance.digest import sha256_of
from workflow_copy import COPIED, REPOSITORY, Copy

JOB = (  # rule, and wildcards if it has any
    r"^(?:local)?rule (\w+):\n(?:    .*\n)*?    jobid: .*\n"
    r"(?:    (?!wild).*\n)*(?:    wildcards: (.*)\n)?"
)


def planned(folder: Path, configuration: Path, target: str) -> list[str]:
    """Rule and wildcards of every job that makes a target in a folder without results."""
    for name in COPIED:
        (folder / name).symlink_to(REPOSITORY / name)
    command = [sys.executable, "-m", "snakemake", target, "--dry-run", "--cores", "2"]
    printed = subprocess.run(
        [*command, "--configfile", configuration, "--quiet", "host"],
        cwd=folder,
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    found = re.findall(JOB, printed, re.MULTILINE)
    return [f"{rule} {wildcards}".strip() for rule, wildcards in found]


# uncompressed models; those of a ratio, for each task, method and further seed
TUNED_AS_WELL = {"demo": 3 + 3 * 2 * 2, "paper": 1}


@pytest.fixture(scope="module", params=TUNED_AS_WELL)
def configuration(request) -> str:
    """The name of a configuration."""
    return request.param


@pytest.fixture(scope="module")
def jobs(configuration, tmp_path_factory) -> list[str]:
    """Rule and wildcards of every job of `everything`, without any results yet."""
    folder = tmp_path_factory.mktemp(configuration)
    return planned(folder, REPOSITORY / f"config/{configuration}.yaml", "everything")


def test_no_job_is_planned_twice(jobs):
    assert [job for job, n in Counter(jobs).items() if n > 1] == []


def test_a_model_that_several_tables_share_is_made_once(jobs, configuration):
    rules = Counter(job.split()[0] for job in jobs)
    # per task: two methods x three ratios, three random windows, two more anchors, two layer drops
    assert rules["fine_tune"] == 3 * (6 + 3 + 2 + 2) + TUNED_AS_WELL[configuration]
    assert rules["compress"] == 3 * (6 + 3 + 2)
    assert rules["drop_layers"] == 3 * 2
    assert rules["quantize"] == rules["compute_cka"] == rules["measure_cost"] == 3
    # every tuned model, every base model, every quantized model
    assert rules["score_test"] == rules["fine_tune"] + 3 + 3
    assert rules["score_untuned"] == 3 * 4  # windows of Table 2


def test_common_inputs_of_all_models_are_computed_once_for_each_task(jobs):
    rules = Counter(job.split()[0] for job in jobs)
    once = ("collect_features", "collect_outputs", "align_feed_forwards", "list_windows")
    assert {rule: rules[rule] for rule in once} == dict.fromkeys(once, 3)
    assert rules["tokenize_text"] == 1
    assert not rules["align_other_pairs"]


@pytest.mark.parametrize(
    "model",
    [
        "permute-k5-first-correlation",
        pytest.param("permute-k7-last-best", marks=pytest.mark.long),
    ],
)
def test_groups_and_further_anchors_have_all_pairs_aligned(model, tmp_path):
    target = f"results/demo/gpt2/models/{model}/compressed"
    jobs = planned(tmp_path, REPOSITORY / "config/demo.yaml", target)
    rules = Counter(job.split()[0] for job in jobs)
    assert rules["align_feed_forwards"] == rules["align_other_pairs"] == 1


ONE_MODEL = {  # configuration, model -> jobs that score, by the windows that decide it
    "a job for each window": (
        ("paper.yaml", "results/gpt2/models/vanilla-k13-first-best"),
        {"score_windows": 24, "select_windows": 1},
    ),
    "a job for each window of layers": (
        ("paper.yaml", "results/vit/models/drop-k2-best"),
        {"score_layer_drops": 11, "select_layer_drops": 1},
    ),
    "a job for each ratio and method": (
        ("examples/gated.yaml", "results/gated/llama/models/vanilla-k5-first-best"),
        {"score_windows": 1, "select_windows": 1},
    ),
}


@pytest.mark.parametrize(("wanted", "scoring"), ONE_MODEL.values(), ids=ONE_MODEL)
def test_one_model_needs_only_the_scores_that_decide_its_window(wanted, scoring, tmp_path):
    configuration, model = wanted
    jobs = planned(tmp_path, REPOSITORY / "config" / configuration, f"{model}/compressed")
    rules = Counter(job.split()[0] for job in jobs)
    found = {rule: n for rule, n in rules.items() if rule.startswith(("score", "select", "list"))}
    assert found == scoring
    if configuration == "examples/gated.yaml":
        (scores,) = (job for job in jobs if job.startswith("score_windows"))
        assert "part=permute-k5" in scores  # the method that selects for both


def test_windows_are_scored_by_search_where_the_tuned_model_is_validated_otherwise():
    paper = yaml.safe_load((REPOSITORY / "config/paper.yaml").read_text())
    targets = [
        f"results/gpt2/{file}"
        for file in ("windows.csv", "layer_drops.csv", "models/base-tuned/tuned")
    ]
    used = {
        job.rule: job.params["task"] for job in dry_run(paper, *targets) if "task" in job.params
    }
    for rule in ("score_windows", "score_layer_drops"):
        validation = used[rule]["validation"]
        assert (validation["stride"], validation["join"]) == (512, "blank_lines")
    tuning = used["fine_tune"]
    assert (tuning["validation"]["stride"], tuning["validation"]["join"]) == (1023, "nothing")
    assert tuning["join"] == used["tokenize_text"]["join"] == "nothing"


@pytest.fixture(scope="module")
def params_of_pico() -> dict[tuple[str, str], dict]:
    """Rule and task -> the parameters of its job in a pico run whose tasks differ."""
    pico = yaml.safe_load((REPOSITORY / "config/pico.yaml").read_text())
    pico["tasks"]["vit"]["merge"]["methods"] = ["vanilla"]
    for task in pico["tasks"].values():
        train = task["dataset"]["train"]
        train["sha256"] = sha256_of(REPOSITORY / train["path"])
    pico["tasks"]["vit"]["features"]["aligned"] = "up"
    pico["tasks"]["marian"]["fine_tuning"]["select_by"] = "loss"
    tables = [f"results/pico/tables/{name}.csv" for name in ("table1", "strategies")]
    figures = [f"results/pico/{task}/cka.csv" for task in pico["tasks"]]
    jobs = dry_run(pico, *tables, *figures)
    return {(job.rule, job.wildcards.get("task", "")): job.params for job in jobs}


def test_groups_are_scored_by_the_method_that_selects(params_of_pico):
    methods = {task: params_of_pico["score_groups", task]["method"] for task in ("gpt2", "vit")}
    assert methods == {"gpt2": "permute", "vit": "vanilla"}


def test_a_base_model_is_trained_again_for_other_content_of_its_train_split(params_of_pico):
    images = sha256_of(REPOSITORY / "resources/demo/data/images/validation.parquet")
    assert params_of_pico["train_base_model", "vit"]["inputs"]["train"] == images
    # its recipe has other data
    assert "train" not in params_of_pico["train_base_model", "marian"]["inputs"]


def test_only_what_reads_them_depends_on_the_values_aligned_and_the_number_of_positions(
    params_of_pico,
):
    rules = {"collect_features": {"aligned", "n_tokens"}, "collect_outputs": {"n_tokens"}}
    for rule, read in (rules | {"measure_cost": set()}).items():
        given = params_of_pico[rule, "vit"]["task"]["features"]
        assert given.keys() & {"aligned", "n_tokens"} == read
        assert given.keys() >= {"batch_size", "shuffle"}


def test_table_1_knows_which_validation_decides(params_of_pico):
    tasks = params_of_pico["make_table1", ""]["tasks"]
    found = {name: task["select_by"] for name, task in tasks.items()}
    assert found == {"gpt2": "score", "vit": "score", "marian": "loss"}


def smallest(config: dict) -> dict:
    """The configuration without the ratios, method, baseline and seeds that can be left out."""
    config.pop("further_seeds", None)
    config.pop("further_seeds_at", None)
    for task in config["tasks"].values():
        task["merge"] |= {"k": {"third": task["merge"]["k"]["third"]}, "methods": ["permute"]}
        del task["layer_drop"]
        del task["windows"]
    return config


def test_ratios_methods_and_layer_drop_are_left_out_if_they_are_not_configured(tmp_path):
    file = tmp_path / "smallest.yaml"
    demo = yaml.safe_load((REPOSITORY / "config/demo.yaml").read_text())
    file.write_text(yaml.safe_dump(smallest(demo)))
    (tmp_path / "run").mkdir()
    jobs = planned(tmp_path / "run", file, "everything")
    assert not [job for job in jobs if "vanilla" in job or "drop-k" in job or "k7" in job]
    rules = Counter(job.split()[0] for job in jobs)
    # per task: the best window, three random ones, two more anchors, and the base model
    assert rules["fine_tune"] == 3 * (6 + 1)
    # the base model's own score is one of Table 1's
    assert rules["score_layer_drops"] == rules["score_windows"] == 3


@pytest.fixture(scope="module")
def of_one_seed(tmp_path_factory) -> Counter:
    """The jobs of the demo without further seeds."""
    folder = tmp_path_factory.mktemp("one")
    return Counter(planned(folder, with_seeds(folder / "one.yaml", [], None), "everything"))


def with_seeds(file: Path, seeds: list[int], at: list[str] | None) -> Path:
    """Write the demo's configuration with further seeds, and return the file."""
    demo = yaml.safe_load((REPOSITORY / "config/demo.yaml").read_text())
    file.write_text(yaml.safe_dump(demo | {"further_seeds": seeds, "further_seeds_at": at}))
    return file


@pytest.mark.parametrize(
    ("at", "n_ratios"),
    [
        pytest.param(None, 3, marks=pytest.mark.long),
        (["all", "third"], 2),
        pytest.param(["half"], 1, marks=pytest.mark.long),
    ],
)
def test_further_seeds_tune_models_of_table_5_again_and_make_nothing_else(
    tmp_path, of_one_seed, at, n_ratios
):
    file = with_seeds(tmp_path / "three.yaml", [2, 3], at)
    of_three = Counter(planned(tmp_path, file, "everything"))
    further = Counter(job.split()[0] for job in of_three - of_one_seed)
    models = 3 * n_ratios * 2 * 2  # tasks, ratios, methods, seeds
    assert further == {"fine_tune": models, "score_test": models, "make_seeds": 1}
    assert not of_one_seed - of_three


def test_further_seeds_are_no_part_of_the_main_result(tmp_path):
    jobs = planned(tmp_path, with_seeds(tmp_path / "three.yaml", [2, 3], None), "main")
    assert jobs and not [job for job in jobs if "seed" in job]


@pytest.mark.long
def test_a_run_without_them_makes_every_table_and_figure(tmp_path):
    copy = Copy(tmp_path / "copy", ["gpt2"])
    smallest(copy.config)
    copy.write_config()
    copy.run()
    assert (copy.results / "report.html").exists()
    assert "–" in (copy.results / "tables/table1.csv").read_text()  # no layers were dropped
    listed, one = (
        json.loads((copy.results / f"gpt2/{name}.json").read_text())
        for name in ("selection", "selection/k2")
    )
    assert listed == one
