"""The paper's tables from hand-made results: the cells and their text."""

import csv
import json
import math
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import pytest
from pandas import DataFrame

from experiment.reported import printed_number, read_reported
from experiment.tables.layout import as_text, write_table
from experiment.tables.scores import Result, read_results, write_results
from experiment.tables.seeds import seeds
from experiment.tables.sizes import sizes
from experiment.tables.strategies import strategies
from experiment.tables.table1 import Measured, table1
from experiment.tables.tables_2_to_5 import printing_of, table2, table3, table4, table5
from experiment.tables.tables_6_to_8 import hyperparameters
from experiment.tables.tested import by_model, read_tests
from provenance import cells
from provenance.cells import Interval, Printed

REPORTED = sorted((Path(__file__).parents[3] / "config/paper_reported").glob("*.csv"))


def unprinted(result: Result, quantity: str) -> None:
    """Print nothing for any result."""


def texts(table: DataFrame) -> list[dict[str, str]]:
    """The rows of a table as they are shown."""
    return table.map(str).to_dict("records")


# --- Tables 2 and 3 -------------------------------------------------------------------------------


def test_table_2_has_a_row_for_each_model_and_a_column_for_each_window(result):
    rows = table2(
        [
            result("permute-k5-first-random2", 18.04),
            result("permute-k5-first-best", 17.06),
            result("permute-k5-first-random1", 123.45),
            result("permute-k5-first-random3", 21.0),
            result("permute-k5-first-best", 81.96, "vit"),
        ],
        unprinted,
    )
    assert texts(rows) == [
        {
            "Model": "GPT-2",
            "Metric": "PPL↓",
            "Best pre-tune": "17.1",
            "Random 1": "123.5",
            "Random 2": "18.0",
            "Random 3": "21.0",
        },
        {  # random windows that a model does not have leave their cells empty
            "Model": "ViT",
            "Metric": "Accuracy (%) ↑",
            "Best pre-tune": "82.0",
            "Random 1": "",
            "Random 2": "",
            "Random 3": "",
        },
    ]


def test_table_3_has_a_column_for_each_anchor(result):
    scores = {"last": 34.0, "first": 35.04, "middle": 34.96}
    results = [result(f"permute-k3-{a}-best", s, "marian") for a, s in scores.items()]
    rows = table3(results, unprinted)
    assert texts(rows) == [
        {
            "Model": "OPUS-MT",
            "Metric": "BLEU↑",
            "Anchor First": "35.0",
            "Anchor Middle": "35.0",
            "Anchor Last": "34.0",
        }
    ]
    assert list(rows)[2:] == ["Anchor First", "Anchor Middle", "Anchor Last"]


# --- Table 4 --------------------------------------------------------------------------------------


def test_table_4_has_merged_and_int8_models_with_measured_and_computed_compression(
    result, tmp_path
):
    sizes = {
        "merged_percent": 78.21,
        "merged_computed_percent": 78.18,
        "measured_percent": 20.64,
        "computed_percent": 20.01,
    }
    (tmp_path / "storage.json").write_text(json.dumps(sizes))
    rows = table4(
        [
            result("permute-k5-first-best-int8", 80.04, "vit"),
            result("permute-k5-first-best", 80.26, "vit"),
        ],
        {"vit": tmp_path / "storage.json"},
        unprinted,
    )
    assert texts(rows) == [
        {
            "Model": "ViT",
            "Metric": "Accuracy (%) ↑",
            "Compression": "78.2 %",
            "Performance": "80.3",
            "Computed": "78.2 %",
            "+LLM.int8() Compression": "20.6 %",
            "+LLM.int8() Performance": "80.0",
            "+LLM.int8() Computed": "20.0 %",
        }
    ]


# --- Table 5 --------------------------------------------------------------------------------------


def test_table_5_has_a_row_for_each_window_after_the_uncompressed_model(result):
    all_layers = {"first_layer": 0, "last_layer": 11, "sublayers_removed": 11}
    rows = table5(
        [
            result("base-tuned", 14.168),
            result("permute-k5-first-best", 15.111),
            result("vanilla-k5-first-best", 15.999),
            result("permute-k12-first-best", 150.0, **all_layers),
            result("vanilla-k12-first-best", 177.9, **all_layers),
        ],
        unprinted,
    )
    assert [list(row.values()) for row in texts(rows)] == [
        ["GPT-2", "PPL↓", "–", "0/12", "14.17", "14.17"],
        ["GPT-2", "PPL↓", "3-7", "4/12", "16.00", "15.11"],
        ["GPT-2", "PPL↓", "0-11", "11/12", "177.90", "150.00"],
    ]
    assert list(rows)[2:] == ["Merged Indices", "FFs Removed", "Vanilla", "Permute"]


