"""Language modeling (Section 4.1): packed text, perplexity with a sliding window.

With `pack: false` each row is a sequence of its own, and is scored by itself.
"""

import math
from collections.abc import Iterator, Sequence
from functools import cache
from itertools import accumulate
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import nn

from experiment.config.settings import JOINS, Join, Training
from experiment.evaluation.perplexity import (
    perplexity,
    sequence_losses,
    window_batches,
    window_losses,
)
from experiment.tasks.task import Batch, Columns, Task
from ffmerge.evaluation.metrics import Evaluation
from ffmerge.models.format import IGNORED
from provenance.progress import progress

ROWS_A_BLOCK = 1000  # rows that are joined and tokenized at a time
CHARACTERS_A_BLOCK = 2**21  # after which a block ends in any case
TOKENS, LENGTHS, TOKENS_SUFFIX = "token_ids", "lengths", ".safetensors"


class LanguageModeling(Task):
    """A causal language model on running text."""

    @cache  # noqa: B019 - a task lives as long as its job
    def token_ids(self, split: str, join: Join) -> torch.Tensor:
        """All tokens of a split in order, (n_tokens,) int32, from its text or a file of tokens.

        join: what is between the rows of a text.
        Text is tokenized in blocks, because an encoding is far larger than its tokens. The result
        is that of the whole text at once, except for a few tokens if a block ends in white space.
        """
        if Path(self.data[split]).suffix == TOKENS_SUFFIX:
            return load_file(self.data[split])[TOKENS]
        blocks, between = [], JOINS[join]
        for rows in self._blocks(split):
            block = between.join(rows)
            block = between + block if blocks else block
            ids = self.tokenizer(block, add_special_tokens=False, verbose=False)["input_ids"]
            blocks.append(torch.tensor(ids, dtype=torch.int32))
        return torch.cat(blocks)

    def _blocks(self, split: str) -> Iterator[list[str]]:
        """Rows of a split in groups that are tokenized at a time."""
        text = self.rows(split)["text"]
        for start in range(0, len(text), ROWS_A_BLOCK):
            rows = text[start : start + ROWS_A_BLOCK]
            ends = [n // CHARACTERS_A_BLOCK for n in accumulate(map(len, rows))]
            for number in sorted(set(ends)):
                yield [row for row, end in zip(rows, ends, strict=True) if end == number]

    @cache  # noqa: B019
    def row_ids(self, split: str) -> Sequence[torch.Tensor]:
        """Tokens of each row of a split, with special tokens, up to the context length.

        Rows without a token that follows another one are left out.
        """
        if Path(self.data[split]).suffix == TOKENS_SUFFIX:
            stored = load_file(self.data[split])
            return stored[TOKENS].split(stored[LENGTHS].tolist())
        cut = {"truncation": True, "max_length": self.settings.context}
        ids = [
            each
            for rows in self._blocks(split)
            for each in self.tokenizer(rows, **cut)["input_ids"]
        ]
        return [torch.tensor(each, dtype=torch.int32) for each in ids if len(each) > 1]

    def store_tokens(self, split: str, file: Path) -> None:
        """Write a split's tokens to a file that can be read as this split."""
        if self.settings.pack:
            save_file({TOKENS: self.token_ids(split, self.settings.join)}, file)
        else:
            rows = self.row_ids(split)
            save_file({TOKENS: torch.cat(rows), LENGTHS: torch.tensor([*map(len, rows)])}, file)

    def _sequences(self, split: str) -> torch.Tensor | Sequence[torch.Tensor]:
        """Examples: rows, or packed text as (n_chunks, context), without a short rest."""
        if not self.settings.pack:
            return self.row_ids(split)
        ids, context = self.token_ids(split, self.settings.join), self.settings.context
        return ids[: len(ids) // context * context].view(-1, context)

    def training_examples(self, training: Training, seed: int) -> Sequence[torch.Tensor]:
        return self._sequences("train")

    def collate(self, examples: list[torch.Tensor]) -> Batch:
        if self.settings.pack:
            ids = torch.stack(examples).long()
            return {"input_ids": ids, "labels": ids}
        return padded(examples)

    def feature_batches(self) -> Iterator[Batch]:
        for batch in self.batches_for_features(self._sequences("validation")):
            ids = batch["input_ids"]
            mask = batch.get("attention_mask", torch.ones_like(ids))
            yield {"input_ids": ids, "attention_mask": mask}

    def to_score(self, split: str) -> Iterator[Any]:
        how = getattr(self.settings, split)
        if self.settings.pack:
            ids = self.token_ids(split, how.join)[: how.max_tokens]
            batches = window_batches(ids, how.context, how.stride, how.batch_size)
        else:
            rows = [row[: how.context] for row in self.row_ids(split)]
            scored = accumulate(len(row) - 1 for row in rows)
            wanted = how.max_tokens or math.inf
            rows = [row for row, n in zip(rows, scored, strict=True) if n <= wanted] or rows[:1]
            batches = self.batches(rows, how.batch_size)
        return iter(progress(batches, desc="perplexity"))

    def scores(self, model: nn.Module, batch: Any, device: str) -> Columns:
        losses_of = window_losses if self.settings.pack else sequence_losses
        losses, counts = zip(*losses_of(model, batch, device), strict=True)
        return {"negative_log_likelihood": losses, "n_tokens": counts}

    def evaluation(self, split: str, columns: Columns) -> Evaluation:
        how = getattr(self.settings, split)
        losses, counts = columns["negative_log_likelihood"], columns["n_tokens"]
        return Evaluation(
            score=perplexity(losses, counts, how.average),
            loss=math.fsum(losses) / sum(counts),
            per_example=columns,
            details={"average": how.average, "n_tokens": sum(counts), "n_windows": len(counts)},
        )


def padded(rows: Sequence[torch.Tensor]) -> Batch:
    """Pad rows of tokens on the right, and mark the padding in the mask and the labels."""
    pad = torch.nn.utils.rnn.pad_sequence
    mask = pad([torch.ones(len(row), dtype=torch.long) for row in rows], batch_first=True)
    ids = pad([row.long() for row in rows], batch_first=True)
    labels = ids.masked_fill(mask == 0, IGNORED)
    return {"input_ids": ids, "attention_mask": mask, "labels": labels}
