"""Tune a user's model, merged or not, with the trainer of the workflow: `ffmerge.tune`."""

import glob
import hashlib
import json
import os
import shutil
import signal
import tempfile
import time
import warnings
from array import array
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass, replace
from itertools import islice
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from ffmerge.compression import loss, pipeline, record, source, write
from ffmerge.compression.batches import (
    Batch,
    Data,
    check_ids,
    divided,
    inputs_of,
    own_parts,
    without_cache,
)
from ffmerge.compression.card import tuned_card
from ffmerge.compression.encodings import Packed, encoding_for, tokenizer_if_any
from ffmerge.compression.pipeline import Stopwatch, UserData
from ffmerge.compression.read import Request, read_examples
from ffmerge.compression.settings import DROP, LOW_RANK, Settings, Tuning
from ffmerge.compression.source import SourceModel
from ffmerge.compression.summary import Compressed, CompressedAndTuned, Tuned
from ffmerge.evaluation.metrics import Metric
from ffmerge.extensions.relax import corrections
from ffmerge.models.format import IGNORED
from ffmerge.models.memory import check_device
from ffmerge.models.pretrained import Fit
from ffmerge.models.size import count_parameters
from ffmerge.models.tied_model import CODE
from ffmerge.training.lora import add_adapters, merge_adapters
from ffmerge.training.processes import SIGNALS, is_first, n_processes
from ffmerge.training.resumption import COMPLETE
from ffmerge.training.schedules import Training
from ffmerge.training.trainer import TARGETS, train
from provenance.progress import lines_without_terminal, note
from provenance.record import read_record

RECIPES = {  # by kind of example: Tables 6, 8 and 7 of the paper
    "text": {"schedule": "inverse_sqrt", "batch_size": 2, "steps": 100_000},
    "pairs": {"schedule": "inverse_sqrt", "batch_size": 64, "steps": 100_000},
    "images": {"schedule": "linear_to_minimum", "batch_size": 128, "steps": 50_000},
    "batches": {"schedule": "inverse_sqrt", "batch_size": 1, "steps": 100_000},
}
RECIPES["images with text"] = RECIPES["images"]
LEARNING_RATE, MINIMUM, DECAY_STEPS = 5e-5, 1e-6, 20_000
LEARNING_RATE_OF_ADAPTERS = 2e-4  # QLoRA (Dettmers et al. 2023), Table 9
EVALUATIONS, SELDOM, OFTEN = 10, 1000, 10  # of a training; steps between two of them
LOSS = Metric("loss", "Loss ↓", "loss (nats)", "nats", False, 4)


