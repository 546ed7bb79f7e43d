"""Language modeling (Section 4.1): packed text, perplexity with a sliding window."""

from collections.abc import Iterator
from functools import cache, cached_property
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import nn
from transformers import AutoTokenizer

from experiment.config import Training
from experiment.evaluation.perplexity import mean_loss, perplexity, window_losses
from experiment.tasks.task import Batch, Task
from ffmerge.evaluation.metrics import Evaluation

ROWS_A_BLOCK = 1000  # rows that are joined and tokenized at a time
TOKENS, TOKENS_SUFFIX = "token_ids", ".safetensors"
SEPARATOR = "\n\n"  # between rows, as the released evaluation joins WikiText's lines


class LanguageModeling(Task):
    """A causal language model on running text."""

    @cached_property
    def tokenizer(self):
        """The base model's tokenizer."""
        return AutoTokenizer.from_pretrained(self.base_model)

    @cache  # noqa: B019 - a task lives as long as its job
    def token_ids(self, split: str) -> torch.Tensor:
        """All tokens of a split in order, (n_tokens,) int32, from its text or a file of tokens.

        Text is tokenized in blocks, because an encoding is far larger than its tokens. The result
        is that of the whole text at once, except for a few tokens if a block ends in white space.
        """
        if Path(self.data[split]).suffix == TOKENS_SUFFIX:
            return load_file(self.data[split])[TOKENS]
        text, blocks = self.rows(split)["text"], []
        for start in range(0, len(text), ROWS_A_BLOCK):
            block = SEPARATOR.join(text[start : start + ROWS_A_BLOCK])
            block = SEPARATOR + block if start else block
            ids = self.tokenizer(block, add_special_tokens=False, verbose=False)["input_ids"]
            blocks.append(torch.tensor(ids, dtype=torch.int32))
        return torch.cat(blocks)

    def store_tokens(self, split: str, file: Path) -> None:
        """Write a split's tokens to a file that can be read as this split."""
        save_file({TOKENS: self.token_ids(split)}, file)

    def _chunks(self, split: str) -> torch.Tensor:
        """A split packed to the context length, (n_chunks, context), without a short rest."""
        ids, context = self.token_ids(split), self.settings.context
        return ids[: len(ids) // context * context].view(-1, context)

    def training_examples(self, training: Training, seed: int) -> torch.Tensor:
        return self._chunks("train")

    def collate(self, examples: list[torch.Tensor]) -> Batch:
        ids = torch.stack(examples).long()
        return {"input_ids": ids, "labels": ids}

    def feature_batches(self) -> Iterator[Batch]:
        for ids in self._chunks("validation").split(self.settings.features.batch_size):
            yield {"input_ids": ids.long(), "attention_mask": torch.ones_like(ids).long()}

    def evaluate(self, model: nn.Module, split: str, device: str = "cpu") -> Evaluation:
        how = getattr(self.settings, split)
        ids = self.token_ids(split)[: how.max_tokens]
        model.eval()
        windows = window_losses(model, ids, how.context, how.stride, how.batch_size, device)
        losses, counts = zip(*windows, strict=True)
        return Evaluation(
            score=perplexity(losses, counts, how.average),
            loss=mean_loss(losses, counts),
            per_example={"negative_log_likelihood": list(losses), "n_tokens": list(counts)},
            details={"average": how.average, "n_tokens": sum(counts), "n_windows": len(counts)},
        )
