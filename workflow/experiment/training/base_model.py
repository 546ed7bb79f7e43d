"""The embedded base models: tokenizer or image processor, architecture, training from scratch."""

import shutil
from collections.abc import Mapping
from itertools import chain
from pathlib import Path
from typing import Any

import torch
from torch import nn
from transformers.models.vit.image_processing_pil_vit import ViTImageProcessorPil

from experiment import config
from experiment.tasks import task_for
from experiment.tasks.task import Task
from experiment.training.recovery import set_seed, train
from experiment.training.tokenizer import byte_level_bpe, shared_bpe
from ffmerge.models import checkpoint


def train_base_model(
    parts: Mapping[str, Any],
    recipe: config.TrainedFromScratch,
    data: dict[str, Path],
    directory: Path,
    checkpoints: Path,
    *,
    seed: int,
    device: str = "cpu",
) -> list[dict]:
    """Train the base model of a task by a recipe and write it to `directory`, in float16.

    Without settings of training it is not trained: its weights stay random, in float32.
    parts: see `task_for`. data: split -> file. checkpoints: see `train`.
    Returns the learning curve.
    """
    task = task_for(parts, checkpoints / "processor", data)
    write_processor(task, recipe, checkpoints / "processor")
    set_seed(seed)
    model = checkpoint.from_scratch(recipe.architecture)
    curve = []
    if recipe.training is not None:
        curve = train(model, task, recipe.training, checkpoints, seed=seed, device=device)
        model = half_precision(model)
    checkpoint.save(model, directory)
    for file in (checkpoints / "processor").iterdir():
        shutil.copy(file, directory)
    return curve


def write_processor(task: Task, recipe: config.TrainedFromScratch, directory: Path) -> None:
    """Train and write the tokenizer, or write the image processor, that a task's model needs."""
    settings, architecture = task.settings, recipe.architecture
    match settings.kind:
        case "language_modeling":
            processor = byte_level_bpe(
                task.rows("train")["text"], recipe.vocabulary, settings.context
            )
        case "translation":
            rows = task.rows("train")
            sentences = chain(rows[settings.source], rows[settings.target])
            processor = shared_bpe(
                sentences, recipe.vocabulary, architecture["max_position_embeddings"]
            )
        case "sentence_retrieval":
            context = architecture["max_position_embeddings"]
            processor = shared_bpe(task.rows("train")["text"], recipe.vocabulary, context)
        case "image_classification":
            side = architecture["image_size"]
            processor = ViTImageProcessorPil(
                size={"height": side, "width": side}, image_mean=[0.5] * 3, image_std=[0.5] * 3
            )
    processor.save_pretrained(directory)


def half_precision(model: nn.Module) -> nn.Module:
    """The model with its weights in float16, as it is shipped.

    Raises ValueError naming a weight that float16 cannot hold.
    """
    model = model.half()
    for name, weight in model.named_parameters():
        if not torch.isfinite(weight).all():
            raise ValueError(f"{name} does not fit into float16")
    return model
