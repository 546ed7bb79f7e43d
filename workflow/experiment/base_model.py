"""Train the embedded base models from scratch, with their tokenizers or image processors."""

import shutil
from collections.abc import Iterable, Mapping
from itertools import chain
from pathlib import Path
from typing import Any

import torch
from tokenizers import (
    Tokenizer,
    decoders,
    models,
    normalizers,
    pre_tokenizers,
    processors,
    trainers,
)
from torch import nn
from transformers import PreTrainedTokenizerFast
from transformers.models.vit.image_processing_pil_vit import ViTImageProcessorPil

from experiment.config.tasks import TrainedFromScratch
from experiment.tasks import task_for
from experiment.tasks.task import Task
from ffmerge.models import checkpoint
from ffmerge.models.memory import check_device
from ffmerge.training.trainer import set_seed, train

PAD, END, UNKNOWN = "<pad>", "</s>", "<unk>"
TEXT_END = "<|endoftext|>"


def train_base_model(
    parts: Mapping[str, Any],
    recipe: TrainedFromScratch,
    data: dict[str, Path],
    directory: Path,
    checkpoints: Path,
    *,
    seed: int,
    device: str = "cpu",
) -> list[dict]:
    """Train the base model of a task by a recipe and write it to `directory` in float16.

    If the recipe has no training settings, the weights stay random, in float32.
    parts: see `task_for`. data: split -> file. checkpoints: directory, see `train`.
    Returns the learning curve. Raises ValueError for a device that is not here.
    """
    check_device(device)
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


def write_processor(task: Task, recipe: TrainedFromScratch, directory: Path) -> None:
    """Write the image processor that a task's model needs, or train and write its tokenizer."""
    settings, architecture = task.settings, recipe.architecture
    match settings.kind:
        case "language_modeling":
            lines = task.rows("train")["text"]
            processor = byte_level_bpe(lines, recipe.vocabulary, settings.context)
        case "translation" | "sentence_retrieval" as kind:
            rows, context = task.rows("train"), architecture["max_position_embeddings"]
            columns = [settings.source, settings.target] if kind == "translation" else ["text"]
            lines = chain.from_iterable(rows[column] for column in columns)
            processor = shared_bpe(lines, recipe.vocabulary, context)
        case "image_classification":
            side = architecture["image_size"]
            grey = [0.5] * architecture.get("num_channels", 3)
            processor = ViTImageProcessorPil(
                size={"height": side, "width": side}, image_mean=grey, image_std=grey
            )
    processor.save_pretrained(directory)


def byte_level_bpe(lines: Iterable[str], vocabulary: int, context: int) -> PreTrainedTokenizerFast:
    """Train a tokenizer like GPT-2's: byte-level BPE without special tokens around a text.

    lines: the training text; vocabulary: number of tokens; context: the model's positions.
    """
    bpe = Tokenizer(models.BPE())
    bpe.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    bpe.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary,
        special_tokens=[TEXT_END],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    bpe.train_from_iterator(lines, trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=bpe, bos_token=TEXT_END, eos_token=TEXT_END, model_max_length=context
    )


def shared_bpe(lines: Iterable[str], vocabulary: int, context: int) -> PreTrainedTokenizerFast:
    """Train a tokenizer like Marian's: one vocabulary for both languages, </s> ends a sentence.

    lines: sentences of both languages; vocabulary: number of tokens; context: maximum tokens.
    """
    bpe = Tokenizer(models.BPE(unk_token=UNKNOWN))
    bpe.normalizer = normalizers.NFKC()
    bpe.pre_tokenizer = pre_tokenizers.Metaspace()
    bpe.decoder = decoders.Metaspace()
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary, special_tokens=[PAD, END, UNKNOWN], show_progress=False
    )
    bpe.train_from_iterator(lines, trainer)
    bpe.post_processor = processors.TemplateProcessing(
        single=f"$A {END}", special_tokens=[(END, bpe.token_to_id(END))]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=bpe,
        pad_token=PAD,
        eos_token=END,
        unk_token=UNKNOWN,
        model_max_length=context,
    )


def half_precision(model: nn.Module) -> nn.Module:
    """Convert a model's weights to float16; raises ValueError naming a weight that overflows."""
    model = model.half()
    for name, weight in model.named_parameters():
        if not torch.isfinite(weight).all():
            raise ValueError(f"{name} does not fit into float16")
    return model
