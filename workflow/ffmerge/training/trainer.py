"""Training with transformers' Trainer: recovery fine-tuning (Section 3.4) and base models.

`train` sets what the Trainer offers: AdamW, gradient clipping, mixed precision, regular validation.
`ResumableTrainer` adds what long trainings of tied models need. It saves tied weights, which
`save_pretrained` refuses; validates by the task's metric; recognises a complete checkpoint after a
kill; stops on a signal; and resumes at the same step with the same running loss. With several
processes it takes the same steps as with one, but for the order of sums and the dropout. Two cases
differ more, both at the end of an epoch: a loss without targets is averaged over unequal shares,
and some of fewer examples than processes are taken twice.
"""

import json
import math
import signal
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Protocol

import torch
from accelerate.data_loader import BatchSamplerShard
from torch import Tensor, nn
from torch.optim.lr_scheduler import LambdaLR
from torch.utils.data import DataLoader, Dataset
from tqdm import tqdm
from transformers import PrinterCallback, Trainer, TrainerCallback, TrainerState, TrainingArguments
from transformers.trainer import TRAINER_STATE_NAME
from transformers.trainer_utils import set_seed

from ffmerge.models import checkpoint
from ffmerge.models.memory import check_device
from ffmerge.models.workers import CONTEXT, InWorker
from ffmerge.training import resumption
from ffmerge.training.processes import SIGNALS, Interrupted, StopRequest, handled, n_processes
from ffmerge.training.schedules import Training, learning_rate_factor
from provenance.csv_files import write_csv
from provenance.progress import note, progress

TARGETS = "targets"  # in a batch of a task with a loss of its own
CURVE = ("step", "loss", "learning_rate", "score", "validation_loss")  # columns
SHOWN = {"loss": "loss", "eval_score": "held out"}  # in the Trainer's log -> beside the bar
TRAINER_NAMES = {"eval_score": "score", "eval_loss": "validation_loss"}  # in the Trainer's log


class Task(Protocol):
    """What a training asks of a task; `experiment.tasks.task.Task` has more."""

    metric: Any
    """Has `higher_is_better`, of the validation score."""

    def training_examples(self, training: Training, seed: int) -> Dataset:
        """Examples for `collate`."""

    def collate(self, examples: list) -> dict[str, Tensor]:
        """Put examples into one batch for the model's forward pass or for `loss`.

        With TARGETS, which are -100 where there is none, `loss` is the mean over them, and several
        processes or parts can share a step.
        """

    def loss(self, model: nn.Module, batch: dict[str, Tensor]) -> Tensor | None:
        """Training loss of a batch; None: the model's own."""

    def evaluate(self, model: nn.Module, split: str, device: str = "cpu") -> Any:
        """Evaluate on the split `validation`; returns an object with `score` and `loss`."""


def train(
    model: nn.Module,
    task: Task,
    training: Training,
    directory: Path,
    *,
    seed: int,
    device: str = "cpu",
    accumulate: int = 1,
    checkpointing: bool = False,
    workers: int = 0,
    signals: Sequence[signal.Signals] = SIGNALS,
) -> list[dict]:
    """Train a model in place and leave it with the weights of its best validation.

    directory: for checkpoints of one set of parameters only; it has to survive a kill, after which
    training resumes from the last complete checkpoint. Each process uses exactly one device,
    however many the machine has (see `processes`). accumulate: parts in which a device takes the
    examples of a step. checkpointing: compute activations again instead of keeping them. workers:
    processes that make batches in advance; the result does not depend on how many. signals: at
    which training saves a checkpoint and stops.
    Returns the learning curve: dicts with `step` and `loss`, or `score` and `validation_loss`.
    Raises ValueError for a device that is not here, or naming the step at which the loss was not
    finite, and Interrupted naming the step at which a signal stopped it.
    """
    check_device(device)  # the Trainer would take the processor instead
    set_seed(seed)
    stop = StopRequest()
    with handled(signals, stop.note):
        arguments = _arguments(
            training, directory, seed, device, accumulate, checkpointing, workers
        )
        return ResumableTrainer(task, training, model, arguments, stop).run()