def test_table_5_shows_both_towers_and_leaves_methods_that_were_not_run_empty(result):
    rows = table5(
        [
            result("base", 20.66, "marian"),
            result("permute-k3-first-best", 17.44, "marian", first_layer=2, last_layer=4),
        ],
        unprinted,
    )
    assert [list(row.values()) for row in texts(rows)] == [
        ["OPUS-MT", "BLEU↑", "–", "0/12", "20.7", "20.7"],
        ["OPUS-MT", "BLEU↑", "2-4/2-4", "4/12", "", "17.4"],
    ]


def test_two_tasks_with_the_same_window_have_separate_rows(result):
    name = "permute-k5-first-best"
    rows = texts(table5([result(name, 15.0), result(name, 80.0, "vit")], unprinted))
    assert [(row["Model"], row["Permute"]) for row in rows] == [("GPT-2", "15.00"), ("ViT", "80.0")]


# --- what the paper prints ------------------------------------------------------------------------


def printing(table: int):
    """Look up what a table of the paper prints, for tasks of the paper's sizes."""
    ratios = {
        "gpt2": {"third": 13, "half": 19, "all": 36},
        "vit": {"third": 5, "half": 7, "all": 12},
        "marian": {"third": 3, "half": 4, "all": 6},
    }
    tasks = {task: {"ratios": of_task} for task, of_task in ratios.items()}
    given = SimpleNamespace(reported=REPORTED)
    return printing_of(SimpleNamespace(input=given, params=SimpleNamespace(tasks=tasks)), table)


def test_a_score_has_its_interval_and_the_paper_s_number_for_the_same_model(result):
    results = [
        result("base", 88.0, "vit"),
        result("permute-k7-first-best", 87.0, "vit"),
        result("vanilla-k7-first-best", 86.0, "vit"),
        result("permute-k4-first-best", 85.0, "vit", last_layer=6),  # no ratio of the paper
    ]
    base, half, other = table5(results, printing(5)).to_dict("records")
    cell = base["Permute"]
    assert (cell.raw, cell.printed) == (88.0, Printed("80.3", "Table 5"))
    assert cell.interval == Interval(
        87.0, 89.0, 0.95, "bootstrap over 100 test examples, each on its own"
    )
    assert half["Permute"].printed == Printed("76.3", "Table 5")
    assert half["Vanilla"].printed == Printed("75.3", "Table 5")
    assert half["Merged Indices"].printed == Printed("4-10", "Table 5")
    assert half["FFs Removed"].printed == Printed("6/12", "Table 5")
    assert other["Permute"].printed is None


# --- Table 1 --------------------------------------------------------------------------------------

MAIN = "permute-k5-first-best"
MODELS = [MAIN, f"{MAIN}-int8", "drop-k4-best"]
COST = f"""model,ratio,weight_bytes
base,1.0,1000
{MAIN},0.9,800
{MAIN}-int8,1.8,200
drop-k4-best,0.7,650
"""
WINDOWS = "method,k,start,score,loss\npermute,5,3,74.5,4\npermute,5,4,999,9\nvanilla,5,3,999,9\n"
LAYER_DROPS = "method,k,start,score,loss\nbase,0,0,70.0,4\ndrop,4,6,90.25,5\n"
TUNED = {MAIN: 71.5, "drop-k4-best": 68.0}


