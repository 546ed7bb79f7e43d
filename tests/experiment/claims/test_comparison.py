"""Every printed number has a row with our number and a verdict."""

import json
from collections import Counter
from dataclasses import replace
from itertools import count
from pathlib import Path
from tempfile import TemporaryDirectory
from types import SimpleNamespace
from typing import Any

import pytest
import yaml

from experiment.claims.comparison import (
    AT_LEAST,
    COMPARED_SETTINGS,
    DIFFERS,
    EXACT,
    MISSING,
    NO_RESULT,
    OTHER_MODEL,
    TEXT,
    WITHIN,
    Recomputed,
    agrees,
    compared,
    recomputed,
    settings_of,
    summary,
)
from experiment.config.run import validated
from experiment.reported import read_reported, tolerances
from experiment.tables.scores import Result
from ffmerge.evaluation.metrics import METRICS
from provenance.cells import JOB, Cell, Interval, Printed

REPOSITORY = Path(__file__).parents[3]
REPORTED = read_reported(sorted((REPOSITORY / "config/paper_reported").glob("*.csv")))
PAPER = validated(
    yaml.safe_load((REPOSITORY / "config/paper.yaml").read_text(encoding="utf-8"))
).tasks
PRINTED = {name: rows.to_dict("records") for name, rows in REPORTED.items()}
MODELS = {row["task"]: row for row in PRINTED["models"]}
FOLDER, NUMBERS = TemporaryDirectory(), count()
ARCHITECTURES = {
    "gpt2": {"model_type": "gpt2", "n_layer": 36, "n_embd": 1280, "n_inner": None},
    "vit": {
        "model_type": "vit",
        "num_hidden_layers": 12,
        "intermediate_size": 3072,
        "image_size": 224,
        "patch_size": 16,
        "id2label": {str(i): f"class {i}" for i in range(1000)},
    },
    "marian": {
        "model_type": "marian",
        "encoder_layers": 6,
        "decoder_layers": 6,
        "encoder_ffn_dim": 2048,
    },
}
STORAGE = {  # %: docs/discrepancies.md, section 4 and trivia
    "vit": {"merged_percent": 78.18, "measured_percent": 20.01},
    "gpt2": {"merged_percent": 79.67, "measured_percent": 22.05},
    "marian": {"merged_percent": 89.22, "measured_percent": 33.18},
}


# --- a run that repeats what the paper prints -----------------------------------------------------


def written(content: dict, name: str = "test.json") -> Path:
    """Write a JSON file to a new folder."""
    file = Path(FOLDER.name) / str(next(NUMBERS)) / name
    file.parent.mkdir(parents=True)
    file.write_text(json.dumps(content))
    return file


def number(value: Any) -> Cell:
    """A number that is not read from a file."""
    return Cell((), derivation=JOB, computed=value)


def with_files(result: Result, **changes) -> Result:
    """The result with changes, and the files of its test."""
    result = replace(result, **changes)
    windows = []
    if result.method:
        layers = list(range(result.first_layer, result.last_layer + 1))
        windows = [{"layers": layers}] * result.n_towers
    summary = {
        "score": result.score,
        "n_parameters": result.n_parameters,
        "n_sublayers_removed": result.sublayers_removed,
        "n_sublayers": result.sublayers,
        "merged": windows,
    }
    n_base = result.n_parameters / (1 - result.reduction_percent / 100)
    return replace(result, file=written(summary), base_file=written({"n_parameters": n_base}))


