"""Image classification (Section 4.2): top-1 accuracy."""

import math
from collections.abc import Iterator
from functools import cached_property

import torch
from torch import nn
from torch.nn.functional import cross_entropy
from torch.utils.data import Dataset
from transformers import AutoImageProcessor

from experiment.config.settings import Training
from experiment.tasks.task import Batch, Columns, Task
from ffmerge.compression.pictures import as_taken
from ffmerge.evaluation.accuracy import accuracy, top1_correct
from ffmerge.evaluation.metrics import Evaluation
from provenance.progress import progress


class ImageClassification(Task):
    """An image classifier; a position of its features is a patch or the class token."""

    @cached_property
    def processor(self):
        """The base model's image processor."""
        # by name: otherwise what is installed would choose how pictures are resized
        return AutoImageProcessor.from_pretrained(self.base_model, backend="pil")

    def training_examples(self, training: Training, seed: int) -> Dataset:
        return self.rows("train")

    def collate(self, examples: list[dict]) -> Batch:
        n_channels = len(self.processor.image_mean or "RGB")
        images = [as_taken(example["image"], n_channels) for example in examples]
        return {
            "pixel_values": self.processor(images=images, return_tensors="pt")["pixel_values"],
            "labels": torch.tensor([example["label"] for example in examples]),
        }

    def feature_batches(self) -> Iterator[Batch]:
        for batch in self.batches_for_features(self.rows("validation")):
            yield {"pixel_values": batch["pixel_values"]}

    def to_score(self, split: str) -> Iterator[Batch]:
        rows, size = self.limited(split), getattr(self.settings, split).batch_size
        return iter(progress(self.batches(rows, size), -(-len(rows) // size), "images"))

    def scores(self, model: nn.Module, batch: Batch, device: str) -> Columns:
        labels = batch["labels"].to(device)
        logits = model(pixel_values=batch["pixel_values"].to(device)).logits.float()
        return {
            "correct": top1_correct(logits, labels).tolist(),
            "negative_log_likelihood": cross_entropy(logits, labels, reduction="none").tolist(),
        }

    def evaluation(self, split: str, columns: Columns) -> Evaluation:
        correct, losses = columns["correct"], columns["negative_log_likelihood"]
        return Evaluation(
            score=accuracy(correct),
            loss=math.fsum(losses) / len(losses),
            per_example=columns,
            details={"n_images": len(correct)},
        )
