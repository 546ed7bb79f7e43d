"""The options of a compression, given on the command line or from Python."""

import argparse
from collections.abc import Sequence
from dataclasses import dataclass, field, fields
from typing import Any

from ffmerge.method.windows import ANCHORS

COMPUTE_DTYPES = ("float32", "bfloat16", "float16")
METHODS = ("permute", "vanilla")
STRATEGIES = ("window", "correlation", "cka")
FORMS = ("tied", "code", "expanded")


def _option(default: Any, help: str, **more: Any) -> Any:
    return field(default=default, metadata={"help": help, **more})


@dataclass(frozen=True)
class Settings:
    """Options of a compression. The help of each field is also the command line's."""

    remove: str | float | None = _option(
        None, "share (1/3, 0.33) or number of FF sublayers to remove"
    )
    layers: str | None = _option(
        None, "layers to merge, without a search: 3-7, or 2-4,8-10, or encoder:2-4,decoder:1+3"
    )
    method: str = _option("permute", "align neurons before averaging, or not", choices=METHODS)
    strategy: str = _option(
        "window",
        "how layers are chosen: by the loss of every window of adjacent ones (the paper's), or by "
        "the similarity of aligned neurons or of outputs, without trying any",
        choices=STRATEGIES,
    )
    anchor: str = _option("first", "the layer that others are aligned to", choices=tuple(ANCHORS))
    n_tokens: int | None = _option(None, "positions for features (10,000, or all there are)")
    n_held_out: int | None = _option(
        None, "examples for the loss (16 sequences of text, or 128 pairs or images)"
    )
    max_length: int | None = _option(None, "tokens of a sequence (512, or what the model takes)")
    batch_size: int = _option(2, "examples at a time")
    device: str = _option("cpu", "where to compute, such as cuda")
    dtype: str = _option("float32", "dtype to compute in", choices=COMPUTE_DTYPES)
    form: str = _option(
        "tied",
        "what is written: the small model, which transformers loads after `import ffmerge.auto`; "
        "the same with its code, for trust_remote_code; or one of full size that any tool loads",
        choices=FORMS,
    )
    text: str | None = _option(None, "column of texts")
    source: str | None = _option(None, "column of source texts")
    target: str | None = _option(None, "column of target texts")
    image: str | None = _option(None, "column of images")
    label: str | None = _option(None, "column of labels")
    revision: str | None = _option(None, "commit, tag or branch of a model from the hub")
    architecture: str | None = _option(
        None, "YAML file with the entry of a model that is not in the table of architectures"
    )

    def __post_init__(self) -> None:
        for option in fields(self):
            choices, value = option.metadata.get("choices"), getattr(self, option.name)
            if choices and value not in choices:
                raise ValueError(f"{option.name} {value!r}: allowed are {', '.join(choices)}")
        for name in ("n_tokens", "n_held_out", "batch_size"):
            if (value := getattr(self, name)) is not None and value < 1:
                raise ValueError(f"{name} {value}: has to be at least 1")
        if (self.remove is None) == (self.layers is None):
            raise ValueError("say what to remove: either --remove 1/3, or --layers 3-7")

    @property
    def columns(self) -> dict[str, str | None]:
        """Names of the data's columns, by role."""
        return {
            role: getattr(self, role) for role in ("text", "source", "target", "image", "label")
        }


def add_options(parser: argparse.ArgumentParser, names: Sequence[str] | None = None) -> None:
    """Add settings to a command line. names: the fields to add; None for all."""
    for option in fields(Settings):
        if names is not None and option.name not in names:
            continue
        kind = int if "int" in str(option.type) else str
        choices = option.metadata.get("choices")
        default = "" if option.default is None else f" (default: {option.default})"
        parser.add_argument(
            f"--{option.name.replace('_', '-')}",
            type=kind,
            default=option.default,
            choices=choices,
            metavar=None if choices else {int: "N", str: option.name.upper()}[kind],
            help=option.metadata["help"] + default,
        )