def tune(
    model: str | Path,
    *,
    data: UserData,
    out: str | Path,
    held_out: UserData | None = None,
    name: str | None = None,
    form: str | None = None,
    beside: Path | None = None,
    command: str | None = None,
    teacher: str | Path | None = None,
    **options: Any,
) -> Tuned | None:
    """Tune a model and write it, with the weights of its best held-out loss, to a new directory.

    model: a directory that `compress` wrote in the form `tied` or `code`, or any model that
    `compress` takes. Merged sublayers stay tied. data, held_out: as `features` and `held_out` of
    `compress`; a batch of the user's counts as one example. options: see `Tuning`. name: of the
    model, for summary, record and card; by default `model`. form: in which a merged model is
    written; by default the form of `model`. command: for the record.
    After a signal or a kill, the same call goes on from the last checkpoint, which lies beside
    `out`, or `beside`. Returns None in all processes of a training but the first.
    Raises ValueError or OSError with a message for the user, and Interrupted after a signal.
    """
    settings = Tuning(teacher=None if teacher is None else str(teacher), **options)
    out, started, clock = Path(out), time.time(), Stopwatch()
    check_tuning(settings)
    write.check_new(out)
    original = source.find(model, settings.revision, merged=True)
    lineage = record.lineage_of(original.directory)
    if not lineage.records and not original.groups:
        lineage = record.lineage_from(original.name, original.revision)
    original = replace(original, name=name or original.name)
    teaching = source.find(settings.teacher, merged=True) if settings.teacher else None
    named = pipeline.all_files(data, held_out)
    directories = [original.directory, *([teaching.directory] if teaching else [])]
    write.check_outside(out, [*directories, *(named or ())])
    with (
        tempfile.TemporaryDirectory(prefix="ffmerge") as scratch,
        warnings.catch_warnings(record=True) as noted,
    ):
        with clock.stage("loading"):
            loaded, stored, readable = _loaded(original, settings, Path(scratch, "model"))
            teacher = None
            if teaching:
                teacher, *_ = _loaded(teaching, settings, Path(scratch, "teacher"))
        with clock.stage("data"):
            if named is None:
                examples = of_batches(data, held_out)
            else:
                files = pipeline.files_of(data), pipeline.files_of(held_out)
                examples = of_files(loaded, original, *files, settings)
            recipe = recipe_for(settings, examples.kind)
            parts = Data(examples.items, examples.held_out, n_tokens=0)
            inputs = record.inputs(original, named, parts)
            if teaching:
                inputs["teacher"] = record.model_digests(teaching)
            # without records, whose digests change when the same weights are made again
            identity = {"params": recipe | asdict(settings), "input": dict(inputs)}
            identity["files"] = in_order(data, held_out)
            inputs["lineage"] = lineage.as_json()
        with without_cache(loaded), clock.stage("loss before"):
            tokenizer, batches = tokenizer_if_any(original.directory), examples.held_out_batches()
            loss.check_filled(loaded, batches[0], original.directory)
            if teaching:
                loss.check_filled(teacher, batches[0], teaching.directory)
            held_out_loss = loss.loss_for(teacher or loaded, batches, Path(scratch), tokenizer)
            objective = loss.objective_of(loaded, batches, tokenizer)
            task = OwnTask(loaded, examples, objective, held_out_loss, teacher)
            before = task.held_out.of(loaded)
        n_trained = n_parameters = count_parameters(loaded)
        if settings.lora:
            n_trained = add_adapters(loaded, settings.lora, settings.seed)
        with kept_beside(beside or out, identity, "tuning") as directory:
            with (
                without_cache(loaded),  # until the model is written, with the original's setting
                clock.stage("training"),
                lines_without_terminal(),
            ):
                curve = train(
                    loaded,
                    task,
                    Training(**recipe),
                    directory,
                    seed=settings.seed,
                    device=settings.device,
                    accumulate=settings.accumulate if named else recipe["batch_size"],
                    checkpointing=settings.checkpointing,
                    signals=(*SIGNALS, signal.SIGINT),
                )
            if not is_first():
                return None
            with without_cache(loaded), clock.stage("loss after"):
                loaded.eval()
                if settings.lora:
                    merge_adapters(loaded)
                write.round_to_stored(loaded, stored)
                after = task.held_out.of(loaded)
            if not original.groups:
                form = "stock"
            elif form is None:
                form = "code" if (original.directory / CODE).exists() else "tied"
            n_bytes = pipeline.size_of(readable.weights)
            if form == "expanded":
                n_bytes = sum(tensor.nbytes for tensor in loaded.state_dict().values())
            with write.new_directory(out, n_bytes) as written:
                with clock.stage("writing"):
                    write.store(loaded, form, stored, written)
                    write.copy_processor(original.directory, written)
                result = Tuned(
                    model=original.name,
                    out=out,
                    form=form,
                    groups=original.groups,
                    parameters=n_parameters,
                    trained=n_trained,
                    bytes=pipeline.size_of(written.glob("*.safetensors")),
                    loss=task.held_out.name,
                    losses=(before, after),
                    n_held_out=examples.n_held_out,
                    n_examples=len(examples.items),
                    sequences=examples.sequences,
                    steps=recipe["max_steps"],
                    curve=curve,
                    corrections=corrections(loaded),
                    seconds=clock.seconds,
                    warnings=tuple(dict.fromkeys(str(warning.message) for warning in noted)),
                    teacher=settings.teacher or "",
                )
                params = {**asdict(settings), "recipe": recipe}
                digest = record.write(
                    written, inputs, params, result.as_json(), started, command, "tune"
                )
                result = replace(result, record=digest)
                text = tuned_card(
                    result, lineage, original.directory, inputs["model"], type(loaded).__name__
                )
                (written / "README.md").write_text(text)
    return result


