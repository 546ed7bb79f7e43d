"""The loss of a merged model on held-out data.

It is the model's own objective if the data have what that needs. Otherwise it is the distance of
the outputs from the original model's, 0 for the original itself.
"""

import math
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, kl_div, log_softmax
from transformers.models.auto import modeling_auto as auto

from ffmerge.compression.batches import (
    Batch,
    check_ids,
    forward,
    inputs_of,
    n_examples,
    on_device_of,
)
from ffmerge.models.format import IGNORED
from ffmerge.models.memory import drop_cycles
from provenance.progress import progress

MASKED = 0.15  # share of tokens that a masked language model predicts, as in BERT's training
SEED = 0
N_LOGITS = 2**24  # computed at a time, unless one example has more
ROWS = 16  # positions whose loss is computed at a time
OBJECTIVES = (  # classes of models with labels -> what the cross-entropy is of
    (auto.MODEL_FOR_SEQ_TO_SEQ_CAUSAL_LM_MAPPING_NAMES, "the target's tokens"),
    (auto.MODEL_FOR_SPEECH_SEQ_2_SEQ_MAPPING_NAMES, "the target's tokens"),
    (auto.MODEL_FOR_MASKED_LM_MAPPING_NAMES, "masked tokens"),
    (auto.MODEL_FOR_IMAGE_CLASSIFICATION_MAPPING_NAMES, "the labels"),
)
RISE = 1.0  # nats by which the loss of a usable model may rise
LOST = 0.5  # relative squared error up to which outputs are usable
OUTPUTS = (("logits",), ("image_embeds", "text_embeds"), ("last_hidden_state",))


def loss_for(
    model: nn.Module,
    batches: Sequence[Batch],
    scratch: Path,
    tokenizer: Any = None,
    missing: Iterable[str] = (),
) -> "Loss":
    """Choose the loss that fits a model and its data.

    model: the original. scratch: a directory for its outputs. tokenizer: for a masked language
    model, whose special tokens are not masked. missing: the tensors that its files lack. A head
    that cannot compute these data, or whose tensors are missing, is left out, with a warning.
    Raises ValueError if the model without its head cannot compute them either.
    """
    try:
        _check_outputs(model, batches[0])
    except ValueError as error:
        try:
            _check_outputs(model.base_model, batches[0])
        except ValueError as reason:
            lacking = ", ".join(sorted(missing))
            cause = f"; the files lack {lacking}, which it needs" if lacking else ""
            raise ValueError(f"{reason}{cause}") from None
        warnings.warn(
            f"the loss leaves out the head of {type(model).__name__}: {error}", stacklevel=2
        )
        return Divergence(model, batches, scratch, head=False)
    objective = objective_of(model, batches, tokenizer)
    if objective is None:
        return Divergence(model, batches, scratch)
    return CrossEntropy(objective.name, objective.with_targets(batches, SEED))


def check_filled(model: nn.Module, batch: Batch, directory: Path) -> None:
    """Check that a model's outputs do not need tensors that its files lack, such as a pooler's.

    directory: of the files. Raises ValueError naming these tensors, which are NaN.
    """
    missing = [name for name, tensor in model.state_dict().items() if tensor.isnan().any()]
    if missing:
        try:
            _check_outputs(model, batch)
        except ValueError:
            raise ValueError(
                f"{directory} does not fill {type(model).__name__}: missing {', '.join(missing)}, "
                "which its outputs need"
            ) from None


@dataclass(frozen=True)
class Objective:
    """What a model was trained for: to predict targets in the data.

    with_targets: takes batches and a seed, and gives each batch with its targets.
    """

    name: str
    with_targets: Callable[[Iterable[Batch], int], Iterable[tuple[Batch, Tensor]]]


def objective_of(
    model: nn.Module, batches: Sequence[Batch], tokenizer: Any = None
) -> Objective | None:
    """Find a model's own objective, if the data have what it needs.

    batches: as for `loss_for`; labels of one are enough. tokenizer: for a masked language model.
    """
    labelled = any("labels" in batch for batch in batches)
    for names, target in OBJECTIVES if labelled else ():
        if _is_one_of(model, names):
            return Objective(f"cross-entropy of {target}", _labels)
    with_ids = all("input_ids" in batch for batch in batches)
    if with_ids and _is_one_of(model, auto.MODEL_FOR_CAUSAL_LM_MAPPING_NAMES):
        return Objective("cross-entropy of the next token", _next_tokens)
    mask = getattr(tokenizer, "mask_token_id", None)
    is_masked = _is_one_of(model, auto.MODEL_FOR_MASKED_LM_MAPPING_NAMES)
    if with_ids and is_masked and mask is not None:
        check_ids(model, [{"input_ids": torch.tensor([[mask]])}], tokenizer)
        masked = partial(_masked, tokenizer=tokenizer)
        return Objective("cross-entropy of masked tokens", masked)
    return None


