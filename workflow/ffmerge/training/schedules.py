"""Learning-rate schedules of Tables 6-8, named by the configuration.

Each maps a step to a factor on the peak learning rate, for `torch.optim.lr_scheduler.LambdaLR`.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True, kw_only=True)
class Training:
    """Settings of a training. `config/README.md` says what each of them means.

    The defaults are those of Tables 6 to 8, or of the paper's released scripts.
    """

    learning_rate: float
    schedule: Literal["inverse_sqrt", "linear_to_minimum", "cosine", "constant"]
    warmup_steps: int = 0
    timescale: int = 10_000
    decay_steps: int | None
    minimum_learning_rate: float
    batch_size: int
    max_steps: int
    evaluate_every: int
    select_by: Literal["score", "loss"] = "score"
    precision: Literal["fp32", "fp16", "bf16"]
    weight_decay: float = 0.0
    adam_epsilon: float = 1e-6
    adam_beta2: float = 0.999
    group_by_length: bool = False
    max_gradient_norm: float = 1.0


def learning_rate_factor(training: Training) -> Callable[[int], float]:
    """Factor on `training.learning_rate` at optimizer step t = 0, 1, …

    inverse_sqrt: √(timescale / (t + timescale)) after a linear warm-up (Tables 6 and 8).
    linear_to_minimum: linear down to `minimum_learning_rate` in `decay_steps`, then flat (Table 7).
    cosine: half a cosine down to `minimum_learning_rate`, at `decay_steps` if given, else at
    `max_steps`, after the warm-up.
    constant: 1 after the warm-up.
    """
    lowest = training.minimum_learning_rate / training.learning_rate
    warmup = training.warmup_steps

    def decayed(t: int) -> float:
        match training.schedule:
            case "inverse_sqrt":
                return math.sqrt(training.timescale / (t + training.timescale))
            case "linear_to_minimum":
                return max(lowest, 1 - (1 - lowest) * t / training.decay_steps)
            case "cosine":
                last = training.decay_steps or training.max_steps
                done = min(1.0, t / max(1, last - warmup))
                return lowest + (1 - lowest) * (1 + math.cos(math.pi * done)) / 2
            case "constant":
                return 1.0
        raise ValueError(f"unknown schedule {training.schedule!r}")

    return lambda step: (step + 1) / warmup if step < warmup else decayed(step - warmup)
