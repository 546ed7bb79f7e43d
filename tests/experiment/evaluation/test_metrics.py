"""Perplexity, accuracy, BLEU, learning-rate schedules and bootstrap intervals."""

import math
from itertools import pairwise

import numpy as np
import pytest
import torch
from sacrebleu.metrics import BLEU

from experiment.claims.evidence import bound_test
from experiment.config.settings import Training
from experiment.evaluation.perplexity import (
    perplexity,
    sliding_windows,
    window_batches,
    window_losses,
)
from ffmerge.evaluation.accuracy import accuracy, top1_correct
from ffmerge.evaluation.bleu import COUNTS, bleu_from_counts, corpus_bleu, sentence_counts
from ffmerge.evaluation.intervals import (
    Scored,
    in_clusters,
    resampled_sums,
    score_columns,
    scored_models,
)
from ffmerge.evaluation.metrics import METRICS
from ffmerge.training.schedules import learning_rate_factor

# --- perplexity -----------------------------------------------------------------------------------


@pytest.mark.parametrize("n_tokens", [*range(14), 30, 31, 32, 33])
def test_every_token_but_the_first_is_scored_exactly_once_and_in_order(n_tokens):
    for context in range(2, 12):
        for stride in range(1, context):
            windows = sliding_windows(n_tokens, context, stride)
            scored = [t for _, first, end in windows for t in range(first, end)]
            assert scored == list(range(1, n_tokens))


@pytest.mark.parametrize("n_tokens", [2, 7, 8, 9, 30, 31, 32, 33])
def test_a_token_is_scored_with_all_the_context_of_its_window(n_tokens):
    for context in range(2, 12):
        for stride in range(1, context):
            windows = sliding_windows(n_tokens, context, stride)
            assert windows[0] == (0, 1, min(n_tokens, context))
            for begin, first, end in windows[1:]:
                assert end - begin == context
                assert end - first <= stride  # so each token sees context - stride before it
                assert first - begin >= context - stride
            assert all(end - first == stride for _, first, end in windows[1:-1])


@pytest.mark.parametrize("stride", [-1, 0, 8, 9])
def test_a_stride_that_leaves_a_token_without_context_is_an_error(stride):
    with pytest.raises(ValueError, match=rf"stride {stride} has to be from 1 to context - 1 = 7"):
        sliding_windows(100, 8, stride)


@pytest.mark.parametrize(("context", "stride"), [(8, 4), (10, 7), (12, 11), (9, 1), (64, 32)])
def test_window_losses_are_those_of_a_loop_over_tokens(context, stride, pico):
    model = pico("gpt2", n_layers=2)
    ids = torch.randint(2, 50, (33,), generator=torch.Generator().manual_seed(0))
    expected = []
    with torch.inference_mode():
        for begin, first, end in sliding_windows(len(ids), context, stride):
            total = 0.0
            for t in range(first, end):
                next_token = model(input_ids=ids[None, begin:t]).logits[0, -1]
                total -= torch.log_softmax(next_token.double(), dim=0)[ids[t]].item()
            expected.append((total, end - first))
    assert sum(n for _, n in expected) == 32
    for batch_size in (1, 3, 100):
        batches = window_batches(ids.int(), context, stride, batch_size)
        scored = [each for batch in batches for each in window_losses(model, batch)]
        losses, counts = zip(*scored, strict=True)
        assert counts == tuple(n for _, n in expected)
        # float32 logits of order 10, up to 32 losses summed
        assert losses == pytest.approx([loss for loss, _ in expected], abs=1e-4)


def test_a_loss_that_is_not_finite_is_an_error_that_names_its_window(pico):
    model = pico("gpt2", n_layers=2)
    ids = torch.randint(2, 49, (30,), generator=torch.Generator().manual_seed(0))
    ids[17] = 49
    with torch.no_grad():
        model.transformer.wte.weight[49, 0] = torch.inf  # reached from token 17 on
        model.lm_head.weight = torch.nn.Parameter(model.lm_head.weight.clone().nan_to_num(posinf=0))
    windows = sliding_windows(30, 8, 4)
    (begin, *_) = next(w for w in windows if w[0] <= 17 < w[2] - 1)
    with pytest.raises(ValueError, match=f"window that begins at token {begin} is not finite"):
        for batch in window_batches(ids, 8, 4, batch_size=1):
            list(window_losses(model, batch))