def result(task: str, row: dict[str, str], indices: str) -> Result:
    """The model of a row of Tables 2 to 5, with the printed score and the parameters it saves."""
    settings, model, sides = PAPER[task], MODELS[task], 2 if task == "marian" else 1
    merged = row["method"] != "base"
    k = getattr(settings.merge.k, row["ratio"]) if merged else None
    first = int(indices.partition("-")[0]) if merged else None
    removed = sides * (k - 1) if merged else 0
    n_parameters = int(model["n_parameters"])
    saved = removed * int(model["ff_parameters"])
    score = float(row["value"])
    return with_files(
        Result(
            task=task,
            model=settings.label,
            metric=METRICS[settings.kind].name,
            variant="",
            method=row["method"] if merged else None,
            k=k,
            anchor=(row["anchor"] or "first") if merged else None,
            role=row["window"] or None,
            int8=row["int8"] == "yes",
            seed=None,
            first_layer=first,
            last_layer=first + k - 1 if merged else None,
            n_towers=sides,
            sublayers_removed=removed,
            sublayers=sides * settings.base_model.n_layers,
            score=score,
            low=score,
            high=score,
            confidence=0.95,
            over="100 test examples",
            from_base_low=None,
            from_base_high=None,
            loss=0.0,
            n_parameters=n_parameters - saved,
            reduction_percent=100 * saved / n_parameters,
            file=Path(),
            base_file=Path(),
        )
    )


def records(task: str, architecture: dict | None = None) -> dict[str, Any]:
    """Write the base model and the records of a run of the paper's configuration."""
    settings = PAPER[task].model_dump(mode="json")

    def record(model: str, *parts: str) -> Path:
        of_task = {part: settings[part] for part in parts if part in settings}
        return written({"params": {"task": of_task}}, f"{task}/models/{model}/a.record.json")

    return {
        "base_model": written(architecture or ARCHITECTURES[task], "config.json").parent,
        "collected": record("base", "features", "context"),
        "tested": record("base", "test", "context"),
        "tuned": [record(model, "fine_tuning", "validation") for model in ("one", "other")],
    }


def gathered(tasks: dict[str, dict], results: list[Result]) -> dict[str, Recomputed]:
    """The numbers of a run of some tasks of the paper."""
    made = {task: records(task) for task in tasks}
    given = SimpleNamespace(
        base_models=[files["base_model"] for files in made.values()],
        storage=[written(STORAGE[task], "storage.json") for task in tasks],
        collected=[files["collected"] for files in made.values()],
        tested=[files["tested"] for files in made.values()],
        tuned=[record for files in made.values() for record in files["tuned"]],
    )
    job = SimpleNamespace(input=given, params=SimpleNamespace(tasks=tasks))
    return recomputed(job, results, REPORTED["models"])


def repeated() -> dict[str, Recomputed]:
    """The tasks as the paper printed them; of a model in several tables, the most exact score."""
    models = {}
    for task in PAPER:
        rows = [row for row in PRINTED["scores"] if row["task"] == task]
        indices = {
            row["ratio"]: row["value"] for row in rows if row["quantity"] == "merged_indices"
        }
        for row in rows:  # Table 5, which has two decimals, comes last
            if row["quantity"] == "score":
                key = task, row["method"], row["ratio"], row["anchor"], row["window"], row["int8"]
                models[key] = result(task, row, indices.get(row["ratio"], ""))
    tasks = {
        task: {"repository": MODELS[task]["repository"], "ratios": own.merge.k.model_dump()}
        for task, own in PAPER.items()
    }
    return gathered(tasks, list(models.values()))


RUN = repeated()


def rows_of(run: dict[str, Recomputed], **which: str) -> list[dict]:
    rows = compared(REPORTED, run).to_dict("records")
    return [row for row in rows if which.items() <= row.items()]


def the_row(run: dict[str, Recomputed], **which: str) -> dict:
    (row,) = rows_of(run, **which)
    return row


def changed(task: str, **values) -> dict[str, Recomputed]:
    return RUN | {task: replace(RUN[task], **values)}


def with_score(score: float, low: float, high: float) -> dict[str, Recomputed]:
    """The run with another score of ViT at 1/2, which only Table 5 has (76.3)."""
    results = [
        with_files(r, score=score, low=low, high=high) if (r.method, r.k) == ("permute", 7) else r
        for r in RUN["vit"].results
    ]
    return changed("vit", results=results)


