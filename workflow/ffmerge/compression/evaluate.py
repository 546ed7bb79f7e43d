"""Compare a model with its original on the user's data: `ffmerge.evaluate`."""

import math
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from itertools import islice
from pathlib import Path
from typing import Any

import numpy
import torch
from torch import Tensor, nn

from ffmerge.compression import loss, source
from ffmerge.compression.batches import (
    Batch,
    check_ids,
    inputs_of,
    n_examples,
    on_device_of,
    without_cache,
)
from ffmerge.compression.encodings import (
    Paragraphs,
    Pictures,
    Retrieved,
    encoding_for,
    tokenizer_if_any,
)
from ffmerge.compression.pipeline import files_of, read_entry, size_of
from ffmerge.compression.read import Example, Request, read_examples, read_yaml
from ffmerge.compression.settings import Evaluation
from ffmerge.compression.source import SourceModel
from ffmerge.compression.summary import NOT_FINITE, aligned_columns, change
from ffmerge.evaluation.accuracy import numbers_of, sentence_embeddings, texts_of, top1_correct
from ffmerge.evaluation.cost import measure, peak_memory
from ffmerge.evaluation.intervals import resampled_sums, score_columns
from ffmerge.evaluation.metrics import METRICS
from ffmerge.models.memory import check_device, give_back
from ffmerge.models.size import count_parameters

RESAMPLES, CONFIDENCE = 1000, 0.95
EMBEDDED = 1024  # sources that are compared with all targets at a time
ROUNDS = 5  # forward passes of each model for its speed
KINDS = {"pairs": "translation", "images": "image_classification"}  # others: language modeling
Interval = tuple[float, float]


@dataclass
class Evaluated:
    """A model's numbers. scores: name -> value with interval, if it has one. memory: peak bytes
    that loading and scoring the model added, if the system counts them. seconds: of a forward pass.
    """

    model: str
    scores: dict[str, tuple[float, Interval | None]]
    parameters: int
    bytes: int
    memory: int | None
    seconds: float = 0.0


@dataclass
class Comparison:
    """An evaluation of one model, or of two: the original first.

    sequences: how texts became sequences, if there was a choice. differences: of the scores, model
    minus original, with intervals. speed: the original's seconds divided by the model's, median of
    rounds in which both take turns.
    """

    loss: str
    n_examples: int
    models: list[Evaluated]
    sequences: str = ""
    differences: dict[str, tuple[float, Interval | None]] = field(default_factory=dict)
    speed: float | None = None

    def as_json(self) -> dict[str, Any]:
        """Everything as plain values."""
        values = vars(self) | {"models": [vars(model) for model in self.models]}
        return values | {"confidence": CONFIDENCE}

    def __str__(self) -> str:
        models, two = self.models, len(self.models) == 2
        rows = [("", ["original", "model"] if two else ["model"], "difference")]
        for name in models[0].scores:
            cells = [_with_interval(*model.scores[name]) for model in models]
            rows.append((name, cells, two and _with_interval(*self.differences[name], sign="+")))
        sizes = {"parameters": "parameters", "bytes on disk": "bytes", "peak memory": "memory"}
        for name, of in sizes.items():
            values = [getattr(model, of) for model in models]
            if None not in values:
                cells = [f"{value:,}" for value in values]
                rows.append((name, cells, two and change(*values)))
        seconds = [f"{model.seconds:.4f}" for model in models]
        rows.append(("seconds a batch", seconds, two and f"{self.speed:.2f} times as fast"))
        table = [(name, *cells, *([difference] if two else [])) for name, cells, difference in rows]
        of = f"loss: {self.loss}, on" if self.loss else "on"
        lines = [
            *(" | ".join(model.model for model in models), "", *aligned_columns(table), ""),
            f"{of} {self.n_examples:,} examples; in brackets: {100 * CONFIDENCE:.0f} % bootstrap "
            "intervals over examples",
            *([f"sequences: {self.sequences}"] if self.sequences else []),
        ]
        return "\n".join(lines)


def evaluate(
    model: str | Path, *, data: Any, against: str | Path | None = None, **options: Any
) -> Comparison:
    """Score a model, and its original beside it, on files of data.

    model, against: directories that `ffmerge.load` takes, or names on the hub. data: files or
    directories, as for `compress`; all of them is used. options: see `Evaluation`.
    Raises ValueError or OSError with a message for the user.
    """
    settings, files = Evaluation(**options), files_of(data)
    check_device(settings.device)
    if files is None:
        raise ValueError("data: name files or directories")
    if settings.against_revision and against is None:
        raise ValueError("against_revision: name the model that it is of, --against")
    found = [source.find(model, settings.revision, merged=True)]
    if against is not None:
        found.insert(0, source.find(against, settings.against_revision, merged=True))
    with tempfile.TemporaryDirectory(prefix="ffmerge") as scratch:
        _warm_up(found[0], files, settings)
        scorers, evaluated = [], []
        for i, original in enumerate(found):
            with peak_memory(settings.device) as memory:
                scorer = Scorer(original, files, settings, Path(scratch, str(i)))
                scorer.score()
            scorers.append(scorer)
            evaluated.append(
                Evaluated(
                    original.name,
                    scorer.scores(),
                    count_parameters(scorer.model),
                    size_of(original.weights),
                    memory.bytes,
                )
            )
        first = scorers[0]
        result = Comparison(first.name, first.n_examples, evaluated, first.encoding.sequences)
        if len(scorers) == 2:
            result.differences = differences(*scorers)
        if first.objective is None and (len(scorers) == 2 or first.pooling is None):
            _distance(result, scorers, Path(scratch))
        return _timed(result, scorers)


