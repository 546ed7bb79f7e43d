"""Encodings: a user's texts, pairs and images as batches that a model's forward takes."""

import inspect
import io
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
import transformers
from torch import Tensor, nn

from ffmerge.compression.batches import Batch, Encoding
from ffmerge.compression.read import Example
from ffmerge.models import checkpoint
from ffmerge.models.format import IGNORED
from ffmerge.models.towers import towers

TOKENIZERS = ("tokenizer*", "vocab*", "*.model", "*.spm")  # patterns of a tokenizer's files
LONGEST = 512  # tokens of a sequence, if the model takes more and the user gives no length
SEPARATOR = "\n\n"  # between paragraphs that are packed


def encoding_for(model: nn.Module, directory: Path, max_length: int | None) -> Encoding:
    """Choose the encoding for a model, with the tokenizer or processor in its directory.

    max_length: tokens of a sequence.
    Raises ValueError if the model takes input that is not read from files here, such as sound, or
    if the tokenizer or processor is missing.
    """
    takes = set(inspect.signature(model.forward).parameters)
    if "input_features" in takes or "input_values" in takes:
        raise ValueError(
            f"{type(model).__name__} takes sound, which is not read from files here: call "
            "ffmerge.compress from Python with batches of your own, dicts of tensors as the "
            "model's forward takes them"
        )
    if "pixel_values" in takes:
        images = _load(transformers.AutoImageProcessor, directory, "image processor")
        if "input_ids" not in takes:
            return Pictures(images, model.config)
        return PicturesWithText(
            images, _tokenizer(directory), _length(model, directory, max_length)
        )
    tokenizer = _tokenizer(directory)
    length = _length(model, directory, max_length)
    if model.config.is_encoder_decoder:
        return Pairs(tokenizer, length)
    if set(towers(model)) == {"decoder"}:
        return Packed(tokenizer, length)
    return Paragraphs(tokenizer, length)


def tokenizer_if_any(directory: Path) -> Any | None:
    """Load a model's tokenizer; None if there is none."""
    try:
        return _tokenizer(directory)
    except ValueError:
        return None


def _tokenizer(directory: Path) -> Any:
    if not any(any(directory.glob(pattern)) for pattern in TOKENIZERS):
        raise ValueError(  # for some models transformers would make an empty one
            f"{directory} has no tokenizer ({', '.join(TOKENIZERS)}), which the data need"
        )
    return _load(transformers.AutoTokenizer, directory, "tokenizer")


def _load(auto_class: Any, directory: Path, what: str) -> Any:
    config = checkpoint.read_configuration(directory)  # transformers knows no merged model's
    try:
        return auto_class.from_pretrained(directory, local_files_only=True, config=config)
    except (OSError, ValueError, ImportError, TypeError, KeyError, AttributeError) as error:
        reason = " ".join(str(error).split())[:200]
        raise ValueError(
            f"{directory} has no {what} that transformers can load, which the data need "
            f"({reason}); from Python, ffmerge.compress takes batches of your own"
        ) from None


def _length(model: nn.Module, directory: Path, chosen: int | None) -> int:
    """Tokens of a sequence: the user's choice, within the model's limits."""
    config = model.config.get_text_config()
    limits = [
        getattr(config, key, None) for key in ("max_position_embeddings", "n_positions", "n_ctx")
    ]
    limits.append(_tokenizer(directory).model_max_length)
    most = min(limit for limit in limits if isinstance(limit, int) and limit > 0)
    if chosen is not None and not 2 <= chosen <= most:
        raise ValueError(f"--max-length {chosen}: this model takes sequences of 2 to {most} tokens")
    return chosen or min(most, LONGEST)


# --- text -----------------------------------------------------------------------------------------


class Texts:
    """Base of encodings with a tokenizer. length: tokens of a sequence."""

    wanted = "text"

    def __init__(self, tokenizer: Any, length: int) -> None:
        self.tokenizer, self.length = tokenizer, length

    def truncated(self, text: str) -> list[int]:
        """Token ids of a text, special tokens included, at most `length`."""
        return self.tokenizer(text, truncation=True, max_length=self.length)["input_ids"]

    def padded(self, sequences: Sequence[list[int]]) -> Batch:
        """Pad sequences on the right: `input_ids` and `attention_mask`, (n, longest)."""
        pad = self.tokenizer.pad_token_id or 0
        longest = max(map(len, sequences))
        ids = [sequence + [pad] * (longest - len(sequence)) for sequence in sequences]
        mask = [[1] * len(sequence) + [0] * (longest - len(sequence)) for sequence in sequences]
        return {"input_ids": torch.tensor(ids), "attention_mask": torch.tensor(mask)}