def test_perplexity_averages_over_tokens_or_over_windows():
    losses, counts = [2 * math.log(2), math.log(8)], [2, 1]
    assert perplexity(losses, counts, "tokens") == pytest.approx(2 ** (5 / 3))
    assert perplexity(losses, counts, "windows") == pytest.approx(4)


def test_both_averages_are_equal_for_windows_of_equal_size():
    losses, counts = [3.0, 5.0, 2.5], [4, 4, 4]
    averages = [perplexity(losses, counts, average) for average in ("tokens", "windows")]
    assert averages[0] == pytest.approx(averages[1])


# --- accuracy -------------------------------------------------------------------------------------


def test_accuracy_is_the_share_of_images_whose_largest_logit_is_their_label():
    logits = torch.tensor([[3.0, 1.0, 2.0], [0.0, -1.0, 5.0], [-3.0, -1.0, -2.0], [9.0, 8.0, 1.0]])
    correct = top1_correct(logits, torch.tensor([0, 2, 1, 1]))
    assert correct.tolist() == [1, 1, 1, 0]
    assert accuracy(correct.tolist()) == 75.0


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_logits_that_are_not_finite_are_an_error(value):
    with pytest.raises(ValueError, match="not finite"):
        top1_correct(torch.tensor([[0.0, value]]), torch.tensor([1]))


@pytest.mark.parametrize(
    ("kind", "good", "bad"),
    [
        ("language_modeling", 17.1, 17.2),
        ("image_classification", 80.3, 80.2),
        ("translation", 35.8, 35.7),
    ],
)
def test_lower_perplexity_and_higher_accuracy_and_bleu_are_better(kind, good, bad):
    better = METRICS[kind].better
    assert better(good, bad) and not better(bad, good) and not better(good, good)


# --- BLEU -----------------------------------------------------------------------------------------

PAIRS = [
    ("He didn't say when he'd be back.", "He didn't tell us when he would come back."),
    ("The U.S. exported 1,234.5 tons (in 2019).", "In 2019, the U.S. exported 1,234.5 tons."),
    ("", "Nothing came out of the decoder for this one."),
    ("Click OK.", "Click OK."),
    ("Tom", "Tom isn't here."),
    ("The the the the the the the.", "The cat is on the mat."),
    ("I like tea — and you? ", "I like tea, and you?"),
    ("Choose File > Save As… to save a copy.", "To save a copy, choose File > Save As…."),
    ("wholly different words", "Nobody answered."),
    ("He lives in &quot;New York&quot;.", 'He lives in "New York".'),
]
HYPOTHESES, REFERENCES = (list(side) for side in zip(*PAIRS, strict=True))


def summed(hypotheses: list[str], references: list[str]) -> list[int]:
    counts = sentence_counts(hypotheses, references)
    return [sum(counts[name]) for name in COUNTS]


def sacrebleu_score(hypotheses: list[str], references: list[str]) -> float:
    return BLEU().corpus_score(hypotheses, [references]).score


def test_bleu_of_summed_sentence_counts_is_sacrebleu_s_corpus_score():
    expected = sacrebleu_score(HYPOTHESES, REFERENCES)
    assert 5 < expected < 95
    assert bleu_from_counts(summed(HYPOTHESES, REFERENCES)) == pytest.approx(expected, abs=1e-9)
    assert corpus_bleu(HYPOTHESES, REFERENCES)[0] == pytest.approx(expected, abs=1e-9)


def test_the_counts_add_up_for_any_part_of_the_sentences():
    generator = np.random.default_rng(0)
    for size in (1, 2, 5, 30):
        for _ in range(5):
            rows = generator.integers(len(PAIRS), size=size)
            hypotheses, references = [HYPOTHESES[i] for i in rows], [REFERENCES[i] for i in rows]
            expected = sacrebleu_score(hypotheses, references)
            found = bleu_from_counts(summed(hypotheses, references))
            assert found == pytest.approx(expected, abs=1e-9)


@pytest.mark.parametrize("hypothesis", ["", "wholly different words"])
def test_sentences_without_a_match_score_0(hypothesis):
    assert bleu_from_counts(summed([hypothesis] * 3, REFERENCES[:3])) == 0


def test_perfect_sentences_score_100():
    assert bleu_from_counts(summed(REFERENCES, REFERENCES)) == pytest.approx(100)


def test_every_hypothesis_needs_its_reference():
    with pytest.raises(ValueError):
        sentence_counts(HYPOTHESES, REFERENCES[:-1])


