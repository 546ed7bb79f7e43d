"""Test examples are named by the article or page that they are part of."""

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from experiment.config.settings import JOINS
from experiment.evaluation import clusters as module
from experiment.evaluation.clusters import clusters
from experiment.evaluation.perplexity import sliding_windows
from experiment.inputs import own_data
from experiment.tasks import task_for
from ffmerge.evaluation.intervals import CLUSTERS
from provenance.sources import REPOSITORY

MODELS = REPOSITORY / "resources/demo/models"
ROWS = {
    "text": [
        "The first article begins here. It has a second sentence, too, of a few words.",
        "It goes on, with α and β and 1,234.5 of them.",
        "Another article follows it. That one has two sentences as well, and they are long.",
        "Ends the file",
    ],
    "article": ["One", "One", "Two", "Two"],
}
WIKITEXT = [
    "",
    " = One = \n",
    "",
    " Text of it . \n",
    " = = Part = = \n",
    " = Two = \n",
    " More . \n",
]


def task_on(rows: dict, folder: Path, settings: dict, model: str = "gpt2"):
    """A task whose test split has these rows."""
    file = folder / "test.parquet"
    pq.write_table(pa.table(rows), file)
    return task_for({"test": {"batch_size": 4}, **settings}, MODELS / model, {"test": file})


def language_model(rows: dict, folder: Path, max_tokens: int | None = None, join="blank_lines"):
    test = {"context": 8, "stride": 4, "batch_size": 4, "max_tokens": max_tokens, "join": join}
    return task_on(rows, folder, {"kind": "language_modeling", "context": 8, "test": test})


@pytest.mark.parametrize(
    ("max_tokens", "join"), [(None, "blank_lines"), (60, "blank_lines"), (None, "nothing")]
)
def test_a_window_is_of_the_article_of_the_first_token_that_it_scores(tmp_path, max_tokens, join):
    task = language_model(ROWS, tmp_path, max_tokens, join)
    ids = task.token_ids("test", join)[:max_tokens]
    between = JOINS[join]
    begin_of_two = len(between.join(ROWS["text"][:2])) + len(between)
    expected = []
    for _, first, _ in sliding_windows(len(ids), 8, 4):
        before = task.tokenizer.decode(ids[: first + 1])
        expected.append("Two" if len(before) > begin_of_two else "One")
    assert clusters(task, "test") == {"article": expected}
    assert len(set(expected)) == 2


def test_articles_of_wikitext_are_told_by_their_headings(tmp_path):
    task = language_model({"text": WIKITEXT}, tmp_path)
    assert set(clusters(task, "test")["article"]) == {"One", "Two"}


def test_clusters_are_named_as_elsewhere():
    assert module.COLUMNS == CLUSTERS == own_data.CLUSTERS


def test_a_sentence_has_the_page_of_its_row(tmp_path):
    rows = {"zh": ["一", "二", "三"], "en": ["one", "two", "three"], "page": ["a", "b", "b"]}
    settings = {"kind": "translation", "source": "zh", "target": "en", "max_tokens": 8}
    test = {"num_beams": 1, "max_length": 8, "batch_size": 4, "max_examples": 2}
    task = task_on(rows, tmp_path, {**settings, "test": test}, "marian")
    assert clusters(task, "test") == {"page": ["a", "b"]}


def test_a_query_has_the_article_of_its_paragraph(tmp_path):
    settings = {"kind": "sentence_retrieval", "min_words": 3, "max_tokens": 16, "pooling": "mean"}
    task = task_on(ROWS, tmp_path, {**settings, "temperature": 0.05})
    assert clusters(task, "test") == {"article": ["One", "Two"]}  # of rows 0 and 2, which are long


def test_data_that_name_nothing_have_no_clusters(tmp_path):
    assert clusters(language_model({"text": ROWS["text"]}, tmp_path), "test") == {}
