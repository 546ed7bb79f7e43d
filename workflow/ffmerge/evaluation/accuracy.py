"""Top-1 accuracy of predicted classes (Section 4.2) or retrieved passages."""

import torch
from torch import Tensor


def top1_correct(logits: Tensor, labels: Tensor) -> Tensor:
    """Compare each example's highest logit with its label.

    logits: (n_examples, n_classes); labels: (n_examples,). Returns (n_examples,) of 0 and 1.
    Raises ValueError if a logit is not finite.
    """
    if not torch.isfinite(logits).all():
        raise ValueError("the model returned logits that are not finite")
    return (logits.argmax(dim=-1) == labels).long()


def accuracy(correct: list[int]) -> float:
    """Percentage of correct examples."""
    return 100 * sum(correct) / len(correct)
