"""Running text: its tokens are those of the whole, packed without a gap, stored or made anew."""

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoTokenizer

from experiment.config.settings import JOINS
from experiment.evaluation.perplexity import (
    perplexity,
    sliding_windows,
    window_batches,
    window_losses,
)
from experiment.tasks import language_modeling, task_for
from provenance.sources import REPOSITORY

MODEL = REPOSITORY / "resources" / "demo" / "models" / "gpt2"  # for its tokenizer
TEXT = [
    "Click the cell, and press Enter.",
    "",  # as WikiText has between its paragraphs
    "Sums, α and β, of 1,234.5 cells",
    "A longer paragraph that goes on for a while, so that it has a good many tokens of its own.",
    "Ends the file",
] * 3
CONTEXT = 8


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch):
    """Blocks of few rows, so that a short text has several."""
    monkeypatch.setattr(language_modeling, "ROWS_A_BLOCK", 4)


@pytest.fixture
def text(tmp_path) -> Path:
    file = tmp_path / "text.parquet"
    pq.write_table(pa.table({"text": TEXT}), file)
    return file


def task(
    average: str = "windows", shuffle=None, joins=("blank_lines", "blank_lines"), **data: Path
):
    """A language model's task on these splits."""
    scoring = {"context": 8, "stride": 4, "batch_size": 4, "max_tokens": 50, "average": average}
    scoring["join"] = joins[1]
    settings = {
        "kind": "language_modeling",
        "context": CONTEXT,
        "join": joins[0],
        "features": {"n_tokens": 10, "batch_size": 3, "shuffle": shuffle},
        "validation": scoring,
    }
    return task_for(settings, MODEL, data)


def whole_text_tokens(between: str = "\n\n") -> list[int]:
    tokenizer = AutoTokenizer.from_pretrained(MODEL)
    return tokenizer(between.join(TEXT), add_special_tokens=False, verbose=False)["input_ids"]


# --- tokens ---------------------------------------------------------------------------------------


def test_tokens_made_in_blocks_are_those_of_the_whole_text(text):
    ids = task(train=text).token_ids("train", "blank_lines")
    assert ids.tolist() == whole_text_tokens()
    assert ids.dtype == torch.int32


def test_stored_tokens_are_those_of_the_text(text, tmp_path):
    file = tmp_path / "tokens.safetensors"
    task(train=text).store_tokens("train", file)
    stored, made = task(train=file), task(train=text)
    tokens = made.token_ids("train", "blank_lines")
    assert torch.equal(stored.token_ids("train", "blank_lines"), tokens)
    assert stored.token_ids("train", "blank_lines").dtype == torch.int32
    examples = [t.training_examples(None, seed=0) for t in (stored, made)]
    assert torch.equal(*examples)
    assert [tuple(tensor.shape) for tensor in load_file(file).values()] == [tokens.shape]


def test_stored_tokens_need_neither_text_nor_tokenizer(text, tmp_path):
    file = tmp_path / "tokens.safetensors"
    task(train=text).store_tokens("train", file)
    text.unlink()
    stored = task(train=file)
    stored.base_model = tmp_path / "nothing"
    assert stored.token_ids("train", "blank_lines").tolist() == whole_text_tokens()


@pytest.mark.parametrize("joins", [("nothing", "blank_lines"), ("blank_lines", "nothing")])
def test_examples_and_each_score_have_their_own_way_of_joining_rows(joins, text, pico):
    """Rows that are joined by nothing are tokenized as if each were alone, as WikiText's are."""
    made = task(joins=joins, train=text, validation=text)
    between = [JOINS[join] for join in joins]
    tokens = whole_text_tokens(between[0])
    examples = made.training_examples(None, seed=0)
    assert examples.flatten().tolist() == tokens[: examples.numel()]
    batches = list(made.feature_batches())
    assert torch.equal(torch.cat([batch["input_ids"] for batch in batches]), examples.long())
    asked, tokens_of = [], made.token_ids
    model = pico("gpt2", n_layers=1)

    def token_ids(split, join):
        asked.append(tokens_of(split, join).tolist())
        return tokens_of(split, join) % model.config.vocab_size

    made.token_ids = token_ids
    made.evaluate(model, "validation")
    assert asked == [whole_text_tokens(between[1])]
    assert whole_text_tokens("") != whole_text_tokens()


# --- examples -------------------------------------------------------------------------------------