def test_the_signature_says_how_bleu_was_computed():
    _, signature = corpus_bleu(HYPOTHESES, REFERENCES)
    for part in ("nrefs:1", "case:mixed", "eff:no", "tok:13a", "smooth:exp", "version:"):
        assert part in signature


# --- learning rates -------------------------------------------------------------------------------


def training(schedule: str, **changes) -> Training:
    settings = {"batch_size": 2, "max_steps": 100, "evaluate_every": 10, "learning_rate": 5e-5}
    return Training(schedule=schedule, **settings | changes)


def rates(settings: Training, steps) -> list[float]:
    factor = learning_rate_factor(settings)
    return [settings.learning_rate * factor(step) for step in steps]


def test_inverse_sqrt_falls_with_a_timescale_of_10000_steps():
    steps = [0, 1, 1000, 30_000, 100_000]
    expected = [5e-5 / math.sqrt((t + 10_000) / 10_000) for t in steps]
    assert rates(training("inverse_sqrt"), steps) == pytest.approx(expected, rel=1e-12)
    assert rates(training("inverse_sqrt"), [0, 30_000]) == pytest.approx([5e-5, 2.5e-5])


def test_linear_to_minimum_reaches_its_minimum_after_20000_steps_and_stays():
    settings = training("linear_to_minimum", minimum_learning_rate=1e-6, decay_steps=20_000)
    steps = [0, 5_000, 10_000, 19_999, 20_000, 20_001, 50_000]
    expected = [5e-5 - (5e-5 - 1e-6) * min(t, 20_000) / 20_000 for t in steps]
    assert rates(settings, steps) == pytest.approx(expected, rel=1e-9)
    assert rates(settings, [0, 10_000, 90_000]) == pytest.approx([5e-5, 2.55e-5, 1e-6])


def test_cosine_falls_from_the_peak_to_the_minimum_at_the_last_step():
    settings = training("cosine", minimum_learning_rate=1e-5, warmup_steps=20)
    assert rates(settings, [20, 60, 100, 150]) == pytest.approx([5e-5, 3e-5, 1e-5, 1e-5])
    assert all(a > b for a, b in pairwise(rates(settings, range(20, 101))))


def test_cosine_can_reach_its_minimum_before_the_last_step():
    settings = training("cosine", minimum_learning_rate=1e-5, decay_steps=40)
    assert rates(settings, [0, 20, 40, 99]) == pytest.approx([5e-5, 3e-5, 1e-5, 1e-5])


def test_constant_stays():
    assert rates(training("constant"), [0, 50, 10_000]) == [5e-5] * 3


@pytest.mark.parametrize("schedule", ["inverse_sqrt", "cosine", "constant", "linear_to_minimum"])
def test_warm_up_rises_in_equal_steps_to_the_peak_and_delays_the_rest(schedule):
    settings = training(schedule, warmup_steps=4, decay_steps=50)
    assert rates(settings, range(5)) == pytest.approx([1.25e-5, 2.5e-5, 3.75e-5, 5e-5, 5e-5])
    if schedule != "cosine":  # which ends at the last step, warm-up or not
        delayed, plain = settings, training(schedule, decay_steps=50)
        assert rates(delayed, range(4, 60)) == rates(plain, range(56))


@pytest.mark.parametrize(("timescale", "theirs"), [(10_000, {}), (30, {"timescale": 30})])
def test_inverse_sqrt_is_that_of_transformers(timescale, theirs):
    from transformers import get_inverse_sqrt_schedule

    def learning_rates(scheduler_of) -> list[float]:
        optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=5e-5)
        scheduler, seen = scheduler_of(optimizer), []
        for _ in range(100):
            seen.append(scheduler.get_last_lr()[0])
            optimizer.step()
            scheduler.step()
        return seen

    factor = learning_rate_factor(training("inverse_sqrt", timescale=timescale))
    ours = learning_rates(lambda o: torch.optim.lr_scheduler.LambdaLR(o, factor))
    transformers_ = learning_rates(lambda o: get_inverse_sqrt_schedule(o, 0, **theirs))
    assert ours == pytest.approx(transformers_, rel=1e-12)


# --- bootstrap intervals --------------------------------------------------------------------------


