"""The paper's findings, tested on models made so that each holds, fails, or is undecided."""

import csv
import json
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from experiment.claims.evidence import Evidence, TaskEvidence, more_similar, read_cka
from experiment.claims.statements import (
    CLAIM,
    FAILS,
    HOLDS,
    STATEMENTS,
    UNDECIDED,
    about_run,
    about_task,
    as_report,
    endpoints,
    judged,
    margins,
    overall,
)
from experiment.reported import read_reported
from experiment.tables import tested
from ffmerge.evaluation.bleu import COUNTS
from ffmerge.evaluation.intervals import scored_models
from provenance.cells import Interval

REPORTED = Path(__file__).parents[3] / "config" / "paper_reported"
PRINTED = read_reported(REPORTED.glob("*.csv"))
RESAMPLING, CONFIDENCE = SimpleNamespace(draws=300, seed=0), 0.95
MARGINS = {"close": 0.1, "similar": 0.102, "equal": 0.034}
N = 400  # test windows or images

NAMES = {
    "base": "base-tuned",
    "permute": {"third": "p3", "half": "p2", "all": "p1"},
    "vanilla": {"third": "v3", "half": "v2", "all": "v1"},
    "merged": {"third": "p3", "half": "p2"},
    "dropped": ["d1", "d2"],
    "windows": ["p3", "w1", "w2"],
    "untuned": ["p3 untuned", "w1 untuned", "w2 untuned"],
    "anchors": ["p3", "middle", "last"],
    "int8": "p3-int8",
}
SCORES = {  # losses for which every claim holds
    "base-tuned": 3.00,
    **{"p3": 3.05, "p2": 3.10, "p1": 3.25, "v3": 3.10, "v2": 3.15, "v1": 3.45},
    **{"d1": 3.10, "d2": 3.24},
    **{"w1": 3.07, "w2": 3.02, "middle": 3.06, "last": 3.04, "p3-int8": 3.05},
    **{"p3 untuned": 3.5, "w1 untuned": 4.5, "w2 untuned": 4.0},
}
REDUCTIONS = {"base-tuned": 0.0, "d1": 15.0, "d2": 30.0, "p3": 20.0, "p2": 30.0}


def language_models(scores: dict[str, float], noise: float) -> dict:
    """Models with these losses; noise: independent error on a window, in nats."""
    generator = np.random.default_rng(0)
    common, tests, columns = generator.normal(0, 0.3, size=N), {}, {}
    for name, score in scores.items():
        own = generator.normal(0, noise, size=N)
        losses = score + (common - common.mean()) + (own - own.mean())
        tests[name] = {"metric": "loss", "score": score}
        columns[name] = {"negative_log_likelihood": losses, "n_tokens": np.ones(N)}
    return scored_models(tests, columns, RESAMPLING.draws, RESAMPLING.seed)


def task_evidence(scores=SCORES, noise: float = 1e-3) -> TaskEvidence:
    models = language_models(scores, noise)
    return TaskEvidence("GPT-2", "log perplexity", "nats", False, models, MARGINS)


def evidence(names=NAMES, noise: float = 1e-3, **changed: float) -> list[Evidence]:
    return list(about_task(task_evidence(SCORES | changed, noise), names, REDUCTIONS))


def rows_of(found: list[Evidence]) -> list[dict]:
    """The rows of the table of claims."""
    return judged(found, CONFIDENCE).to_dict("records")


def verdicts_of(found: list[Evidence]) -> dict[str, set[str]]:
    """The verdicts of each claim."""
    verdicts: dict[str, set[str]] = {}
    for row in rows_of(found):
        verdicts.setdefault(row["claim"], set()).add(row["verdict"])
    return verdicts


def verdicts(*args, **kwargs) -> dict[str, set[str]]:
    return verdicts_of(evidence(*args, **kwargs))


OF_MODELS = set(STATEMENTS) - {"ff_more_similar_than_attention"}
FAILING = {  # claim -> scores with which it does not hold
    "permuting_beats_averaging": {"v3": 3.0, "v2": 3.0, "v1": 3.0},
    "gain_grows": {"v1": 3.26},
    "third_stays_close": {"base-tuned": 2.9},
    "matches_layer_drop": {"d1": 2.8, "d2": 2.9},
    "window_matters_untuned": {"p3 untuned": 4.5, "w2 untuned": 4.49},
    "window_hardly_matters_tuned": {"w1": 3.2},
    "anchor_hardly_matters": {"last": 2.9},
    "int8_costs_nothing": {"p3-int8": 3.1},
}


