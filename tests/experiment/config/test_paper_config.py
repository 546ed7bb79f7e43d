"""config/paper.yaml holds the paper's values, spelled out from Section 4 and Appendices A and B."""

import re
from pathlib import Path

import pytest
import yaml

from experiment.config.run import validated
from experiment.variants import candidates, table5_variants
from ffmerge.method.windows import starts
from provenance.sources import REPOSITORY

FILE = REPOSITORY / "config" / "paper.yaml"
PAPER = validated(yaml.safe_load(FILE.read_text()))
GPT2, VIT, MARIAN = (PAPER.tasks[name] for name in ("gpt2", "vit", "marian"))


def test_results_are_where_the_readme_says():
    assert PAPER.results == "results"
    assert PAPER.device == "cuda"


def test_models_and_data_are_those_of_section_4():
    models = [task.base_model.repository for task in PAPER.tasks.values()]
    assert models == [
        "openai-community/gpt2-large",
        "google/vit-base-patch16-224",
        "Helsinki-NLP/opus-mt-zh-en",
    ]
    assert GPT2.dataset.repository == "Salesforce/wikitext"
    assert {"wikitext-103-raw-v1"} == {
        Path(getattr(GPT2.dataset, split).path).parent.name
        for split in ("train", "validation", "test")
    }
    assert VIT.dataset.repository == "ILSVRC/imagenet-1k"
    assert MARIAN.dataset.url.endswith("/Tatoeba-Challenge-v2020-07-28/eng-zho.tar")
    assert (MARIAN.source, MARIAN.target) == ("zh", "en")
    # a released pair is in alphabetical order: its source side is English, ours is Chinese
    assert MARIAN.dataset.sides == {"src": "en", "trg": "zh"}


def test_only_gpt2_has_a_fine_tuned_baseline():
    assert [task.fine_tune_base for task in PAPER.tasks.values()] == [True, False, False]


@pytest.mark.parametrize("task", PAPER.tasks.values(), ids=PAPER.tasks)
def test_features_have_10k_positions_and_the_first_sublayer_is_the_anchor(task):
    assert task.features.n_tokens == 10_000
    assert task.merge.anchor == "first"
    assert task.merge.methods == ["permute", "vanilla"]


@pytest.mark.parametrize(
    ("task", "n_layers", "removed", "sizes", "windows"),
    [
        (GPT2, 36, [12, 18, 35], [13, 19, 36], [24, 18, 1]),
        (VIT, 12, [4, 6, 11], [5, 7, 12], [8, 6, 1]),
        (MARIAN, 6, [2, 3, 5], [3, 4, 6], [4, 3, 1]),  # a side
    ],
    ids=PAPER.tasks,
)
def test_windows_are_those_of_table_5(task, n_layers, removed, sizes, windows):
    assert task.base_model.n_layers == n_layers
    assert task.merge.k.sizes() == sizes == [n + 1 for n in removed]
    assert [len(starts(n_layers, k)) for k in sizes] == windows == [n_layers - k + 1 for k in sizes]
    assert task.windows.starts == "full"
    assert len(candidates(task)) == 2 * sum(windows)
    assert task.windows.jobs == len(candidates(task)), "one job for each window, and none empty"
    assert len(table5_variants(task)) == 6


def test_gpt2_is_tuned_as_in_table_6():
    tuning = GPT2.fine_tuning
    assert (tuning.learning_rate, tuning.schedule) == (5e-5, "inverse_sqrt")
    assert (tuning.precision, tuning.batch_size, tuning.max_steps) == ("fp16", 2, 100_000)
    assert (tuning.warmup_steps, tuning.timescale) == (0, 10_000)
    assert tuning.evaluate_every == 1000


def test_gpt2_has_a_context_of_1024_and_is_scored_in_steps_of_512():
    assert GPT2.context == GPT2.test.context == GPT2.validation.context == 1024
    assert (GPT2.test.stride, GPT2.test.average, GPT2.test.max_tokens) == (512, "windows", None)


def test_gpt2_reads_text_as_the_released_scripts_do():
    """Without blank lines where they tune, with them where they score windows and the test."""
    assert (GPT2.join, GPT2.validation.join) == ("nothing", "nothing")
    assert (GPT2.search.join, GPT2.test.join) == ("blank_lines", "blank_lines")
    assert GPT2.search == GPT2.test