@pytest.fixture
def measured(tmp_path) -> Callable[..., Measured]:
    """measured(label, metric, tuned, select_by): files with the measurements of a task's models.

    While tuning, the best score is that of step 2, and the best loss that of step 3.
    """

    def made(
        label: str = "GPT-2", metric: str = "perplexity", tuned=TUNED, select_by: str = "score"
    ) -> Measured:
        folder = tmp_path / label
        merged = [{"tower": "decoder", "layers": [3, 4, 5, 6, 7]}]
        dropped = [{"tower": "decoder", "layers": [6, 7, 8, 9]}]
        of = {"base": ([], [], 60.0), MAIN: (merged, [], 61.0), "drop-k4-best": ([], dropped, 62.0)}
        of[f"{MAIN}-int8"] = (merged, [], 60.9)
        tests, curves = {}, {}
        for model in (*of, "base-tuned"):
            (folder / model).mkdir(parents=True)
        for model, (merged, dropped, score) in of.items():
            test = {"metric": metric, "score": score, "merged": merged, "dropped": dropped}
            tests[model] = folder / model / "test.json"
            tests[model].write_text(json.dumps(test))
        for model, score in tuned.items():
            curves[model] = folder / model / "learning_curve.csv"
            worse = score + (1 if metric == "perplexity" else -1)
            scores = f"1,0.5,,,\n1,,,{worse},3\n2,,,{score},2\n3,,,{worse},1\n"
            curves[model].write_text(f"step,loss,learning_rate,score,validation_loss\n{scores}")
        files = {"cost.csv": COST, "windows.csv": WINDOWS, "layer_drops.csv": LAYER_DROPS}
        for name, content in files.items():
            (folder / name).write_text(content)
        paths = (folder / name for name in files)
        return Measured(label, MODELS, *paths, tests, curves, select_by)

    return made


def test_merging_and_pruning_are_measured_against_the_base_model_on_validation_data(measured):
    task = measured()
    merging, pruning = task.numbers(MAIN), task.numbers("drop-k4-best")
    columns = ("Run Time", "Memory", "Score Untuned", "Score Tuned")
    assert [merging[name].raw for name in columns] == [0.9, 0.8, 4.5, 1.5]
    assert [pruning[name].raw for name in columns] == [0.7, 0.65, 20.25, -2.0]


def test_quantization_is_measured_against_the_model_that_was_quantized_on_test_data(measured):
    found = measured().numbers(f"{MAIN}-int8")
    assert (found["Run Time"].raw, found["Memory"].raw) == (2.0, 0.25)
    assert found["Score Untuned"].raw == pytest.approx(-0.1)
    assert found["Score Tuned"] == "–"


def test_tuned_models_are_compared_with_the_tuned_base_model(measured):
    task = measured(tuned=TUNED | {"base-tuned": 67.0})
    changes = [
        (task.numbers(model)["Score Untuned"].raw, task.numbers(model)["Score Tuned"].raw)
        for model in (MAIN, "drop-k4-best")
    ]
    assert changes == [(4.5, 4.5), (20.25, 1.0)]


def test_table_1_has_the_measurements_of_each_method(measured):
    rows = texts(table1([measured(), measured("ViT", "accuracy")]))
    numbers = ("Measured on", "Run Time", "Memory", "Score Untuned", "Score Tuned")
    assert [(row["Method"], *(row[name] for name in numbers)) for row in rows] == [
        ("Quantization", "GPT-2", "×2.00", "×0.25", "-0.10 PPL", "–"),
        ("Quantization", "ViT", "×2.00", "×0.25", "-0.10 %", "–"),
        ("Pruning", "GPT-2", "×0.70", "×0.65", "+20.25 PPL", "-2.00 PPL"),
        ("Pruning", "ViT", "×0.70", "×0.65", "+20.25 %", "-2.00 %"),
        ("Distillation", "–", "–", "–", "–", "–"),
        ("Merging", "GPT-2", "×0.90", "×0.80", "+4.50 PPL", "+1.50 PPL"),
        ("Merging", "ViT", "×0.90", "×0.80", "+4.50 %", "+1.50 %"),
    ]
    assert {row["Training Required"] for row in rows if row["Method"] == "Quantization"} == {"no"}
    assert len({tuple(row) for row in rows}) == 1  # the same columns in all


@pytest.mark.parametrize(("metric", "change"), [("perplexity", 2.5), ("accuracy", 0.5)])
def test_a_tuned_score_is_that_of_the_weights_kept_for_their_loss(metric, change, measured):
    task = measured(metric=metric, select_by="loss")
    assert task.numbers(MAIN)["Score Tuned"].raw == change


def test_no_change_has_no_minus_sign(measured):
    task = measured(tuned={MAIN: 69.999, "drop-k4-best": 70.001})
    changes = [str(task.numbers(model)["Score Tuned"]) for model in (MAIN, "drop-k4-best")]
    assert changes == ["+0.00 PPL", "+0.00 PPL"]


# --- Tables 6 to 8 --------------------------------------------------------------------------------