# --- what is claimed ------------------------------------------------------------------------------


def test_every_claim_of_the_paper_is_made_and_can_hold():
    found = verdicts()
    assert found == {claim: {HOLDS} for claim in OF_MODELS}


def test_a_claim_is_made_once_for_each_of_its_ratios():
    made = [(entry.claim, entry.ratio) for entry in evidence()]
    assert len(made) == len(set(made)) == 3 + 1 + 1 + 2 + 2 + 1 + 1
    for ratio in ("third", "half", "all"):
        assert ("permuting_beats_averaging", ratio) in made


def test_without_vanilla_merging_nothing_is_claimed_about_aligning():
    names = {key: value for key, value in NAMES.items() if key != "vanilla"}
    about_aligning = {"permuting_beats_averaging", "gain_grows"}
    assert verdicts(names).keys() == OF_MODELS - about_aligning


def test_without_aligned_merging_nothing_is_claimed_about_anchors():
    names = {key: value for key, value in NAMES.items() if key != "permute"}
    found = verdicts(names)
    assert "anchor_hardly_matters" not in found and "third_stays_close" in found


def test_a_single_window_makes_no_claim_about_differences():
    found = verdicts(NAMES | {"windows": ["p3"]})
    assert not {"window_matters_untuned", "window_hardly_matters_tuned"} & found.keys()


# --- verdicts -------------------------------------------------------------------------------------


@pytest.mark.parametrize("claim", FAILING)
def test_a_claim_that_the_data_contradict_fails(claim):
    found = verdicts(**FAILING[claim])
    assert found[claim] == {FAILS}


def test_claims_are_undecided_where_examples_are_too_noisy():
    assert verdicts(noise=8.0) == {claim: {UNDECIDED} for claim in OF_MODELS}


def test_a_loss_exactly_at_the_bound_is_undecided():
    assert verdicts(**{"base-tuned": 2.95})["third_stays_close"] == {UNDECIDED}


def test_accuracy_is_better_where_it_is_higher():
    generator = np.random.default_rng(0)
    one = generator.random(N) < 0.8
    columns = {"better": {"correct": one}, "worse": {"correct": one & (generator.random(N) < 0.9)}}
    tests = {
        name: {"metric": "accuracy", "score": 100 * np.mean(of["correct"])}
        for name, of in columns.items()
    }
    models = scored_models(tests, columns, RESAMPLING.draws, RESAMPLING.seed)
    found = TaskEvidence("ViT", "accuracy", "%", True, models, margins(PRINTED, "%"))
    gain = found.gains("permuting_beats_averaging", "better", "worse")
    assert gain.measured.score > 3 and gain.supports_claim and gain.unit == "%"
    loss = found.loses_less("third_stays_close", "worse", "better", "close")
    assert loss.measured.score == pytest.approx(gain.measured.score) and not loss.supports_claim


def test_the_corrected_p_value_decides():
    entry = next(each for each in evidence(noise=0.15) if 1e-5 < each.p < 0.05)
    rows = rows_of([entry] * 5000)
    assert rows[0]["p"].raw < 0.05 and rows[0]["verdict"] == UNDECIDED


@pytest.mark.parametrize(
    ("of_endpoints", "verdict"),
    [
        ([HOLDS, UNDECIDED], HOLDS),
        ([UNDECIDED, FAILS], FAILS),
        ([UNDECIDED, UNDECIDED], UNDECIDED),
        ([HOLDS, FAILS], "fails and holds"),
    ],
)
def test_an_endpoint_that_decides_decides_the_claim(of_endpoints, verdict):
    assert overall(of_endpoints) == verdict


# --- the paper's own numbers ----------------------------------------------------------------------


