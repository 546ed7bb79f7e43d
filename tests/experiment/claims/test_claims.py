"""The paper's findings, tested on models made so that each holds, fails, or is undecided."""

import csv
import json
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from experiment.claims.evidence import Evidence, ResamplingSettings, TaskEvidence
from experiment.claims.paired_tests import scored_models
from experiment.claims.run import about_run, untuned_scores
from experiment.claims.similarity import more_similar, read_cka
from experiment.claims.statements import (
    FAILS,
    HOLDS,
    STATEMENTS,
    UNDECIDED,
    about_task,
    as_report,
    judged,
)
from ffmerge.evaluation.metrics import ACCURACY, metric_named
from provenance.cells import Interval

REPORTED = Path(__file__).parents[3] / "config" / "paper_reported"
SETTINGS = ResamplingSettings(draws=1999, confidence=0.95, seed=0)
PERPLEXITY = metric_named("perplexity")
MARGINS = {"close": 1.0, "similar": 1.2, "equal": 0.1}
N = 400  # test windows or images

NAMES = {
    "base": "base-tuned",
    "permute": {"third": "p3", "half": "p2", "all": "p1"},
    "vanilla": {"third": "v3", "half": "v2", "all": "v1"},
    "merged": {"third": "p3", "half": "p2"},
    "dropped": ["d1", "d2"],
    "windows": ["p3", "w1", "w2"],
    "anchors": ["p3", "middle", "last"],
    "int8": "p3-int8",
}
SCORES = {  # perplexities for which every claim holds
    "base-tuned": 20.0,
    **{"p3": 20.5, "p2": 21.0, "p1": 25.0, "v3": 21.0, "v2": 22.0, "v1": 29.0},
    **{"d1": 21.0, "d2": 24.0},
    **{"w1": 20.7, "w2": 20.2, "middle": 20.6, "last": 20.4, "p3-int8": 20.5},
}
REDUCTIONS = {"base-tuned": 0.0, "d1": 15.0, "d2": 30.0, "p3": 20.0, "p2": 30.0}
UNTUNED = [30.0, 80.0, 55.0]


def language_models(scores: dict[str, float], noise: float) -> dict:
    """Models with these perplexities; noise: independent error on a window, in nats."""
    generator = np.random.default_rng(0)
    common, tests, columns = generator.normal(0, 0.3, size=N), {}, {}
    for name, score in scores.items():
        own = generator.normal(0, noise, size=N)
        losses = np.log(score) + (common - common.mean()) + (own - own.mean())
        tests[name] = {"metric": "perplexity", "average": "windows", "score": score}
        columns[name] = {"negative_log_likelihood": losses, "n_tokens": np.ones(N)}
    return scored_models(tests, columns, SETTINGS.draws, SETTINGS.seed)


def evidence(names=NAMES, noise: float = 1e-3, untuned=UNTUNED, **changed: float) -> list[Evidence]:
    scores = SCORES | changed
    models = TaskEvidence("GPT-2", PERPLEXITY, language_models(scores, noise), MARGINS, SETTINGS)
    return list(about_task(models, names, REDUCTIONS, untuned))


def rows_of(found: list[Evidence]) -> list[dict]:
    """The rows of the table of claims."""
    return judged(found, SETTINGS.confidence).to_dict("records")


def verdicts(*args, **kwargs) -> dict[str, set[str]]:
    """The verdicts of each claim."""
    found: dict[str, set[str]] = {}
    for row in rows_of(evidence(*args, **kwargs)):
        found.setdefault(row["claim"], set()).add(row["verdict"])
    return found