def examples(metric: str, n: int = 60, seed: int = 0) -> dict[str, list]:
    """Per-example values as an evaluation returns them, columns of other use included."""
    generator = np.random.default_rng(seed)
    match metric:
        case "perplexity":
            counts = generator.integers(1, 9, size=n)
            losses = counts * generator.normal(3.0, 0.3, size=n)
            return {"negative_log_likelihood": losses.tolist(), "n_tokens": counts.tolist()}
        case "accuracy":
            correct = (generator.random(n) < 0.8).astype(int).tolist()
            return {"correct": correct, "negative_log_likelihood": [0.5] * n}
        case "bleu":
            rows = generator.integers(len(PAIRS), size=n)
            hypotheses = [HYPOTHESES[i] for i in rows]
            counts = sentence_counts(hypotheses, [REFERENCES[i] for i in rows])
            return counts | {"hypothesis": hypotheses}


def point(metric: str, values: dict[str, list], average: str | None) -> float:
    match metric:
        case "perplexity":
            return perplexity(values["negative_log_likelihood"], values["n_tokens"], average)
        case "accuracy":
            return accuracy(values["correct"])
        case "bleu":
            return bleu_from_counts([sum(values[name]) for name in COUNTS])


METRICS_AND_AVERAGES = [
    ("perplexity", "tokens"),
    ("perplexity", "windows"),
    ("accuracy", None),
    ("bleu", None),
]


@pytest.mark.parametrize(("metric", "average"), METRICS_AND_AVERAGES)
def test_the_columns_of_all_examples_sum_to_the_score_itself(metric, average):
    values = examples(metric)
    columns, score = score_columns(metric, values, average)
    assert score(columns.sum(axis=0)) == pytest.approx(point(metric, values, average))


def scored(metric: str, values: dict, resamples: int, seed=0, average=None, score=None) -> Scored:
    """A model's test, resampled."""
    if score is None:
        score = point(metric, values, average)
    test = {"metric": metric, "average": average, "score": score}
    return scored_models({"it": test}, {"it": values}, resamples, seed)["it"]


def bootstrap_interval(
    metric: str, values: dict, resamples: int, confidence: float, seed: int, average=None
) -> tuple[float, float]:
    return scored(metric, values, resamples, seed, average).interval(confidence)


@pytest.mark.parametrize(("metric", "average"), METRICS_AND_AVERAGES)
def test_an_interval_holds_its_score_follows_its_seed_and_grows_with_confidence(metric, average):
    values = examples(metric)
    low, high = bootstrap_interval(metric, values, 300, 0.95, seed=0, average=average)
    assert low < point(metric, values, average) < high
    assert bootstrap_interval(metric, values, 300, 0.95, seed=0, average=average) == (low, high)
    assert bootstrap_interval(metric, values, 300, 0.95, seed=1, average=average) != (low, high)
    narrow = bootstrap_interval(metric, values, 300, 0.5, seed=0, average=average)
    assert low < narrow[0] < narrow[1] < high


@pytest.mark.parametrize(("metric", "average"), METRICS_AND_AVERAGES)
def test_values_read_as_text_give_the_same_interval(metric, average):
    values = examples(metric)
    as_text = {name: [str(value) for value in column] for name, column in values.items()}
    score = point(metric, values, average)
    intervals = [
        scored(metric, v, 50, average=average, score=score).interval(0.9) for v in (values, as_text)
    ]
    assert intervals[0] == intervals[1]


def test_the_interval_of_an_accuracy_is_as_wide_as_theory_says():
    correct = [1] * 800 + [0] * 200
    low, high = bootstrap_interval("accuracy", {"correct": correct}, 2000, 0.95, seed=0)
    half = 1.96 * 100 * math.sqrt(0.8 * 0.2 / 1000)
    # 2000 resamples place a 2.5 % quantile to about 5 % of the half-width
    assert (80 - low, high - 80) == pytest.approx((half, half), rel=0.15)


def test_two_models_on_the_same_examples_are_resampled_in_pairs():
    rows = np.random.default_rng(0).normal(size=(40, 2))
    one, other = (resampled_sums(r, 200, seed=3) for r in (rows, rows + [0.25, -1.0]))
    assert one.std(axis=0).min() > 1  # the draws do differ from each other
    # each resample has 40 rows, and both models the same ones
    np.testing.assert_allclose(other - one, np.tile([10.0, -40.0], (200, 1)), atol=1e-9)


def test_resamples_are_as_large_as_the_data_and_draw_every_row_equally_often():
    n = 50
    drawn = resampled_sums(np.eye(n), 400, seed=0)  # how often each row was drawn
    assert (drawn.sum(axis=1) == n).all()
    assert (drawn.max(axis=1) > 1).all()  # with replacement
    assert drawn.mean(axis=0) == pytest.approx(np.ones(n), abs=0.25)  # 5 standard errors