AT_HALF = {"where": "Table 5", "task": "vit", "setting": "permute, half, first, best"}
SCORE_AT_HALF = AT_HALF | {"quantity": "score"}


def test_a_run_that_repeats_the_paper_differs_only_where_the_paper_contradicts_itself():
    differing = [
        (row["where"], row["task"], row["quantity"]) for row in rows_of(RUN, verdict=DIFFERS)
    ]
    assert differing == [
        ("Table 4", "marian", "storage_percent"),  # docs/discrepancies.md, section 4
        ("Table 5", "marian", "ffs_removed"),  # section 3
    ]
    assert rows_of(RUN, verdict=MISSING) == rows_of(RUN, verdict=OTHER_MODEL) == []


# --- rows -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("run", [RUN, {}], ids=["all tasks", "none"])
def test_every_printed_number_has_exactly_one_row_in_order(run):
    rows = rows_of(run)
    printed = [*PRINTED["scores"], *PRINTED["hyperparameters"], *PRINTED["text"]]
    assert [(row["task"], row["paper"]) for row in rows] == [
        (row["task"], row["value"]) for row in printed
    ]
    keys = [(row["where"], row["task"], row["quantity"], row["setting"]) for row in rows]
    assert [key for key, n in Counter(keys).items() if n > 1] == []


def test_a_row_has_our_number_with_its_interval_and_the_tolerance():
    row = the_row(with_score(76.5, 76.1, 76.9), **SCORE_AT_HALF)
    assert {column: str(value) for column, value in row.items()} == SCORE_AT_HALF | {
        "paper": "76.3",
        "ours": "76.5",
        "low": "76.1",
        "high": "76.9",
        "unit": "%",
        "tolerance": "0.5",
        "verdict": WITHIN,
        "note": "",
    }
    assert str(the_row(RUN, **AT_HALF, quantity="merged_indices")["ours"]) == "4-10"
    assert str(the_row(RUN, **AT_HALF, quantity="ffs_removed")["ours"]) == "6/12"


def test_our_number_has_its_sources_and_the_paper_s_number():
    row = the_row(with_score(76.5, 76.1, 76.9), **SCORE_AT_HALF)
    ours, low = row["ours"], row["low"]
    assert ours.printed == Printed("76.3", "Table 5")
    assert ours.interval == Interval(76.1, 76.9, 0.95, "bootstrap over 100 test examples")
    assert [source.pointer for source in ours.sources] == ["/score"]
    assert [source.file.name for source in low.sources] == ["test.json", "test.csv"]
    tuned = the_row(RUN, where="Table 6", quantity="batch_size")["ours"]
    assert {(s.file.name, s.pointer) for s in tuned.sources} == {
        ("a.record.json", "/params/task/fine_tuning/batch_size")
    }
    assert len(tuned.sources) == 2  # every run of the task


def test_places_are_named_as_the_paper_names_them():
    assert set(compared(REPORTED, {})["where"]) == {
        *("Abstract", "Algorithm 1", "Equations 3 and 4", "Appendix B.3", "Appendix C"),
        *(f"Figure {n}" for n in range(1, 5)),
        *(f"Table {n}" for n in range(2, 9)),
        *(f"Section {n}" for n in (1, 3.1, 3.3, 3.4, 4.1, 4.2, 4.3, 5.1, 5.2, 5.3, 5.4, 5.5, 6)),
    }


def test_every_quantity_that_has_a_number_of_ours_is_in_the_text():
    assert TEXT.keys() <= {row["quantity"] for row in PRINTED["text"] if row["task"]}