def write_curve(curve: list[dict], file: Path) -> None:
    """Write a learning curve as CSV with the columns CURVE."""
    write_csv(curve, file, CURVE)


class ResumableTrainer(Trainer):
    """A Trainer that validates by the task's metric and whose checkpoints keep ties."""

    def __init__(
        self,
        task: Task,
        training: Training,
        model: nn.Module,
        args: TrainingArguments,
        stop: StopRequest,
    ) -> None:
        self.task, self.training, self.stop = task, training, stop
        self.strict = torch.is_deterministic_algorithms_warn_only_enabled()
        self.stopping = False  # save a checkpoint, then stop
        self.directory = Path(args.output_dir)
        examples = task.training_examples(training, args.seed)
        super().__init__(
            model=model,
            args=args,
            train_dataset=examples,
            eval_dataset=examples,  # required but unused: see `evaluate`
            data_collator=InWorker(task.collate) if args.dataloader_num_workers else task.collate,
            callbacks=[_Watch(self)],
        )
        self.remove_callback(PrinterCallback)

    def run(self) -> list[dict]:
        """Train from the last complete checkpoint, or from the start; load the best weights."""
        self.last = resumption.last_complete(self.directory)
        if self.last:
            self.state = TrainerState.load_from_json(str(self.last / TRAINER_STATE_NAME))
            note(f"going on from step {self.state.global_step}")
            self._tidy()
        if self.state.global_step < self.training.max_steps:
            self.train(resume_from_checkpoint=str(self.last) if self.last else None)
        else:
            self._load_from_checkpoint(str(self.last))
            # `self.train` does the same: validation is in the training's precision
            self.accelerator.prepare_model(self.model, evaluation_mode=True)
            self.catch_up()
        if self.args.should_save:
            best = resumption.best_weights(self.directory, self._best())
            checkpoint.load_weights(self.model, best)
        self.accelerator.end_training()  # several processes end independently from here
        return _learning_curve(self.state.log_history)

    def catch_up(self) -> None:
        """Validate the step that the previous run stopped at, if that is still due."""
        if self.stop.anywhere(self.args.device):
            raise self.stop.at_step(self.state.global_step)
        step, history = self.state.global_step, self.state.log_history
        last, every = self.training.max_steps, self.training.evaluate_every
        due = step > 0 and (step == last or step % every == 0)
        if due and not any(entry["step"] == step and "eval_score" in entry for entry in history):
            self.evaluate()
            if self.stopping:
                raise self.stop.at_step(step)

    def create_scheduler(
        self, num_training_steps: int, optimizer: torch.optim.Optimizer | None = None
    ) -> LambdaLR:
        if self.lr_scheduler is None:
            factor = learning_rate_factor(self.training)
            self.lr_scheduler = LambdaLR(optimizer or self.optimizer, factor)
            self._created_lr_scheduler = True
        return self.lr_scheduler

    def get_train_dataloader(self) -> DataLoader:
        loader = super().get_train_dataloader()
        if self.args.world_size > 1:  # torch refuses another sampler
            loader.batch_sampler.__class__ = Shares
        return loader

    def _run_epoch(
        self, model: nn.Module, epoch: int, train_dataloader: DataLoader, **kwargs: object
    ) -> None:
        # with several processes, accelerate does not find the sampler below their batches
        sampler = train_dataloader.batch_sampler
        while hasattr(sampler, "batch_sampler"):
            sampler = sampler.batch_sampler
        if hasattr(sampler.sampler, "set_epoch"):
            sampler.sampler.set_epoch(epoch)
        super()._run_epoch(model=model, epoch=epoch, train_dataloader=train_dataloader, **kwargs)

    def training_step(self, *inputs: Any, **options: Any) -> torch.Tensor:
        """Take a step with the same bits in every run, if a job asks for deterministic algorithms.

        Backward passes of fused attention are deterministic only where torch raises an error for
        operations that cannot be, not where it warns. After such an error the step is repeated, and
        from then on torch warns.
        """
        if not self.strict:
            return super().training_step(*inputs, **options)
        torch.use_deterministic_algorithms(True)
        try:
            return super().training_step(*inputs, **options)
        except RuntimeError as error:
            if "deterministic" not in str(error):
                raise
            self.strict = False
            reason = str(error).partition(", but you set")[0]
            warnings.warn(f"another run may give other bits: {reason}", stacklevel=1)
        finally:
            torch.use_deterministic_algorithms(True, warn_only=True)
        self.model.zero_grad()
        return super().training_step(*inputs, **options)

    def compute_loss(
        self,
        model: nn.Module,
        inputs: dict[str, torch.Tensor],
        return_outputs: bool = False,
        num_items_in_batch: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """The task's own loss, or the model's; its mean over all targets of a step."""
        loss = self._share_of_loss(model, inputs, num_items_in_batch)
        if self.args.world_size > 1:
            # each process waits for a gradient of every parameter, and the loss may not use all of
            # them, such as a pooler's: those get 0
            trained = (parameter for parameter in model.parameters() if parameter.requires_grad)
            loss = loss + 0 * sum(parameter.sum() for parameter in trained)
        return loss

    def _share_of_loss(
        self, model: nn.Module, inputs: dict[str, torch.Tensor], n_targets: torch.Tensor | None
    ) -> torch.Tensor:
        """The loss of a process's part of a step: the mean over its targets, times their share.

        Parts of a step without any targets have equal shares. n_targets: in the whole step.
        """
        loss, world = self.task.loss(model, inputs), self.args.world_size
        targets = inputs.get("labels" if loss is None else TARGETS)
        n_parts = world * self.args.gradient_accumulation_steps
        one_part = n_parts == 1
        if loss is not None and (one_part or targets is None):
            return loss
        # models that are not encoder-decoders take the number of a step's labels
        if loss is None and (one_part or not self.model.config.is_encoder_decoder):
            return super().compute_loss(model, inputs, num_items_in_batch=n_targets)
        self.loss_is_scaled_for_ga = True
        share = targets.ne(-100).sum() / n_targets.clamp(min=1)
        weight = torch.where(n_targets > 0, share, 1 / n_parts)
        loss = model(**inputs).loss if loss is None else loss
        return loss * weight * world  # gradients are averaged

    def get_batch_samples(self, *inputs: Any) -> tuple[list, torch.Tensor | None]:
        """The batches of a step, and the number of targets in all of them and all processes."""
        batches, n_targets = super().get_batch_samples(*inputs)
        if batches and TARGETS in batches[0]:
            n_targets = sum(batch[TARGETS].ne(-100).sum() for batch in batches)
            n_targets = self.accelerator.gather(n_targets.to(self.args.device)).sum()
        return batches, n_targets

    def evaluate(self, *_: object, **__: object) -> dict[str, float]:
        hook = self.model.register_forward_pre_hook(self.stop.raise_if_here)
        try:
            result = self.task.evaluate(self.model, "validation", str(self.args.device))
        except Interrupted:
            result = None  # the next run validates this step, which could take too long now
        finally:
            hook.remove()
        self.model.train()
        if self.stop.anywhere(self.args.device):
            self.stopping = self.control.should_save = True
            return {}
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
        model = self.accelerator.unwrap_model(self.model)
        checkpoint.save(model, Path(output_dir or self.args.output_dir))

    def _save_rng_state(self, output_dir: str) -> None:
        super()._save_rng_state(output_dir)
        running = {"sum": self._tr_loss.item(), "since": self._globalstep_last_logged}
        self._running_loss_file(output_dir).write_text(json.dumps(running))

    def restore_running_loss(self) -> None:
        """Restore the loss that the previous run had summed for the next point of the curve."""
        if self.last:
            running = json.loads(self._running_loss_file(self.last).read_text())
            self._tr_loss += running["sum"]
            self._globalstep_last_logged = running["since"]

    def _running_loss_file(self, checkpoint: str | Path) -> Path:
        return Path(checkpoint, f"running_loss_{self.args.process_index}.json")

    def _save_checkpoint(self, model: nn.Module, trial: None) -> None:
        super()._save_checkpoint(model, trial)
        self.accelerator.wait_for_everyone()
        self.last = resumption.checkpoint_of(self.directory, self.state.global_step)
        if self.args.should_save:
            resumption.complete(self.last)
        self._tidy()
        if self.stop.anywhere(self.args.device) and (
            self.stopping or self.state.global_step < self.training.max_steps
        ):
            raise self.stop.at_step(self.state.global_step)

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: nn.Module = None) -> None:
        checkpoint.load_weights(
            model or self.model, Path(resume_from_checkpoint, checkpoint.WEIGHTS)
        )

    def _best(self) -> int | None:
        """The step with the best validation, the earliest of equal ones."""
        by_score = self.training.select_by == "score"
        higher_is_better = by_score and self.task.metric.higher_is_better
        name = "eval_score" if by_score else "eval_loss"
        scores = {entry["step"]: entry[name] for entry in self.state.log_history if name in entry}
        best = max if higher_is_better else min
        return best(scores, key=scores.__getitem__, default=None)

    def _tidy(self) -> None:
        if self.args.should_save:
            resumption.tidy(self.directory, self.last, self._best())


