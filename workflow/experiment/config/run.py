"""The whole run: what all tasks share, and the tasks."""

from typing import Annotated, Literal

from pydantic import Field, model_validator

from experiment.config.strict import Positive, Strict
from experiment.config.tasks import Task

FOLDERS = ("figures", "logs", "packages", "patches", "rebuild", "tables")
"""Folders of `results` that hold no task."""


class Intervals(Strict):
    """Statistics over per-example scores: bootstrap intervals and paired tests."""

    resamples: Positive = Field(1000, description="bootstrap resamples of the test examples")
    confidence: float = Field(0.95, gt=0, lt=1, description="of an interval")
    permutations: Positive = Field(
        10_000,
        description="random swaps of two models' examples, and resamples of them, in the test of a "
        "claim",
    )


class Config(Strict):
    """One run of the whole DAG."""

    results: str = Field(
        description="directory of everything that is computed; no two configurations share one"
    )
    device: Literal["cpu", "cuda"] = Field("cpu", description="where models run")
    seed: int = Field(0, ge=0, description="of every random choice")
    intervals: Intervals = Field(Intervals(), description="confidence intervals of the scores")
    temporary: list[Literal["compressed", "tuned"]] = Field(
        [],
        description="weights that are removed when the last job has read them, unless the command "
        "line asks for them: models that are compressed and not yet tuned (made again in seconds), "
        "tuned ones (made again in hours, as soon as a new score or table needs them)",
    )
    tasks: dict[Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]*$")], Task] = Field(
        min_length=1,
        description="models with their data, each by the name of its folder in `results`",
    )

    @model_validator(mode="after")
    def _runs_and_is_filed(self) -> "Config":
        for name, task in self.tasks.items():
            if name in FOLDERS:
                raise ValueError(f"tasks.{name}: a name other than {', '.join(FOLDERS)}")
            if task.fine_tuning.precision == "fp16" and self.device == "cpu":
                raise ValueError(
                    f"tasks.{name}.fine_tuning.precision: has to be fp32 or bf16 with device cpu "
                    "(is 'fp16')"
                )
        return self
