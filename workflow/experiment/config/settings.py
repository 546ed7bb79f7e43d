"""Settings of a task's stages: compression, training and evaluation."""

from functools import partial
from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    model_validator,
)

Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
Commit = Annotated[str, Field(pattern=r"^[0-9a-f]{40}$")]
LONGEST_NAME, LONGEST_SHOWN = 80, 150  # characters


def wrong(key: str, allowed: str, value: object) -> ValueError:
    """The error of a validator about the value of a key in its group; no key: of the value's."""
    shown = repr(value)
    shown = shown if len(shown) <= LONGEST_SHOWN else f"{shown[:LONGEST_SHOWN]}…"
    return ValueError(f"{key}{': ' if key else ''}has to be {allowed} (is {shown})")


def one_line(text: str, longest: int = LONGEST_NAME) -> str:
    """Return a text. Raises ValueError unless it is one line of printable characters."""
    if not text.strip() or len(text) > longest or not text.isprintable():
        shown = text if len(text) <= LONGEST_NAME else f"{text[:LONGEST_NAME]}…"
        raise wrong("", f"one line of 1 to {longest} characters", shown)
    return text


def number(value: Any) -> Any:
    """Return a value. Raises ValueError if it is true or false, which pydantic takes for 1 and 0.

    A number of more than 64 bits is refused, too: torch cannot count so far.
    """
    if isinstance(value, bool) or (isinstance(value, int) and not -(2**63) <= value < 2**63):
        raise wrong("", "a number of at most 64 bits", value)
    return value


def each_once(values: list[Any]) -> list[Any]:
    """Return a list. Raises ValueError naming a value that is in it twice."""
    if twice := [value for i, value in enumerate(values) if value in values[:i]]:
        raise wrong("", "a list of different values", twice[0])
    return values


Whole = Annotated[int, BeforeValidator(number)]
Number = Annotated[float, BeforeValidator(number)]
YesNo = Annotated[bool, Field(strict=True)]
Positive = Annotated[int, Field(gt=0), BeforeValidator(number)]
FromZero = Annotated[int, Field(ge=0), BeforeValidator(number)]
WindowSize = Annotated[int, Field(gt=1), BeforeValidator(number)]
Line = Annotated[str, AfterValidator(one_line)]
FilePath = Annotated[str, AfterValidator(partial(one_line, longest=1000))]
Once = AfterValidator(each_once)