class Packed(Texts):
    """Running text in sequences of one length, for decoders."""

    def __init__(self, tokenizer: Any, length: int) -> None:
        super().__init__(tokenizer, length)
        begins = tokenizer("a")["input_ids"][:1]  # some models need a start token
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

    batch = Texts.padded


class Paragraphs(Texts):
    """Each text by itself, truncated to a length, for encoders."""

    def encoded(self, examples: Iterable[Example]) -> Iterator[list[int]]:
        for example in examples:
            yield self.truncated(example["text"])

    batch = Texts.padded


class Pairs(Texts):
    """A source text for the encoder and a target text for the decoder."""

    wanted = "pairs"

    def encoded(self, examples: Iterable[Example]) -> Iterator[tuple[list[int], list[int]]]:
        for example in examples:
            target = self.tokenizer(
                text_target=example["target"], truncation=True, max_length=self.length
            )
            yield self.truncated(example["source"]), target["input_ids"]

    def batch(self, encoded: Sequence[tuple[list[int], list[int]]]) -> Batch:
        targets = self.padded([target for _, target in encoded])
        labels = targets["input_ids"].masked_fill(targets["attention_mask"] == 0, IGNORED)
        return {**self.padded([source for source, _ in encoded]), "labels": labels}


# --- images ---------------------------------------------------------------------------------------


class Pictures:
    """Images, with labels if every image has one that the model knows."""

    wanted = "images"

    def __init__(self, processor: Any, config: Any) -> None:
        self.processor, self.config = processor, config

    def encoded(self, examples: Iterable[Example]) -> Iterator[tuple[Tensor, int | None]]:
        for example in examples:
            yield pixels_of(self.processor, example), self.label(example.get("label"))

    def batch(self, encoded: Sequence[tuple[Tensor, int | None]]) -> Batch:
        batch = {"pixel_values": torch.stack([pixels for pixels, _ in encoded])}
        labels = [label for _, label in encoded]
        return batch if None in labels else {**batch, "labels": torch.tensor(labels)}

    def label(self, value: int | str | None) -> int | None:
        """The model's number of a label (a number or a name); None if it has no such label."""
        if isinstance(value, str):
            names = self.config.label2id or {}
            value = names.get(value, int(value) if value.isdecimal() else None)
        return value if value is not None and 0 <= value < self.config.num_labels else None


class PicturesWithText(Texts):
    """An image and a text each, for models with two towers."""

    wanted = "images with text"

    def __init__(self, processor: Any, tokenizer: Any, length: int) -> None:
        super().__init__(tokenizer, length)
        self.processor = processor

    def encoded(self, examples: Iterable[Example]) -> Iterator[tuple[Tensor, list[int]]]:
        for example in examples:
            yield pixels_of(self.processor, example), self.truncated(example["text"])

    def batch(self, encoded: Sequence[tuple[Tensor, list[int]]]) -> Batch:
        texts = self.padded([ids for _, ids in encoded])
        return {**texts, "pixel_values": torch.stack([pixels for pixels, _ in encoded])}


def pixels_of(processor: Any, example: Example) -> Tensor:
    """Pixel values of an example's image, (channels, height, width)."""
    return processor(images=[opened(example["image"])], return_tensors="pt")["pixel_values"][0]


def opened(image: Path | bytes) -> Any:
    """Open an image in RGB. Raises ValueError naming the file if it is not an image."""
    from PIL import Image, UnidentifiedImageError

    try:
        with Image.open(image if isinstance(image, Path) else io.BytesIO(image)) as picture:
            return picture.convert("RGB")
    except (UnidentifiedImageError, OSError, SyntaxError, TypeError) as error:
        name = image if isinstance(image, Path) else "a row's image"
        raise ValueError(f"{name} cannot be read as an image: {error}") from None
