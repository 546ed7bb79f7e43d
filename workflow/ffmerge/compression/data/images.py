"""From images, alone or with a text each, to batches of pixels."""

import io
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ffmerge.compression.data.files import Example
from ffmerge.compression.data.text import Batch, cut, padded


class Pictures:
    """Images, with labels where all of them have one that the model knows."""

    wanted = "images"

    def __init__(self, processor: Any, config: Any) -> None:
        self.processor, self.config = processor, config

    def encoded(self, examples: Iterable[Example]) -> Iterator[tuple[Tensor, int | None]]:
        for example in examples:
            pixels = self.processor(images=[opened(example["image"])], return_tensors="pt")
            yield pixels["pixel_values"][0], self.label(example.get("label"))

    def batch(self, encoded: Sequence[tuple[Tensor, int | None]]) -> Batch:
        batch = {"pixel_values": torch.stack([pixels for pixels, _ in encoded])}
        labels = [label for _, label in encoded]
        return batch if None in labels else {**batch, "labels": torch.tensor(labels)}

    def label(self, given: int | str | None) -> int | None:
        """The model's number of a label, which is given by number or by name."""
        if isinstance(given, str):
            names = self.config.label2id or {}
            given = names.get(given, int(given) if given.isdecimal() else None)
        return given if given is not None and 0 <= given < self.config.num_labels else None


class PicturesWithText:
    """Images with a text each, for models of two towers."""

    wanted = "images with text"

    def __init__(self, processor: Any, tokenizer: Any, length: int) -> None:
        self.processor, self.tokenizer, self.length = processor, tokenizer, length

    def encoded(self, examples: Iterable[Example]) -> Iterator[tuple[Tensor, list[int]]]:
        for example in examples:
            pixels = self.processor(images=[opened(example["image"])], return_tensors="pt")
            yield pixels["pixel_values"][0], cut(self.tokenizer, self.length, example["text"])

    def batch(self, encoded: Sequence[tuple[Tensor, list[int]]]) -> Batch:
        texts = padded([ids for _, ids in encoded], self.tokenizer)
        return {**texts, "pixel_values": torch.stack([pixels for pixels, _ in encoded])}


def opened(image: Path | bytes) -> Any:
    """An image in RGB. Raises ValueError naming the file if it is none."""
    from PIL import Image, UnidentifiedImageError

    try:
        with Image.open(image if isinstance(image, Path) else io.BytesIO(image)) as picture:
            return picture.convert("RGB")
    except (UnidentifiedImageError, OSError, SyntaxError, TypeError) as error:
        name = image if isinstance(image, Path) else "a row's image"
        raise ValueError(f"{name} cannot be read as an image: {error}") from None