OF_MODELS = set(STATEMENTS) - {"ff_more_similar_than_attention"}
FAILING = {  # claim -> scores with which it does not hold
    "permuting_beats_averaging": {"v3": 20.0, "v2": 20.0, "v1": 20.0},
    "gain_grows": {"v1": 25.1},
    "third_stays_close": {"base-tuned": 19.0},
    "matches_layer_drop": {"d1": 17.0, "d2": 18.0},
    "window_hardly_matters_tuned": {"w1": 23.0},
    "anchor_hardly_matters": {"last": 18.0},
    "int8_costs_nothing": {"p3-int8": 21.0},
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
    found = verdicts(NAMES | {"windows": ["p3"]}, untuned=[30.0])
    assert not {"window_matters_untuned", "window_hardly_matters_tuned"} & found.keys()


# --- verdicts -------------------------------------------------------------------------------------


@pytest.mark.parametrize("claim", FAILING)
def test_a_claim_that_the_data_contradict_fails(claim):
    found = verdicts(**FAILING[claim])
    assert found[claim] == {FAILS}


def test_windows_that_differ_more_after_tuning_fail_the_claim_that_they_differ_less():
    assert verdicts(untuned=[20.5, 20.6, 20.7])["window_matters_untuned"] == {FAILS}


def test_claims_are_undecided_where_examples_are_too_noisy():
    found = verdicts(noise=1.5, untuned=[20.5, 20.6, 21.5])
    assert found == {claim: {UNDECIDED} for claim in OF_MODELS}


def test_a_loss_exactly_at_the_bound_is_undecided():
    assert verdicts(**{"base-tuned": 19.5})["third_stays_close"] == {UNDECIDED}


def test_accuracy_is_better_where_it_is_higher():
    generator = np.random.default_rng(0)
    one = generator.random(N) < 0.8
    columns = {"better": {"correct": one}, "worse": {"correct": one & (generator.random(N) < 0.9)}}
    tests = {
        name: {"metric": "accuracy", "score": 100 * np.mean(of["correct"])}
        for name, of in columns.items()
    }
    models = scored_models(tests, columns, SETTINGS.draws, SETTINGS.seed)
    found = TaskEvidence("ViT", ACCURACY, models, MARGINS, SETTINGS)
    gain = found.gains("permuting_beats_averaging", "better", "worse")
    assert gain.measured > 3 and gain.supports_claim and gain.unit == "%"
    loss = found.loses_less("third_stays_close", "worse", "better", "close")
    assert loss.measured == pytest.approx(gain.measured) and not loss.supports_claim
    assert loss.low < loss.measured < loss.high


def test_the_corrected_p_value_decides():
    entry = evidence()[0]
    rows = rows_of([entry] * 1500)  # p is 1 / 2000
    assert rows[0]["p"].raw < 0.001 and rows[0]["verdict"] == UNDECIDED


# --- layer drop -----------------------------------------------------------------------------------


def on_curve(at: float) -> Evidence:
    reductions = REDUCTIONS | {"p3": at}
    models = TaskEvidence("GPT-2", PERPLEXITY, language_models(SCORES, 1e-3), MARGINS, SETTINGS)
    curve = ["d2", "base-tuned", "d1"]  # in whichever order
    return models.loses_less_than_curve("matches_layer_drop", "p3", curve, reductions, "similar")


@pytest.mark.parametrize(
    ("at", "reference", "shares"),
    [
        (0.0, 20.0, "1.00 base-tuned at 0.0 % removed"),
        (7.5, 20.5, "0.50 base-tuned + 0.50 d1 at 7.5 % removed"),
        (20.0, 22.0, "0.67 d1 + 0.33 d2 at 20.0 % removed"),
        (30.0, 24.0, "1.00 d2 at 30.0 % removed"),
    ],
)
def test_the_curve_is_interpolated_at_the_merged_model_s_size(at, reference, shares):
    found = on_curve(at)
    assert found.measured == pytest.approx(20.5 - reference)
    assert found.low <= found.measured <= found.high
    assert found.compared == f"p3 against {shares}"


def test_a_model_beyond_the_curve_is_compared_with_its_end_and_the_row_says_so():
    found = on_curve(41.0)
    assert found.measured == pytest.approx(20.5 - 24.0)
    said = "1.00 d2 at 41.0 % removed, beyond the curve, which ends at 30.0 %"
    assert found.compared == f"p3 against {said}"


def test_a_curve_with_two_points_of_the_same_size_is_an_error():
    models = TaskEvidence("GPT-2", PERPLEXITY, language_models(SCORES, 1e-3), MARGINS, SETTINGS)
    with pytest.raises(ValueError, match="base-tuned, d1: two of them have the same size"):
        models.loses_less_than_curve(
            "matches_layer_drop",
            "p3",
            ["base-tuned", "d1"],
            {"base-tuned": 0, "d1": 0, "p3": 0},
            "similar",
        )


# --- similarity -----------------------------------------------------------------------------------


def similarities(n_layers: int, mean: float, seed: int) -> np.ndarray:
    drawn = np.random.default_rng(seed).normal(mean, 0.05, size=(n_layers, n_layers))
    matrix = (drawn + drawn.T) / 2
    np.fill_diagonal(matrix, 1)
    return matrix


@pytest.mark.parametrize(
    ("means", "verdict"),
    [((0.6, 0.3), HOLDS), ((0.3, 0.6), FAILS), ((0.4, 0.4), UNDECIDED)],
)
def test_similarity_is_tested_between_pairs_of_layers(means, verdict):
    matrices = [similarities(12, mean, seed) for seed, mean in enumerate(means)]
    found = more_similar("ff_more_similar_than_attention", "ViT encoder", *matrices, SETTINGS)
    (row,) = rows_of([found])
    assert row["verdict"] == verdict
    assert row["measured"].raw == pytest.approx(means[0] - means[1], abs=0.03)
    assert (row["n"].raw, row["unit"]) == (12, "CKA")
    assert row["measured"].interval.method == "bootstrap over layers"


def test_a_layer_is_not_a_pair_with_itself():
    ff, attention = np.full((6, 6), 0.75), np.full((6, 6), 0.25)
    np.fill_diagonal(attention, 9)
    found = more_similar("ff_more_similar_than_attention", "ViT", ff, attention, SETTINGS)
    assert found.low == found.measured == found.high == 0.5


def test_one_odd_layer_does_not_make_a_difference_significant():
    """It is in 11 of 66 pairs, which would be enough if they were independent."""
    ff, attention = similarities(12, 0.4, 0), similarities(12, 0.4, 0)
    ff[5, :] += 0.5
    ff[:, 5] += 0.5
    found = more_similar("ff_more_similar_than_attention", "ViT", ff, attention, SETTINGS)
    assert found.measured == pytest.approx(0.5 / 6) and found.p > 0.05


def test_two_layers_decide_nothing():
    ff, attention = similarities(2, 0.9, 0), similarities(2, 0.1, 1)
    found = more_similar("ff_more_similar_than_attention", "tiny", ff, attention, SETTINGS)
    assert found.supports_claim and found.p > 0.5


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
    rows = rows_of(evidence())
    row = next(row for row in rows if row["claim"] == "third_stays_close")
    assert row["statement"] == "removing 1/3 costs less than 1 PPL"
    assert row["compared"] == "p3 against base-tuned"
    assert row["quantity"] == "loss on the uncompressed"
    measured, low, high, p, p_corrected = (
        row[name].raw for name in ("measured", "low", "high", "p", "p_corrected")
    )
    assert (measured, row["holds_if"], row["unit"]) == (pytest.approx(0.5), "< 1", "PPL")
    assert low < measured < high
    assert row["measured"].interval == Interval(low, high, 0.95, "bootstrap over test examples")
    assert (row["section"], row["n"].raw) == ("5.1", N)
    assert p < p_corrected <= 0.05 and row["verdict"] == HOLDS


def test_every_claim_names_its_section_and_the_text_explains_how_to_read_it():
    assert {statement.section for statement in STATEMENTS.values()} == {
        f"5.{n}" for n in range(1, 6)
    }
    table = judged(evidence(), SETTINGS.confidence)
    text = as_report(table, SETTINGS.confidence)
    assert all(statement in text for statement in table["statement"])
    assert "95 % interval" in text and f"all {len(table)} tests (Holm)" in text


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
        summary = {"metric": "perplexity", "average": "tokens", "score": np.exp(losses.mean())}
        summary |= {"n_parameters": n_parameters, "merged": merged, "dropped": []}
        (folder / "test.json").write_text(json.dumps(summary))
        with (folder / "test.csv").open("w", newline="") as file:
            table = csv.writer(file)
            table.writerow(["negative_log_likelihood", "n_tokens"])
            table.writerows([loss, 1] for loss in losses)
        scores.append(folder / "test.json")
        per_example.append(folder / "test.csv")
    (root / "gpt2/windows.csv").write_text(
        "method,k,start,score,loss\npermute,5,0,90,4\npermute,5,3,40,3\nvanilla,5,3,1,1\n"
    )
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
    given = SimpleNamespace(
        **files,
        windows=[tmp_path / "gpt2/windows.csv"],
        cka=[tmp_path / "gpt2/cka.csv"],
        reported=list(REPORTED.glob("*.csv")),
    )
    tasks = {"gpt2": {"label": "GPT-2", "models": models}}
    params = SimpleNamespace(tasks=tasks, **vars(SETTINGS))
    found = about_run(SimpleNamespace(input=given, params=params))
    rows = {(row["claim"], row["statement"]): row for row in rows_of(list(found))}
    by_claim = {claim: row for (claim, _), row in rows.items()}
    assert by_claim["window_matters_untuned"]["holds_if"] == "< 50"  # 90 and 40, not the vanilla
    assert by_claim["anchor_hardly_matters"]["holds_if"] == "< 1.2"
    assert by_claim["int8_costs_nothing"]["holds_if"] == "< 0.1"
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
    untuned = by_claim["window_matters_untuned"]["measured"]
    assert files_of(untuned) == tests_of(*models["windows"]) | {"windows.csv"}
    assert files_of(by_claim["ff_more_similar_than_attention"]["low"]) == {"cka.csv"}
    # how many claims there are, and what their p-values are, bears on every corrected one
    assert files_of(int8["p_corrected"]) == {
        file for row in rows.values() for file in files_of(row["p"])
    }


def test_the_untuned_score_is_that_of_the_window_that_was_tested(tmp_path):
    file = tmp_path / "windows.csv"
    file.write_text("method,k,start,score,loss\npermute,5,1,7.5,1\npermute,5,2,8.5,1\n")
    tests = {
        "permute-k5-first-best": {"merged": [{"layers": [2, 3, 4, 5, 6]}]},
        "permute-k5-first-random1": {"merged": [{"layers": [1, 2, 3, 4, 5]}]},
    }
    assert untuned_scores(file, list(tests), tests) == [8.5, 7.5]