def record(seed: int = 1, device: str = "cpu", **changes) -> dict:
    """The part of a fine-tuning job's record that the table reads."""
    settings = {
        "learning_rate": 5e-5,
        "schedule": "inverse_sqrt",
        "warmup_steps": 0,
        "timescale": 10_000,
        "decay_steps": None,
        "minimum_learning_rate": 0.0,
        "batch_size": 2,
        "max_steps": 100,
        "evaluate_every": 50,
        "precision": "fp16",
        "weight_decay": 0.0,
        "adam_epsilon": 1e-6,
        "adam_beta2": 0.999,
        "group_by_length": False,
        "max_gradient_norm": 1.0,
        "select_by": "score",
    }
    task = {"kind": "language_modeling", "fine_tuning": settings | changes}
    return {"seed": seed, "params": {"task": task, "device": device}}


def curve(steps: int = 100, rate: str = "4e-05") -> list[dict[str, str]]:
    """A learning curve, whose rows of validations have no learning rate."""
    return [
        {"step": "1", "loss": "3.0", "learning_rate": "5e-05", "score": ""},
        {"step": str(steps), "loss": "2.0", "learning_rate": rate, "score": ""},
        {"step": str(steps), "loss": "", "learning_rate": "", "score": "20.5"},
    ]


@pytest.fixture
def shown(tmp_path) -> Callable[..., dict[str, str]]:
    """shown(records, curves): the name of each setting, and its value as text."""

    def made(records: list[dict], curves: list | None = None) -> dict[str, str]:
        files = []
        for n, (content, points) in enumerate(
            zip(records, curves or [curve() for _ in records], strict=True)
        ):
            files.append((tmp_path / f"{n}.record.json", tmp_path / f"{n}.csv"))
            files[-1][0].write_text(json.dumps(content))
            DataFrame(points).to_csv(files[-1][1], index=False)
        rows = texts(hyperparameters(*zip(*files, strict=True), printing=lambda name: None))
        names = [row["Hyperparameter"] for row in rows]
        assert len(set(names)) == len(names)
        return {row["Hyperparameter"]: row["Value"] for row in rows}

    return made


def test_a_value_that_all_runs_share_stands_alone(shown):
    assert shown([record(), record()]) == {
        "Start LR": "5e-05",
        "LR Schedule": "inverse_sqrt",
        "precision": "fp16",
        "batch size": "2",
        "n_steps": "100",
        "warm-up steps": "0",
        "timescale (steps)": "10000",
        "weight decay": "0",
        "AdamW ε": "1e-06",
        "AdamW β₂": "0.999",
        "gradient clip (norm)": "1",
        "grouped by length": "False",
        "validated every (steps)": "50",
        "best validation by": "score",
        "seed": "1",
        "device": "cpu",
        "steps done": "100",
        "learning rate at the last step": "4e-05",
        "models tuned": "2",
    }


def test_different_values_are_counted_with_the_most_common_first(shown):
    found = shown(
        [record(batch_size=4), record(), record(device="cuda", seed=2)],
        [curve(), curve(80, rate="3e-05"), curve()],
    )
    assert found["batch size"] == "2 (2 of 3), 4 (1 of 3)"
    assert found["device"] == "cpu (2 of 3), cuda (1 of 3)"
    assert found["seed"] == "1 (2 of 3), 2 (1 of 3)"
    assert found["steps done"] == "100 (2 of 3), 80 (1 of 3)"
    assert found["learning rate at the last step"] == "4e-05 (2 of 3), 3e-05 (1 of 3)"
    assert found["models tuned"] == "3"


@pytest.mark.parametrize(
    ("schedule", "used"),
    [
        ("inverse_sqrt", {"timescale (steps)"}),
        ("linear_to_minimum", {"decay_steps", "Min LR"}),
        ("cosine", {"decay_steps", "Min LR"}),
        ("constant", set()),
    ],
)
def test_keys_that_a_schedule_does_not_use_are_omitted(schedule, used, shown):
    found = shown([record(schedule=schedule, decay_steps=80)])
    assert found.keys() & {"timescale (steps)", "decay_steps", "Min LR"} == used


def test_a_key_that_only_some_runs_use_says_how_many(shown):
    cosine = record(schedule="cosine", decay_steps=80, minimum_learning_rate=1e-5)
    found = shown([record(), cosine, record()])
    assert found["Min LR"] == "1e-05 (1 of 3)"
    assert found["timescale (steps)"] == "10000 (2 of 3)"