class Shares(BatchSamplerShard):
    """Each process's share of every batch, one example at least.

    accelerate would fill an epoch's short last batch with examples of its first.
    """

    def __iter__(self) -> Iterator[list[int]]:
        for batch in self.batch_sampler:
            start, end = (
                len(batch) * part // self.num_processes
                for part in (self.process_index, self.process_index + 1)
            )
            yield batch[start:end] or batch[:1]


class _Watch(TrainerCallback):
    """Shows progress, and stops training on request."""

    def __init__(self, trainer: ResumableTrainer) -> None:
        self.trainer = trainer
        self.bar: tqdm | None = None
        self.shown: dict[str, str] = {}  # beside the bar

    def on_train_begin(self, args, state, control, **_: object) -> None:
        self.bar = progress(total=state.max_steps, desc="training steps")
        self.bar.update(state.global_step)
        if args.process_index and not self.trainer.last:
            torch.manual_seed(args.seed + args.process_index)  # different dropout on shared data
        self.trainer.restore_running_loss()
        self.trainer.catch_up()

    def on_step_end(self, args, state, control, **_: object) -> None:
        self.bar.update(state.global_step - self.bar.n)
        if self.trainer.stop.anywhere(args.device):
            self.trainer.stopping = control.should_save = True

    def on_log(self, args, state, control, logs: dict, **_: object) -> None:
        shown = {SHOWN[name]: f"{value:.4g}" for name, value in logs.items() if name in SHOWN}
        self.shown |= shown
        if shown and self.bar:
            self.bar.set_postfix(self.shown, refresh=False)

    def on_train_end(self, args, state, control, **_: object) -> None:
        self.bar.close()