Term = tuple[float, float]
"""A part of the data's share of a loss: a sum that is not negative, and what to divide it by."""


def mean(terms: Iterable[Term]) -> float:
    """The loss of all parts from its terms."""
    total, size = 0.0, 0.0
    for part, n in terms:
        total, size = total + part, size + n
    return total / size


def or_infinite(loss: float | None) -> float:
    """Take a loss that is not finite, NaN or in a record None, as the worst of all."""
    return math.inf if loss is None or not math.isfinite(loss) else loss


class Loss:
    """A loss that is computed part by part. Lower is better."""

    @torch.inference_mode()
    def of(self, model: nn.Module) -> float:
        """Compute the loss of a model."""
        return mean(self.term(model, part) for part in self.parts(model))

    def fault(self, before: float, after: float) -> str | None:
        """Say why a model of this loss cannot be used as it is; None if it can.

        before, after: losses of the original and of the model.
        """
        if not math.isfinite(after):
            return "its loss is not finite: numbers overflow in it"
        return self._fault(before, after)


class CrossEntropy(Loss):
    """Mean cross-entropy in nats.

    batches: with targets, one for each position of the logits, or IGNORED. n_classes: of the logits
    that were seen last.
    """

    n_classes = 0

    def __init__(self, name: str, batches: Iterable[tuple[Batch, Tensor]]) -> None:
        self.name = f"{name} (nats)"
        self.batches = list(batches)
        if not any((targets != IGNORED).any() for _, targets in self.batches):
            raise ValueError(f"the held-out data have nothing to compute the {name} on; give more")

    def parts(self, model: nn.Module) -> list[tuple[Batch, Tensor]]:
        """The data, as much at a time as the model's logits allow."""
        return list(_small(self.batches, model))

    def term(self, model: nn.Module, part: tuple[Batch, Tensor]) -> Term:
        """The summed cross-entropy of a part, and its number of targets."""
        batch, targets = part
        logits = forward(model, batch).logits
        self.n_classes = logits.shape[-1]
        total = _summed(logits, targets)
        del logits
        drop_cycles()
        return total, int((targets != IGNORED).sum())

    def _fault(self, before: float, after: float) -> str | None:
        guess = math.log(self.n_classes)
        if after >= guess:
            return (
                f"its loss, {after:.2f} nats, is no better than that of a guess among "
                f"{self.n_classes:,} classes ({guess:.2f}; the original has {before:.2f})"
            )
        if after - before > RISE:
            return (
                f"its loss rose by {after - before:.2f} nats: it gives the right answers "
                f"{math.exp(after - before):.1f} times less probability than the original does"
            )
        return None


@torch.inference_mode()
def losses_by_example(
    model: nn.Module, batches: Iterable[tuple[Batch, Tensor]]
) -> Iterator[tuple[float, int, int]]:
    """Compute each example's summed cross-entropy (nats), number of targets, and correct ones.

    batches: with targets, as `Objective.with_targets` gives them.
    """
    for batch, targets in _small(batches, model):
        logits = forward(model, batch).logits
        right = (logits.argmax(dim=-1).cpu() == targets).reshape(len(targets), -1).sum(dim=1)
        for i, n_correct in enumerate(right.tolist()):
            own = targets[i : i + 1]
            yield _summed(logits[i : i + 1], own), int((own != IGNORED).sum()), n_correct
        drop_cycles()


