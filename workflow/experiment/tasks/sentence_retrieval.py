"""Sentence retrieval: a sentence encoder finds the passage that a sentence was taken from.

The paper has no such task. It serves encoders without a head, which predict neither labels nor
words, and needs only running text (see experiment.evaluation.retrieval).
"""

import math
from collections.abc import Iterator, Sequence
from itertools import islice
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from torch.utils.data import Dataset

from experiment.config.settings import Training
from experiment.evaluation.retrieval import QueryPassage, inverse_cloze
from experiment.tasks.task import ROW, Batch, Columns, Task, longest_first
from ffmerge.evaluation.accuracy import (
    accuracy,
    numbers_of,
    sentence_embeddings,
    texts_of,
    top1_correct,
)
from ffmerge.evaluation.metrics import Evaluation
from provenance.progress import progress

if TYPE_CHECKING:
    import datasets


class QueryPassages(Dataset):
    """Queries and passages of rows of text; only the rows' numbers are kept in memory.

    limit: number of pairs to keep. Raises ValueError if there are none.
    """

    def __init__(self, rows: "datasets.Dataset", min_words: int, limit: int | None = None) -> None:
        self.texts, self.min_words = rows["text"], min_words
        long = (i for i, text in enumerate(self.texts) if inverse_cloze(text, min_words))
        self.places = list(islice(long, limit))
        if not self.places:
            raise ValueError(
                f"none of {len(rows)} paragraphs has a sentence, and a rest, of min_words = "
                f"{min_words} words"
            )

    def __len__(self) -> int:
        return len(self.places)

    def __getitem__(self, i: int) -> QueryPassage:
        return inverse_cloze(self.texts[self.places[i]], self.min_words)


class SentenceRetrieval(Task):
    """An encoder whose pooled states are embeddings of queries and passages."""

    def pairs(self, split: str, limit: int | None = None) -> QueryPassages:
        """A split's queries with their passages, in order."""
        return QueryPassages(self.rows(split), self.settings.min_words, limit)

    def training_examples(self, training: Training, seed: int) -> QueryPassages:
        return self.pairs("train")

    def collate(self, examples: Sequence[QueryPassage]) -> Batch:
        """The queries of the examples, then their passages: (2 · n_examples, length)."""
        queries, passages = zip(*examples, strict=True)
        return self._tokenized([*queries, *passages])

    def _tokenized(self, texts: list[str]) -> Batch:
        cut = {"truncation": True, "max_length": self.settings.max_tokens}
        batch = self.tokenizer(texts, padding=True, return_tensors="pt", **cut)
        return {"input_ids": batch["input_ids"], "attention_mask": batch["attention_mask"]}

    def feature_batches(self) -> Iterator[Batch]:
        return self.batches_for_features(self.pairs("validation"))

    def loss(self, model: nn.Module, batch: Batch) -> Tensor:
        """Contrastive loss with the batch's other passages as the wrong ones."""
        queries, passages = self._embedded(model, batch).chunk(2)
        own = torch.arange(len(queries), device=queries.device)
        similarities = queries @ passages.T
        return contrastive_losses(similarities, own, self.settings.temperature).mean()

    def _embedded(self, model: nn.Module, batch: Batch) -> Tensor:
        hidden = model(**batch).last_hidden_state
        return sentence_embeddings(hidden, batch["attention_mask"], self.settings.pooling)

    def to_score(self, split: str) -> Iterator[tuple[list[int], Batch]]:
        """Batches of texts of similar length, each with their numbers: queries, then passages."""
        how = getattr(self.settings, split)
        pairs = self.pairs(split, how.max_examples)
        queries, passages = zip(*(pairs[i] for i in range(len(pairs))), strict=True)
        texts = [*queries, *passages]
        by_length = longest_first(texts)
        for start in progress(range(0, len(texts), how.batch_size), desc="embeddings"):
            chosen = by_length[start : start + how.batch_size]
            yield chosen, self._tokenized([texts[i] for i in chosen])

    def scores(self, model: nn.Module, batch: tuple[list[int], Batch], device: str) -> Columns:
        chosen, tensors = batch
        inputs = {name: tensor.to(device) for name, tensor in tensors.items()}
        texts = texts_of(tensors["input_ids"], tensors["attention_mask"])
        return {ROW: chosen, "embedding": [*self._embedded(model, inputs)], "text": texts}

    def evaluation(self, split: str, columns: Columns) -> Evaluation:
        size = getattr(self.settings, split).batch_size
        queries, passages = torch.stack(columns["embedding"]).chunk(2)
        equal = numbers_of(columns["text"][len(queries) :]).to(queries.device)
        correct, losses = [], []
        for own in torch.arange(len(queries), device=queries.device).split(size):
            similarities = queries[own] @ passages.T  # (batch_size, n_passages)
            correct += top1_correct(similarities, own, equal).tolist()
            losses += contrastive_losses(similarities, own, self.settings.temperature).tolist()
        return Evaluation(
            score=accuracy(correct),
            loss=math.fsum(losses) / len(losses),
            per_example={"correct": correct, "negative_log_likelihood": losses},
            details={"n_passages": len(correct)},
        )


def contrastive_losses(similarities: Tensor, own: Tensor, temperature: float) -> Tensor:
    """Cross-entropy (nats) of each query's own passage among all, (n_queries,).

    similarities: (n_queries, n_passages), cosines; own: (n_queries,), index of its passage.
    With a batch's other passages as the wrong ones this is the loss of Karpukhin et al. (2020,
    Eq. 2) on cosines over a temperature.
    """
    return cross_entropy(similarities / temperature, own, reduction="none")
