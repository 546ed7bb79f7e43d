"""What every task offers to the steps of the workflow."""

import glob
from abc import ABC, abstractmethod
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torch import Tensor, nn
from torch.utils.data import Dataset

from experiment.config import Training
from experiment.evaluation.metrics import METRICS, Evaluation, Metric

if TYPE_CHECKING:
    import datasets

Batch = dict[str, Tensor]


class Task(ABC):
    """A kind of model with its data.

    settings: the task's part of the configuration.
    base_model: directory that holds the tokenizer or image processor.
    data: split -> Parquet file, directory of such files, or pattern.
    """

    def __init__(self, settings: Any, base_model: Path, data: dict[str, Path]) -> None:
        self.settings = settings
        self.base_model = Path(base_model)
        self.data = data

    @property
    def metric(self) -> Metric:
        """The task's metric."""
        return METRICS[self.settings.kind]

    @abstractmethod
    def training_examples(self, training: Training, seed: int) -> Dataset:
        """The training split, as examples that `collate` takes."""

    @abstractmethod
    def collate(self, examples: list) -> Batch:
        """Examples to one padded batch, as the model's forward takes it, or `loss` does."""

    def loss(self, model: nn.Module, batch: Batch) -> Tensor | None:
        """What training minimizes on a batch of `collate`; None: the model's own, of its labels.

        For a kind of model that computes none. It is taken as it is, so that a batch cannot be
        dealt out to several processes.
        """
        return None

    @abstractmethod
    def feature_batches(self) -> Iterator[Batch]:
        """Batches of the validation split, in order, to collect features from (Section 3.3)."""

    @abstractmethod
    def evaluate(self, model: nn.Module, split: str, device: str = "cpu") -> Evaluation:
        """Score of a model on `validation` or `test`, with its per-example values."""

    def rows(self, split: str) -> "datasets.Dataset":
        """A split's rows, memory-mapped.

        Raises FileNotFoundError where there is no Parquet file.
        """
        return _load(str(self.data[split]))

    def limited(self, split: str) -> "datasets.Dataset":
        """A split's rows, cut at the evaluation's `max_examples`."""
        rows = self.rows(split)
        limit = getattr(self.settings, split).max_examples
        return rows if limit is None else rows.select(range(min(limit, len(rows))))


@cache
def _load(where: str) -> "datasets.Dataset":
    import datasets

    files = parquet_files(where)
    datasets.disable_progress_bars()
    return datasets.load_dataset("parquet", data_files=files, split="train")


def parquet_files(where: str) -> list[str]:
    """The Parquet files that a file's name, a directory or a pattern means, sorted.

    Raises FileNotFoundError naming what is missing.
    """
    if Path(where).is_dir():
        found = sorted(str(file) for file in Path(where).rglob("*.parquet"))
    else:
        found = sorted(glob.glob(where, recursive=True))
    if not found:
        what = "has no *.parquet in it" if Path(where).is_dir() else "does not exist"
        raise FileNotFoundError(f"data: {where} {what}")
    return found
