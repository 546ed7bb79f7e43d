"""Retrieval by sentence embeddings: which passage is the one that a query belongs to.

Texts need no labels: by the inverse cloze task (Lee et al. 2019, Section 5), a sentence is the
query and what is left of its paragraph the passage to be found.
"""

import hashlib
from typing import Literal, NamedTuple

from torch import Tensor
from torch.nn.functional import cross_entropy, normalize

from experiment.evaluation.sentences import sentences


class Pair(NamedTuple):
    """A query and its own passage."""

    query: str
    passage: str


def inverse_cloze(paragraph: str, min_words: int) -> Pair | None:
    """A sentence of a paragraph, and the rest of it; None where either would be too short.

    min_words: words that both have at least. Which of its sentences is taken follows from the
    paragraph alone, so that it is the same one everywhere, whatever stands before it.
    """
    parts = sentences(" ".join(paragraph.split()))
    lengths = [len(part.split()) for part in parts]
    total = sum(lengths)
    long = [i for i, n in enumerate(lengths) if n >= min_words and total - n >= min_words]
    if not long:
        return None
    digest = hashlib.sha256(paragraph.encode()).digest()
    chosen = long[int.from_bytes(digest[:8], "big") % len(long)]
    return Pair(parts[chosen], " ".join(parts[:chosen] + parts[chosen + 1 :]))


def sentence_embeddings(hidden: Tensor, mask: Tensor, pooling: Literal["mean", "cls"]) -> Tensor:
    """Vectors of length 1 for texts, (n_texts, d_model) float32, from an encoder's last layer.

    hidden: (n_texts, length, d_model); mask: (n_texts, length), 1 where a token is. pooling: the
    mean over the tokens (Reimers and Gurevych 2019), or the first one's state.
    """
    hidden, mask = hidden.float(), mask.unsqueeze(-1).float()
    pooled = (hidden * mask).sum(dim=1) / mask.sum(dim=1) if pooling == "mean" else hidden[:, 0]
    return normalize(pooled, dim=-1)


def contrastive_losses(similarities: Tensor, own: Tensor, temperature: float) -> Tensor:
    """Cross-entropy (nats) of each query's own passage among all, (n_queries,).

    similarities: (n_queries, n_passages), cosines; own: (n_queries,), which passage is its own.
    With a batch's other passages as the wrong ones this is the loss of Karpukhin et al. (2020,
    Eq. 2), of cosines over a temperature.
    """
    return cross_entropy(similarities / temperature, own, reduction="none")
