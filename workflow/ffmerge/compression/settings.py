"""Options of compressing, tuning and evaluating, given on the command line or from Python."""

import argparse
import math
from collections.abc import Sequence
from dataclasses import dataclass, field, fields
from typing import Any

from ffmerge.method.groups import ANCHORS

COMPUTE_DTYPES = ("float32", "bfloat16", "float16", "float64")
DROP = "drop-layers"
LOW_RANK = "low-rank"
METHODS = ("permute", "vanilla", DROP, LOW_RANK)
MERGED_BY = ("window", "greedy", "correlation", "cka")
STRATEGIES = (*MERGED_BY, "influence")
SCHEDULES = ("inverse_sqrt", "linear_to_minimum", "cosine", "constant")
PRECISIONS = ("fp32", "fp16", "bf16")
HELD_OUT = "examples held out for the loss (16 sequences of text, or 128 pairs or images)"
FITTED_IN_SEARCH = "steps of the same fit for each candidate, before its loss is taken (try 10)"
FORMS = ("tied", "code", "expanded")
MOST = 2**63 - 1  # of whole numbers
SEEDS = {"least": 0, "most": 2**32 - 1}


def _option(default: Any, help: str, least: int = 1, most: int = MOST, **more: Any) -> Any:
    bounds = {"least": least, "most": most}
    return field(default=default, metadata={"help": help, **bounds, **more})


@dataclass(frozen=True)
class Options:
    """Options that every command has. The help of each field is also the command line's."""

    max_length: int | None = _option(
        None, "longest sequence, in tokens (512, or what the model takes)"
    )
    pack: bool = _option(
        True,
        "give a decoder one text in each sequence, instead of sequences that are filled with "
        "several texts and blank lines between them",
    )
    device: str = _option("cpu", "where to compute, such as cuda")
    text: str | None = _option(None, "column of texts")
    source: str | None = _option(None, "column of source texts")
    target: str | None = _option(None, "column of target texts")
    image: str | None = _option(None, "column of images")
    label: str | None = _option(None, "column of labels")
    revision: str | None = _option(None, "commit, tag or branch of MODEL, if it is from the hub")
    architecture: str | None = _option(
        None, "YAML file with the entry of a model that is not in the table of architectures"
    )

    def __post_init__(self) -> None:
        for option in fields(self):
            choices, value = option.metadata.get("choices"), getattr(self, option.name)
            if choices and value is not None and value not in choices:
                raise ValueError(f"{option.name} {value!r}: allowed are {', '.join(choices)}")
            if value == "":
                raise ValueError(f"{option.name} is empty: name one, or leave the option out")
            least, most = option.metadata["least"], option.metadata["most"]
            if "int" in str(option.type) and value is not None and not least <= value <= most:
                bound = f"at least {least}" if value < least else f"at most {most}"
                raise ValueError(f"{option.name} {value}: has to be {bound}")
            if option.name == "learning_rate" and value is not None and not 0 < value < math.inf:
                raise ValueError(f"learning_rate {value}: has to be a number above 0")

    @property
    def columns(self) -> dict[str, str | None]:
        """Names of the data's columns, by role."""
        roles = ("text", "source", "target", "image", "label")
        return {role: getattr(self, role) for role in roles}