def printed_models(task: str) -> tuple[dict, dict[str, float], dict[str, float]]:
    """Names by role, printed scores, and sizes of a task's models; Table 5 has the most digits.

    The paper prints no scores of layer drop (Figure 3) or before tuning (Figure 4). It says that
    merging matches layer drop, and that windows differ: so they do here.
    """
    rows = PRINTED["scores"][lambda rows: (rows["task"] == task) & (rows["quantity"] == "score")]
    scores = {}
    for row in rows.to_dict("records"):
        parts = [row[key] for key in ("method", "ratio", "anchor", "window")]
        name = "-".join(filter(None, parts)) + ("-int8" if row["int8"] == "yes" else "")
        scores[name] = float(row["value"])
    permute = {ratio: f"permute-{ratio}-first-best" for ratio in ("third", "half", "all")}
    windows = [
        f"permute-third-first-{window}" for window in ("best", "random1", "random2", "random3")
    ]
    names = {
        "base": "base",
        "permute": permute,
        "vanilla": {ratio: f"vanilla-{ratio}-best" for ratio in permute},
        "merged": {ratio: permute[ratio] for ratio in ("third", "half")},
        "dropped": ["drop-sixth", "drop-third"],
        "windows": windows,
        "untuned": [f"{window} untuned" for window in windows],
        "anchors": [f"permute-third-{anchor}-best" for anchor in ("first", "middle", "last")],
        "int8": f"{permute['third']}-int8",
    }
    scores |= {"drop-sixth": scores[permute["third"]], "drop-third": scores[permute["half"]]}
    worse = {"gpt2": 1.2}.get(task, 1 / 1.2)
    for i, window in enumerate(windows):
        scores[f"{window} untuned"] = scores[window] * worse ** (i + 1)
    sizes = {"base": 0.0, "drop-sixth": 20.0, "drop-third": 30.0}
    return names, scores, sizes | {permute["third"]: 20.0, permute["half"]: 30.0}


