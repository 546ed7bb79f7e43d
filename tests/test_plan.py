"""The plan of a whole run: the DAG behind it, the arithmetic of a job, schedules, and the table."""

import csv
import dataclasses
import json
import re
import resource
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from experiment.config import KINDS
from experiment.config.run import validated
from experiment.planning.estimates import ESTIMATES, Subject, estimate
from experiment.planning.estimates.alignment import assignment_seconds
from experiment.planning.estimates.models import forward_flop, windows_of_text
from experiment.planning.plan import Plan, costed
from experiment.planning.rates import Rates, read_shapes
from experiment.planning.report import duration, rows, text
from experiment.planning.simulation import (
    Step,
    longest_path,
    peak,
    schedule,
    seconds_to_the_end,
    total_seconds,
)
from provenance.dag import PlannedJob, dry_run, in_order, paths
from workflow_copy import COPIED, REPOSITORY, SHARED

CONFIGURATION = yaml.safe_load((REPOSITORY / "config/paper.yaml").read_text())
PAPER = validated(CONFIGURATION)
RATES = Rates(REPOSITORY / "config/planning/rates.yaml")
SHAPES = read_shapes(REPOSITORY / "config/paper_reported/models.csv")
GPT2, VIT, MARIAN = (SHAPES[task.base_model.repository] for task in PAPER.tasks.values())

# --- schedules ------------------------------------------------------------------------------------

#   0 ─ 1 ─┬─ 2 ─┬─ 5        0, 5 on a core, the others on a GPU
#          ├─ 3 ─┤
#          └─ 4 ─┘
DIAMOND = [
    Step(5),
    Step(10, 1, after=(0,)),
    Step(30, 1, after=(1,)),
    Step(20, 1, after=(1,)),
    Step(10, 1, after=(1,)),
    Step(1, after=(2, 3, 4)),
]


def time_on(steps: list[Step], n_gpus: int, n_cores: int = 4) -> float:
    return total_seconds(steps, schedule(steps, n_gpus, n_cores))


def test_the_longest_path_is_the_one_with_the_most_seconds():
    assert seconds_to_the_end(DIAMOND) == [46, 41, 31, 21, 11, 1]
    assert longest_path(DIAMOND) == [0, 1, 2, 5]


def test_with_one_gpu_the_time_is_the_sum_of_all_gpu_seconds():
    on_gpu = [dataclasses.replace(step, n_gpus=1) for step in DIAMOND]
    assert time_on(on_gpu, 1) == sum(step.seconds for step in DIAMOND)
    assert time_on(DIAMOND, 1) == 5 + (10 + 30 + 20 + 10) + 1


def test_with_two_gpus_the_longest_of_the_ready_jobs_goes_first():
    assert schedule(DIAMOND, 2, 4) == [0, 5, 15, 15, 35, 45]


def test_more_gpus_are_never_slower_here_and_enough_of_them_take_the_longest_path():
    times = [time_on(DIAMOND, n) for n in (1, 2, 3, 32)]
    assert times == sorted(times, reverse=True)
    assert times[2:] == [46, 46]


def test_nothing_starts_before_what_it_waits_for_or_where_nothing_is_free():
    steps = [Step(3 + i % 5, i % 4 % 3, 1 + i % 3, (i - 4,) if i > 3 else ()) for i in range(40)]
    started = schedule(steps, 2, 4)
    ended = [begin + step.seconds for begin, step in zip(started, steps, strict=True)]
    for i, step in enumerate(steps):
        assert all(ended[before] <= started[i] for before in step.after)
    for moment in started:
        now = [s for s, a, b in zip(steps, started, ended, strict=True) if a <= moment < b]
        assert sum(step.n_gpus for step in now) <= 2
        assert sum(step.threads for step in now if not step.n_gpus) <= 4


def test_a_job_with_more_threads_than_there_are_cores_has_them_all():
    assert time_on([Step(2, threads=8), Step(3)], 1, 4) == 5


def test_a_job_with_more_gpus_than_there_are_is_an_error():
    with pytest.raises(ValueError, match="asks for 2 GPUs of 1"):
        schedule([Step(1, 2)], 1, 1)


def test_training_on_several_gpus_asks_for_them_and_takes_less_time():
    task = {"fine_tuning": {"devices": 4}}
    one, four = (
        subject("fine_tune", "vit", {"device": "cuda", "task": of}, model="drop-k2-best")
        for of in ({}, task)
    )
    assert (one.job.n_gpus, four.job.n_gpus) == (1, 4)
    assert 3 < estimate(one).seconds / estimate(four).seconds < 4


def test_jobs_that_wait_for_each_other_are_an_error():
    with pytest.raises(ValueError, match="circle"):
        schedule([Step(1, after=(1,)), Step(1, after=(0,))], 1, 1)