def _warm_up(original: SourceModel, files: list[Path], settings: Evaluation) -> None:
    """Score a few examples, so that what is loaded once counts in no model's memory."""
    n = min(settings.n_examples or settings.batch_size, settings.batch_size)
    with tempfile.TemporaryDirectory(prefix="ffmerge") as scratch:
        Scorer(original, files, replace(settings, n_examples=n), Path(scratch)).score()


class Scorer:
    """A model with its scores by example.

    columns: score -> additive columns, (n_examples, n_columns), and the score of their sums.
    """

    def __init__(
        self, original: SourceModel, files: list[Path], settings: Evaluation, scratch: Path
    ) -> None:
        readable = source.with_safetensors(original, scratch)
        entry = read_entry(settings.architecture)
        loaded = source.load_original(readable, architecture=entry)
        self.model = loaded.to(settings.device)
        self.tokenizer = tokenizer_if_any(original.directory)
        self.encoding = encoding_for(
            self.model, original.directory, settings.max_length, settings.pack
        )
        self.pooling = None
        if settings.source and settings.target and type(self.encoding) is Paragraphs:
            self.pooling = _pooling(original.directory)
            self.encoding = Retrieved(self.tokenizer, self.encoding.length)
        self.files, self.settings, self.columns = files, settings, {}
        self.first = next(self.batches(), None)
        if self.first is None:
            raise ValueError(f"the data hold no examples ({self.encoding.wanted})")
        loss.check_filled(self.model, self.first, original.directory)
        self.objective = loss.objective_of(self.model, [self._labelled()], self.tokenizer)
        scored = self.objective is not None and self.pooling is None
        self.name = f"{self.objective.name} (nats)" if scored else ""
        self.n_examples = 0

    def _examples(self) -> Iterator[Example]:
        return read_examples(self.files, Request(self.encoding.wanted, self.settings.columns))

    def _units(self) -> Iterator[Any]:
        return islice(self.encoding.encoded(self._examples()), self.settings.n_examples)

    def _labelled(self) -> Batch:
        """Find an image with a label, by which the data have labels, or else the first batch."""
        if type(self.encoding) is Pictures:
            for unit in self._units():
                if self.encoding.label(unit) is not None:
                    return self.encoding.batch([unit])
        return self.first

    def batches(self) -> Iterator[Batch]:
        """The data in batches; they are read again each time."""
        units = self._units()
        while part := list(islice(units, self.settings.batch_size)):
            batch = self.encoding.batch(part)
            check_ids(self.model, [batch], self.tokenizer)
            yield batch

    def score(self) -> None:
        """Compute loss and metric of every example."""
        if self.pooling is not None:
            self.columns["retrieval"] = score_columns("accuracy", {"correct": self._retrieved()})
        if not self.name:
            return
        with without_cache(self.model):
            pairs = self.objective.with_targets(self.batches(), loss.SEED)
            names = ("negative_log_likelihood", "n_tokens", "correct")
            values = [*loss.losses_by_example(self.model, pairs)]
        if self.encoding.wanted == "images":
            values = [each for each in values if each[1]]  # with a label
        columns = zip(*values, strict=True)
        by_example: dict[str, Sequence[Any]] = dict(zip(names, columns, strict=True))
        self.n_examples = len(by_example["correct"])
        columns, perplexity = score_columns("perplexity", by_example)
        self.columns["loss"] = columns, lambda sums: numpy.log(perplexity(sums))
        metric = METRICS[KINDS.get(self.encoding.wanted, "language_modeling")].name
        if metric == "bleu":
            by_example |= self._translated()
        self.columns[metric] = score_columns(metric, by_example)

    def scores(self) -> dict[str, tuple[float, Interval | None]]:
        """Each score with its interval."""
        return {
            name: (float(score(columns.sum(axis=0))), _interval(score(_resampled(columns))))
            for name, (columns, score) in self.columns.items()
        }

    @torch.inference_mode()
    def _retrieved(self) -> list[int]:
        """Whether each source finds its own target among all, by the cosine of embeddings."""
        sides: tuple[list[Tensor], list[Tensor]] = ([], [])
        texts: list[tuple[int, ...]] = []
        for batch in self.batches():
            inputs = on_device_of(self.model, batch)
            hidden = self.model.base_model(**inputs).last_hidden_state
            embedded = sentence_embeddings(hidden, inputs["attention_mask"], self.pooling)
            for side, embeddings in zip(sides, embedded.chunk(2), strict=True):
                side.append(embeddings)
            ids, mask = (batch[key].chunk(2)[1] for key in ("input_ids", "attention_mask"))
            texts += texts_of(ids, mask)
        sources, targets = map(torch.cat, sides)
        equal = numbers_of(texts).to(targets.device)
        self.n_examples, correct = len(sources), []
        for own in torch.arange(len(sources), device=sources.device).split(EMBEDDED):
            correct += top1_correct(sources[own] @ targets.T, own, equal).tolist()
        return correct

    @torch.inference_mode()
    def _translated(self) -> dict[str, list[int]]:
        from ffmerge.evaluation.bleu import sentence_counts

        hypotheses: list[str] = []
        for batch in self.batches():
            inputs = on_device_of(self.model, {k: v for k, v in batch.items() if k != "labels"})
            generated = self.model.generate(
                **inputs, max_length=self.encoding.length, do_sample=False
            )
            hypotheses += self.tokenizer.batch_decode(generated, skip_special_tokens=True)
        used = (each["target"] for each in self._examples() for _ in self.encoding.encoded([each]))
        return sentence_counts(hypotheses, [*islice(used, len(hypotheses))])


