"""Encodings: a user's texts, pairs and images as batches that a model's forward takes.

An encoding has `wanted`, the kind of example that it takes (a key of read.ROLES); `sequences`, how
texts become sequences, if there is a choice; `encoded`, which makes units of examples, such as
packed sequences; and `batch`, which makes a batch of units, with `labels` if there are any.
"""

import inspect
import re
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
import transformers
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence

from ffmerge.compression.batches import Batch
from ffmerge.compression.pictures import opened
from ffmerge.compression.read import PIECE, Example, one_line, pieces
from ffmerge.models import checkpoint
from ffmerge.models.format import IGNORED
from ffmerge.models.towers import towers
from provenance.job import is_out_of_memory

TOKENIZERS = ("tokenizer*", "vocab*", "*.model", "*.spm")  # patterns of a tokenizer's files
LONGEST = 512  # tokens of a sequence, if the model takes more and the user gives no length
SEPARATOR = "\n\n"  # between paragraphs that are packed
LONGEST_TOKEN = 32  # characters, on average over a sequence
NUMBER = re.compile(r"\d+(\.0*)?")  # a label in a table of text


def encoding_for(
    model: nn.Module, directory: Path, max_length: int | None, pack: bool = True
) -> "Texts | Pictures":
    """Choose the encoding for a model, with the tokenizer or processor in its directory.

    max_length: tokens of a sequence. pack: whether a decoder's sequences hold several texts.
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
        # by name: otherwise what is installed would choose how pictures are resized
        images = _load(transformers.AutoImageProcessor, directory, "image processor", backend="pil")
        if "input_ids" not in takes:
            return Pictures(images, model.config)
    tokenizer = _tokenizer(directory)
    length = _length(model, tokenizer, max_length)
    if "pixel_values" in takes:
        return PicturesWithText(images, model.config, tokenizer, length)
    if model.config.is_encoder_decoder:
        return Pairs(tokenizer, length)
    if pack and set(towers(model)) == {"decoder"}:
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
    return _load(transformers.AutoTokenizer, directory, "tokenizer", lambda loaded: loaded("a"))


def _load(
    auto_class: Any,
    directory: Path,
    what: str,
    call: Callable[[Any], Any] = lambda loaded: loaded,
    **options: str,
) -> Any:
    config = checkpoint.read_configuration(directory)  # transformers knows no merged model's
    try:
        loaded = auto_class.from_pretrained(
            directory, local_files_only=True, config=config, **options
        )
        call(loaded)
        return loaded
    except Exception as error:  # any: settings that mean nothing fail in many ways
        if is_out_of_memory(error):
            raise
        reason = " ".join(str(error).split())[:200]
        raise ValueError(
            f"{directory} has no {what} that transformers can load, which the data need "
            f"({reason}); from Python, ffmerge.compress takes batches of your own"
        ) from None


def _length(model: nn.Module, tokenizer: Any, chosen: int | None) -> int:
    """Tokens of a sequence: the user's choice, within the model's limits."""
    config = model.config.get_text_config()
    limits = [
        getattr(config, key, None) for key in ("max_position_embeddings", "n_positions", "n_ctx")
    ]
    limits += [
        module.num_embeddings - module.padding_idx - 1  # rows after the padding's, as in RoBERTa
        for name, module in model.named_modules()
        if type(module) is nn.Embedding and "position" in name and module.padding_idx is not None
    ]
    limits.append(tokenizer.model_max_length)
    most = min(limit for limit in limits if isinstance(limit, int) and limit > 0)
    if chosen is not None and not 2 <= chosen <= most:
        raise ValueError(f"--max-length {chosen}: this model takes sequences of 2 to {most} tokens")
    return chosen or min(most, LONGEST)


# --- text -----------------------------------------------------------------------------------------


class Texts:
    """Base of encodings with a tokenizer. length: tokens of a sequence."""

    wanted = "text"
    sequences = ""

    def __init__(self, tokenizer: Any, length: int) -> None:
        self.tokenizer, self.length = tokenizer, length

    def truncated(self, text: str, side: str = "text") -> list[int]:
        """Token ids of a text, special tokens included, at most `length`.

        side: the tokenizer's argument. It gets as much of the text as can be in a sequence: it
        would read all of it.
        """
        beginning = text[: max(PIECE, LONGEST_TOKEN * self.length)]
        options = {side: beginning, "truncation": True, "max_length": self.length}
        return self.tokenizer(**options)["input_ids"]

    def batch(self, encoded: Sequence[Any]) -> Batch:
        return self.padded(encoded)

    def padded(self, sequences: Sequence[list[int]]) -> Batch:
        """Pad sequences on the right: `input_ids` and `attention_mask`, (n, longest)."""
        ids = [torch.tensor(sequence) for sequence in sequences]
        padded = pad_sequence(ids, batch_first=True, padding_value=self.tokenizer.pad_token_id or 0)
        mask = pad_sequence([torch.ones_like(row) for row in ids], batch_first=True)
        return {"input_ids": padded, "attention_mask": mask}


class Packed(Texts):
    """Running text in sequences of one length, for decoders."""

    def __init__(self, tokenizer: Any, length: int) -> None:
        super().__init__(tokenizer, length)
        self.sequences = f"texts with blank lines between them, packed into {length} tokens each"
        begins = tokenizer("a")["input_ids"][:1]  # some models need a start token
        self.begin = begins if begins == [tokenizer.bos_token_id] else []

    def encoded(self, examples: Iterable[Example]) -> Iterator[list[int]]:
        ids: list[int] = []
        size = self.length - len(self.begin)
        for example in examples:
            ends = "" if example.get("continues") else SEPARATOR
            for text in pieces(f"{example['text']}{ends}"):
                ids += self.tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"]
                for start in range(0, len(ids) - size + 1, size):
                    yield self.begin + ids[start : start + size]
                ids = ids[len(ids) // size * size :]
        if len(ids) > 1:
            yield self.begin + ids


class Paragraphs(Texts):
    """Each text by itself, truncated to a length: for encoders, and for short sequences."""

    def __init__(self, tokenizer: Any, length: int) -> None:
        super().__init__(tokenizer, length)
        self.sequences = f"one text each, of at most {length} tokens"

    def encoded(self, examples: Iterable[Example]) -> Iterator[list[int]]:
        for example in examples:
            if ids := self.truncated(example["text"]):
                yield ids


class Pairs(Texts):
    """A source text for the encoder and a target text for the decoder."""

    wanted = "pairs"
    target_side = "text_target"

    def encoded(self, examples: Iterable[Example]) -> Iterator[tuple[list[int], list[int]]]:
        for example in examples:
            source = self.truncated(example["source"])
            target = self.truncated(example["target"], self.target_side)
            if source and target:
                yield source, target

    def batch(self, encoded: Sequence[tuple[list[int], list[int]]]) -> Batch:
        targets = self.padded([target for _, target in encoded])
        labels = targets["input_ids"].masked_fill(targets["attention_mask"] == 0, IGNORED)
        return {**self.padded([source for source, _ in encoded]), "labels": labels}


class Retrieved(Pairs):
    """Two texts that belong together, each by itself, for encoders that embed them.

    A batch has the sources of the examples, then their targets.
    """

    target_side = "text"

    def batch(self, encoded: Sequence[tuple[list[int], list[int]]]) -> Batch:
        return self.padded([ids for side in zip(*encoded, strict=True) for ids in side])


# --- images ---------------------------------------------------------------------------------------


class Pictures:
    """Images, with labels if any has one that the model knows; the others have IGNORED.

    Images are opened in their batch: those encoded ahead are only names or bytes.
    """

    wanted = "images"
    sequences = ""

    def __init__(self, processor: Any, config: Any) -> None:
        self.processor, self.config = processor, config
        self._told = False  # of a label that the model does not have

    def encoded(self, examples: Iterable[Example]) -> Iterator[Example]:
        return iter(examples)

    def batch(self, encoded: Sequence[Example]) -> Batch:
        batch = {"pixel_values": pixels_of(self.processor, encoded, self.config)}
        labels = [self.label(example) for example in encoded]
        if any(label is not None for label in labels):
            known = [IGNORED if label is None else label for label in labels]
            batch["labels"] = torch.tensor(known)
        return batch

    def label(self, example: Example) -> int | None:
        """The model's number of a label; None, with a warning, if the model has no such label."""
        value = example.get("label")
        number = value
        if isinstance(value, str):
            known = (self.config.label2id or {}).get(value)
            number = int(float(value)) if known is None and NUMBER.fullmatch(value) else known
        if number is not None and 0 <= number < self.config.num_labels:
            return number
        if value is not None and not self._told:
            self._told = True
            warnings.warn(
                f"{example['place']}: the model has no label {value!r}; this image, and others "
                "like it, count as images without a label",
                stacklevel=2,
            )
        return None