def test_the_peak_is_the_highest_sum_and_what_is_freed_counts_first():
    assert peak([(0, 5), (2, -5), (2, 4), (1, 1)]) == 6


# --- the DAG --------------------------------------------------------------------------------------


def planned(rule: str, task: str | None = None, **wildcards: str) -> PlannedJob:
    of = {"results": "results", **({"task": task} if task else {}), **wildcards}
    return PlannedJob(rule, of, {}, {}, {})


def test_a_job_waits_for_those_that_make_what_it_reads():
    first, second = planned("first"), planned("second")
    first = dataclasses.replace(first, outputs={"a": "x", "b": ["y", "z"]})
    second = dataclasses.replace(second, inputs={"c": ["z", "config/file"]}, outputs={"d": "w"})
    jobs = in_order([second, first])
    assert [(job.rule, job.after) for job in jobs] == [("first", ()), ("second", (0,))]


def test_a_dry_run_that_fails_says_why(monkeypatch):
    monkeypatch.chdir(REPOSITORY)
    with pytest.raises(RuntimeError, match=r"(?s)dry run of everything failed.*tasks"):
        dry_run({"results": "results", "tasks": {}})


# --- the arithmetic of one job --------------------------------------------------------------------


def subject(rule: str, task: str, params: dict | None = None, **wildcards: str) -> Subject:
    job = dataclasses.replace(planned(rule, task, **wildcards), params=params or {}, threads=2)
    settings = PAPER.tasks[task]
    return Subject(job, settings, SHAPES[settings.base_model.repository], RATES)


def test_shapes_are_those_of_the_models():
    assert (GPT2.n_layers, GPT2.d_model, GPT2.d_ff) == (36, 1280, 5120)
    assert GPT2.rest == (50257 + 1024 + 2) * 1280  # embeddings and the last layer norm
    assert VIT.n_towers == 1 and MARIAN.n_towers == 2
    assert MARIAN.rest == 65001 * 512 + 2 * 262144


@pytest.mark.parametrize("shape", [GPT2, VIT, MARIAN], ids=["gpt2", "vit", "marian"])
def test_models_are_as_large_as_what_they_store(shape):
    assert shape.feed_forward == 2 * shape.d_model * shape.d_ff + shape.d_ff + shape.d_model
    removed = shape.parameters - shape.stored("permute-k3-first-best-int8")
    assert removed == 2 * shape.n_towers * shape.feed_forward
    assert shape.parameters - shape.stored("drop-k2-best") == 2 * sum(shape.layer)
    assert shape.stored("base") == shape.stored("base-tuned") == shape.parameters


def test_a_merged_model_computes_what_it_did_and_a_dropped_one_less():
    assert GPT2.computed("vanilla-k36-first-best") == GPT2
    dropped = GPT2.computed("drop-k12-best")
    assert (dropped.n_layers, dropped.rest) == (24, GPT2.rest)
    assert forward_flop(dropped, 1, 1024) < forward_flop(GPT2, 1, 1024)


def test_a_forward_pass_takes_two_flop_a_parameter_and_position_and_attention():
    assert forward_flop(GPT2, 10, 0) == 10 * 2 * GPT2.parameters
    # 17.6e9 multiplications an image is the published cost of ViT-B/16 at 224 × 224
    assert forward_flop(VIT, 197, 197) / 2 == pytest.approx(17.6e9, rel=0.02)


@pytest.mark.parametrize(
    ("task", "n_bytes"),
    [
        ("gpt2", 36 * 10_000 * 5120 * 4),
        ("vit", 12 * 10_000 * 3072 * 4),
        ("marian", 12 * 10_000 * 2048 * 4),
    ],
)
def test_features_are_float32_of_every_layer_token_and_neuron(task, n_bytes):
    assert estimate(subject("collect_features", task)).outputs["features"] == n_bytes


def test_outputs_are_float32_of_both_sublayers():
    found = estimate(subject("collect_outputs", "gpt2"))
    assert found.outputs["outputs"] == 2 * 36 * 10_000 * 1280 * 4


def test_weights_are_float32_and_int8_ones_a_byte_in_the_layers():
    model = "permute-k13-first-best"
    tuned = estimate(subject("fine_tune", "gpt2", model=model))
    assert tuned.outputs["model"] == 4 * (GPT2.parameters - 12 * GPT2.feed_forward)
    # weights and two moments, twice, and the best weights
    assert tuned.scratch == (3 + 3 + 1) * tuned.outputs["model"]
    int8 = estimate(subject("quantize", "gpt2", variant=model)).outputs["model"]
    # Table 4's own arithmetic for GPT-2: 22.05 % of the float32 model
    assert int8 / (4 * GPT2.parameters) == pytest.approx(0.2205, abs=0.002)


