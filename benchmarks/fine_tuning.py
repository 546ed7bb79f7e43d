"""Fine-tune with the library, against a bare PyTorch loop over the same batches."""

import copy
import math
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.utils.data import Dataset

import subjects
from experiment.tasks import Task
from ffmerge.training.schedules import learning_rate_factor
from ffmerge.training.trainer import train
from timing import Measured, Sample, compared


@dataclass(frozen=True)
class Size:
    """A task of the demo and the number of steps. architecture: of a random ViT to tune instead."""

    task: str
    n_steps: int
    rounds: int
    architecture: dict[str, Any] | None = None
    batch_size: int | None = None


FULL = (
    *(Size(task, 40, 3) for task in ("gpt2", "vit", "marian")),
    Size("vit", 6, 3, subjects.VIT_BASE, batch_size=4),
)
TOY = (Size("vit", 4, 1, subjects.VIT_TOY, batch_size=2),)


def measure(sizes: tuple[Size, ...] = FULL) -> list[Measured]:
    """Measure one line for each size."""
    with tempfile.TemporaryDirectory() as directory:
        return [_measured(size, Path(directory, str(i))) for i, size in enumerate(sizes)]


def _measured(size: Size, scratch: Path) -> Measured:
    changes = {"max_steps": size.n_steps, "evaluate_every": size.n_steps}
    if size.batch_size:
        changes["batch_size"] = size.batch_size
    # The size of the validation does not matter: it runs after the last step, where timing ends.
    parts = {"fine_tuning": changes, "validation": {"batch_size": 8}}
    if size.task != "gpt2":
        parts["validation"]["max_examples"] = 8
    if size.architecture:
        original = subjects.random_vit(size.architecture, scratch / "model")
        task, name = subjects.vit_task(scratch / "model", **parts), "ViT-base size"
    else:
        original = subjects.demo_model(size.task)
        task, name = subjects.demo_task(size.task, **parts), "demo size"
    library, bare = [], []
    for _ in range(size.rounds):
        seen = Recorded(task.training_examples(task.settings.fine_tuning, 1))
        with tempfile.TemporaryDirectory() as checkpoints:
            ours = _library(copy.deepcopy(original), task, seen, Path(checkpoints))
        theirs = _bare(copy.deepcopy(original), task, seen, ours.random)
        library.append(ours.sample())
        bare.append(theirs.sample())
        for a, b in zip(library[-1].returned, bare[-1].returned, strict=True):
            # 127 of 128 tokens have a next token, but the Trainer divides a text's loss by 128.
            assert math.isclose(a, b, rel_tol=0.01), (a, b)
    what = f"fine-tuning {size.task}, {name}: bare loop / library"
    return compared(what, bare, library, ("at least", 0.95))


class Recorded(Dataset):
    """Examples that record in which batches they were fetched."""

    def __init__(self, examples: Dataset) -> None:
        self.examples = examples
        self.order: list[list[int]] = []

    def __len__(self) -> int:
        return len(self.examples)

    def __getitem__(self, i: int) -> Any:
        return self.examples[i]

    def __getitems__(self, indices: list[int]) -> list[Any]:
        self.order.append(list(indices))
        return self.fetch(indices)

    def fetch(self, indices: list[int]) -> list[Any]:
        """Fetch examples as a DataLoader does."""
        several = getattr(self.examples, "__getitems__", None)
        return several(indices) if several else [self.examples[i] for i in indices]


class Steps:
    """A context that records the time and loss of each training pass of a model.

    random: state of the generator to set before the first pass, so that dropout is the same; None
    to keep the present state.
    """

    def __init__(self, model: nn.Module, random: torch.Tensor | None = None) -> None:
        self.model, self.random = model, random
        self.begun: list[tuple[float, float]] = []
        self.losses: list[torch.Tensor] = []

    def __enter__(self) -> "Steps":
        self.hooks = [
            self.model.register_forward_pre_hook(self._begin),
            self.model.register_forward_hook(self._keep),
        ]
        return self

    def __exit__(self, *_: object) -> None:
        for hook in self.hooks:
            hook.remove()

    def _begin(self, model: nn.Module, _inputs: object) -> None:
        if model.training:
            if not self.begun:
                if self.random is None:
                    self.random = torch.get_rng_state()
                torch.set_rng_state(self.random)
            self.begun.append((time.perf_counter(), time.process_time()))

    def _keep(self, model: nn.Module, _inputs: object, output: Any) -> None:
        if model.training:
            self.losses.append(output.loss.detach())

    def sample(self) -> Sample:
        """Time from the start of the second step to the start of the last: whole, warm steps."""
        (begun, cpu), (ended, cpu_ended) = self.begun[1], self.begun[-1]
        return Sample([loss.item() for loss in self.losses], ended - begun, cpu_ended - cpu)


def _library(model: nn.Module, task: Task, examples: Recorded, checkpoints: Path) -> Steps:
    task.training_examples = lambda *_: examples
    with Steps(model) as steps:
        train(model, task, task.settings.fine_tuning, checkpoints, seed=1)
    return steps


def _bare(model: nn.Module, task: Task, examples: Recorded, random: torch.Tensor) -> Steps:
    training = task.settings.fine_tuning
    model.train()
    optimizer = torch.optim.AdamW(
        model.parameters(),
        lr=training.learning_rate,
        betas=(0.9, training.adam_beta2),
        eps=training.adam_epsilon,
        weight_decay=training.weight_decay,
        fused=True,
    )
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, learning_rate_factor(training))
    with Steps(model, random) as steps:
        for batch in _batches(task, examples, training.max_steps):
            model(**batch).loss.backward()
            nn.utils.clip_grad_norm_(model.parameters(), training.max_gradient_norm)
            optimizer.step()
            schedule.step()
            optimizer.zero_grad()
    return steps


def _batches(task: Task, examples: Recorded, n: int) -> Iterator[dict[str, torch.Tensor]]:
    for indices in examples.order[:n]:  # the Trainer may have fetched one batch more
        yield task.collate(examples.fetch(indices))