class PicturesWithText(Texts):
    """An image and a text each, for models with two towers."""

    wanted = "images with text"

    def __init__(self, processor: Any, config: Any, tokenizer: Any, length: int) -> None:
        super().__init__(tokenizer, length)
        self.processor, self.config = processor, config

    def encoded(self, examples: Iterable[Example]) -> Iterator[tuple[Example, list[int]]]:
        for example in examples:
            if ids := self.truncated(example["text"]):
                yield example, ids

    def batch(self, encoded: Sequence[tuple[Example, list[int]]]) -> Batch:
        examples = [example for example, _ in encoded]
        pixels = pixels_of(self.processor, examples, self.config)
        return {**self.padded([ids for _, ids in encoded]), "pixel_values": pixels}


def pixels_of(processor: Any, examples: Sequence[Example], config: Any) -> Tensor:
    """Pixel values of the examples' images, (n, channels, height, width).

    Raises ValueError naming an image that cannot be read, or that the processor refuses.
    """
    n_channels = getattr(getattr(config, "vision_config", config), "num_channels", 3)
    pixels = []
    for example in examples:
        picture = opened(example["image"], example["place"], n_channels)
        try:
            pixels.append(processor(images=[picture], return_tensors="pt")["pixel_values"][0])
        except (ValueError, RuntimeError, TypeError) as error:
            raise ValueError(
                f"{example['place']}: the model's image processor takes no picture of "
                f"{picture.width} x {picture.height} pixels in {n_channels} channels "
                f"({one_line(error)})"
            ) from None
        if not pixels[-1].isfinite().all():
            raise ValueError(
                f"{example['place']}: the model's image processor makes values of it that are not "
                "finite: look at image_std in preprocessor_config.json"
            )
    return torch.stack(pixels)
