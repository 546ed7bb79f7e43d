"""Paired tests of models on the same examples: swaps, bootstrap, and Holm's correction."""

import time
from itertools import product

import numpy as np
import pytest

from experiment.claims.paired_tests import (
    Scored,
    bound_test,
    holm,
    scored_models,
    share_at_most,
    spread_test,
    swap_test,
    two_sided,
    widest,
)
from ffmerge.evaluation.bleu import bleu_from_counts, sentence_counts

WORDS = ["the", "a", "cat", "dog", "sat", "ran", "on", "under", "mat", "tree", "big", "small"]


def accuracy(correct) -> tuple[dict, dict]:
    """Summary and columns of an image classifier's test."""
    return {"metric": "accuracy", "score": 100 * np.mean(correct)}, {"correct": list(correct)}


def perplexity(losses, n_tokens=4, average="windows") -> tuple[dict, dict]:
    """Summary and columns of a language model's test, of windows with these mean losses."""
    sums = [n_tokens * loss for loss in losses]
    columns = {"negative_log_likelihood": sums, "n_tokens": [n_tokens] * len(sums)}
    summary = {"metric": "perplexity", "average": average, "score": np.exp(np.mean(losses))}
    return summary, columns


def bleu(n: int, errors: float, seed: int) -> tuple[dict, dict]:
    """Summary and columns of a translator that misses a share of the words."""
    references = np.random.default_rng(0).choice(WORDS, size=(n, 12))
    generator = np.random.default_rng(seed)
    missed = generator.random((n, 12)) < errors
    hypotheses = np.where(missed, generator.choice(WORDS, size=(n, 12)), references)
    columns = sentence_counts(
        *([" ".join(row) for row in rows] for rows in (hypotheses, references))
    )
    return {"metric": "bleu", "score": np.nan}, columns


def scored(*tests: tuple[dict, dict], resamples: int = 10, seed: int = 0) -> list[Scored]:
    summaries = {str(i): summary for i, (summary, _) in enumerate(tests)}
    columns = {str(i): columns for i, (_, columns) in enumerate(tests)}
    return list(scored_models(summaries, columns, resamples, seed).values())


# --- random swaps ---------------------------------------------------------------------------------


def enumerated(one: Scored, other: Scored) -> float:
    """p-value over all 2^n swaps, example by example."""

    def apart(swapped) -> float:
        pairs = list(zip(one.columns, other.columns, strict=True))
        sides = [(b, a) if s else (a, b) for s, (a, b) in zip(swapped, pairs, strict=True)]
        scores = [one.of_sums(np.sum(side, axis=0)) for side in zip(*sides, strict=True)]
        return abs(scores[0] - scores[1])

    n = len(one.columns)
    observed = apart([False] * n)
    return np.mean([apart(s) >= observed - 1e-9 for s in product([False, True], repeat=n)])


PAIRS = {
    "accuracy": (accuracy([1, 1, 1, 1, 1, 0, 1, 1]), accuracy([0, 0, 1, 0, 0, 1, 1, 0])),
    "perplexity": (
        perplexity([2.0, 2.1, 1.9, 2.5, 2.2, 2.0, 1.0]),
        perplexity([2.4, 2.2, 2.6, 2.4, 2.9, 2.1, 1.1]),
    ),
    "perplexity of tokens": (
        perplexity([2.0, 2.1, 1.9, 2.5, 2.2], average="tokens"),
        perplexity([2.4, 2.2, 2.6, 2.4, 2.9], average="tokens"),
    ),
    "bleu": (bleu(8, 0.1, seed=1), bleu(8, 0.4, seed=2)),
}


@pytest.mark.parametrize("metric", PAIRS)
def test_random_swaps_come_near_the_p_value_of_all_swaps(metric):
    one, other = scored(*PAIRS[metric])
    exact, swaps = enumerated(one, other), 8000
    assert 0 < exact < 1
    # four standard errors of a share, and the observed scores that count as a swap
    tolerance = 4 * np.sqrt(exact * (1 - exact) / swaps) + 1 / swaps
    assert swap_test(one, other, swaps, seed=0) == pytest.approx(exact, abs=tolerance)


def test_the_bleu_of_many_swaps_at_once_is_that_of_each():
    (model,) = scored(bleu(8, 0.3, seed=4))
    sums = np.stack([model.columns[:3].sum(axis=0), model.columns.sum(axis=0)])
    expected = [bleu_from_counts(row) for row in sums]
    assert model.of_sums(sums).tolist() == expected and expected[0] != expected[1]


def test_six_examples_in_favour_of_one_model_have_a_p_value_of_two_in_64():
    one, other = scored(accuracy([1] * 6), accuracy([0] * 6))
    assert enumerated(one, other) == 2 / 64


@pytest.mark.parametrize("metric", PAIRS)
def test_the_order_of_the_models_does_not_matter_to_swaps(metric):
    one, other = scored(*PAIRS[metric])
    assert swap_test(one, other, 500, seed=3) == swap_test(other, one, 500, seed=3)


def test_a_p_value_is_never_0_and_a_model_does_not_differ_from_itself():
    one, other = scored(accuracy([1] * 200), accuracy([0] * 200))
    assert swap_test(one, other, 99, seed=0) == 1 / 100
    assert swap_test(one, one, 99, seed=0) == 1