def _pooling(directory: Path) -> str:
    """How a model's states become an embedding: as sentence-transformers' file says, or mean."""
    file = directory / "1_Pooling/config.json"
    if not file.exists():
        return "mean"
    values = read_yaml(file)
    is_cls = values.get("pooling_mode_cls_token") or values.get("pooling_mode") == "cls"
    return "cls" if is_cls else "mean"


def differences(original: Scorer, model: Scorer) -> dict[str, tuple[float, Interval | None]]:
    """The model's scores minus the original's, on the same examples, resampled in pairs.

    Raises ValueError if the two do not score the same examples.
    """
    if original.n_examples != model.n_examples or original.columns.keys() != model.columns.keys():
        raise ValueError(
            "the two models read the data in different ways, by tokenizer or length: try a "
            "--max-length that both take"
        )
    found = {}
    for name, (columns, score) in model.columns.items():
        before, _ = original.columns[name]
        value = float(score(columns.sum(axis=0)) - score(before.sum(axis=0)))
        found[name] = value, _interval(score(_resampled(columns)) - score(_resampled(before)))
    return found


def _distance(result: Comparison, scorers: list[Scorer], scratch: Path) -> None:
    """Give a model without a loss its distance from the original's outputs."""
    if len(scorers) == 1:
        name = type(scorers[0].model).__name__
        raise ValueError(
            f"{name} has no loss of its own on these data: name an original, --against"
        )
    original, model = scorers
    distance = loss.loss_for(original.model, [original.first], scratch, original.tokenizer)
    terms, n = [], 0
    for batch in original.batches():
        terms.append(distance.between(original.model, model.model, batch))
        n += n_examples([batch])
    away = loss.mean(terms)
    result.loss = distance.name
    if original.pooling is None:
        result.n_examples = n
    for evaluated, value in zip(result.models, (0.0, away), strict=True):
        evaluated.scores["loss"] = value, None
    result.differences["loss"] = away, None


def _timed(result: Comparison, scorers: list[Scorer]) -> Comparison:
    """Add the seconds of forward passes on the first batch, in which the models take turns."""
    models: dict[str, nn.Module] = {str(i): scorer.model for i, scorer in enumerate(scorers)}
    first = scorers[0]
    batch: dict[str, Tensor] = on_device_of(first.model, inputs_of(first.model, first.first))
    costs = list(measure(models, batch, ROUNDS, first.settings.device).values())
    for evaluated, cost in zip(result.models, costs, strict=True):
        evaluated.seconds = cost.seconds
    if len(costs) == 2:
        result.speed = 1 / costs[1].ratio
    give_back()
    return result


def _resampled(columns: Any) -> Any:
    return resampled_sums(columns, RESAMPLES, loss.SEED)


def _interval(values: Any) -> Interval:
    tail = 100 * (1 - CONFIDENCE) / 2
    low, high = numpy.percentile(values, [tail, 100 - tail])
    return float(low), float(high)


def _with_interval(value: float, interval: Interval | None, sign: str = "") -> str:
    if not math.isfinite(value):
        return NOT_FINITE
    digits = 4 if abs(value) < 10 else 2
    text = f"{value:{sign}.{digits}f}"
    if interval is None:
        return text
    return f"{text} [{interval[0]:{sign}.{digits}f}, {interval[1]:{sign}.{digits}f}]"
