"""Settings of a task's stages: compression, training and evaluation."""

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
Commit = Annotated[str, Field(pattern=r"^[0-9a-f]{40}$")]
Positive = Annotated[int, Field(gt=0)]


class Strict(BaseModel):
    """A part of the configuration: unknown keys are errors, values cannot be changed."""

    model_config = ConfigDict(extra="forbid", frozen=True)


# --- compression ----------------------------------------------------------------------------------

METHODS = ("permute", "vanilla")
Method = Literal["permute", "vanilla"]
Anchor = Literal["first", "middle", "last"]


class Features(Strict):
    """Section 3.3: exemplar features, from the validation split."""

    n_tokens: Positive = Field(10_000, description="positions (tokens or patches) for each layer")
    batch_size: Positive = Field(description="examples a forward pass")
    aligned: Literal["pre_activation", "up", "neuron"] | None = Field(
        None,
        description="which values of a neuron are compared: `pre_activation`, what its activation "
        "function takes (of a gated sublayer, the gate's output); `up`, what W_in puts out; "
        "`neuron`, what W_out takes. Unset: `pre_activation`, as in the paper; of a gated sublayer "
        "`neuron`, which aligns better (docs/own_model.md)",
    )


class WindowSizes(Strict):
    """Section 5.1: k, the FF sublayers merged into one, for each ratio of Table 5."""

    third: int = Field(gt=1, description="FF sublayers in a window, so that merging it removes 1/3")
    half: int = Field(gt=1, description="the same for 1/2")
    all: int = Field(gt=1, description="the same for all but one: the number of layers")

    @model_validator(mode="after")
    def _grow(self) -> "WindowSizes":
        if not self.third < self.half < self.all:
            sizes = ", ".join(str(k) for k in self.sizes())
            raise ValueError(f"has to grow, third < half < all (is {sizes})")
        return self

    def sizes(self) -> list[int]:
        """k of the three ratios, in the order of Table 5."""
        return [self.third, self.half, self.all]


class Merge(Strict):
    """What is merged, and how."""

    k: WindowSizes = Field(description="sizes of the windows")
    methods: list[Method] = Field(
        list(METHODS),
        min_length=1,
        description="`permute`: aligned, then averaged (Section 3.2); `vanilla`: only averaged",
    )
    anchor: Anchor = Field("first", description="the sublayer of a window that others align to")


Start = Annotated[int, Field(ge=0)]


class ScoredWindows(Strict):
    """The few windows that are scored, where not all are: first layers, for each ratio."""

    third: list[Start] = Field(min_length=1, description="of windows that remove 1/3")
    half: list[Start] = Field([], description="of windows that remove 1/2; none: not scored")
    all: list[Start] = Field([], description="of windows of all layers; none: not scored")


class Windows(Strict):
    """Section 3.4: the sliding-window search."""

    jobs: Positive = Field(1, description="jobs over which a task's windows are spread")
    starts: Literal["full", "printed"] = Field(
        "full",
        description="first layers of the windows among which one is selected. `full`: 0 … N-k; "
        "`printed`: 0 … (N-1)-k as in the paper, without the last one (for k = N without any: then "
        "`full`). All are scored, and the winners of both ranges kept",
    )
    only: ScoredWindows | None = Field(
        None,
        description="the windows that are scored, and among which one is selected; unset: all. For "
        "a rehearsal: the paper's tables need all of them",
    )


class LayerDrop(Strict):
    """Section 4.4: the baseline, in which whole layers are left out."""

    sixth: Positive = Field(description="adjacent layers left out, on each side, as 1/6 of them")
    third: Positive = Field(description="the same for 1/3")
    jobs: Positive = Field(1, description="jobs over which a task's windows of layers are spread")

    @model_validator(mode="after")
    def _grow(self) -> "LayerDrop":
        if not self.sixth < self.third:
            raise ValueError(f"has to grow, sixth < third (is {self.sixth}, {self.third})")
        return self

    def sizes(self) -> list[int]:
        """Layers left out at the two ratios of Figure 3."""
        return [self.sixth, self.third]


# --- training -------------------------------------------------------------------------------------