def test_the_example_with_blank_lines_differs_in_nothing_else():
    example = validated(yaml.safe_load((FILE.parent / "examples/blank_lines.yaml").read_text()))
    (task,) = example.tasks.values()
    validation = GPT2.validation.model_copy(update={"join": "blank_lines"})
    same = {"label": task.label, "join": "blank_lines", "validation": validation}
    assert task == GPT2.model_copy(update=same)
    assert (example.seed, example.device) == (PAPER.seed, PAPER.device)


def test_vit_is_tuned_as_in_table_7():
    tuning = VIT.fine_tuning
    assert (tuning.learning_rate, tuning.schedule) == (5e-5, "linear_to_minimum")
    assert (tuning.decay_steps, tuning.minimum_learning_rate) == (20_000, 1e-6)
    assert (tuning.precision, tuning.batch_size, tuning.max_steps) == ("fp16", 128, 50_000)
    assert tuning.evaluate_every == 3000
    assert VIT.dataset.test == VIT.dataset.validation
    assert VIT.test.max_examples is VIT.validation.max_examples is None


def test_opus_mt_is_tuned_as_in_table_8():
    tuning = MARIAN.fine_tuning
    assert (tuning.learning_rate, tuning.schedule) == (5e-5, "inverse_sqrt")
    assert (tuning.precision, tuning.batch_size, tuning.max_steps) == ("fp16", 64, 100_000)
    assert (tuning.warmup_steps, tuning.timescale) == (0, 10_000)
    assert tuning.evaluate_every == 3000
    assert not tuning.group_by_length


def test_opus_mt_is_selected_on_2000_sentences_and_scored_on_all():
    assert (MARIAN.validation.max_examples, MARIAN.test.max_examples) == (2000, None)
    assert (MARIAN.test.num_beams, MARIAN.test.max_length, MARIAN.max_tokens) == (6, 512, 128)
    assert (MARIAN.validation.num_beams, MARIAN.validation.max_length) == (6, 512)


@pytest.mark.parametrize("task", PAPER.tasks.values(), ids=PAPER.tasks)
def test_the_optimizer_is_that_of_the_released_scripts(task):
    tuning = task.fine_tuning
    assert (tuning.weight_decay, tuning.adam_epsilon, tuning.adam_beta2) == (0.0, 1e-6, 0.999)
    assert tuning.max_gradient_norm == 1.0


def test_values_that_the_paper_does_not_give_name_their_source():
    """Keys for which the paper gives no value have a comment on their line, or above the first."""
    silent = [
        "seed",
        "revision",
        "jobs",
        "starts",
        "warmup_steps",
        "timescale",
        "evaluate_every",
        "weight_decay",
        "adam_epsilon",
        "adam_beta2",
        "max_gradient_norm",
        "average",
        "num_beams",
        "max_length",
        "max_tokens",
        "max_examples",
    ]
    seen = set()
    for line in FILE.read_text().splitlines():
        key = line.strip().split(":")[0]
        if key in silent:
            source = re.search(r"# .*\b(released scripts|ours)\b", line)
            assert source or (key == "revision" and key not in seen), line
            seen.add(key)
    assert seen == set(silent)


# --- what a configuration of inputs may not be ----------------------------------------------------


def changed(**dataset) -> dict:
    raw = yaml.safe_load(FILE.read_text())
    raw["tasks"]["marian"]["dataset"] |= dataset
    return raw


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"repository": "a/b", "revision": "0" * 40}, "dataset: repository, url: only one of them"),
        ({"sides": None}, "url, sides: an archive of text needs the columns"),
        (
            {"url": None, "sides": None, "repository": "a/b"},
            "a hub repository needs a 40-hex commit",
        ),
        ({"url": "ftp://example.org/x.tar"}, "has to be http"),
        ({"sides": {"src": "en", "trg": "de"}}, "zh and en have to be columns of dataset.sides"),
        ({"sha256": "0"}, "dataset.sha256: .* sha256"),
        ({"url": None, "sides": None, "devkit": "/none"}, r"dataset.devkit: /none does not exist"),
    ],
)
def test_a_wrong_source_is_named_before_any_job(change, message):
    with pytest.raises(ValueError, match=message):
        validated(changed(**change))
