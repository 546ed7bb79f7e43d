"""Top-1 accuracy of predicted classes (Section 4.2) or retrieved passages."""

from collections.abc import Iterable
from typing import Literal

import torch
from torch import Tensor
from torch.nn.functional import normalize


def top1_correct(logits: Tensor, labels: Tensor, equal: Tensor | None = None) -> Tensor:
    """Compare each example's highest logit with its label.

    logits: (n_examples, n_classes); labels: (n_examples,). equal: (n_classes,) a number of each
    class, the same for those that are as right as each other. Returns (n_examples,) of 0 and 1.
    Raises ValueError if a logit is not finite.
    """
    if not torch.isfinite(logits).all():
        raise ValueError("the model returned logits that are not finite")
    best = logits.argmax(dim=-1)
    if equal is not None:
        best, labels = equal[best], equal[labels]
    return (best == labels).long()


def numbers_of(texts: Iterable[tuple[int, ...]]) -> Tensor:
    """Number texts, (n_texts,): equal ones get the same number."""
    numbers: dict[tuple[int, ...], int] = {}
    return torch.tensor([numbers.setdefault(text, len(numbers)) for text in texts])


def texts_of(ids: Tensor, mask: Tensor) -> list[tuple[int, ...]]:
    """Token ids of each text without padding. ids, mask: (n_texts, length)."""
    return [tuple(row[own.bool()].tolist()) for row, own in zip(ids.cpu(), mask.cpu(), strict=True)]


def accuracy(correct: list[int]) -> float:
    """Percentage of correct examples."""
    return 100 * sum(correct) / len(correct)


def sentence_embeddings(hidden: Tensor, mask: Tensor, pooling: Literal["mean", "cls"]) -> Tensor:
    """Pool an encoder's last layer to unit vectors, (n_texts, d_model) float32.

    hidden: (n_texts, length, d_model); mask: (n_texts, length), 1 for tokens, 0 for padding.
    pooling: the mean over the tokens (Reimers and Gurevych 2019), or the first one's state.
    """
    hidden, mask = hidden.float(), mask.unsqueeze(-1).float()
    pooled = (hidden * mask).sum(dim=1) / mask.sum(dim=1) if pooling == "mean" else hidden[:, 0]
    return normalize(pooled, dim=-1)
