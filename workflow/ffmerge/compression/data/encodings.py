"""How a user's examples become batches as a model's forward takes them."""

import inspect
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, Protocol

import transformers
from torch import nn

from ffmerge.compression.data.files import Example
from ffmerge.compression.data.images import Pictures, PicturesWithText
from ffmerge.compression.data.text import Batch, Packed, Pairs, Paragraphs
from ffmerge.models.towers import towers

TOKENIZERS = ("tokenizer*", "vocab*", "*.model", "*.spm")  # what the files of one are called
LONGEST = 512  # tokens of a sequence, if the model takes more and the user names no length


class Encoding(Protocol):
    """Makes batches of examples. wanted: what an example is, a key of `data_files.ROLES`."""

    wanted: str

    def encoded(self, examples: Iterable[Example]) -> Iterator[Any]:
        """Examples as the model counts them, such as sequences that are packed."""

    def batch(self, encoded: Sequence[Any]) -> Batch:
        """A batch of what `encoded` gives, with `labels` if there are any."""


def encoding_for(model: nn.Module, directory: Path, max_length: int | None) -> Encoding:
    """How the user's data become batches of a model, with the tokenizer or processor beside it.

    max_length: of a sequence, in tokens.
    Raises ValueError if the model takes what no file gives, such as sound, or if the tokenizer or
    the processor is missing.
    """
    takes = set(inspect.signature(model.forward).parameters)
    if "input_features" in takes or "input_values" in takes:
        raise ValueError(
            f"{type(model).__name__} takes sound, which is not read from files here: call "
            "ffmerge.compress from Python with batches of your own, dicts of tensors as the "
            "model's forward takes them"
        )
    if "pixel_values" in takes:
        images = _load(transformers.AutoImageProcessor, directory, "an image processor")
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


def _tokenizer(directory: Path) -> Any:
    if not any(any(directory.glob(pattern)) for pattern in TOKENIZERS):
        raise ValueError(  # for some models transformers would make an empty one
            f"{directory} has no file of a tokenizer ({', '.join(TOKENIZERS)}), which the data need"
        )
    return _load(transformers.AutoTokenizer, directory, "a tokenizer")


def tokenizer_if_any(directory: Path) -> Any | None:
    """A model's tokenizer; None if there is none."""
    try:
        return _tokenizer(directory)
    except ValueError:
        return None


def _load(auto_class: Any, directory: Path, what: str) -> Any:
    try:
        return auto_class.from_pretrained(directory, local_files_only=True)
    except (OSError, ValueError, ImportError, TypeError, KeyError, AttributeError) as error:
        reason = " ".join(str(error).split())[:200]
        raise ValueError(
            f"{directory} has no file of {what} that transformers can load, which the data need "
            f"({reason}); from Python, ffmerge.compress takes batches of your own"
        ) from None


def _length(model: nn.Module, directory: Path, chosen: int | None) -> int:
    """Tokens of a sequence: what the user says, within what the model takes."""
    config = model.config.get_text_config()
    limits = [
        getattr(config, key, None) for key in ("max_position_embeddings", "n_positions", "n_ctx")
    ]
    limits.append(_tokenizer(directory).model_max_length)
    most = min(limit for limit in limits if isinstance(limit, int) and limit > 0)
    if chosen is not None and not 2 <= chosen <= most:
        raise ValueError(f"--max-length {chosen}: this model takes sequences of 2 to {most} tokens")
    return chosen or min(most, LONGEST)
