"""Training with transformers' Trainer: recovery fine-tuning (Section 3.4), and base models.

What transformers' Trainer is told: AdamW, a named schedule, gradient clipping, mixed precision,
validation every so often. What it is taught is in experiment.training.trainer.
"""

import random
from pathlib import Path

import numpy
import torch
from torch import nn
from transformers import TrainingArguments

from experiment.config import Training
from experiment.tasks import Task
from experiment.training.devices import n_processes
from experiment.training.signals import StopRequest
from experiment.training.trainer import ResumableTrainer


def train(
    model: nn.Module,
    task: Task,
    training: Training,
    checkpoints: Path,
    *,
    seed: int,
    device: str = "cpu",
) -> list[dict]:
    """Train a model in place and leave it with the weights of its best validation score.

    checkpoints: directory that outlives a kill; training goes on from its last whole checkpoint.
    It has to be used for one set of parameters only.
    One process uses one device, whatever is there; of several, each its own (`devices`).
    Returns the learning curve: dicts with `step` and `loss`, or `score` and `validation_loss`.
    Raises ValueError naming the step at which the loss was not finite, and Interrupted naming the
    step at which a signal stopped it.
    """
    set_seed(seed)
    with StopRequest() as stop:
        arguments = _arguments(training, task, checkpoints, seed, device)
        return ResumableTrainer(task, training, model, arguments, stop).run()


def set_seed(seed: int) -> None:
    """Seed every generator that training draws from."""
    random.seed(seed)
    numpy.random.seed(seed)
    torch.manual_seed(seed)


def _arguments(
    training: Training, task: Task, checkpoints: Path, seed: int, device: str
) -> TrainingArguments:
    arguments = TrainingArguments(
        output_dir=str(checkpoints),
        use_cpu=device == "cpu",
        ddp_backend="gloo" if device == "cpu" and n_processes() > 1 else None,
        ddp_find_unused_parameters=False,
        seed=seed,
        max_steps=training.max_steps,
        per_device_train_batch_size=training.batch_size,  # over all devices, see below
        learning_rate=training.learning_rate,
        weight_decay=training.weight_decay,
        adam_epsilon=training.adam_epsilon,
        adam_beta2=training.adam_beta2,
        max_grad_norm=training.max_gradient_norm,
        train_sampling_strategy="sequential" if training.group_by_length else "random",
        fp16=training.precision == "fp16",
        bf16=training.precision == "bf16",
        eval_strategy="steps",
        eval_steps=training.evaluate_every,
        save_strategy="steps",
        save_steps=training.evaluate_every,
        logging_steps=max(1, min(50, training.evaluate_every)),
        logging_nan_inf_filter=False,
        remove_unused_columns=False,
        disable_tqdm=True,
        report_to="none",
        dataloader_pin_memory=device != "cpu",
    )
    if arguments.world_size > 1:  # a step's examples are dealt out: the same ones as on one device
        arguments.accelerator_config.split_batches = True
    elif arguments.n_gpu > 1:  # else nn.DataParallel would take all, and multiply the batch size
        arguments._n_gpu = 1
    return arguments