def test_a_cosine_without_decay_steps_decays_over_all_steps(shown):
    assert shown([record(schedule="cosine")])["decay_steps"] == "100"


@pytest.mark.parametrize(
    ("table", "name", "value"),
    [
        ("6", "learning_rate", "5e-5"),
        ("7", "decay_steps", "20000"),
        ("8", "schedule", "inverse_sqrt"),
    ],
)
def test_a_printed_setting_is_written_as_in_the_configuration(table, name, value):
    reported = read_reported(REPORTED)
    found = partial(printed_number, reported, "hyperparameters", table)
    assert found(name=name) == Printed(value, f"Table {table}")
    assert found(name="weight_decay") is None


# --- strategies -----------------------------------------------------------------------------------


def test_strategies_are_listed_by_ratio_with_their_groups_and_scores(result, tmp_path):
    proposed = {
        "5": {"window": [[3, 7]], "correlation": [[0, 2], [4, 5]], "cka": [[8, 9, 10]]},
        "7": {"window": [[0, 1]], "correlation": [[0, 1]], "cka": [[1, 3]]},
    }
    groups = {
        k: {strategy: {"decoder": layers} for strategy, layers in of_k.items()}
        for k, of_k in proposed.items()
    }
    (tmp_path / "groups.json").write_text(json.dumps(groups))
    untuned = [(s, k) for k in proposed for s in ("window", "correlation", "cka")]
    lines = "".join(f"{s},{k},{n}.126,1\n" for n, (s, k) in enumerate(untuned))
    (tmp_path / "groups.csv").write_text(f"strategy,k,score,loss\n{lines}")
    table = strategies(
        [
            result("base-tuned", 14.0),
            result("permute-k5-first-best", 15.111),
            result("permute-k5-first-cka", 16.0),
        ],
        {"gpt2": (tmp_path / "groups.json", tmp_path / "groups.csv")},
        {"gpt2": {"third": 5, "half": 7, "all": 12}},
    )
    rows = texts(table)
    assert {(row["Model"], row["Metric"]) for row in rows} == {("GPT-2", "PPL↓")}
    columns = ("FFs Removed", "Strategy", "Merged", "Untuned", "Tuned")
    assert [tuple(row[column] for column in columns) for row in rows] == [
        ("–", "–", "–", "–", "14.00"),
        ("1/3", "window search", "3+7", "0.13", "15.11"),
        ("1/3", "clusters by aligned correlation", "0+2, 4-5", "1.13", "–"),
        ("1/3", "clusters by CKA", "8-10", "2.13", "16.00"),
        ("1/2", "window search", "0-1", "3.13", "–"),
        ("1/2", "clusters by aligned correlation", "0-1", "4.13", "–"),
        ("1/2", "clusters by CKA", "1+3", "5.13", "–"),
    ]


# --- sizes ----------------------------------------------------------------------------------------


def test_sizes_are_listed_before_and_after_tuning_with_paired_intervals(result):
    variants = ["permute-k5-first-best", "vanilla-k5-first-best", "drop-k2-best"]
    untuned = [result("base", 15.0), *(result(v, 40.0 + n) for n, v in enumerate(variants))]
    tuned = [result("base-tuned", 14.0), *(result(v, 20.0 + n) for n, v in enumerate(variants))]
    table = sizes(untuned, tuned)
    shown = [[str(cell) for cell in row.values()][2:] for row in table.to_dict("records")]
    assert shown == [
        ["uncompressed", "–", "0.0", "15.00", "–", "–", "14.00", "–", "–"],
        ["merged, aligned", "3-7", "0.0", "40.00", "39.50", "40.50", "20.00", "19.50", "20.50"],
        ["merged, averaged", "3-7", "0.0", "41.00", "40.50", "41.50", "21.00", "20.50", "21.50"],
        ["layers dropped", "3-7", "0.0", "42.00", "41.50", "42.50", "22.00", "21.50", "22.50"],
    ]
    files = {source.file for source in table.loc[1, "Tuned High"].sources}
    assert files == {r.file.with_suffix(".csv") for r in (tuned[0], tuned[1])}


# --- seeds ----------------------------------------------------------------------------------------


