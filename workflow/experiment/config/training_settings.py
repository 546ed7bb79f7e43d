"""How a model is trained: steps, schedule, batches, optimizer."""

from typing import Literal

from pydantic import Field, model_validator

from experiment.config.strict import Positive, Strict


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
