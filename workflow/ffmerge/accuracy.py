"""Top-1 accuracy (Section 4.2)."""

import torch
from torch import Tensor


def top1_correct(logits: Tensor, labels: Tensor) -> Tensor:
    """Whether each image's most probable class is its label.

    logits: (n_images, n_classes); labels: (n_images,). Returns (n_images,) of 0 and 1.
    Raises ValueError if a logit is not finite.
    """
    if not torch.isfinite(logits).all():
        raise ValueError("the classifier returned logits that are not finite")
    return (logits.argmax(dim=-1) == labels).long()


def accuracy(correct: list[int]) -> float:
    """Share of correct images, in percent."""
    return 100 * sum(correct) / len(correct)