class Divergence(Loss):
    """Distance of the outputs from the original model's.

    For logits over classes or words, the mean Kullback-Leibler divergence KL(original ‖ model) in
    nats; for other outputs y, the relative squared error Σ‖y - y₀‖² / Σ‖y₀‖². head: whether the
    outputs are those of the head, if the model has one.
    Raises ValueError like `outputs_of`.
    """

    def __init__(
        self, original: nn.Module, batches: Sequence[Batch], scratch: Path, head: bool = True
    ) -> None:
        self._batches, self._files, self._head = list(batches), [], head
        scratch.mkdir(exist_ok=True)
        for i, batch in enumerate(progress(batches, desc="original's outputs")):
            self._files.append(scratch / f"outputs{i}.safetensors")
            save_file(self._outputs(original, batch), self._files[-1])
        self._is_kl = is_distribution(original, load_file(self._files[0]))
        self.name = (
            "KL divergence from the original's outputs (nats)"
            if self._is_kl
            else "relative squared error of the original's outputs"
        ) + ("" if head else " before its head")

    def parts(self, model: nn.Module) -> list[tuple[Batch, Path]]:
        """The batches, each with the file of the original's outputs."""
        return list(zip(self._batches, self._files, strict=True))

    def term(self, model: nn.Module, part: tuple[Batch, Path]) -> Term:
        """The distance on a batch, and what to divide it by."""
        batch, file = part
        return self._term(model, batch, load_file(file))

    @torch.inference_mode()
    def between(self, original: nn.Module, model: nn.Module, batch: Batch) -> Term:
        """The term of a batch that is not one of `parts`, for which the original is needed."""
        return self._term(model, batch, self._outputs(original, batch))

    def _fault(self, before: float, after: float) -> str | None:
        if self._is_kl and after > RISE:
            return (
                f"its predictions are {after:.2f} nats away from the original's: what the original "
                f"predicts gets {math.exp(after):.1f} times less probability"
            )
        if not self._is_kl and after >= 1:
            return "nothing is left of the original's outputs: all zeros would be as near to them"
        if not self._is_kl and after > LOST:
            return (
                f"{100 * after:.0f} % of the original's outputs are lost (their squared error as a "
                "share of their size)"
            )
        return None

    def _term(self, model: nn.Module, batch: Batch, originals: dict[str, Tensor]) -> Term:
        apart, size = distance(self._outputs(model, batch), originals, self._is_kl)
        drop_cycles()
        return apart.item(), size.item()

    def _outputs(self, model: nn.Module, batch: Batch) -> dict[str, Tensor]:
        return self.outputs(model if self._head else model.base_model, batch)

    @staticmethod
    @torch.inference_mode()
    def outputs(model: nn.Module, batch: Batch) -> dict[str, Tensor]:
        inputs = on_device_of(model, inputs_of(model, batch))
        outputs = outputs_of(forward(model, batch), inputs)
        return {name: rows.cpu().contiguous() for name, rows in outputs.items()}


def outputs_of(output: Any, inputs: Batch) -> dict[str, Tensor]:
    """Output name -> (n, d) float32, without padding.

    output: what a model's forward returns for the inputs: OUTPUTS in it, or else all tensors.
    Raises ValueError if it has none.
    """
    names = next(
        (ns for ns in OUTPUTS if all(getattr(output, n, None) is not None for n in ns)),
        [n for n, v in output.items() if isinstance(v, Tensor) and v.is_floating_point()],
    )
    if not names:
        raise ValueError(
            f"{type(output).__name__} has no output that is a tensor (it has: {', '.join(output)})"
        )
    masks = [inputs[key] for key in ("decoder_attention_mask", "attention_mask") if key in inputs]
    outputs = {}
    for name in names:
        values = output[name].float()
        mask = next((m for m in masks if m.shape == values.shape[:-1]), None)
        rows = values.flatten(0, max(0, values.ndim - 2))
        padded = mask is not None and not mask.all()
        outputs[name] = values[mask.bool()] if padded else rows  # an index makes a copy
    return outputs


def distance(
    outputs: dict[str, Tensor], originals: dict[str, Tensor], is_kl: bool
) -> tuple[Tensor, Tensor]:
    """How far outputs are from the original's, and what to divide that by (see `Divergence`).

    outputs, originals: name -> (n, d), of the same positions.
    """
    apart, size = [], []
    for name, output in outputs.items():
        original = originals[name]
        if is_kl:
            p, q = log_softmax(original, dim=-1), log_softmax(output, dim=-1)
            apart.append(kl_div(q, p, reduction="sum", log_target=True))
            size.append(torch.tensor(original[..., 0].numel()))
        else:
            apart.append((output - original).double().square().sum())
            size.append(original.double().square().sum())
    return sum(apart), sum(size)


def check_finite(outputs: dict[str, Tensor]) -> None:
    """Raise ValueError naming the values that are not finite."""
    # isfinite() would make a copy of the logits; the two extremes are NaN if any value is
    extremes = {name: values.aminmax() for name, values in outputs.items() if values.numel()}
    if bad := [name for name, pair in extremes.items() if not all(map(torch.isfinite, pair))]:
        raise ValueError(f"what the model computes is not finite: {', '.join(bad)}")