# --- verdicts -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("score", "low", "high", "verdict"),
    [
        (76.3, 76.3, 76.3, WITHIN),
        (76.84, 76.8, 76.9, WITHIN),  # 0.5, and half of the printed digit
        (76.86, 76.8, 76.9, DIFFERS),
        (75.76, 75.7, 75.8, WITHIN),
        (75.74, 75.7, 75.8, DIFFERS),
        (79.0, 76.0, 82.0, DIFFERS),  # a wide interval is no excuse
    ],
)
def test_a_score_agrees_within_its_tolerance_whatever_its_interval(score, low, high, verdict):
    assert the_row(with_score(score, low, high), **SCORE_AT_HALF)["verdict"] == verdict


def test_the_model_of_a_row_is_the_one_with_its_anchor_window_and_precision():
    def score(*names: str, **more) -> float:
        return RUN["vit"].find("permute", "third", *names, **more).score

    assert [score(anchor) for anchor in ("first", "middle", "last")] == [79.2, 79.5, 79.0]
    assert [score("first", f"random{n}") for n in (1, 2, 3)] == [79.5, 78.5, 78.9]
    assert RUN["vit"].find("permute", "third", int8=True).int8
    assert RUN["vit"].find("vanilla", "third", "").score == 77.8
    assert RUN["vit"].find("permute", "half", "last") is None


def test_a_window_has_to_be_the_same():
    results = [
        with_files(r, first_layer=5, last_layer=11) if (r.method, r.k) == ("permute", 7) else r
        for r in RUN["vit"].results
    ]
    row = the_row(changed("vit", results=results), **AT_HALF, quantity="merged_indices")
    assert (row["paper"], str(row["ours"]), row["verdict"]) == ("4-10", "5-11", DIFFERS)


@pytest.mark.parametrize(
    ("name", "value"), [("batch_size", 3), ("learning_rate", 5.1e-5), ("schedule", "cosine")]
)
def test_a_setting_is_exact(name, value):
    tuned = RUN["gpt2"].hyperparameters
    which = {"where": "Table 6", "task": "gpt2", "quantity": name}
    assert the_row(RUN, **which)["verdict"] == WITHIN
    run = changed("gpt2", hyperparameters=tuned | {name: number(value)})
    row = the_row(run, **which)
    assert (row["verdict"], row["tolerance"]) == (DIFFERS, EXACT)


@pytest.mark.parametrize("name", COMPARED_SETTINGS)
def test_a_number_of_the_set_up_is_exact(name):
    for row in rows_of(RUN, quantity=name, setting=""):
        task, value = row["task"], RUN[row["task"]].settings[name].raw
        other = value + 1 if isinstance(value, int) else "32x32"
        run = changed(task, settings=RUN[task].settings | {name: number(other)})
        which = {"where": row["where"], "task": task, "quantity": name}
        assert (row["verdict"], the_row(run, **which)["verdict"]) == (WITHIN, DIFFERS)


@pytest.mark.parametrize(("percent", "verdict"), [(60.0, WITHIN), (30.0, WITHIN), (29.9, DIFFERS)])
def test_more_than_a_number_means_at_least_that(percent, verdict):
    results = [with_files(r, reduction_percent=percent) for r in RUN["gpt2"].results]
    row = the_row(
        changed("gpt2", results=results), task="gpt2", quantity="parameters_removed_at_half"
    )
    assert (row["paper"], row["tolerance"], row["verdict"]) == ("30", AT_LEAST, verdict)


def test_a_drop_in_the_text_is_in_the_unit_of_its_score():
    near = tolerances(REPORTED, "reproduction")
    for task, quantity, drop in (
        ("vit", "score_drop_at_third", 80.3 - 79.2),
        ("gpt2", "score_rise_at_third", 17.27 - 16.16),
        ("marian", "score_drop_at_third", 35.8 - 33.6),
    ):
        row = the_row(RUN, task=task, quantity=quantity)
        assert row["ours"].raw == pytest.approx(drop)
        assert float(row["tolerance"]) == near[row["unit"]]


def test_another_base_model_is_not_comparable_but_its_numbers_are_shown():
    rows = rows_of(changed("vit", comparable=False), task="vit")
    assert {row["verdict"] for row in rows} == {OTHER_MODEL}
    assert all(row["ours"] != "" for row in rows)


