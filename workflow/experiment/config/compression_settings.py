"""What is merged and how, and the baseline that leaves layers out."""

from typing import Annotated, Literal

from pydantic import Field, model_validator

from experiment.config.strict import Positive, Strict

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
