"""From texts to batches of tokens."""

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor

from ffmerge.compression.data.files import Example
from ffmerge.models.format import IGNORED

Batch = dict[str, Tensor]
SEPARATOR = "\n\n"  # between paragraphs that are packed


class Packed:
    """Running text in sequences of one length, for decoders."""

    wanted = "text"

    def __init__(self, tokenizer: Any, length: int) -> None:
        self.tokenizer, self.length = tokenizer, length
        begins = tokenizer("a")["input_ids"][:1]  # some models need a token to begin with
        self.begin = begins if begins == [tokenizer.bos_token_id] else []

    def encoded(self, examples: Iterable[Example]) -> Iterator[list[int]]:
        ids: list[int] = []
        size = self.length - len(self.begin)
        for example in examples:
            text = f"{example['text']}{SEPARATOR}"
            ids += self.tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"]
            for start in range(0, len(ids) - size + 1, size):
                yield self.begin + ids[start : start + size]
            ids = ids[len(ids) // size * size :]
        if len(ids) > 1:
            yield self.begin + ids

    def batch(self, encoded: Sequence[list[int]]) -> Batch:
        return padded(encoded, self.tokenizer)


class Paragraphs:
    """Each text by itself, cut at a length, for encoders."""

    wanted = "text"

    def __init__(self, tokenizer: Any, length: int) -> None:
        self.tokenizer, self.length = tokenizer, length

    def encoded(self, examples: Iterable[Example]) -> Iterator[list[int]]:
        for example in examples:
            yield cut(self.tokenizer, self.length, example["text"])

    def batch(self, encoded: Sequence[list[int]]) -> Batch:
        return padded(encoded, self.tokenizer)


class Pairs:
    """A source for the encoder and a target for the decoder."""

    wanted = "pairs"

    def __init__(self, tokenizer: Any, length: int) -> None:
        self.tokenizer, self.length = tokenizer, length

    def encoded(self, examples: Iterable[Example]) -> Iterator[tuple[list[int], list[int]]]:
        for example in examples:
            target = self.tokenizer(
                text_target=example["target"], truncation=True, max_length=self.length
            )
            yield cut(self.tokenizer, self.length, example["source"]), target["input_ids"]

    def batch(self, encoded: Sequence[tuple[list[int], list[int]]]) -> Batch:
        targets = padded([target for _, target in encoded], self.tokenizer)
        labels = targets["input_ids"].masked_fill(targets["attention_mask"] == 0, IGNORED)
        return {**padded([source for source, _ in encoded], self.tokenizer), "labels": labels}


def cut(tokenizer: Any, length: int, text: str) -> list[int]:
    """The tokens of a text, special ones included, no more than `length`."""
    return tokenizer(text, truncation=True, max_length=length)["input_ids"]


def padded(sequences: Sequence[list[int]], tokenizer: Any) -> Batch:
    """Sequences side by side, padded at the right: `input_ids` and `attention_mask`."""
    pad = tokenizer.pad_token_id or 0
    longest = max(map(len, sequences))
    ids = [sequence + [pad] * (longest - len(sequence)) for sequence in sequences]
    mask = [[1] * len(sequence) + [0] * (longest - len(sequence)) for sequence in sequences]
    return {"input_ids": torch.tensor(ids), "attention_mask": torch.tensor(mask)}
