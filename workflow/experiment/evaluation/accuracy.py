"""Top-1 accuracy, of classes (Section 4.2) or of passages that were to be found."""

import torch
from torch import Tensor


def top1_correct(logits: Tensor, labels: Tensor) -> Tensor:
    """Whether each example's highest logit is that of its label.

    logits: (n_examples, n_classes); labels: (n_examples,). Returns (n_examples,) of 0 and 1.
    Raises ValueError if a logit is not finite.
    """
    if not torch.isfinite(logits).all():
        raise ValueError("the model returned logits that are not finite")
    return (logits.argmax(dim=-1) == labels).long()


def accuracy(correct: list[int]) -> float:
    """Share of correct examples, in percent."""
    return 100 * sum(correct) / len(correct)