def _arguments(
    training: Training,
    directory: Path,
    seed: int,
    device: str,
    accumulate: int = 1,
    checkpointing: bool = False,
    workers: int = 0,
) -> TrainingArguments:
    arguments = TrainingArguments(
        output_dir=str(directory),
        use_cpu=device == "cpu",
        ddp_backend="gloo" if device == "cpu" and n_processes() > 1 else None,
        ddp_find_unused_parameters=False,
        seed=seed,
        max_steps=training.max_steps,
        # of all devices, see split_batches
        per_device_train_batch_size=training.batch_size // accumulate,
        gradient_accumulation_steps=accumulate,
        **({"gradient_checkpointing": True} if checkpointing else {}),  # False warns, too
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
        dataloader_num_workers=workers,
        dataloader_multiprocessing_context=CONTEXT if workers else None,
    )
    if arguments.world_size > 1:  # processes share the examples that one device would take
        arguments.accelerator_config.split_batches = True
    elif arguments.n_gpu > 1:  # nn.DataParallel would use all GPUs and multiply the batch size
        arguments._n_gpu = 1
    return arguments


def _learning_curve(log: list[dict[str, Any]]) -> list[dict[str, float]]:
    """Points of a Trainer's log: `step` with `loss`, or with `score` and `validation_loss`."""
    renamed = [{TRAINER_NAMES.get(key, key): v for key, v in entry.items()} for entry in log]
    points = [entry for entry in renamed if "loss" in entry or "score" in entry]
    return [{key: point[key] for key in CURVE if key in point} for point in points]
