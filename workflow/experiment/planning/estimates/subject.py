"""A job to estimate, and what an estimate says."""

from dataclasses import dataclass, field
from typing import Any

from experiment.planning.rates import Rates, Shape
from provenance.dag import PlannedJob

FLOAT = 4  # bytes of a float32 number


@dataclass(frozen=True)
class Estimate:
    """What a job takes beside its start and the reading and writing of its files.

    seconds: of work. waiting: those of them that a GPU waits for the processor. outputs: bytes of
    each output, by name; those without an entry are small. scratch: bytes on disk while it runs.
    cache: bytes that it leaves in .cache. memory, gpu_memory: bytes at the peak.
    """

    seconds: float = 0.0
    waiting: float = 0.0
    outputs: dict[str, float] = field(default_factory=dict)
    scratch: float = 0.0
    cache: float = 0.0
    memory: float = 0.0
    gpu_memory: float = 0.0


@dataclass(frozen=True)
class Subject:
    """A job with the shape of its task's model, the task's configuration, and the rates."""

    job: PlannedJob
    task: Any
    shape: Shape
    rates: Rates

    @property
    def model(self) -> str:
        """The model that the job is about, by name; the base model where it has none."""
        of = self.job.wildcards
        return of.get("model") or of.get("variant") or "base"

    @property
    def weights(self) -> float:
        """Bytes of that model's weights in float32."""
        return FLOAT * self.shape.stored(self.model)

    @property
    def n_tokens(self) -> int:
        """Positions at which features are collected, for each layer."""
        return self.task.features.n_tokens

    @property
    def context(self) -> float:
        """Positions of an example: tokens, or patches, in each tower."""
        match self.task.kind:
            case "language_modeling":
                return self.task.context
            case "image_classification":
                return self.rates["image_positions"]
            case "sentence_retrieval":
                return self.task.max_tokens
        return self.rates["padded_tokens"]

    def split(self, name: str) -> dict[str, float]:
        """Sizes of a split of the task's data."""
        source = self.task.dataset
        same = name == "test" and source.test == source.validation
        return self.rates.split(source.repository or source.url, "validation" if same else name)

    def n_examples(self, split: str) -> int:
        """Tokens, images or sentence pairs on which a split is scored."""
        how, held = getattr(self.task, split), int(self.split(split)["examples"])
        limit = getattr(how, "max_tokens", None) or getattr(how, "max_examples", None)
        return min(held, limit or held)
