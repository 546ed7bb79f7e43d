"""Interface of a task to the steps of the workflow."""

import glob
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Sequence
from functools import cache, cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset, Subset

from experiment.config.settings import Training
from ffmerge.evaluation.metrics import METRICS, Evaluation, Metric
from ffmerge.models.workers import CONTEXT, InWorker

if TYPE_CHECKING:
    import datasets

Batch = dict[str, Tensor]
Columns = dict[str, list]
"""Column name -> one value an example."""
ROW = "row"  # column with the numbers of examples that are not scored in their order


class Task(ABC):
    """A model's data, batches, loss and score.

    settings: the task's part of the configuration.
    base_model: directory with the tokenizer or image processor.
    data: split -> Parquet file, directory of such files, or pattern.
    workers: processes that make batches in advance; 0: this one makes them.
    one_pass: whether the scores of a batch are one forward pass.
    """

    one_pass = True

    def __init__(
        self, settings: Any, base_model: Path, data: dict[str, Path], workers: int = 0
    ) -> None:
        self.settings = settings
        self.workers = workers
        self.base_model = Path(base_model)
        self.data = data

    @cached_property
    def tokenizer(self) -> Any:
        """The base model's tokenizer, if it reads text."""
        from transformers import AutoTokenizer

        return AutoTokenizer.from_pretrained(self.base_model)

    @property
    def metric(self) -> Metric:
        """The task's metric."""
        return METRICS[self.settings.kind]

    @abstractmethod
    def training_examples(self, training: Training, seed: int) -> Dataset:
        """Examples of the training split for `collate`."""

    @abstractmethod
    def collate(self, examples: list) -> Batch:
        """Pad examples to one batch for the model's forward pass or for `loss`."""

    def loss(self, model: nn.Module, batch: Batch) -> Tensor | None:
        """Training loss of a batch of `collate`, for models that compute none from labels.

        None: the model's own loss. A task's loss is used unscaled, so its batches cannot be split
        among several processes.
        """
        return None

    @abstractmethod
    def feature_batches(self) -> Iterator[Batch]:
        """Batches of the validation split, to collect features from (Section 3.3)."""

    @abstractmethod
    def to_score(self, split: str) -> Iterator[Any]:
        """Batches of `validation` or `test`, as `scores` takes them."""

    @abstractmethod
    def scores(self, model: nn.Module, batch: Any, device: str) -> Columns:
        """Score a model on a batch."""

    @abstractmethod
    def evaluation(self, split: str, columns: Columns) -> Evaluation:
        """Make a score of the columns of all batches, with per-example values."""

    @torch.inference_mode()
    def evaluate(self, model: nn.Module, split: str, device: str = "cpu") -> Evaluation:
        """Score a model on `validation` or `test`, with per-example values."""
        model.eval()
        parts = (self.scores(model, batch, device) for batch in self.to_score(split))
        return self.evaluation(split, joined(parts))

    def rows(self, split: str) -> "datasets.Dataset":
        """A split's rows, memory-mapped. Raises FileNotFoundError if there is no Parquet file."""
        return _load(str(self.data[split]))

    def limited(self, split: str) -> "datasets.Dataset":
        """A split's rows up to the evaluation's `max_examples`."""
        rows = self.rows(split)
        limit = getattr(self.settings, split).max_examples
        return rows if limit is None else rows.select(range(min(limit, len(rows))))

    def batches_for_features(self, examples: Dataset) -> Iterator[Batch]:
        """Batches of examples in order, or shuffled by the seed of the features' settings."""
        how = self.settings.features
        if how.shuffle is not None:
            generator = torch.Generator().manual_seed(how.shuffle)
            order = torch.randperm(len(examples), generator=generator).tolist()
            examples = Subset(examples, order)
        return self.batches(examples, how.batch_size)

    def batches(self, examples: Dataset, size: int) -> Iterator[Batch]:
        """Batches of `size` examples in order; the last one may be smaller."""
        n = len(examples)
        groups = [range(start, min(start + size, n)) for start in range(0, n, size)]
        return self.batches_of(examples, groups)

    def batches_of(self, examples: Dataset, groups: Sequence[Sequence[int]]) -> Iterator[Batch]:
        """Batches of the examples with these indices, in order, made by the workers if any."""
        if self.workers and groups:
            # a generator of its own: training draws its dropout from torch's
            yield from DataLoader(
                examples,
                batch_sampler=groups,
                num_workers=self.workers,
                collate_fn=InWorker(self.collate),
                multiprocessing_context=CONTEXT,
                generator=torch.Generator(),
            )
            return
        for group in groups:
            yield self.collate([examples[i] for i in group])


def longest_first(texts: Sequence[str]) -> list[int]:
    """Order texts by length, so that batches need little padding. Returns their indices."""
    return sorted(range(len(texts)), key=lambda i: (-len(texts[i]), i))


def joined(parts: Iterable[Columns]) -> Columns:
    """The columns of all batches, in the order of the column ROW if there is one."""
    columns: Columns = {}
    for part in parts:
        for name, values in part.items():
            columns.setdefault(name, []).extend(values)
    if (rows := columns.pop(ROW, None)) is None:
        return columns
    order = sorted(range(len(rows)), key=rows.__getitem__)
    return {name: [values[i] for i in order] for name, values in columns.items()}


@cache
def _load(where: str) -> "datasets.Dataset":
    import datasets

    files = parquet_files(where)
    datasets.disable_progress_bars()
    return datasets.load_dataset("parquet", data_files=files, split="train")


def parquet_files(where: str) -> list[str]:
    """Sorted Parquet files of a file name, directory or pattern, without hidden ones.

    Raises FileNotFoundError naming what is missing.
    """
    if Path(where).is_dir():
        below = (file.relative_to(where) for file in Path(where).rglob("*.parquet"))
        shown = (f for f in below if not any(p.startswith((".", "__MACOSX")) for p in f.parts))
        files = sorted(str(Path(where, file)) for file in shown)
    else:
        files = sorted(glob.glob(where, recursive=True))
    if not files:
        reason = "has no *.parquet in it" if Path(where).is_dir() else "does not exist"
        raise FileNotFoundError(f"data: {where} {reason}")
    return files