def test_a_clear_difference_is_found_and_a_small_one_is_not():
    generator = np.random.default_rng(0)
    losses = generator.normal(3, 0.5, size=300)
    noise = generator.normal(0, 0.1, size=300)
    same, worse = perplexity(losses + noise), perplexity(losses + noise + 0.05)
    base, same, worse = scored(perplexity(losses), same, worse)
    assert swap_test(base, worse, 999, seed=0) == 1 / 1000
    assert swap_test(base, same, 999, seed=0) > 0.1


def test_p_is_uniform_where_both_models_are_alike():
    generator, p_values = np.random.default_rng(1), []
    for seed in range(300):
        one, other = scored(*(perplexity(generator.normal(3, 0.3, size=40)) for _ in range(2)))
        p_values.append(swap_test(one, other, 199, seed))
    # each decile holds 30 of 300, with a standard deviation of 5.2
    counts, _ = np.histogram(p_values, bins=10, range=(0, 1))
    assert counts.min() > 30 - 4 * 5.2 and counts.max() < 30 + 4 * 5.2


def test_unequal_numbers_of_examples_are_an_error():
    (one,), (other,) = scored(accuracy([1, 0])), scored(accuracy([1, 0, 1]))
    with pytest.raises(ValueError, match="a paired test of 2 and 3 examples"):
        swap_test(one, other, 10, seed=0)
    with pytest.raises(ValueError, match=r"were scored on \[2, 3\] examples"):
        scored(accuracy([1, 0]), accuracy([1, 0, 1]))


def test_ten_thousand_swaps_of_fifty_thousand_images_take_seconds():
    generator = np.random.default_rng(0)
    one = generator.random(50_000) < 0.79
    other = np.where(generator.random(50_000) < 0.1, ~one, one)
    one, other = scored(accuracy(one), accuracy(other), resamples=2)
    started = time.process_time()
    swap_test(one, other, 10_000, seed=0)
    assert time.process_time() - started < 10  # about 0.5; a loop over all of them takes minutes


# --- bootstrap ------------------------------------------------------------------------------------


def test_models_of_a_task_are_resampled_with_the_same_examples():
    correct = np.random.default_rng(0).random(50) < 0.7
    one, same, opposite = scored(
        accuracy(correct), accuracy(correct), accuracy(~correct), resamples=200
    )
    assert one.resampled.std() > 1
    np.testing.assert_array_equal(one.resampled, same.resampled)
    np.testing.assert_allclose(one.resampled + opposite.resampled, 100)


def test_a_share_counts_the_statistic_itself():
    resampled = np.array([1.0, 2.0, 3.0, 4.0])
    assert share_at_most(resampled, 0.5) == 1 / 5
    assert share_at_most(resampled, 2.0) == 3 / 5
    assert share_at_most(resampled, 9.0) == 1


def test_a_two_sided_p_value_is_twice_the_smaller_and_at_most_1():
    assert two_sided(0.01, 0.99) == two_sided(0.99, 0.01) == 0.02
    assert two_sided(0.6, 0.7) == 1
    resampled = np.arange(1.0, 100.0)
    assert bound_test(resampled, 0) == bound_test(-resampled, 0) == bound_test(resampled, 100)
    assert bound_test(resampled, 0) == pytest.approx(2 / 100)
    assert bound_test(resampled, 50) == 1


def made(score: float, errors) -> Scored:
    """A model with a score and resampled ones around it."""
    return Scored(score, np.empty((0, 0)), lambda sums: sums, score + np.asarray(errors))


def test_the_widest_pair_is_the_one_of_the_scores():
    models = [made(3.0, [0.0, 1.0]), made(1.0, [0.5, 0.0]), made(2.0, [9.0, 9.0])]
    spread, resampled = widest(models)
    assert spread == 2
    np.testing.assert_array_equal(resampled, [1.5, 3.0])


def test_a_spread_is_below_a_bound_if_every_pair_is():
    generator = np.random.default_rng(0)
    near = [made(score, generator.normal(0, 0.1, 999)) for score in (1.0, 1.1, 1.2)]
    assert spread_test(near, bound=2.0) == pytest.approx(2 / 1000)
    far = [*near, made(1.1, generator.normal(0, 2.0, 999))]  # its score is near, but may be far off
    assert spread_test(far, bound=2.0) > 0.3


def test_a_spread_is_above_a_bound_if_the_errors_do_not_explain_it():
    generator = np.random.default_rng(0)
    scores = (1.0, 1.1, 4.2)
    sure = [made(score, generator.normal(0, 0.1, 999)) for score in scores]
    assert spread_test(sure, bound=2.0) == pytest.approx(2 / 1000)
    unsure = [made(score, generator.normal(0, 1.0, 999)) for score in scores]
    assert spread_test(unsure, bound=2.0) > 0.3


def test_models_that_are_alike_hardly_ever_spread_above_a_bound():
    """Resampled spreads alone would find it nearly always: they add noise to noise."""
    generator, found = np.random.default_rng(0), 0
    for _ in range(200):
        errors = generator.normal(0, 1, size=(4, 400))
        models = [made(5 + generator.normal(0, 1), row) for row in errors]
        found += spread_test(models, bound=0.1) < 0.05 and widest(models)[0] > 0.1
    assert found <= 0.05 * 200


# --- the correction -------------------------------------------------------------------------------


def test_holm_by_hand():
    # sorted: 0.005 x 4, 0.01 x 3, 0.03 x 2, 0.04 x 1, none below the one before
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])


def test_holm_leaves_one_test_alone_and_ends_at_1():
    assert holm([0.02]) == [0.02]
    assert holm([0.6, 0.7, 0.0]) == [1, 1, 0]
    assert holm([]) == []