def test_an_unknown_metric_is_an_error():
    with pytest.raises(ValueError, match="'rouge': known are loss, perplexity, accuracy and bleu"):
        score_columns("rouge", {})


# --- clusters -------------------------------------------------------------------------------------


def clustered(
    generator: np.random.Generator, n_clusters: int, effect: float
) -> tuple[dict[str, dict], dict[str, dict]]:
    """Two language models' tests on articles of about 8 windows that are alike; the mean is 3.

    effect: mean loss of the second above that of the first, which differs between articles, too.
    """
    sizes = 1 + generator.geometric(1 / 8, size=n_clusters)
    article = np.repeat(np.arange(n_clusters), sizes)
    level = generator.normal(3, 0.3, size=n_clusters)
    gain = generator.normal(effect, 0.05, size=n_clusters)
    one = level[article] + generator.normal(0, 0.3, size=len(article))
    other = one + gain[article] + generator.normal(0, 0.1, size=len(article))
    columns = {
        name: {"negative_log_likelihood": losses, "article": article.astype(str)}
        for name, losses in (("one", one), ("other", other))
    }
    tests = {
        name: {"metric": "loss", "score": of["negative_log_likelihood"].mean()}
        for name, of in columns.items()
    }
    return tests, columns


@pytest.mark.parametrize("n_clusters", [20, 60])
def test_an_interval_covers_and_a_test_errs_as_often_as_they_say(n_clusters):
    generator, n = np.random.default_rng(0), 1000
    covered, covered_difference, found = 0, 0, 0
    for seed in range(n):
        models = scored_models(*clustered(generator, n_clusters, effect=0), 200, seed)
        difference = models["other"].minus(models["one"])
        low, high = models["one"].interval(0.95)
        covered += low <= 3 <= high
        low, high = difference.interval(0.95)
        covered_difference += low <= 0 <= high
        found += bound_test(difference, 0.0) <= 0.05
    assert 0.93 * n <= covered <= 0.97 * n
    assert 0.93 * n <= covered_difference <= 0.97 * n
    assert found <= 0.06 * n


def test_windows_that_are_alike_count_less_than_they_are():
    """An interval that resamples windows of articles as if independent covers far too seldom."""
    generator, covered = np.random.default_rng(0), 0
    for seed in range(300):
        tests, columns = clustered(generator, 40, effect=0)
        alone = {
            name: {k: v for k, v in of.items() if k != "article"} for name, of in columns.items()
        }
        low, high = scored_models(tests, alone, 200, seed)["one"].interval(0.95)
        covered += low <= 3 <= high
    assert covered < 0.85 * 300


@pytest.mark.parametrize(
    ("names", "n", "over"),
    [
        ({"article": list("aabbbc")}, 3, "3 articles of 6 test examples, fewer than 20"),
        ({"page": [7, 7, 8, 9, 8, 8]}, 3, "3 pages of 6 test examples, fewer than 20"),
        ({"page": list("aaaaaa")}, 6, "6 test examples of one page, as if independent"),
        ({}, 6, "6 test examples, each on its own"),
    ],
)
def test_what_is_resampled_is_said(names, n, over):
    columns = np.arange(12.0).reshape(6, 2)
    sums, said = in_clusters(columns, names)
    assert (len(sums), said) == (n, over)
    np.testing.assert_array_equal(sums.sum(axis=0), columns.sum(axis=0))


def test_twenty_articles_are_enough():
    _, said = in_clusters(np.ones((40, 1)), {"article": [i // 2 for i in range(40)]})
    assert said == "20 articles of 40 test examples"


def test_models_on_other_examples_are_not_compared():
    (one, _), (_, other) = (accuracies([1, 0]), accuracies([1, 0, 1]))
    tests = {"one": one, "other": one}
    columns = {"one": {"correct": [1, 0]}, "other": other}
    with pytest.raises(ValueError, match="on 2 test examples, each on its own and on 3 test exa"):
        scored_models(tests, columns, 10, 0)


def accuracies(correct: list[int]) -> tuple[dict, dict]:
    """Summary and columns of an image classifier's test."""
    return {"metric": "accuracy", "score": 100 * np.mean(correct)}, {"correct": correct}


def test_the_standard_error_of_a_mean_is_the_one_of_textbooks():
    losses = np.random.default_rng(0).normal(3, 0.4, size=30)
    found = scored("loss", {"negative_log_likelihood": losses}, 10, score=losses.mean())
    assert found.error == pytest.approx(losses.std(ddof=1) / np.sqrt(30))
