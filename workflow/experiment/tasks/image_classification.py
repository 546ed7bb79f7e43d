"""Image classification (Section 4.2): top-1 accuracy."""

import math
from collections.abc import Iterator
from functools import cached_property

import torch
from torch import nn
from torch.nn.functional import cross_entropy
from torch.utils.data import Dataset
from transformers import AutoImageProcessor

from experiment.config import Training
from experiment.tasks.task import Batch, Task
from ffmerge.compression.pictures import as_taken
from ffmerge.evaluation.accuracy import accuracy, top1_correct
from ffmerge.evaluation.metrics import Evaluation
from provenance.progress import progress


class ImageClassification(Task):
    """An image classifier; a position of its features is a patch or the class token."""

    @cached_property
    def processor(self):
        """The base model's image processor."""
        return AutoImageProcessor.from_pretrained(self.base_model)

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

    @torch.inference_mode()
    def evaluate(self, model: nn.Module, split: str, device: str = "cpu") -> Evaluation:
        rows, size = self.limited(split), getattr(self.settings, split).batch_size
        model.eval()
        correct, losses = [], []
        for batch in progress(self.batches(rows, size), -(-len(rows) // size), "images"):
            labels = batch["labels"].to(device)
            logits = model(pixel_values=batch["pixel_values"].to(device)).logits.float()
            correct += top1_correct(logits, labels).tolist()
            losses += cross_entropy(logits, labels, reduction="none").tolist()
        return Evaluation(
            score=accuracy(correct),
            loss=math.fsum(losses) / len(losses),
            per_example={"correct": correct, "negative_log_likelihood": losses},
            details={"n_images": len(correct)},
        )
