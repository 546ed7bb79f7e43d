"""The metrics, and the result of an evaluation."""

from dataclasses import dataclass, field


@dataclass(frozen=True)
class Metric:
    """Names, order and rounding of a score."""

    name: str
    label: str  # as Table 5 prints it
    unit: str  # for axes
    short_unit: str  # after a difference
    higher_is_better: bool
    decimals: int  # as Table 5 rounds it; Tables 2-4 have one for all

    def better(self, a: float, b: float) -> bool:
        """Whether score a is strictly better than score b."""
        return a > b if self.higher_is_better else a < b


ACCURACY = Metric("accuracy", "Accuracy (%) ↑", "top-1 accuracy (%)", "%", True, 1)
METRICS = {
    "language_modeling": Metric("perplexity", "PPL↓", "perplexity", "PPL", False, 2),
    "image_classification": ACCURACY,
    "translation": Metric("bleu", "BLEU↑", "BLEU", "BLEU", True, 1),
    "sentence_retrieval": ACCURACY,
}
"""Metric of each kind of task."""


def metric_named(name: str) -> Metric:
    """The metric with this name."""
    return next(metric for metric in METRICS.values() if metric.name == name)


@dataclass
class Evaluation:
    """A score with its evidence.

    score: the metric; loss: mean cross-entropy (nats) on the same examples.
    per_example: column name -> one value an example (window, image, sentence or query).
    details: further values for the reader, such as counts and sacreBLEU's signature.
    """

    score: float
    loss: float
    per_example: dict[str, list]
    details: dict = field(default_factory=dict)
