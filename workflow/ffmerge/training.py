"""Training with transformers' Trainer: recovery fine-tuning (Section 3.4), and base models.

What the Trainer is told: AdamW, a named schedule, gradient clipping, mixed precision, validation
every so often. What it is not left to do: saving tied weights (`save_pretrained` refuses shared
tensors) and deciding which checkpoint is whole after a kill.
"""

import csv
import math
import random
import shutil
from pathlib import Path

import numpy
import torch
from torch import nn
from torch.optim.lr_scheduler import LambdaLR
from tqdm import tqdm
from transformers import PrinterCallback, Trainer, TrainerCallback, TrainingArguments

from ffmerge import checkpoint
from ffmerge.config import Training
from ffmerge.progress import progress
from ffmerge.schedules import learning_rate_factor
from ffmerge.tasks import Task

CURVE = ("step", "loss", "learning_rate", "score", "validation_loss")  # columns of a learning curve
COMPLETE = "complete"  # a checkpoint without this file was cut off while it was written


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

    checkpoints: directory that outlives a kill; training resumes from its last whole checkpoint.
    It has to be used for one set of parameters only.
    Returns the learning curve: dicts with `step` and `loss`, or `score` and `validation_loss`.
    Raises ValueError naming the step at which the loss was not finite.
    """
    set_seed(seed)
    trainer = _Trainer(task, training, model, _arguments(training, task, checkpoints, seed, device))
    trainer.train(resume_from_checkpoint=_last_complete(checkpoints))
    return [_curve_point(entry) for entry in trainer.state.log_history if _is_point(entry)]


def write_curve(curve: list[dict], file: Path) -> None:
    """Write a learning curve as CSV, a column for each of CURVE."""
    with file.open("w", newline="") as stream:
        table = csv.DictWriter(stream, CURVE)
        table.writeheader()
        table.writerows(curve)


def set_seed(seed: int) -> None:
    """Seed every generator that training draws from."""
    random.seed(seed)
    numpy.random.seed(seed)
    torch.manual_seed(seed)


def _arguments(
    training: Training, task: Task, checkpoints: Path, seed: int, device: str
) -> TrainingArguments:
    return TrainingArguments(
        output_dir=str(checkpoints),
        use_cpu=device == "cpu",
        seed=seed,
        max_steps=training.max_steps,
        per_device_train_batch_size=training.batch_size,
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
        save_total_limit=2,
        load_best_model_at_end=True,
        metric_for_best_model="eval_score",
        greater_is_better=task.metric.higher_is_better,
        logging_steps=max(1, min(50, training.evaluate_every)),
        logging_nan_inf_filter=False,
        remove_unused_columns=False,
        disable_tqdm=True,
        report_to="none",
        dataloader_pin_memory=device != "cpu",
    )


class _Trainer(Trainer):
    """The Trainer, with validation by the task's own metric and checkpoints that keep ties."""

    def __init__(
        self, task: Task, training: Training, model: nn.Module, args: TrainingArguments
    ) -> None:
        self.task, self.training = task, training
        examples = task.training_examples(training, args.seed)
        super().__init__(
            model=model,
            args=args,
            train_dataset=examples,
            eval_dataset=examples,  # asked for, never used: `evaluate` is the task's own
            data_collator=task.collate,
            callbacks=[_Watch(training.max_steps)],
        )
        self.remove_callback(PrinterCallback)

    def create_scheduler(
        self, num_training_steps: int, optimizer: torch.optim.Optimizer | None = None
    ) -> LambdaLR:
        if self.lr_scheduler is None:
            factor = learning_rate_factor(self.training)
            self.lr_scheduler = LambdaLR(optimizer or self.optimizer, factor)
            self._created_lr_scheduler = True
        return self.lr_scheduler

    def evaluate(self, *_: object, **__: object) -> dict[str, float]:
        result = self.task.evaluate(self.model, "validation", str(self.args.device))
        self.model.train()
        metrics = {"eval_score": result.score, "eval_loss": result.loss}
        self.log(metrics)
        self.control = self.callback_handler.on_evaluate(
            self.args, self.state, self.control, metrics
        )
        return metrics

    def log(self, logs: dict[str, float], *args: object) -> None:
        for name in ("loss", "eval_loss"):
            if not math.isfinite(logs.get(name, 0.0)):
                raise ValueError(f"{name} is {logs[name]} at step {self.state.global_step}")
        super().log(logs, *args)

    def _save(self, output_dir: str | None = None, state_dict: dict | None = None) -> None:
        if self.args.should_save:
            model = self.accelerator.unwrap_model(self.model)
            checkpoint.save(model, Path(output_dir or self.args.output_dir))

    def _save_checkpoint(self, model: nn.Module, trial: None) -> None:
        super()._save_checkpoint(model, trial)
        if self.args.should_save:
            (_checkpoint(self.args.output_dir, self.state.global_step) / COMPLETE).touch()

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: nn.Module = None) -> None:
        checkpoint.load_weights(
            model or self.model, Path(resume_from_checkpoint, checkpoint.WEIGHTS)
        )

    def _load_best_model(self) -> None:
        best = _checkpoint(self.args.output_dir, self.state.best_global_step)
        checkpoint.load_weights(self.model, best / checkpoint.WEIGHTS)


class _Watch(TrainerCallback):
    """Shows how far training is."""

    def __init__(self, total: int) -> None:
        self.total = total
        self.bar: tqdm | None = None

    def on_train_begin(self, args, state, control, **_: object) -> None:
        self.bar = progress(total=self.total, desc="training steps")
        self.bar.update(state.global_step)

    def on_step_end(self, args, state, control, **_: object) -> None:
        self.bar.update(state.global_step - self.bar.n)

    def on_log(self, args, state, control, logs: dict, **_: object) -> None:
        shown = {k.removeprefix("eval_"): v for k, v in logs.items() if k in {"loss", "eval_score"}}
        if shown:
            self.bar.set_postfix({k: f"{v:.4g}" for k, v in shown.items()}, refresh=False)

    def on_train_end(self, args, state, control, **_: object) -> None:
        self.bar.close()


def _checkpoint(directory: str | Path, step: int) -> Path:
    return Path(directory, f"checkpoint-{step}")


def _last_complete(directory: Path) -> str | None:
    """The newest whole checkpoint; what a kill left half-written is removed."""
    found = sorted(directory.glob("checkpoint-*"), key=lambda p: int(p.name.split("-")[1]))
    for path in found:
        if not (path / COMPLETE).exists():
            shutil.rmtree(path)
    whole = [path for path in found if path.exists()]
    return str(whole[-1]) if whole else None


def _is_point(entry: dict) -> bool:
    return "loss" in entry or "eval_score" in entry


def _curve_point(entry: dict) -> dict:
    names = {
        "step": "step",
        "loss": "loss",
        "learning_rate": "learning_rate",
        "eval_score": "score",
        "eval_loss": "validation_loss",
    }
    return {new: entry[old] for old, new in names.items() if old in entry}