def test_alignment_solves_every_pair_of_every_tower_once():
    found = estimate(subject("align_feed_forwards", "gpt2"))
    assert found.outputs["permutations"] == 630 * 5120 * 4
    a_pair = 2 * 10_000 * 5120**2 / RATES["matrix_product"] + 10_000 * 5120 / RATES["centring"]
    a_pair += RATES["assignment"][5120] / 2
    assert found.seconds == pytest.approx(630 * a_pair)
    assert (
        estimate(subject("align_feed_forwards", "marian")).outputs["permutations"] == 30 * 2048 * 4
    )


def test_an_assignment_takes_what_was_measured_or_grows_with_the_cube():
    assert assignment_seconds({2048: 0.3, 5120: 3.3}, 5120) == 3.3
    assert assignment_seconds({2048: 0.3, 5120: 3.3}, 10240) == 8 * 3.3


def test_text_is_scored_in_as_many_windows_as_by_the_evaluation_itself():
    from experiment.evaluation.perplexity import sliding_windows

    for n_tokens in (2, 1023, 1024, 1025, 1536, 1537, 287644):
        assert windows_of_text(n_tokens, 1024, 512) == len(sliding_windows(n_tokens, 1024, 512))


def test_tuning_grows_with_its_steps_and_waits_for_images():
    short, long = (subject("fine_tune", "vit", model="drop-k2-best") for _ in range(2))
    tuning = short.task.fine_tuning
    half = tuning.model_copy(update={"max_steps": tuning.max_steps // 2, "evaluate_every": 1500})
    short = dataclasses.replace(short, task=short.task.model_copy(update={"fine_tuning": half}))
    # as many validations, half the steps
    ratio = estimate(long).seconds / estimate(short).seconds
    assert 1.5 < ratio < 2
    assert estimate(long).waiting > 50_000 * 128 / RATES["images"]
    assert estimate(subject("fine_tune", "gpt2", model="base-tuned")).waiting < 2000


def test_a_window_that_is_scored_takes_one_validation():
    one = {"candidates": [["permute", 5, 0]]}
    two = {"candidates": [["permute", 5, 0], ["drop", 2, 3]]}
    seconds = [estimate(subject("score_windows", "vit", p)).seconds for p in (one, two)]
    assert seconds[0] > 50_000 / RATES["images"]
    assert 1.8 < seconds[1] / seconds[0] < 2


def test_retrieval_takes_a_query_and_a_passage_of_each_pair():
    raw = yaml.safe_load((REPOSITORY / "config/examples/minilm.yaml").read_text())["tasks"][
        "minilm"
    ]
    raw["dataset"] = CONFIGURATION["tasks"]["gpt2"]["dataset"]  # whose size is known
    task = KINDS["sentence_retrieval"].model_validate(raw)
    scored = dataclasses.replace(subject("score_test", "gpt2", model="base"), task=task)
    n_texts, length = 2 * task.test.max_examples, task.max_tokens
    arithmetic = forward_flop(GPT2, n_texts * length, length) / RATES["single_precision"]
    tokenizing = n_texts / RATES["sentences"]
    assert estimate(scored).seconds == pytest.approx(arithmetic + tokenizing)
    tuned = dataclasses.replace(subject("fine_tune", "gpt2", model="base-tuned"), task=task)
    one = Subject(tuned.job, task.model_copy(update={"max_tokens": 2 * length}), GPT2, RATES)
    assert estimate(one).gpu_memory > estimate(tuned).gpu_memory
    assert estimate(tuned).waiting > task.fine_tuning.max_steps * 16 / RATES["sentences"]


def test_a_rule_without_an_estimate_is_named():
    with pytest.raises(ValueError, match="rule bake_a_cake has no estimate"):
        estimate(subject("bake_a_cake", "vit"))


def test_a_model_of_unknown_shape_is_named():
    with pytest.raises(ValueError, match=r"no shape of repository openai-community/gpt2-large"):
        costed([planned("fine_tune", "gpt2", model="base-tuned")], PAPER, {}, RATES)


def test_a_run_without_a_gpu_has_no_plan():
    with pytest.raises(ValueError, match="device: cpu"):
        costed([], PAPER.model_copy(update={"device": "cpu"}), SHAPES, RATES)


def test_a_data_set_of_unknown_size_is_named():
    with pytest.raises(ValueError, match=r"data\.some/text has no sizes of train"):
        RATES.split("some/text", "train")


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"unit": None}, "read has no unit"),
        ({"source": "somebody said"}, "source of read: begins with measured, stated, assumed"),
        ({"value": "1.0e9"}, "read is no number: '1.0e9'"),
    ],
)
def test_a_rate_has_a_value_a_unit_and_a_source(tmp_path, change, said):
    content = yaml.safe_load((REPOSITORY / "config/planning/rates.yaml").read_text())
    content["rates"]["read"] |= change
    content["rates"]["read"] = {k: v for k, v in content["rates"]["read"].items() if v is not None}
    (tmp_path / "rates.yaml").write_text(yaml.safe_dump(content))
    with pytest.raises(ValueError, match=re.escape(said)):
        Rates(tmp_path / "rates.yaml")