class Strict(BaseModel):
    """Base class of all groups of keys: unknown keys are errors, values immutable and finite."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


# --- compression ----------------------------------------------------------------------------------


class FeatureSettings(Strict):
    """Exemplar features from the validation split (Section 3.3)."""

    n_tokens: Positive = Field(10_000, description="positions (tokens or patches) for each layer")
    batch_size: Positive = Field(description="examples in a forward pass")
    aligned: Literal["pre_activation", "up", "neuron"] | None = Field(
        None,
        description="values by which neurons are compared: `pre_activation`, the input of the "
        "activation function (in a gated sublayer, the gate's output); `up`, the output of W_in; "
        "`neuron`, the input of W_out. Unset: `pre_activation`, as in the paper, or in a gated "
        "sublayer `neuron`, which aligns better (docs/beyond_the_paper.md)",
    )
    shuffle: FromZero | None = Field(
        None,
        description="seed by which the split's examples (packed text, images, pairs) are shuffled "
        "before the positions are taken; unset: the first ones",
    )


class Sizes(Strict):
    """Numbers that grow with the ratio of layers that they remove."""

    @model_validator(mode="after")
    def _grow(self) -> "Sizes":
        sizes = self.sizes()
        if sizes != sorted(set(sizes)):
            shown = ", ".join(map(str, sizes))
            raise ValueError(f"has to grow, {' < '.join(self.ratios())} (is {shown})")
        return self

    def ratios(self) -> dict[str, int]:
        """The number at each ratio that is wanted, in the order of Table 5 and Figure 3."""
        return {ratio: k for ratio, k in self if k is not None and ratio != "jobs"}

    def sizes(self) -> list[int]:
        """The numbers alone."""
        return list(self.ratios().values())


class WindowSizes(Sizes):
    """Number k of FF sublayers merged into one, for each ratio of Table 5 (Section 5.1)."""

    sixth: WindowSize | None = Field(
        None, description="window size that removes 1/6; unset: this ratio is left out"
    )
    quarter: WindowSize | None = Field(
        None, description="window size that removes 1/4; unset: this ratio is left out"
    )
    third: WindowSize = Field(description="window size that removes 1/3 of the FF sublayers")
    half: WindowSize | None = Field(
        None, description="window size that removes 1/2; unset: this ratio is left out"
    )
    all: WindowSize | None = Field(
        None,
        description="window size that leaves one: the number of layers; unset: this ratio is left "
        "out",
    )


class Merge(Strict):
    """Which FF sublayers are merged, and how."""

    k: WindowSizes = Field(description="window sizes")
    methods: Annotated[list[Literal["permute", "vanilla"]], Once] = Field(
        ["permute", "vanilla"],
        min_length=1,
        description="`permute`: align, then average (Section 3.2); `vanilla`: only average",
    )
    anchor: Literal["first", "middle", "last"] = Field(
        "first", description="the sublayer of a window that the others are aligned to"
    )


Starts = Annotated[list[FromZero], Once]


class ScoredWindows(Strict):
    """First layers of the windows to score, for each ratio, where not all are."""

    sixth: Starts = Field([], description="of windows that remove 1/6; empty: none")
    quarter: Starts = Field([], description="of windows that remove 1/4; empty: none")
    third: Starts = Field(min_length=1, description="of windows that remove 1/3")
    half: Starts = Field([], description="of windows that remove 1/2; empty: none")
    all: Starts = Field([], description="of windows of all layers; empty: none")


class Windows(Strict):
    """The sliding-window search (Section 3.4)."""

    jobs: Positive | None = Field(
        None,
        description="jobs that share a task's windows, which then are all scored even if one model "
        "is wanted; unset: one job for each ratio and method",
    )
    starts: Literal["full", "printed"] = Field(
        "full",
        description="first layers of the windows to select from. `full`: 0 … N-k; `printed`: "
        "0 … (N-1)-k as in the paper, which omits the last one (k = N would have none and uses "
        "`full`). All windows are scored, and the winners of both ranges kept",
    )
    only: ScoredWindows | None = Field(
        None,
        description="the windows to score and select from; unset: all. For a rehearsal: the "
        "paper's tables need all of them",
    )


class LayerDrop(Sizes):
    """The baseline that drops whole layers (Section 4.4)."""

    sixth: Positive = Field(description="adjacent layers to drop, on each side, as 1/6 of them")
    quarter: Positive | None = Field(
        None, description="the same for 1/4; unset: this ratio is left out"
    )
    third: Positive = Field(description="the same for 1/3")
    jobs: Positive | None = Field(
        None, description="jobs that share a task's windows of layers; unset: one for each number"
    )


# --- training -------------------------------------------------------------------------------------


class Training(Strict):
    """Training: recovery fine-tuning, or a base model from scratch."""

    learning_rate: Number = Field(gt=0, description="peak learning rate")
    schedule: Literal["inverse_sqrt", "linear_to_minimum", "cosine", "constant"] = Field(
        description="learning rate after the warm-up. `inverse_sqrt`: times √(timescale / "
        "(t + timescale)) at step t (Tables 6 and 8); `linear_to_minimum`: down to the minimum, "
        "then flat (Table 7); `cosine`: half a cosine wave down to the minimum; `constant`"
    )
    warmup_steps: FromZero = Field(0, description="steps of linear warm-up from 0")
    timescale: Positive = Field(10_000, description="timescale of `inverse_sqrt`, in steps")
    decay_steps: Positive | None = Field(
        None, description="steps to the minimum; unset: `max_steps` (not for `linear_to_minimum`)"
    )
    minimum_learning_rate: Number = Field(
        0.0, ge=0, description="where `linear_to_minimum` and `cosine` end"
    )
    batch_size: Positive = Field(description="examples in an optimizer step, over all devices")
    devices: Positive = Field(
        1,
        description="GPUs of a job (processes, with `device: cpu`) that share the examples of a "
        "step; it uses exactly this many. A base model is trained from scratch on 1",
    )
    max_steps: Positive = Field(description="total optimizer steps")
    evaluate_every: Positive = Field(
        description="steps between validations; the weights of the best one are kept"
    )
    select_by: Literal["score", "loss"] = Field(
        "score", description="what makes a validation the best: the task's score, or the loss"
    )
    precision: Literal["fp32", "fp16", "bf16"] = Field(
        "fp32", description="`fp32`: single; `fp16`, `bf16`: mixed with that half precision"
    )
    weight_decay: Number = Field(0.0, ge=0, description="weight decay of AdamW")
    adam_epsilon: Number = Field(1e-6, gt=0, description="ε of AdamW")
    adam_beta2: Number = Field(0.999, gt=0, lt=1, description="β₂ of AdamW")
    group_by_length: YesNo = Field(
        False, description="batches of sentences of similar length (translation only)"
    )
    max_gradient_norm: Number = Field(1.0, gt=0, description="gradients are clipped to this norm")

    @model_validator(mode="after")
    def _is_consistent(self) -> "Training":
        if self.batch_size % self.devices:
            needed = f"has to divide batch_size, {self.batch_size}"
            raise ValueError(f"devices: {needed} (is {self.devices})")
        if self.schedule == "linear_to_minimum" and self.decay_steps is None:
            needed = "has to be a whole number above 0 for schedule linear_to_minimum"
            raise ValueError(f"decay_steps: {needed} (is empty)")
        lowest, highest = self.minimum_learning_rate, self.learning_rate
        if lowest > highest:
            raise wrong("minimum_learning_rate", f"at most learning_rate, {highest}", lowest)
        return self


# --- evaluation -----------------------------------------------------------------------------------

Join = Literal["blank_lines", "nothing"]
JOINS: dict[Join, str] = {"blank_lines": "\n\n", "nothing": ""}
"""What is between rows of running text that are packed."""


class PerplexityEvaluation(Strict):
    """Perplexity with a sliding window."""

    context: Positive = Field(description="tokens in a forward pass")
    stride: Positive = Field(
        description="tokens from one window to the next, below `context`; these are scored"
    )
    average: Literal["tokens", "windows"] = Field(
        "windows", description="mean loss over tokens, or mean of the windows' mean losses"
    )
    batch_size: Positive = Field(description="windows in a forward pass")
    max_tokens: Positive | None = Field(None, description="first tokens to score; unset: all")
    join: Join = Field("blank_lines", description="as `join` of the task, for the text to score")

    @model_validator(mode="after")
    def _covers_every_token(self) -> "PerplexityEvaluation":
        if self.max_tokens == 1:
            raise wrong("max_tokens", "at least 2, because the first token is not scored", 1)
        if self.stride >= self.context:
            raise wrong("stride", f"from 1 to {self.context - 1}, below context", self.stride)
        return self


class AccuracyEvaluation(Strict):
    """Top-1 accuracy."""

    batch_size: Positive = Field(description="images in a forward pass")
    max_examples: Positive | None = Field(None, description="first images to score; unset: all")


class RetrievalEvaluation(Strict):
    """Top-1 accuracy of finding a query's passage among the split's, by cosine similarity."""

    batch_size: Positive = Field(description="texts in a forward pass")
    max_examples: Positive | None = Field(
        None,
        description="first paragraphs that are long enough; unset: all. Fewer passages are easier "
        "to tell apart",
    )


class BleuEvaluation(Strict):
    """sacreBLEU of beam-search translations."""

    num_beams: Positive = Field(description="beam width; 1 is greedy")
    max_length: Positive = Field(description="maximum number of generated tokens")
    batch_size: Positive = Field(description="sentences in a forward pass")
    max_examples: Positive | None = Field(None, description="first sentences to score; unset: all")