def test_gains_are_of_the_same_seed_and_positive_where_permuting_is_better(result):
    permuted = {1: 15.0, 2: 15.5, 7: 15.1}
    averaged = {1: 16.0, 2: 16.3, 7: 16.4}
    tuned = [
        result(f"{method}-k5-first-best{'' if seed == 1 else f'-seed{seed}'}", score, seed=named)
        for method, scores in (("vanilla", averaged), ("permute", permuted))
        for seed, score in scores.items()
        for named in [None if seed == 1 else seed]
    ]
    bleu = [
        result(f"{method}-k3-first-best{end}", score, "marian", seed=seed)
        for method, of_seeds in (("permute", (20.0, 21.0, 22.0)), ("vanilla", (19.0, 21.5, 20.0)))
        for (end, seed), score in zip(
            [("", None), ("-seed2", 2), ("-seed7", 7)], of_seeds, strict=True
        )
    ]
    ratios = {"gpt2": {"third": 5}, "marian": {"third": 3}}
    tested = [replace(each, loss=each.score / 8) for each in (*tuned, *bleu)]
    rows = texts(seeds(tested, ratios, seed=1, confidence=0.95))
    columns = ("Model", "What", "Seeds", "By Seed", "Mean", "SD", "Low", "High")
    assert [tuple(row[column] for column in columns) for row in rows] == [
        ("GPT-2", "Vanilla", "1, 2, 7", "16.00, 16.30, 16.40", "16.23", "0.21", "–", "–"),
        ("GPT-2", "Permute", "1, 2, 7", "15.00, 15.50, 15.10", "15.20", "0.26", "–", "–"),
        (
            "GPT-2",
            "gain by aligning",
            "1, 2, 7",
            "+1.00, +0.80, +1.30",
            "+1.03",
            "0.25",
            "+0.41",
            "+1.66",
        ),
        ("OPUS-MT", "Vanilla", "1, 2, 7", "19.0, 21.5, 20.0", "20.2", "1.3", "–", "–"),
        ("OPUS-MT", "Permute", "1, 2, 7", "20.0, 21.0, 22.0", "21.0", "1.0", "–", "–"),
        (
            "OPUS-MT",
            "gain by aligning",
            "1, 2, 7",
            "+1.0, -0.5, +2.0",
            "+0.8",
            "1.3",
            "-2.3",
            "+4.0",
        ),
        (
            "GPT-2",
            "gain by aligning",
            "1, 2, 7",
            "+0.1250, +0.1000, +0.1625",
            "+0.1292",
            "0.0315",
            "+0.0510",
            "+0.2073",
        ),
        (
            "OPUS-MT",
            "gain by aligning",
            "1, 2, 7",
            "-0.1250, +0.0625, -0.2500",
            "-0.1042",
            "0.1573",
            "-0.4949",
            "+0.2866",
        ),
    ]
    assert [row["Metric"] for row in rows[-3:]] == ["BLEU↑", *["Loss (nats)↓"] * 2]


# --- as text --------------------------------------------------------------------------------------


def test_numbers_are_aligned_to_the_right_and_words_to_the_left():
    rows = [
        {"Model": "GPT-2", "Window": "–", "PPL": "14.2", "Share": "78.1 %"},
        {"Model": "ViT", "Window": "3-7", "PPL": "150.0", "Share": ""},
    ]
    assert as_text(rows) == (
        "Model  Window    PPL   Share\n"
        "─────  ──────  ─────  ──────\n"
        "GPT-2  –        14.2  78.1 %\n"
        "ViT    3-7     150.0\n"
    )


def test_a_model_and_its_metric_are_named_in_their_first_row_only():
    rows = [
        {"Model": "GPT-2", "Metric": "PPL↓", "k": "5"},
        {"Model": "GPT-2", "Metric": "PPL↓", "k": "7"},
        {"Model": "ViT", "Metric": "PPL↓", "k": "7"},
    ]
    assert as_text(rows).splitlines()[2:] == [
        "GPT-2  PPL↓    5",
        "               7",
        "ViT    PPL↓    7",
    ]


@pytest.mark.parametrize(
    ("cell", "is_number"),
    [
        ("+1.5", True),
        ("-12", True),
        ("–", True),
        ("3-7", False),
        ("+1.5 PPL", False),
        ("×2", False),
    ],
)
def test_only_columns_of_numbers_are_aligned_to_the_right(cell, is_number):
    first = as_text([{"Column": cell}, {"Column": "1"}]).splitlines()[2]
    assert first.startswith(" ") == is_number