def test_a_number_that_was_not_computed_is_marked():
    assert {row["verdict"] for row in rows_of({}, task="gpt2")} == {MISSING}
    results = [r for r in RUN["vit"].results if r.method != "vanilla"]
    rows = rows_of(changed("vit", results=results), task="vit", verdict=MISSING)
    assert {row["setting"] for row in rows} == {
        f"vanilla, {ratio}, best" for ratio in ("third", "half", "all")
    }


def test_a_printed_number_about_no_task_is_not_a_result():
    rows = rows_of(RUN, verdict=NO_RESULT)
    assert {row["task"] for row in rows} == {""}  # every number of a task has one of ours
    assert all(row["ours"] == row["tolerance"] == "" for row in rows)
    assert len(rows) == sum(not row["task"] for row in PRINTED["text"])


@pytest.mark.parametrize(
    ("printed", "ours", "tolerance", "same"),
    [
        ("5e-5", 0.00005, EXACT, True),
        ("100000", 100_000, EXACT, True),
        ("2", 2.5, EXACT, False),
        ("fp16", "fp16", EXACT, True),
        ("fp16", "fp32", EXACT, False),
        ("16x16", "16x16", EXACT, True),
        ("16.16", 16.764, 0.6, True),
        ("16.16", 16.766, 0.6, False),
    ],
)
def test_numbers_agree_as_numbers_and_words_as_words(printed, ours, tolerance, same):
    assert agrees(printed, number(ours), tolerance) is same


def test_the_text_counts_verdicts_and_lists_differing_numbers():
    text = summary(compared(REPORTED, RUN))
    counts = Counter(compared(REPORTED, RUN)["verdict"])
    for verdict, n in counts.items():
        assert any(line.split() == [*verdict.split(), str(n)] for line in text.splitlines())
    assert "11/12" in text and "10/12" in text and "33.18" in text
    assert DIFFERS not in summary(compared(REPORTED, {}))


# --- from the files of a run ----------------------------------------------------------------------


def test_the_numbers_of_a_run_are_gathered_from_its_files():
    def made(repository: str | None) -> Recomputed:
        task = {"repository": repository, "ratios": RUN["vit"].ratios}
        return gathered({"vit": task}, RUN["vit"].results)["vit"]

    found = made(MODELS["vit"]["repository"])
    assert found.comparable
    assert found.results == RUN["vit"].results and found.base.score == 80.3
    tuned = PAPER["vit"].fine_tuning.model_dump(mode="json")
    assert {key: cell.raw for key, cell in found.hyperparameters.items()} == {
        key: value for key, value in tuned.items() if value is not None
    }
    expected = {"batch_size": "128", "resolution": "224x224", "n_layers": "12"}
    expected |= {"feature_patches": "10000", "classes": "1000", "patch_size": "16x16"}
    assert expected.items() <= {key: str(cell) for key, cell in found.settings.items()}.items()
    assert not made("another/model").comparable
    assert not made(None).comparable


def test_a_setting_that_not_all_runs_share_is_unknown():
    files = records("gpt2")
    one, other = files.pop("tuned")
    content = json.loads(other.read_text())
    content["params"]["task"]["fine_tuning"]["batch_size"] = 99
    found = settings_of(**files, tuned=[one, written(content)])
    assert "batch_size" not in found and found["max_steps"].raw == 100_000


def test_gpt2_s_feed_forward_is_4_times_as_wide_by_default():
    assert RUN["gpt2"].settings["d_ff"].raw == int(MODELS["gpt2"]["d_ff"])
    given = ARCHITECTURES["gpt2"] | {"n_inner": 99}
    assert settings_of(**records("gpt2", given))["d_ff"].raw == 99
    marian = RUN["marian"].settings
    assert (marian["n_layers"].raw, marian["anchors"].raw) == (12, 2)
