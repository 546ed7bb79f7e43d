"""Perplexity with a sliding window (Section 4.1)."""

import math
from collections.abc import Iterator, Mapping, Sequence

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from ffmerge.models.format import IGNORED


def sliding_windows(n_tokens: int, context: int, stride: int) -> list[tuple[int, int, int]]:
    """Windows (begin, first_scored, end) over a text of `n_tokens`.

    Every token but the first is scored exactly once, in a window of at most `context` tokens that
    scores its last `stride` tokens (the first window: all but the first one).
    Raises ValueError unless stride < context.
    """
    if not 0 < stride < context:
        raise ValueError(f"stride {stride} has to be from 1 to context - 1 = {context - 1}")
    windows, scored = [], 1
    while scored < n_tokens:
        end = min(n_tokens, context if scored == 1 else scored + stride)
        windows.append((max(0, end - context), scored, end))
        scored = end
    return windows


Windows = tuple[list[tuple[int, int, int]], Tensor]
"""A batch of windows, and their tokens, (batch, context)."""


def window_batches(
    token_ids: Sequence[int], context: int, stride: int, batch_size: int
) -> Iterator[Windows]:
    """Put a text's windows into batches, in order.

    Raises ValueError if there is no token to score.
    """
    ids = torch.as_tensor(token_ids, dtype=torch.long)
    windows = sliding_windows(len(ids), context, stride)  # equally long, unless there is only one
    if not windows:
        raise ValueError(f"a text of {len(ids)} tokens has none that follows another")
    for i in range(0, len(windows), batch_size):
        group = windows[i : i + batch_size]
        yield group, torch.stack([ids[begin:end] for begin, _, end in group])


@torch.inference_mode()
def window_losses(
    model: torch.nn.Module, batch: Windows, device: str = "cpu"
) -> Iterator[tuple[float, int]]:
    """Summed negative log-likelihood (nats) and number of scored tokens of each window.

    model: causal language model that takes `logits_to_keep`, n, and returns `.logits`
    (batch, n, vocabulary) of the last n positions. Raises ValueError if a loss is not finite.
    """
    group, inputs = batch[0], batch[1].to(device)
    first = min(scored - begin for begin, scored, _ in group)  # first scored position
    targets = inputs[:, first:]
    needed = targets.shape[1] + 1  # logits before each target; the last one is unused
    logits = model(input_ids=inputs, logits_to_keep=needed).logits[:, :-1].float()
    losses = cross_entropy(logits.flatten(0, 1), targets.flatten(), reduction="none")
    losses = losses.view_as(targets).cpu()
    for row, (begin, scored, end) in zip(losses, group, strict=True):
        loss = row[scored - begin - first :].double().sum().item()
        if not math.isfinite(loss):
            raise ValueError(f"the loss of the window that begins at token {begin} is not finite")
        yield loss, end - scored


@torch.inference_mode()
def sequence_losses(
    model: torch.nn.Module, batch: Mapping[str, Tensor], device: str = "cpu"
) -> Iterator[tuple[float, int]]:
    """Summed negative log-likelihood (nats) and number of scored tokens of each sequence.

    batch: `input_ids`, `attention_mask` and `labels`, (n, length), padded on the right; every
    token but a sequence's first is scored. Raises ValueError if a loss is not finite.
    """
    inputs = {key: batch[key].to(device) for key in ("input_ids", "attention_mask")}
    targets = batch["labels"][:, 1:].to(device)
    return zip(*summed_losses(model(**inputs).logits[:, :-1], targets, "sequence"), strict=True)


def summed_losses(logits: Tensor, labels: Tensor, what: str) -> tuple[list[float], list[int]]:
    """Summed negative log-likelihood (nats) and number of tokens of each row of labels.

    logits: (n, length, vocabulary); labels: (n, length); what: a row, for the message.
    Raises ValueError if a loss is not finite.
    """
    losses = cross_entropy(
        logits.float().flatten(0, 1), labels.flatten(), reduction="none", ignore_index=IGNORED
    ).view_as(labels)
    if not torch.isfinite(losses).all():
        raise ValueError(f"the loss of a {what} is not finite")
    return losses.double().sum(dim=1).tolist(), (labels != IGNORED).sum(dim=1).tolist()


def perplexity(losses: Sequence[float], counts: Sequence[int], average: str) -> float:
    """exp of the mean loss, over tokens or as the plain mean of the windows' mean losses.

    losses: summed nats a window; counts: scored tokens a window; average: `tokens` or `windows`.
    The paper's "average test perplexity" leaves the choice open; the released code takes `windows`.
    """
    if average == "tokens":
        return math.exp(math.fsum(losses) / sum(counts))
    return math.exp(math.fsum(x / n for x, n in zip(losses, counts, strict=True)) / len(losses))
