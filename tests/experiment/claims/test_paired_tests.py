"""Paired tests of models on the same examples, and Holm's correction."""

import numpy as np
import pytest
from scipy.stats import ttest_rel

from experiment.claims.evidence import bound_test, holm, one_sided, range_test, spread_test, widest
from ffmerge.evaluation.intervals import Scored, scored_models


def scored(*losses, resamples: int = 10) -> list[Scored]:
    """Models with these losses on the same examples."""
    columns = {str(i): {"negative_log_likelihood": each} for i, each in enumerate(losses)}
    tests = {str(i): {"metric": "loss", "score": np.mean(each)} for i, each in enumerate(losses)}
    return list(scored_models(tests, columns, resamples, seed=0).values())


# --- two models -----------------------------------------------------------------------------------


def test_the_p_value_of_a_difference_of_means_is_that_of_the_paired_t_test():
    generator = np.random.default_rng(0)
    one = generator.normal(3, 0.5, size=12)
    other = one + generator.normal(0.05, 0.1, size=12)
    a, b = scored(one, other)
    assert bound_test(b.minus(a), 0.0) == pytest.approx(ttest_rel(one, other).pvalue)
    assert bound_test(b.minus(a), 0.2) == pytest.approx(ttest_rel(one + 0.2, other).pvalue)


def test_the_order_of_the_models_does_not_matter():
    a, b = scored(*np.random.default_rng(0).normal(3, 0.5, size=(2, 30)))
    assert bound_test(a.minus(b), 0.1) == pytest.approx(bound_test(b.minus(a), -0.1))
    assert one_sided(a.minus(b), 0.1) == pytest.approx(one_sided(b.minus(a), -0.1)[::-1])


def test_a_clear_difference_is_found_and_a_small_one_is_not():
    generator = np.random.default_rng(0)
    losses = generator.normal(3, 0.5, size=300)
    same = losses + generator.normal(0, 0.1, size=300)
    base, worse, same = scored(losses, same + 0.05, same)
    assert bound_test(worse.minus(base), 0.0) < 1e-6
    assert bound_test(same.minus(base), 0.0) > 0.1


def test_p_is_uniform_where_both_models_are_alike():
    generator, p_values = np.random.default_rng(1), []
    for _ in range(300):
        one, other = scored(*generator.normal(3, 0.3, size=(2, 40)))
        p_values.append(bound_test(one.minus(other), 0.0))
    # each decile holds 30 of 300, with a standard deviation of 5.2
    counts, _ = np.histogram(p_values, bins=10, range=(0, 1))
    assert counts.min() > 30 - 4 * 5.2 and counts.max() < 30 + 4 * 5.2


def test_a_model_that_differs_nowhere_is_on_a_side_of_a_bound_but_of_no_other_model():
    one, same = scored([1.0, 2.0, 3.0], [1.0, 2.0, 3.0])
    assert bound_test(one.minus(same), 0.0) == 1
    assert bound_test(one.minus(same), 0.1) == 0


def test_one_example_decides_nothing():
    one, other = scored([1.0], [2.0])
    assert bound_test(other.minus(one), 0.0) == 1


# --- more models ----------------------------------------------------------------------------------


def made(score: float, errors) -> Scored:
    """A model with a score, and errors of its examples."""
    errors = np.asarray(errors) - np.mean(errors)
    return Scored(score, score + errors, score - errors / (len(errors) - 1), "examples")


def test_the_widest_pair_is_the_one_of_the_scores():
    models = [made(3.0, [0.0, 1.0]), made(1.0, [0.5, 0.0]), made(2.0, [9.0, 9.0])]
    assert widest(models).score == 2
    np.testing.assert_array_equal(widest(models).resampled, [1.25, 2.75])


def test_a_spread_is_below_a_bound_if_every_pair_is():
    generator = np.random.default_rng(0)
    near = [made(score, generator.normal(0, 1.0, 400)) for score in (1.0, 1.1, 1.2)]
    assert spread_test(near, bound=2.0) < 1e-6
    far = [*near, made(1.1, generator.normal(0, 30.0, 400))]  # its score is near, but may be off
    assert spread_test(far, bound=2.0) > 0.1


def test_a_spread_is_above_a_bound_if_the_errors_do_not_explain_it():
    generator = np.random.default_rng(0)
    scores = (1.0, 1.1, 4.2)
    sure = [made(score, generator.normal(0, 1.0, 400)) for score in scores]
    assert spread_test(sure, bound=2.0) < 1e-6
    unsure = [made(score, generator.normal(0, 20.0, 400)) for score in scores]
    assert spread_test(unsure, bound=2.0) > 0.3


def test_models_that_are_alike_hardly_ever_spread_above_a_bound():
    """The pair furthest apart is chosen among all, which its p-value alone does not count."""
    generator, found = np.random.default_rng(0), 0
    for _ in range(300):
        models = scored(*(3 + generator.normal(0, 1, size=(4, 50))))
        found += spread_test(models, bound=0.001) < 0.05
    assert found <= 0.06 * 300


def test_a_range_is_smaller_after_it_if_the_errors_do_not_explain_it():
    generator = np.random.default_rng(0)

    def apart(scores, error: float) -> list[Scored]:
        return [made(score, generator.normal(0, error, 400)) for score in scores]

    assert range_test(apart((1.0, 4.0, 2.0), 1.0), apart((1.0, 1.1, 2.0), 1.0)) < 1e-6
    assert range_test(apart((1.0, 1.1, 2.0), 1.0), apart((1.0, 4.0, 2.0), 1.0)) < 1e-6  # larger
    assert range_test(apart((1.0, 4.0, 2.0), 20.0), apart((1.0, 1.1, 2.0), 1.0)) > 0.3


@pytest.mark.parametrize("error_after", [0.0001, 1.0])
def test_the_range_of_models_that_are_alike_hardly_ever_shrinks(error_after):
    """Before it, the pair furthest apart is chosen among six, all of them by chance."""
    generator, found = np.random.default_rng(0), 0
    for _ in range(300):
        before = scored(*(3 + generator.normal(0, 1, size=(4, 50))))
        after = scored(*(3 + generator.normal(0, error_after, size=(4, 50))))
        found += range_test(before, after) < 0.05
    assert found <= 0.06 * 300


# --- the correction -------------------------------------------------------------------------------


def test_holm_by_hand():
    # sorted: 0.005 x 4, 0.01 x 3, 0.03 x 2, 0.04 x 1, none below the one before
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])


def test_holm_leaves_one_test_alone_and_ends_at_1():
    assert holm([0.02]) == [0.02]
    assert holm([0.6, 0.7, 0.0]) == [1, 1, 0]
    assert holm([]) == []