def compress_and_tune(
    model: str | Path,
    *,
    features: UserData,
    data: UserData,
    held_out: UserData | None,
    out: str | Path,
    command: str | None,
    settings: dict[str, Any],
    tuning: dict[str, Any],
) -> CompressedAndTuned:
    """Compress a model and tune the result, of which only the tuned one is written to `out`.

    features, settings: for `compress`. data, tuning: for `tune`. held_out: for both. A model
    without a loss of its own learns the original's outputs. Until all is done, the merged model and
    the tuning's checkpoints lie in a hidden directory beside `out`. After a signal or a kill, the
    same call takes that model, and goes on with the tuning where it was. Raises as the two do.
    """
    out, asked = Path(out), Settings(**settings)
    check_tuning(Tuning(**tuning))
    original, _, named = pipeline.checked(model, (features, held_out), out, asked, data)
    inputs = record.inputs(original, named, Data([], [], n_tokens=0))
    given = {"held_out": held_out, "command": command}
    identity = {"params": asdict(asked), "input": inputs}
    identity["files"] = in_order(features, held_out, data)
    with kept_beside(out, identity, "compressing") as kept:
        merged = kept / "merged"
        if merged.exists():
            note("going on with the compressed model of the run before")
            compressed = Compressed.from_record(read_record(merged / record.RECORD_FILE))
        else:
            # sublayers of the form `expanded` could not be tuned tied: `tune` writes it
            form = "tied" if asked.form == "expanded" else asked.form
            compressed = pipeline.compress(
                model, features=features, out=merged, **given, **settings | {"form": form}
            )
        if "cross-entropy" not in compressed.loss:
            teacher = original.directory if asked.revision else model
            tuning = tuning | {"teacher": teacher}
        done = {DROP: "with fewer layers", LOW_RANK: "low-rank"}.get(asked.method, "merged")
        tuned = tune(
            merged,
            data=data,
            out=out,
            name=f"{model}, {done}",
            form=asked.form,
            beside=merged,
            **given,
            **tuning,
        )
        shutil.copyfile(merged / record.RECORD_FILE, out / "compress_record.json")
    written = {"out": out, "form": tuned.form, "bytes": (compressed.bytes[0], tuned.bytes)}
    return CompressedAndTuned(replace(compressed, **written), tuned)


def check_tuning(settings: Tuning) -> None:
    """Raise ValueError if this machine cannot tune so."""
    if settings.devices > n_processes():
        raise ValueError(
            f"devices {settings.devices}: a call from Python trains in one process; the command "
            f"`ffmerge tune MODEL --devices {settings.devices} …` starts one for each device"
        )
    check_device(settings.device)
    if settings.device not in ("cpu", "cuda"):
        raise ValueError(
            f"device {settings.device!r}: take cpu or cuda; CUDA_VISIBLE_DEVICES chooses which"
        )
    if settings.device == "cuda":  # of this process, if there are several
        torch.cuda.set_device(int(os.environ.get("LOCAL_RANK", "0")))
    if settings.precision == "fp16" and settings.device == "cpu":
        raise ValueError("precision fp16 needs a GPU (--device cuda); a processor takes bf16")


def _loaded(
    original: SourceModel, settings: Tuning, scratch: Path
) -> tuple[nn.Module, Fit, SourceModel]:
    """Load a model in float32, with its fit and its files as safetensors."""
    readable = source.with_safetensors(original, scratch)
    entry = pipeline.read_entry(settings.architecture)
    loaded, stored = pipeline.loaded_with_fit(readable, "float32", settings.device, entry)
    for name in stored.missing:  # of no use to the outputs, so that no gradient reaches them
        loaded.get_parameter_or_buffer(name).requires_grad_(False)
    return loaded, stored, readable