def test_examples_are_the_text_packed_to_the_context_without_a_gap(text):
    tokens = whole_text_tokens()
    examples = task(train=text).training_examples(None, seed=0)
    assert examples.shape == (len(tokens) // CONTEXT, CONTEXT)
    assert examples.flatten().tolist() == tokens[: examples.numel()]
    assert len(tokens) - examples.numel() < CONTEXT
    batch = task(train=text).collate([examples[2], examples[0]])
    assert torch.equal(batch["input_ids"], examples[[2, 0]].long())
    assert torch.equal(batch["labels"], batch["input_ids"])


def test_feature_batches_are_the_validation_split_in_order(text):
    batches = list(task(validation=text).feature_batches())
    assert {len(batch["input_ids"]) for batch in batches[:-1]} == {3}
    ids = torch.cat([batch["input_ids"] for batch in batches])
    assert torch.equal(ids, task(train=text).training_examples(None, seed=0).long())
    assert all(batch["attention_mask"].all() for batch in batches)


def test_features_come_from_shuffled_examples_where_a_seed_says_so(text):
    def examples(shuffle):
        batches = task(validation=text, shuffle=shuffle).feature_batches()
        return torch.cat([batch["input_ids"] for batch in batches]).tolist()

    assert examples(1) == examples(1)
    assert examples(1) != examples(None) != examples(2) != examples(1)
    assert sorted(examples(1)) == sorted(examples(2)) == sorted(examples(None))


# --- perplexity -----------------------------------------------------------------------------------


@pytest.mark.parametrize("average", ["windows", "tokens"])
def test_an_evaluation_is_the_perplexity_of_the_first_tokens(average, text, pico):
    model, scored = pico("gpt2", n_layers=2), task(average, validation=text)
    ids = scored.token_ids("validation", "blank_lines") % model.config.vocab_size
    scored.token_ids = lambda split, join: ids
    result = scored.evaluate(model, "validation")
    batches = window_batches(ids[:50], 8, 4, 4)
    losses, counts = zip(*(x for b in batches for x in window_losses(model, b)), strict=True)
    assert sum(counts) == 49 < len(ids) - 1
    assert result.score == perplexity(losses, counts, average)
    assert result.per_example == {"negative_log_likelihood": [*losses], "n_tokens": [*counts]}
    assert result.loss == pytest.approx(sum(losses) / sum(counts))
    assert result.details == {"average": average, "n_tokens": 49, "n_windows": len(counts)}


def test_logits_are_computed_only_where_they_are_needed(pico):
    model, asked = pico("gpt2", n_layers=2), []
    model.lm_head.register_forward_hook(lambda _, inputs, output: asked.append(output.shape[:2]))
    ids = torch.randint(2, 50, (45,), generator=torch.Generator().manual_seed(0))
    windows = sliding_windows(len(ids), context=16, stride=4)
    batches = window_batches(ids, 16, 4, batch_size=1)
    scored = sum(n for batch in batches for _, n in window_losses(model, batch))
    assert scored == 44
    # the first window scores all but its first token, the others what they move by; and each score
    # needs the position before it
    needed = [end - first + 1 for _, first, end in windows]
    assert needed[:2] == [16, 5]
    assert asked == [(1, n) for n in needed]


# --- one row a sequence ---------------------------------------------------------------------------


@pytest.fixture
def unpacked(text, monkeypatch):
    """The task of which each row is a sequence, and the tokens of its rows."""
    monkeypatch.setattr(language_modeling, "CHARACTERS_A_BLOCK", 40)
    made = task("tokens", train=text, validation=text)
    made.settings = made.settings.model_copy(update={"pack": False})
    rows = [made.tokenizer(row)["input_ids"][:CONTEXT] for row in TEXT]
    return made, [row for row in rows if len(row) > 1]


def test_rows_are_examples_of_their_own_if_they_are_not_packed(unpacked, tmp_path):
    task, rows = unpacked
    assert [row.tolist() for row in task.training_examples(None, seed=0)] == rows
    task.store_tokens("train", tmp_path / "tokens.safetensors")
    task.data["test"] = tmp_path / "tokens.safetensors"
    assert [row.tolist() for row in task.row_ids("test")] == rows
    batch = task.collate([torch.tensor(row) for row in ([1, 2, 3], [4, 5])])
    assert batch["input_ids"].tolist() == [[1, 2, 3], [4, 5, 0]]
    assert batch["attention_mask"].tolist() == [[1, 1, 1], [1, 1, 0]]
    assert batch["labels"].tolist() == [[1, 2, 3], [4, 5, -100]]
    n_positions = sum(int(batch["attention_mask"].sum()) for batch in task.feature_batches())
    assert n_positions == sum(map(len, rows))


def test_a_row_that_is_not_packed_is_scored_by_itself(unpacked, pico):
    task, _ = unpacked
    model = pico("gpt2", n_layers=2)
    rows = [row % model.config.vocab_size for row in task.row_ids("validation")]
    task.row_ids = lambda split: rows
    result = task.evaluate(model, "validation")
    n_scored = len(result.per_example["n_tokens"])
    assert 1 < n_scored < len(rows) and result.details["n_tokens"] <= 50  # max_tokens
    for row, loss, n in zip(rows, *result.per_example.values(), strict=False):
        alone = model(input_ids=row[None].long(), labels=row[None].long()).loss.item()
        assert loss / n == pytest.approx(alone, rel=1e-5)
        assert n == len(row) - 1