def test_durations_are_said_in_the_unit_that_fits():
    said = [duration(seconds) for seconds in (30, 5400, 86400, 864000)]
    assert said == ["0.5 min", "1.5 h", "24.0 h", "10.0 days"]


# --- the plan of the paper's own configuration, by the real Snakemake -----------------------------


@pytest.fixture(scope="module")
def repository(tmp_path_factory) -> Path:
    """The repository with no result there yet, and a folder of its own to write to."""
    root = tmp_path_factory.mktemp("plan")
    for name in (*COPIED, *SHARED):
        (root / name).symlink_to(REPOSITORY / name)
    return root


@pytest.fixture(scope="module")
def resolved(repository) -> tuple[list[PlannedJob], float]:
    """The jobs of everything, and the processor seconds that Snakemake took to find them."""
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(repository)
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        found = dry_run(CONFIGURATION)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return found, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


@pytest.fixture(scope="module")
def jobs(resolved) -> list[PlannedJob]:
    return resolved[0]


@pytest.fixture(scope="module")
def plan(jobs) -> Plan:
    return Plan(costed(jobs, PAPER, SHAPES, RATES), RATES)


def test_the_dag_resolves_in_under_5_seconds(resolved):
    assert resolved[1] < 5  # of the processor, for others may be at work on it


def test_every_rule_of_the_dag_has_an_estimate(jobs):
    assert {job.rule for job in jobs} <= set(ESTIMATES)


def test_every_output_has_one_maker_and_every_input_too_or_is_a_file_of_the_repository(jobs):
    made = [path for job in jobs for path in paths(job.outputs)]
    assert len(made) == len(set(made))
    read = {path for job in jobs for path in paths(job.inputs)} - set(made)
    assert read and all((REPOSITORY / path).is_file() for path in read)


def test_jobs_come_after_what_they_wait_for(jobs):
    assert all(before < i for i, job in enumerate(jobs) for before in job.after)


def test_the_plan_has_a_row_for_each_rule_and_counts_every_job_and_hour(plan, jobs):
    table = rows(plan)
    assert [row["rule"] for row in table] == list(dict.fromkeys(job.rule for job in jobs))
    assert sum(row["jobs"] for row in table) == len(jobs)
    seconds = sum(job.seconds * job.job.n_gpus for job in plan.jobs)
    assert sum(row["gpu_hours"] for row in table) == pytest.approx(seconds / 3600, abs=0.1)
    by_rule = {row["rule"]: row for row in table}
    assert by_rule["fine_tune"]["runs_on"] == "GPU"
    assert by_rule["align_feed_forwards"]["runs_on"] == "CPU"
    assert by_rule["collect_features"]["disk_gb"] == pytest.approx(9.83, abs=0.01)
    assert all(row["gpu_waiting_hours"] <= row["gpu_hours"] for row in table)


def test_the_time_is_between_the_longest_path_and_all_gpu_hours_one_after_the_other(plan):
    path = sum(job.seconds for job in plan.longest_path())
    times = [plan.run(n).seconds for n in (1, 8, 32, 1000)]
    assert times == sorted(times, reverse=True)
    assert times[-1] == pytest.approx(path)
    on_gpu = sum(job.seconds * job.job.n_gpus for job in plan.jobs)
    assert on_gpu <= times[0] <= on_gpu + 24 * 3600


def test_what_is_on_disk_at_the_end_is_what_was_made(plan):
    run, made = plan.run(1), sum(plan.disk().values())
    scratch = max(job.estimate.scratch for job in plan.jobs)
    assert made <= run.peak_kept <= made + scratch
    assert run.peak <= run.peak_kept


def test_temporary_outputs_make_room_when_the_last_job_has_read_them(plan):
    run = plan.run(1)  # of paper.yaml, where compressed models are temporary
    assert run.peak < run.peak_kept


def test_the_text_says_the_totals_and_every_rate_with_its_source(plan):
    said = text(plan)
    assert f"{len(plan.jobs)} jobs" in said
    for name, entry in RATES.entries.items():
        assert f"{name} = " in said and entry["source"].split(";")[0] in said


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