def recipe_for(settings: Tuning, kind: str) -> dict[str, Any]:
    """Settings of the training, as `Training` names them, with the defaults of a kind of example.

    Raises ValueError if a step's examples cannot be shared evenly.
    """
    chosen = {key: value for key, value in asdict(settings).items() if value is not None}
    rate = LEARNING_RATE_OF_ADAPTERS if settings.lora else LEARNING_RATE
    values = {"learning_rate": rate, **RECIPES[kind], **chosen}
    steps, size = values["steps"], values["batch_size"]
    parts = settings.accumulate * settings.devices
    if size % parts:
        raise ValueError(
            f"batch_size {size}: {settings.devices} devices that take a step's examples in "
            f"{settings.accumulate} parts need a multiple of {parts}"
        )
    linear = values["schedule"] == "linear_to_minimum"
    training = Training(
        learning_rate=values["learning_rate"],
        schedule=values["schedule"],
        minimum_learning_rate=min(MINIMUM, values["learning_rate"]) if linear else 0.0,
        decay_steps=min(DECAY_STEPS, steps) if linear else None,
        batch_size=size,
        max_steps=steps,
        evaluate_every=settings.evaluate_every
        or min(SELDOM, max(OFTEN, steps // EVALUATIONS), steps),
        precision=settings.precision or ("fp16" if settings.device == "cuda" else "fp32"),
    )
    return asdict(training)


def in_order(*data: UserData | None) -> list[list[str]]:
    """The names of the files of each part of the data; the first examples are held out."""
    return [list(map(str, pipeline.files_of(part) or ())) for part in data]


@contextmanager
def kept_beside(out: Path, identity: dict[str, Any], doing: str) -> Iterator[Path]:
    """Give a directory beside `out` for what is done so far: checkpoints, and JSON files.

    It survives errors and kills, unless there is none of these yet. A model with its record in it
    survives signals, but not errors. At the end it is removed, with those of other parameters.
    identity: the parameters. doing: what it is for, such as tuning.
    Raises ValueError if another process does that for the same `out`, whatever its parameters.
    """
    identity = identity | {"threads": torch.get_num_threads()}
    key = hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()
    out = out.absolute()
    prefix = f".{out.name}.{doing}-"
    directory = out.with_name(f"{prefix}{key[:32]}")
    if not is_first():
        directory.mkdir(parents=True, exist_ok=True)
        yield directory
        return
    kept = set(out.parent.glob(f"{glob.escape(prefix)}*"))
    with write.folder_of(out), ExitStack() as locks:
        try:
            for each in kept:
                locks.enter_context(write.locked(each))
            if directory not in kept:
                directory.mkdir()
                locks.enter_context(write.locked(directory))
        except BlockingIOError:
            raise ValueError(f"another process is {doing} into {out}") from None
        try:
            yield directory
        except BaseException as error:
            done = any(directory.rglob(COMPLETE)) or any(directory.glob("*.json"))
            refused = isinstance(error, Exception)
            if not done and (refused or not any(directory.glob(f"*/{record.RECORD_FILE}"))):
                shutil.rmtree(directory)
            raise
        for each in kept | {directory}:
            shutil.rmtree(each)


# --- examples -------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Examples:
    """Examples to train on, and a held-out part. encode: makes a batch of some examples.

    kind: of example, a key of RECIPES. sequences: how texts become sequences, if there is a choice.
    tokenizer: of texts, to name tokens.
    """

    items: Sequence[Any]
    held_out: Sequence[Any]
    encode: Callable[[Sequence[Any]], Batch]
    kind: str
    sequences: str = ""
    tokenizer: Any = None

    def held_out_batches(self) -> list[Batch]:
        """The held-out part in small batches."""
        size = 1 if self.kind == "batches" else 2
        parts = range(0, len(self.held_out), size)
        return [self.encode(self.held_out[start : start + size]) for start in parts]

    @property
    def n_held_out(self) -> int:
        """Number of examples in the held-out part, of which the user's batches have several."""
        if self.kind != "batches":
            return len(self.held_out)
        return sum(len(next(iter(batch.values()))) for batch in self.held_out)


def of_files(
    model: nn.Module,
    original: SourceModel,
    files: list[Path],
    held_out: list[Path] | None,
    settings: Tuning,
) -> Examples:
    """Read those examples that are held out, and as many as the steps need; no more.

    Text that is packed is kept as tokens. Other examples are encoded when they are used: images
    would not fit into memory.
    """
    encoding = encoding_for(model, original.directory, settings.max_length, settings.pack)
    recipe = recipe_for(settings, encoding.wanted)
    packed = isinstance(encoding, Packed)

    def units(named: list[Path]) -> Iterator[Any]:
        examples = read_examples(named, Request(encoding.wanted, settings.columns))
        return (array("i", ids) for ids in encoding.encoded(examples)) if packed else examples

    own = None if held_out is None else units(held_out)
    kept, others = divided(units(files), own, settings.n_held_out, encoding.wanted)
    items = list(islice(others, recipe["max_steps"] * recipe["batch_size"]))
    if not items:
        raise ValueError(f"the data hold no examples ({encoding.wanted}) to train on")

    def encode(some: Sequence[Any]) -> Batch:
        return encoding.batch([*map(list, some)] if packed else [*encoding.encoded(some)])

    tokenizer = getattr(encoding, "tokenizer", None)
    return Examples(items, kept, encode, encoding.wanted, encoding.sequences, tokenizer)


def of_batches(data: Iterable[Batch], held_out: Iterable[Batch] | None) -> Examples:
    """Use batches that the user made. Without `held_out`, hold out the last fifth."""
    items, own = own_parts(data, held_out)
    return Examples(items, own, lambda batches: batches[0], "batches")


# --- the task -------------------------------------------------------------------------------------


class OwnTask:
    """A user's model and data as the trainer takes them (`ffmerge.training.trainer.Task`).

    The loss is the model's own, if the data have what it needs; with a teacher, the mean of it and
    of the distance from the teacher's outputs; or that distance alone. objective: of the model, if
    the data allow one. held_out: the loss by which a step is kept.
    Raises ValueError if there is neither.
    """

    metric = LOSS

    def __init__(
        self,
        model: nn.Module,
        examples: Examples,
        objective: loss.Objective | None,
        held_out: loss.Loss,
        teacher: nn.Module | None,
    ) -> None:
        self.model, self.examples, self.teacher = model, examples, teacher
        self.objective, self.held_out = objective, held_out
        if self.objective is None and teacher is None:
            raise ValueError(
                f"{type(model).__name__} has no loss of its own on these data (no head, or no "
                "labels): name the original with --teacher, whose outputs it then learns"
            )

    def training_examples(self, training: Any, seed: int) -> Sequence[Any]:
        """The examples that are not held out."""
        return self.examples.items

    def collate(self, examples: Sequence[Any]) -> Batch:
        """A batch with `targets`, one for each position of the logits."""
        batch = self.examples.encode(examples)
        check_ids(self.model, [batch], self.examples.tokenizer)
        if self.objective is None:
            return inputs_of(self.model, batch)
        seed = int(next(iter(batch.values())).long().sum())  # masks depend on the examples alone
        [(batch, targets)] = self.objective.with_targets([batch], seed)
        return {**inputs_of(self.model, batch), TARGETS: targets}

    def loss(self, model: nn.Module, batch: Batch) -> Tensor:
        """Compute the loss of a batch of `collate`."""
        inputs = {key: value for key, value in batch.items() if key != TARGETS}
        output, losses = model(**inputs), []
        if self.objective is not None:
            loss.check_targets(batch[TARGETS], output.logits)
            logits, targets = output.logits.flatten(0, -2).float(), batch[TARGETS].flatten()
            total = cross_entropy(logits, targets, reduction="sum", ignore_index=IGNORED)
            losses.append(total / (targets != IGNORED).sum().clamp(min=1))
        if self.teacher is not None:
            with torch.no_grad():
                originals = loss.outputs_of(self.teacher(**inputs), inputs)
            is_kl = loss.is_distribution(self.teacher, originals)
            apart, size = loss.distance(loss.outputs_of(output, inputs), originals, is_kl)
            losses.append((apart / size).float())
        return sum(losses) / len(losses)

    def evaluate(self, model: nn.Module, split: str, device: str = "cpu") -> SimpleNamespace:
        """Compute the loss of the held-out part; `score` is the same."""
        score = self.held_out.of(model.eval())
        return SimpleNamespace(score=score, loss=score)