def _check_outputs(model: nn.Module, batch: Batch) -> None:
    """Raise ValueError if a model cannot compute a batch, or naming outputs that are not finite."""
    for part, _ in _small([(batch, _positions(batch))], model):
        check_finite(Divergence.outputs(model, part))


def check_targets(targets: Tensor, logits: Tensor) -> None:
    """Raise ValueError unless there is a target for each position: IGNORED, or one of its classes.

    targets: (…). logits: (…, n_classes).
    """
    if targets.numel() != logits[..., 0].numel():
        raise ValueError(
            f"the labels have the shape {tuple(targets.shape)}, but the model's logits "
            f"{tuple(logits.shape)}"
        )
    given = targets[targets != IGNORED]
    for label in (given.min().item(), given.max().item()) if len(given) else ():
        if not 0 <= label < logits.shape[-1]:
            raise ValueError(
                f"the data have the label {label}, but the model's classes are 0 to "
                f"{logits.shape[-1] - 1} ({IGNORED}: no label)"
            )


def _summed(logits: Tensor, targets: Tensor) -> float:
    """Summed cross-entropy in nats. logits: (…, n_classes). targets: (…), IGNORED or a class."""
    check_targets(targets, logits)
    rows, classes = logits.flatten(0, -2), targets.flatten().to(logits.device)
    return sum(
        cross_entropy(part.float(), wanted, reduction="sum", ignore_index=IGNORED).item()
        for part, wanted in zip(rows.split(ROWS), classes.split(ROWS), strict=True)
    )


def is_distribution(model: nn.Module, outputs: dict[str, Tensor]) -> bool:
    """Whether outputs are logits over classes or words."""
    if "logits" not in outputs:
        return False
    config = model.config
    sizes = {getattr(config.get_text_config(), "vocab_size", None), config.num_labels}
    return outputs["logits"].shape[-1] in sizes - {1, None}


def _is_one_of(model: nn.Module, names: dict[str, Any]) -> bool:
    known = (
        name for item in names.values() for name in ([item] if isinstance(item, str) else item)
    )
    return type(model).__name__ in set(known)


def _labels(batches: Iterable[Batch], seed: int) -> Iterable[tuple[Batch, Tensor]]:
    """Each batch with its labels; a batch without any gets IGNORED at every position."""
    for batch in batches:
        none = torch.full(_positions(batch).shape, IGNORED)
        yield batch, batch.get("labels", none)


def _positions(batch: Batch) -> Tensor:
    """A tensor with a value for each target that a batch can have."""
    words = (batch[key] for key in ("labels", "decoder_input_ids", "input_ids") if key in batch)
    return next(words, torch.empty(n_examples([batch])))


def _next_tokens(batches: Iterable[Batch], seed: int) -> Iterable[tuple[Batch, Tensor]]:
    for batch in batches:
        labels = batch.get("labels", batch["input_ids"])
        if "attention_mask" in batch:
            labels = labels.masked_fill(batch["attention_mask"] == 0, IGNORED)
        none = torch.full_like(labels[:, :1], IGNORED)
        yield batch, torch.cat([labels[:, 1:], none], dim=1)


def _masked(batches: Iterable[Batch], seed: int, tokenizer: Any) -> Iterable[tuple[Batch, Tensor]]:
    """Replace some tokens by the mask token; the same seed chooses the same ones."""
    random = torch.Generator().manual_seed(seed)
    special = torch.tensor(tokenizer.all_special_ids)
    for batch in batches:
        ids = batch["input_ids"]
        chosen = torch.rand(ids.shape, generator=random) < MASKED
        chosen &= ~torch.isin(ids, special)
        if "attention_mask" in batch:
            chosen &= batch["attention_mask"].bool()
        masked = ids.masked_fill(chosen, tokenizer.mask_token_id)
        yield {**batch, "input_ids": masked}, ids.masked_fill(~chosen, IGNORED)


def _small(
    batches: Iterable[tuple[Batch, Tensor]], model: nn.Module
) -> Iterable[tuple[Batch, Tensor]]:
    """Split into batches of as many examples as N_LOGITS allows, at least one.

    A batch is left whole if a value in it has rows that are not examples, such as parts of images.
    """
    n_words = getattr(model.config.get_text_config(), "vocab_size", 1)
    for batch, targets in batches:
        size = max(1, N_LOGITS // max(1, n_words * targets[0].numel()))
        if any(len(value) != len(targets) for value in batch.values()):
            size = len(targets)
        for start in range(0, len(targets), size):
            part = slice(start, start + size)
            yield {key: value[part] for key, value in batch.items()}, targets[part]