class Training(Strict):
    """How a model is trained: recovery fine-tuning, or a base model from scratch."""

    learning_rate: float = Field(gt=0, description="the highest; `schedule` says how it goes on")
    schedule: Literal["inverse_sqrt", "linear_to_minimum", "cosine", "constant"] = Field(
        description="of the learning rate, after the warm-up. `inverse_sqrt`: times √(timescale / "
        "(t + timescale)) at step t (Tables 6 and 8); `linear_to_minimum`: down to the minimum, "
        "then flat (Table 7); `cosine`: half a wave down to the minimum; `constant`"
    )
    warmup_steps: int = Field(0, ge=0, description="steps of linear warm-up from 0")
    timescale: Positive = Field(10_000, description="of `inverse_sqrt`, in steps")
    decay_steps: Positive | None = Field(
        None, description="steps to the minimum; unset: `max_steps` (not for `linear_to_minimum`)"
    )
    minimum_learning_rate: float = Field(
        0.0, ge=0, description="where `linear_to_minimum` and `cosine` end"
    )
    batch_size: Positive = Field(description="examples an optimizer step, over all devices")
    devices: Positive = Field(
        1,
        description="GPUs of a job (processes, with `device: cpu`) among which the examples of a "
        "step are dealt out; it uses exactly so many. A base model is trained from scratch on 1",
    )
    max_steps: Positive = Field(description="optimizer steps in all")
    evaluate_every: Positive = Field(
        description="steps between validation scores; the weights with the best one are kept"
    )
    precision: Literal["fp32", "fp16", "bf16"] = Field(
        "fp32", description="`fp32`: single; `fp16`, `bf16`: mixed with that half precision"
    )
    weight_decay: float = Field(0.0, ge=0, description="of AdamW")
    adam_epsilon: float = Field(1e-6, gt=0, description="ε of AdamW")
    adam_beta2: float = Field(0.999, gt=0, lt=1, description="β₂ of AdamW")
    group_by_length: bool = Field(
        False, description="batches of sentences of about the same length (translation only)"
    )
    max_gradient_norm: float = Field(1.0, gt=0, description="gradients are clipped to this norm")

    @model_validator(mode="after")
    def _batch_is_dealt_out_evenly(self) -> "Training":
        if self.batch_size % self.devices:
            needed = f"has to divide batch_size, {self.batch_size}"
            raise ValueError(f"devices: {needed} (is {self.devices})")
        return self

    @model_validator(mode="after")
    def _schedule_is_complete(self) -> "Training":
        if self.schedule == "linear_to_minimum" and self.decay_steps is None:
            needed = "has to be a whole number above 0 for schedule linear_to_minimum"
            raise ValueError(f"decay_steps: {needed} (is empty)")
        lowest, highest = self.minimum_learning_rate, self.learning_rate
        if lowest > highest:
            allowed = f"has to be at most learning_rate, {highest}"
            raise ValueError(f"minimum_learning_rate: {allowed} (is {lowest})")
        return self


# --- evaluation -----------------------------------------------------------------------------------


class PerplexityEvaluation(Strict):
    """Perplexity with a sliding window."""

    context: Positive = Field(description="tokens a forward pass sees")
    stride: Positive = Field(
        description="tokens from one window to the next, below `context`: those that are scored"
    )
    average: Literal["tokens", "windows"] = Field(
        "windows", description="what the loss is averaged over: tokens, or the means of the windows"
    )
    batch_size: Positive = Field(description="windows a forward pass")
    max_tokens: Positive | None = Field(None, description="the first of the split; unset: all")

    @model_validator(mode="after")
    def _covers_every_token(self) -> "PerplexityEvaluation":
        if self.stride >= self.context:
            most = f"{self.context - 1}, below context"
            raise ValueError(f"stride: has to be from 1 to {most} (is {self.stride})")
        return self


class AccuracyEvaluation(Strict):
    """Top-1 accuracy."""

    batch_size: Positive = Field(description="images a forward pass")
    max_examples: Positive | None = Field(None, description="the first of the split; unset: all")


class RetrievalEvaluation(Strict):
    """Top-1 accuracy of finding a query's passage among all of the split, by cosine similarity."""

    batch_size: Positive = Field(description="texts a forward pass")
    max_examples: Positive | None = Field(
        None,
        description="the first paragraphs that are long enough; unset: all. The fewer there are, "
        "the easier each is found",
    )


class BleuEvaluation(Strict):
    """sacreBLEU of beam-search translations."""

    num_beams: Positive = Field(description="beam width; 1 is greedy")
    max_length: Positive = Field(description="tokens generated at most")
    batch_size: Positive = Field(description="sentences a forward pass")
    max_examples: Positive | None = Field(None, description="the first of the split; unset: all")