def examples_of(task: str, score: float, seed: int) -> tuple[dict, dict]:
    """A test whose score is this one exactly: GPT-2's 550 windows, and 10,000 images or sentences.

    Models err on mostly the same examples.
    """
    common, own = np.random.default_rng(0), np.random.default_rng(seed + 1)
    if task == "gpt2":
        losses = common.normal(0, 0.3, size=550) + own.normal(0, 0.005, size=550)
        losses += np.log(score) - losses.mean()
        columns = {"negative_log_likelihood": losses, "article": np.arange(550) // 9}
        return {"metric": "loss", "score": np.log(score)}, columns
    n = 10_000
    difficulty = common.normal(size=n) + own.normal(0, 0.05, size=n)
    if task == "vit":
        correct = np.argsort(np.argsort(difficulty)) < n * score / 100
        return {"metric": "accuracy", "score": score}, {"correct": correct}
    # sentences of 12 words, whose n-grams of any length match with one probability
    totals = {f"total_{k}": np.full(n, 13.0 - k) for k in range(1, 5)}
    matches = 1 + 0.1 * (difficulty - difficulty.mean())
    correct = {f"correct_{k}": totals[f"total_{k}"] * matches * score / 100 for k in range(1, 5)}
    lengths = dict.fromkeys(("hypothesis_length", "reference_length"), totals["total_1"])
    return {"metric": "bleu", "score": score}, {**correct, **totals, **lengths}


def test_every_finding_of_the_paper_holds_for_the_scores_that_it_prints():
    found = []
    units = {"gpt2": "nats", "vit": "%", "marian": "BLEU"}
    for task, unit in units.items():
        names, scores, sizes = printed_models(task)
        made = {name: examples_of(task, score, i) for i, (name, score) in enumerate(scores.items())}
        tests, columns = ({name: each[i] for name, each in made.items()} for i in (0, 1))
        models = scored_models(tests, columns, RESAMPLING.draws, RESAMPLING.seed)
        assert set(columns["base"]) == set(COUNTS) or task != "marian"
        bounds = margins(PRINTED, unit)
        evidence = TaskEvidence(task, "score", unit, task != "gpt2", models, bounds)
        found += about_task(evidence, names, sizes)
    rows = rows_of(found)
    assert len(rows) == 3 * 11
    assert {row["statement"] + row["task"] for row in rows if row["verdict"] != HOLDS} == set()


# --- layer drop -----------------------------------------------------------------------------------


def on_curve(at: float) -> Evidence:
    reductions = REDUCTIONS | {"p3": at}
    curve = ["d2", "base-tuned", "d1"]  # in whichever order
    return task_evidence().loses_less_than_curve("matches_layer_drop", "p3", curve, reductions)


@pytest.mark.parametrize(
    ("at", "reference", "shares"),
    [
        (0.0, 3.00, "1.00 base-tuned at 0.0 % removed"),
        (7.5, 3.05, "0.50 base-tuned + 0.50 d1 at 7.5 % removed"),
        (18.0, 3.128, "0.80 d1 + 0.20 d2 at 18.0 % removed"),
        (30.0, 3.24, "1.00 d2 at 30.0 % removed"),
    ],
)
def test_the_curve_is_interpolated_at_the_merged_model_s_size(at, reference, shares):
    found = on_curve(at)
    assert found.measured.score == pytest.approx(3.05 - reference)
    low, high = found.measured.interval(CONFIDENCE)
    assert low <= found.measured.score <= high
    assert found.compared == f"p3 against {shares}"


def test_a_model_beyond_the_curve_is_compared_with_its_end_and_the_row_says_so():
    found = on_curve(41.0)
    assert found.measured.score == pytest.approx(3.05 - 3.24)
    said = "1.00 d2 at 41.0 % removed, beyond the curve, which ends at 30.0 %"
    assert found.compared == f"p3 against {said}"


def test_a_curve_with_two_points_of_the_same_size_is_an_error():
    with pytest.raises(ValueError, match="base-tuned, d1: two of them have the same size"):
        task_evidence().loses_less_than_curve(
            "matches_layer_drop",
            "p3",
            ["base-tuned", "d1"],
            {"base-tuned": 0, "d1": 0, "p3": 0},
        )


# --- similarity -----------------------------------------------------------------------------------


def similarities(n_layers: int, mean: float, seed: int) -> np.ndarray:
    drawn = np.random.default_rng(seed).normal(mean, 0.05, size=(n_layers, n_layers))
    matrix = (drawn + drawn.T) / 2
    np.fill_diagonal(matrix, 1)
    return matrix


def compared(ff: np.ndarray, attention: np.ndarray) -> Evidence:
    claim = "ff_more_similar_than_attention"
    return more_similar(claim, "ViT encoder", ff, attention, 999, 0)


@pytest.mark.parametrize(
    ("means", "verdict"),
    [((0.6, 0.3), HOLDS), ((0.3, 0.6), FAILS), ((0.4, 0.4), UNDECIDED)],
)
def test_similarity_is_tested_between_pairs_of_layers(means, verdict):
    matrices = [similarities(12, mean, seed) for seed, mean in enumerate(means)]
    (row,) = rows_of([compared(*matrices)])
    assert row["verdict"] == verdict
    assert row["measured"].raw == pytest.approx(means[0] - means[1], abs=0.03)
    assert (row["n"].raw, row["unit"]) == (12, "CKA")
    assert row["measured"].interval.method == "bootstrap over 12 layers"


def test_a_layer_is_not_a_pair_with_itself():
    ff, attention = np.full((6, 6), 0.75), np.full((6, 6), 0.25)
    np.fill_diagonal(attention, 9)
    found = compared(ff, attention).measured
    assert found.score == 0.5 and found.interval(CONFIDENCE) == (0.5, 0.5)


def test_one_odd_layer_does_not_make_a_difference_significant():
    """It is in 11 of 66 pairs, which would be enough if they were independent."""
    ff, attention = similarities(12, 0.4, 0), similarities(12, 0.4, 0)
    ff[5, :] += 0.5
    ff[:, 5] += 0.5
    found = compared(ff, attention)
    assert found.measured.score == pytest.approx(0.5 / 6) and found.p > 0.05


def test_two_layers_decide_nothing():
    ff, attention = similarities(2, 0.9, 0), similarities(2, 0.1, 1)
    found = compared(ff, attention)
    assert found.supports_claim and found.p > 0.05


def test_cka_is_read_by_tower(tmp_path):
    rows = ["tower,sublayer,i,j,cka"]
    for tower, n in (("encoder", 2), ("decoder", 3)):
        for kind, value in (("feed_forward", 0.5), ("attention", 0.25)):
            rows += [
                f"{tower},{kind},{i},{j},{1 if i == j else value}"
                for i in range(n)
                for j in range(n)
            ]
    (tmp_path / "cka.csv").write_text("\n".join(rows) + "\n")
    (one, ff, attention), (other, *_) = read_cka(tmp_path / "cka.csv")
    assert (one, other) == ("encoder", "decoder")
    np.testing.assert_array_equal(ff, [[1, 0.5], [0.5, 1]])
    np.testing.assert_array_equal(attention, [[1, 0.25], [0.25, 1]])


# --- the table ------------------------------------------------------------------------------------


def test_a_row_says_what_is_claimed_measured_and_compared():
    rows = rows_of(evidence(noise=0.05))
    row = next(row for row in rows if row["claim"] == "third_stays_close")
    assert row["statement"] == "removing 1/3 costs less than 0.1 nats"
    assert row["compared"] == "p3 against base-tuned"
    assert row["quantity"] == "loss on the uncompressed"
    measured, low, high, p, p_corrected = (
        row[name].raw for name in ("measured", "low", "high", "p", "p_corrected")
    )
    assert (measured, row["holds_if"], row["unit"]) == (pytest.approx(0.05), "< 0.1", "nats")
    assert low < measured < high
    over = "400 test examples, each on its own"
    assert row["measured"].interval == Interval(low, high, 0.95, f"bootstrap over {over}")
    assert (row["section"], row["n"].raw, row["over"]) == ("5.1", N, over)
    assert p < p_corrected <= 0.05 and row["verdict"] == HOLDS


def test_every_claim_names_its_section_and_the_text_explains_how_to_read_it():
    assert {statement.section for statement in STATEMENTS.values()} == {
        f"5.{n}" for n in range(1, 6)
    }
    table = judged(evidence(), CONFIDENCE)
    text = as_report(table, CONFIDENCE)
    assert all(statement in text for statement in table["statement"])
    assert "95 % interval" in text and f"all {len(table)} tests (Holm)" in text
    assert f"  GPT-2: {N} test examples, each on its own\n" in text
    assert f"Of {len(table)} claims, by whichever endpoint decides: {len(table)} holds" in text


# --- from the files of a run ----------------------------------------------------------------------


def run_files(root: Path) -> dict[str, list[Path]]:
    """Write the files of a run on a language model."""
    models = {
        "base": (1000, None),
        "permute-k5-first-best": (800, 3),
        "permute-k7-first-best": (700, 2),
        "permute-k12-first-best": (450, 0),
        "permute-k5-first-random1": (800, 0),
        "permute-k5-first-best-int8": (800, 3),
        "drop-k2-best": (850, None),
        "drop-k4-best": (700, None),
    }
    generator = np.random.default_rng(0)
    common = generator.normal(3, 0.3, size=50)
    scores, per_example = [], []
    for i, (name, (n_parameters, start)) in enumerate(models.items()):
        folder = root / "gpt2/models" / name
        folder.mkdir(parents=True)
        losses = common + 0.01 * i
        merged = [] if start is None else [{"layers": [start, start + 1], "tower": "decoder"}]
        for kind, worse in (("test", 0), ("untuned", 0.1 * i)):
            loss = losses.mean() + worse
            summary = {"metric": "perplexity", "average": "tokens", "score": np.exp(loss)}
            summary |= {"loss": loss, "n_parameters": n_parameters, "merged": merged}
            (folder / f"{kind}.json").write_text(json.dumps(summary | {"dropped": []}))
            with (folder / f"{kind}.csv").open("w", newline="") as file:
                table = csv.writer(file)
                table.writerow(["negative_log_likelihood", "n_tokens", "article"])
                table.writerows([each + worse, 1, n // 2] for n, each in enumerate(losses))
        scores.append(folder / "test.json")
        per_example.append(folder / "test.csv")
    cka = [
        f"decoder,{kind},{i},{j},{value}"
        for kind, value in (("feed_forward", 0.9), ("attention", 0.1))
        for i in range(12)
        for j in range(12)
    ]
    (root / "gpt2/cka.csv").write_text("\n".join(["tower,sublayer,i,j,cka", *cka]))
    return {"scores": scores, "per_example": per_example}


def test_a_run_s_files_become_evidence(tmp_path):
    files, best = run_files(tmp_path), "permute-k5-first-best"
    by_ratio = {
        "third": best,
        "half": "permute-k7-first-best",
        "all": "permute-k12-first-best",
    }
    models = {
        "base": "base",
        "permute": by_ratio,
        "merged": {ratio: by_ratio[ratio] for ratio in ("third", "half")},
        "dropped": ["drop-k2-best", "drop-k4-best"],
        "windows": [best, "permute-k5-first-random1"],
        "anchors": [best, "permute-k5-first-random1"],
        "int8": f"{best}-int8",
    }
    untuned = [tmp_path / f"gpt2/models/{name}/untuned.json" for name in models["windows"]]
    given = SimpleNamespace(
        **files,
        untuned=untuned,
        untuned_per_example=[file.with_suffix(".csv") for file in untuned],
        cka=[tmp_path / "gpt2/cka.csv"],
        reported=list(REPORTED.glob("*.csv")),
    )
    tasks = {"gpt2": {"label": "GPT-2", "models": models}}
    params = SimpleNamespace(tasks=tasks, **vars(RESAMPLING))
    table = judged(list(about_run(SimpleNamespace(input=given, params=params))), CONFIDENCE)
    rows = {tuple(row[c] for c in (*CLAIM, "endpoint")): row for row in table.to_dict("records")}
    assert len(rows) == len(table)
    assert {endpoint for *_, endpoint in rows} == {"log perplexity", "loss per token", "CKA"}
    by_claim = {claim: row for (claim, *_), row in rows.items()}
    windows = by_claim["window_matters_untuned"]  # 0.3 nats before tuning, and a tenth of it after
    assert windows["measured"].raw == pytest.approx(0.3) and windows["verdict"] == HOLDS
    assert windows["compared"].endswith("0.33 before tuning, 0.03 after it")
    assert windows["over"] == "25 articles of 50 test examples"
    assert by_claim["anchor_hardly_matters"]["holds_if"] == "< 0.102"
    assert by_claim["int8_costs_nothing"]["holds_if"] == "< 0.034"
    assert "at 30.0 % removed" in by_claim["matches_layer_drop"]["compared"]
    assert by_claim["ff_more_similar_than_attention"]["task"] == "GPT-2 decoder"
    assert by_claim["ff_more_similar_than_attention"]["verdict"] == HOLDS

    def files_of(cell) -> set[str]:
        return {str(source.file.relative_to(tmp_path / "gpt2")) for source in cell.sources}

    def tests_of(*names: str) -> set[str]:
        return {f"models/{name}/test.{kind}" for name in names for kind in ("json", "csv")}

    int8 = by_claim["int8_costs_nothing"]
    assert files_of(int8["p"]) == tests_of(best, f"{best}-int8")
    on_curve = by_claim["matches_layer_drop"]["measured"]
    assert files_of(on_curve) == tests_of(by_ratio["half"], "base", "drop-k2-best", "drop-k4-best")
    untuned = windows["measured"]
    assert files_of(untuned) == tests_of(*models["windows"]) | {
        f"models/{name}/untuned.{kind}" for name in models["windows"] for kind in ("json", "csv")
    }
    assert files_of(by_claim["ff_more_similar_than_attention"]["low"]) == {"cka.csv"}
    # how many claims there are, and what their p-values are, bears on every corrected one
    assert files_of(int8["p_corrected"]) == {
        file for row in rows.values() for file in files_of(row["p"])
    }


def test_a_perplexity_is_compared_by_its_logarithm_and_each_endpoint_by_its_margins():
    losses = np.array([2.0, 3.0, 4.0, 3.0])

    def test_of(metric: str, score: float, **columns) -> tested.Tested:
        summary = {"metric": metric, "score": score, "loss": 3.0, "n_images": 4}
        return tested.Tested(
            "t", "base", summary, {"negative_log_likelihood": losses, **columns}, ()
        )

    model = test_of("perplexity", 20.0, n_tokens=np.ones(4))
    found = endpoints("GPT-2", {"base": model}, PRINTED, RESAMPLING)
    assert [(each.endpoint, each.unit) for each in found] == [
        ("log perplexity", "nats"),
        ("loss per token", "nats"),
    ]
    assert [each.models["base"].score for each in found] == [np.log(20.0), 3.0]
    model = test_of("accuracy", 50.0, correct=[1, 0, 1, 0])
    found = endpoints("ViT", {"base": model}, PRINTED, RESAMPLING)
    assert [(each.endpoint, each.margins["close"]) for each in found] == [
        ("accuracy", 1.6),
        ("loss per image", 0.1),
    ]
    assert [each.higher_is_better for each in found] == [True, False]