def test_a_table_is_written_as_csv_with_every_cell_as_text_and_as_a_ledger(tmp_path, job_with):
    (tmp_path / "a.json").write_text('{"score": 14.168}')
    cell = cells.of(tmp_path / "a.json", "/score", "{:.2f}")
    rows = DataFrame({"Model": ["GPT-2", "GPT-2"], "Note": ['a, "b"', "c"], "PPL": [cell, ""]})
    outputs = {"table": "t.csv", "text": "t.txt", "ledger": "t.ledger.json"}
    write_table(job_with(tmp_path, [tmp_path / "a.json"], **outputs), rows)
    with (tmp_path / "t.csv").open(newline="") as file:
        assert list(csv.DictReader(file)) == texts(rows)
    assert (tmp_path / "t.txt").read_text() == as_text(rows)
    ledger = json.loads((tmp_path / "t.ledger.json").read_text())
    assert [(cell["id"], cell["shown"]) for cell in ledger["cells"]] == [("t:1:ppl", "14.17")]
    assert ledger["rows"] == [["GPT-2", 'a, "b"', "14.17"], ["GPT-2", "c", ""]]


# --- what was tested ------------------------------------------------------------------------------

PERMUTE = "permute-k3-last-best-int8"


def scored(
    directory: Path, task: str, model: str, correct: list[int], n_parameters: int, **changes
):
    """Write the two files of a model's test, and return their paths."""
    folder = directory / task / "models" / model
    folder.mkdir(parents=True)
    summary = {
        "metric": "accuracy",
        "score": 100 * sum(correct) / len(correct),
        "loss": 0.5,
        "n_parameters": n_parameters,
        "n_sublayers": 12,
        "n_sublayers_removed": 0,
        "merged": [],
        "dropped": [],
    }
    (folder / "test.json").write_text(json.dumps(summary | changes))
    with (folder / "test.csv").open("w", newline="") as file:
        table = csv.writer(file)
        table.writerow(["correct", "negative_log_likelihood"])
        table.writerows([one, 0.5] for one in correct)
    return folder / "test.json", folder / "test.csv"


@pytest.fixture
def files(tmp_path):
    """Scores and per-example files of four models of one task and two of another."""
    good, bad = [1] * 80 + [0] * 20, [1] * 50 + [0] * 50
    towers = [{"tower": name, "layers": [2, 3, 4]} for name in ("encoder", "decoder")]
    drop = [{"tower": "encoder", "layers": [6, 7]}]
    return zip(
        scored(tmp_path, "a", "base", good, 1000),
        scored(tmp_path, "a", PERMUTE, bad, 700, merged=towers, n_sublayers_removed=4),
        scored(tmp_path, "a", "drop-k2-best", bad, 800, dropped=drop, n_sublayers=10),
        scored(tmp_path, "a", "permute-k3-first-best", good, 700, merged=towers),
        scored(tmp_path, "b", "base", good, 400),
        scored(tmp_path, "b", "permute-k3-first-best", bad, 300, merged=towers),
        strict=True,
    )


TASKS = {
    "a": {"label": "A", "models": ["base", PERMUTE, "drop-k2-best"]},
    "b": {"label": "B", "models": ["permute-k3-first-best"]},
}


def results_of(scores, per_example, tasks=TASKS, seed=0, confidence=0.95) -> list[Result]:
    """The results of a job with these inputs and parameters."""
    intervals = {"resamples": 200, "confidence": confidence}
    given = SimpleNamespace(scores=scores, per_example=per_example)
    params = SimpleNamespace(tasks=tasks, intervals=intervals, seed=seed)
    return read_results(SimpleNamespace(input=given, params=params))


def test_only_shown_models_are_read_in_the_order_of_the_files(files):
    results = results_of(*files)
    assert [(r.task, r.model, r.variant) for r in results] == [
        ("a", "A", "base"),
        ("a", "A", PERMUTE),
        ("a", "A", "drop-k2-best"),
        ("b", "B", "permute-k3-first-best"),
    ]


def test_a_reduction_refers_to_the_task_s_base_model_even_if_that_is_not_shown(files):
    reductions = [r.reduction_percent for r in results_of(*files)]
    assert reductions == pytest.approx([0, 30, 20, 25])