@dataclass(frozen=True)
class Settings(Options):
    """Options of a compression."""

    remove: str | float | None = _option(
        None,
        f"share (1/3, 0.33) or number of FF sublayers to remove; of layers, with --method {DROP}",
    )
    layers: str | None = _option(
        None,
        "layers to merge (or drop), without a search: 3-7, or 2-4,8-10, or encoder:2-4,decoder:1+3",
    )
    method: str = _option(
        "permute",
        "permute: align neurons, then average (the paper's); vanilla: average without aligning; "
        f"{DROP}: leave whole layers out; {LOW_RANK}: replace every FF matrix by a product of two "
        "smaller ones, to the size that merging would give",
        choices=METHODS,
    )
    strategy: str = _option(
        "window",
        "how layers are chosen. window: the adjacent ones with the lowest loss (the paper's); "
        "greedy: small groups that grow by the layer that costs least; correlation, cka: those "
        "with the most similar neurons or outputs, without trying any; influence: with --method "
        f"{DROP}, those that change their input least (ShortGPT)",
        choices=STRATEGIES,
    )
    anchor: str = _option("first", "the layer that others are aligned to", choices=tuple(ANCHORS))
    skip_massive: bool = _option(
        False,
        "do not merge layers whose FF makes massive activations of the residual stream",
    )
    rank: int = _option(
        0,
        "add to each merged layer its own biases, and a correction of this rank to each shared "
        "matrix (not in the paper; try an eighth of the hidden size)",
        least=0,
    )
    reconstruct: int | None = _option(
        None,
        "after averaging, fit the shared weights in so many steps, so that each layer's FF gives "
        "what it gave before (not in the paper; try 150)",
    )
    reconstruct_search: int | None = _option(None, FITTED_IN_SEARCH)
    n_tokens: int | None = _option(None, "positions for features (10,000, or all there are)")
    n_held_out: int | None = _option(None, HELD_OUT)
    batch_size: int = _option(2, "examples at a time")
    dtype: str | None = _option(
        None,
        "dtype to compute in (float32, or float64 for a model stored in it)",
        choices=COMPUTE_DTYPES,
    )
    form: str = _option(
        "tied",
        "what is written. tied: the small model, which transformers loads after `import "
        "ffmerge.auto`; code: the same, with its code for trust_remote_code; expanded: a model of "
        "full size, which any tool loads",
        choices=FORMS,
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        if (self.remove is None) == (self.layers is None):
            raise ValueError("say what to remove: either --remove 1/3, or --layers 3-7")
        _check_reconstruction(self)
        if self.skip_massive and (self.layers or self.method in (DROP, LOW_RANK)):
            raise ValueError(
                "--skip-massive is for a search of layers to merge; here is none: leave it out"
            )
        for option in ("reconstruct", "rank"):
            if getattr(self, option) and self.method in (DROP, LOW_RANK):
                raise ValueError(
                    f"--{option} is for what is merged; --method {self.method} merges nothing"
                )
        if self.method == LOW_RANK and (self.layers or self.strategy != "window"):
            raise ValueError(f"--method {LOW_RANK} is for all layers: say --remove alone")
        if self.strategy not in (("window", "influence") if self.method == DROP else MERGED_BY):
            raise ValueError(f"method {self.method} does not choose layers by {self.strategy}")


@dataclass(frozen=True)
class Comparing(Options):
    """Options of a comparison."""

    remove: str | float = _option("1/3", "share or number of FF sublayers to remove")
    anchor: str = _option("first", "the layer that others are aligned to", choices=tuple(ANCHORS))
    greedy: bool = _option(False, "also merge small groups that grow by the layer that costs least")
    rank: int = _option(
        0, "also merge a larger window with corrections of this rank, at the same size", least=0
    )
    reconstruct: int | None = _option(
        None,
        "also fit the shared weights of the best window, and of greedy groups, in so many steps "
        "(try 150)",
    )
    reconstruct_search: int | None = _option(None, FITTED_IN_SEARCH)
    n_tokens: int | None = _option(None, "positions for features (10,000, or all there are)")
    n_held_out: int | None = _option(None, f"{HELD_OUT}, and as many that choose layers")
    batch_size: int = _option(2, "examples at a time, in forward passes")
    steps: int = _option(100, "optimizer steps of each model, with --tune")
    learning_rate: float | None = _option(None, "peak learning rate (5e-5)")
    seed: int = _option(0, "seed of the order of examples, and of dropout", **SEEDS)

    def __post_init__(self) -> None:
        super().__post_init__()
        _check_reconstruction(self)


def _check_reconstruction(settings: Settings | Comparing) -> None:
    if settings.reconstruct_search and not settings.reconstruct:
        raise ValueError("--reconstruct-search N fits what a search tries: add --reconstruct N")


@dataclass(frozen=True)
class Tuning(Options):
    """Options of a tuning. Defaults in brackets are those of the paper's Tables 6 to 8."""

    steps: int | None = _option(None, "optimizer steps (100,000; images: 50,000)")
    learning_rate: float | None = _option(None, "peak learning rate (5e-5; with --lora, 2e-4)")
    schedule: str | None = _option(
        None,
        "how the learning rate falls (inverse_sqrt; images: linear_to_minimum, to 1e-6 in 20,000 "
        "steps, or in --steps if these are fewer)",
        choices=SCHEDULES,
    )
    batch_size: int | None = _option(
        None, "examples in an optimizer step (2 sequences of text, 64 pairs, 128 images)"
    )
    accumulate: int = _option(
        1, "parts in which a device takes the examples of a step, to use less memory"
    )
    precision: str | None = _option(
        None, "fp32, or mixed with a half precision (fp16 on a GPU, else fp32)", choices=PRECISIONS
    )
    checkpointing: bool = _option(
        False, "compute activations twice instead of keeping them, to use less memory"
    )
    devices: int = _option(1, "GPUs, or processes with --device cpu, that share a step's examples")
    evaluate_every: int | None = _option(
        None, "steps between looks at the held-out part (a tenth of --steps, from 10 to 1,000)"
    )
    n_held_out: int | None = _option(None, HELD_OUT)
    seed: int = _option(0, "seed of the order of examples, and of dropout", **SEEDS)
    lora: int | None = _option(
        None,
        "train adapters of this rank on the linear maps (try 16) and merge them at the end: for "
        "models whose optimizer and gradients would not fit into memory",
    )
    teacher: str | None = _option(
        None,
        "the original, whose outputs the model also learns; a model without a head needs it",
    )


@dataclass(frozen=True)
class Evaluation(Options):
    """Options of an evaluation."""

    against_revision: str | None = _option(
        None, "commit, tag or branch of ORIGINAL, if it is from the hub"
    )
    n_examples: int | None = _option(None, "examples to score, from the first on (all)")
    batch_size: int = _option(2, "examples at a time")


def add_options(
    parser: argparse.ArgumentParser,
    names: Sequence[str] | None = None,
    options: type[Options] = Settings,
) -> None:
    """Add options to a command line. names: the fields to add; None for all."""
    common = {option.name for option in fields(Options)}
    for option in sorted(fields(options), key=lambda option: option.name in common):
        if names is not None and option.name not in names:
            continue
        flag, text = f"--{option.name.replace('_', '-')}", option.metadata["help"]
        if option.type is bool:
            flag = flag.replace("--", "--no-") if option.default else flag
            action = "store_false" if option.default else "store_true"
            parser.add_argument(flag, dest=option.name, action=action, help=text)
            continue
        first = str(option.type).partition(" | ")[0]  # of a union
        kind = next((kind for kind in (int, float) if kind.__name__ in first), str)
        choices = option.metadata.get("choices")
        default = "" if option.default is None else f" (default: {option.default})"
        parser.add_argument(
            flag,
            type=kind,
            default=option.default,
            choices=choices,
            metavar=None if choices else {int: "N", float: "X"}.get(kind, option.name.upper()),
            help=text + default,
        )