def test_the_interval_is_around_the_score_and_follows_the_seed_and_the_confidence(files):
    scores, per_example = map(list, files)
    results = results_of(scores, per_example)
    again = results_of(scores, per_example, seed=1)
    narrow = results_of(scores, per_example, confidence=0.5)
    assert [r.score for r in results] == [80, 50, 50, 50]
    for one, other_seed, less in zip(results, again, narrow, strict=True):
        assert one.low < less.low < one.score < less.high < one.high
        assert (other_seed.low, other_seed.high) != (one.low, one.high)
        share = one.score / 100
        half = 1.96 * 100 * math.sqrt(share * (1 - share) / 100)
        # 200 resamples place a 2.5 % quantile to about a sixth of the half-width
        assert (one.high - one.low) / 2 == pytest.approx(half, rel=0.35)


def test_the_interval_of_a_perplexity_depends_on_its_average(tmp_path):
    bounds = []
    for average, loss in (("tokens", 278 / 94), ("windows", 2.5)):
        folder = tmp_path / average / "a" / "models" / "base"
        summary, columns = scored(tmp_path / average, "a", "base", [1], 10, metric="perplexity")
        summary.write_text(
            json.dumps(
                json.loads(summary.read_text()) | {"average": average, "score": math.exp(loss)}
            )
        )
        rows = "".join(f"{2.0 * n},{n}\n{90.0},{30}\n" for n in (1, 2, 1))
        (folder / "test.csv").write_text("negative_log_likelihood,n_tokens\n" + rows)
        shown = {"a": {"label": "A", "models": ["base"]}}
        (found,) = results_of([summary], [columns], shown)
        bounds.append((found.low, found.high))
    assert bounds[0] != bounds[1]
    assert all(math.exp(1.5) < low < high < math.exp(3.5) for low, high in bounds)
    assert bounds[0][0] > bounds[1][0]  # long windows of loss 3 weigh more


def test_numbers_of_examples_are_read_to_the_last_bit(tmp_path):
    numbers = [0.1 + 0.2, 1 / 3, 2.5e-308, 1e23, 123456789.123456789, math.nextafter(1, 2)]
    files = scored(tmp_path, "a", "base", [1] * len(numbers), 10)
    text = "".join(f"1,{number!r}\n" for number in numbers)
    files[1].write_text(f"correct,negative_log_likelihood\n{text}")
    (test,) = read_tests(*([file] for file in files))
    assert test.examples["negative_log_likelihood"].tolist() == numbers


def test_files_are_grouped_by_task_and_model(files):
    scores, _ = files
    found = by_model(scores)
    assert found.keys() == {"a", "b"} and len(found["a"]) == 4
    assert found["a"][PERMUTE].parts[-4:] == ("a", "models", PERMUTE, "test.json")


def test_a_reduction_and_a_window_have_their_sources(files):
    base, merged, dropped, _ = results_of(*files)
    for each in (base, merged, dropped):
        assert each.reduction_cell().raw == pytest.approx(each.reduction_percent)
        assert each.score_cell().raw == each.score
    assert [source.pointer for source in merged.window_cell().sources] == [
        "/merged/0/layers",
        "/merged/1/layers",
    ]
    assert [source.pointer for source in dropped.window_cell().sources] == ["/dropped/0/layers"]


def test_a_model_s_window_and_the_parts_of_its_name_are_read(files):
    base, merged, dropped, _ = results_of(*files)
    assert (base.method, base.k, base.anchor, base.role, base.int8) == (None,) * 4 + (False,)
    assert (base.first_layer, base.last_layer, str(base.window_cell())) == (None, None, "–")
    assert (merged.method, merged.k, merged.anchor, merged.role) == ("permute", 3, "last", "best")
    assert (merged.int8, merged.sublayers_removed, merged.sublayers) == (True, 4, 12)
    assert str(merged.window_cell()) == "2-4/2-4"
    assert (dropped.method, dropped.anchor, dropped.int8) == ("drop", None, False)
    assert (dropped.first_layer, dropped.last_layer, str(dropped.window_cell())) == (6, 7, "6-7")
    assert (dropped.sublayers_removed, dropped.sublayers) == (0, 10)


def test_results_are_written_unrounded_with_empty_cells_for_missing_names(files, tmp_path):
    results = results_of(*files)
    write_results(results, tmp_path / "tidy.csv")
    with (tmp_path / "tidy.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["variant"] for row in rows] == [r.variant for r in results]
    assert [float(row["low"]) for row in rows] == [r.low for r in results]
    assert (rows[0]["method"], rows[0]["first_layer"], rows[0]["anchor"]) == ("", "", "")
    assert list(rows[0]) == list(Result.__dataclass_fields__)
