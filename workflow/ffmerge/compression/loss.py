"""The loss of a merged model on held-out data.

It is the model's own objective if the data have what that needs. Otherwise it is the distance of
the outputs from the original model's, 0 for the original itself.
"""

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, kl_div, log_softmax
from transformers.models.auto import modeling_auto as auto

from ffmerge.compression.batches import Batch, inputs_of, on_device_of
from ffmerge.models.format import IGNORED
from ffmerge.models.memory import drop_cycles
from provenance.progress import progress

MASKED = 0.15  # share of tokens that a masked language model predicts, as in BERT's training
SEED = 0
N_LOGITS = 2**24  # computed at a time: they are the largest tensor in memory
ROWS = 16  # positions whose loss is computed at a time
OBJECTIVES = (  # classes of models with labels -> what the cross-entropy is of
    (auto.MODEL_FOR_SEQ_TO_SEQ_CAUSAL_LM_MAPPING_NAMES, "the target's tokens"),
    (auto.MODEL_FOR_SPEECH_SEQ_2_SEQ_MAPPING_NAMES, "the target's tokens"),
    (auto.MODEL_FOR_MASKED_LM_MAPPING_NAMES, "masked tokens"),
    (auto.MODEL_FOR_IMAGE_CLASSIFICATION_MAPPING_NAMES, "the labels"),
)
OUTPUTS = (("logits",), ("image_embeds", "text_embeds"), ("last_hidden_state",))


def loss_for(
    model: nn.Module, batches: Sequence[Batch], scratch: Path, tokenizer: Any = None
) -> "CrossEntropy | Divergence":
    """Choose the loss that fits a model and its data.

    model: the original. scratch: a directory for its outputs. tokenizer: for a masked language
    model, whose special tokens are not masked.
    """
    labelled = all("labels" in batch for batch in batches)
    for names, target in OBJECTIVES if labelled else ():
        if _is_one_of(model, names):
            return CrossEntropy(f"cross-entropy of {target}", _with_labels(batches))
    if _is_one_of(model, auto.MODEL_FOR_CAUSAL_LM_MAPPING_NAMES):
        return CrossEntropy("cross-entropy of the next token", _next_tokens(batches))
    if _is_one_of(model, auto.MODEL_FOR_MASKED_LM_MAPPING_NAMES) and tokenizer is not None:
        return CrossEntropy("cross-entropy of masked tokens", _masked(batches, tokenizer))
    return Divergence(model, batches, scratch)


class CrossEntropy:
    """Mean cross-entropy in nats.

    batches: with targets, one for each position of the logits, or IGNORED.
    """

    def __init__(self, name: str, batches: Iterable[tuple[Batch, Tensor]]) -> None:
        self.name = f"{name} (nats)"
        self._batches = list(batches)
        if not any((targets != IGNORED).any() for _, targets in self._batches):
            raise ValueError(f"the held-out data have nothing to compute the {name} on; give more")

    @torch.inference_mode()
    def of(self, model: nn.Module) -> float:
        """Compute the loss of a model; lower is better."""
        total, n = 0.0, 0
        for batch, targets in _small(self._batches, model):
            total += _summed(model(**on_device_of(model, inputs_of(model, batch))).logits, targets)
            n += int((targets != IGNORED).sum())
            drop_cycles()
        return total / n


class Divergence:
    """Distance of the outputs from the original model's.

    For logits over classes or words, the mean Kullback-Leibler divergence KL(original ‖ model) in
    nats; for other outputs y, the relative squared error Σ‖y - y₀‖² / Σ‖y₀‖².
    Raises ValueError if the model has none of OUTPUTS.
    """

    def __init__(self, original: nn.Module, batches: Sequence[Batch], scratch: Path) -> None:
        self._batches, self._files = list(batches), []
        for i, batch in enumerate(progress(batches, desc="original's outputs")):
            self._files.append(scratch / f"outputs{i}.safetensors")
            save_file(self._outputs(original, batch), self._files[-1])
        self._is_kl = _is_distribution(original, load_file(self._files[0]))
        self.name = (
            "KL divergence from the original's outputs (nats)"
            if self._is_kl
            else "relative squared error of the original's outputs"
        )

    @torch.inference_mode()
    def of(self, model: nn.Module) -> float:
        """Compute the distance of a model; lower is better."""
        apart, size = 0.0, 0.0
        for batch, file in zip(self._batches, self._files, strict=True):
            originals = load_file(file)
            for name, output in self._outputs(model, batch).items():
                original = originals[name]
                if self._is_kl:
                    p, q = log_softmax(original, dim=-1), log_softmax(output, dim=-1)
                    apart += kl_div(q, p, reduction="sum", log_target=True).item()
                    size += original[..., 0].numel()
                else:
                    apart += (output - original).double().square().sum().item()
                    size += original.double().square().sum().item()
            drop_cycles()
        return apart / size

    @staticmethod
    @torch.inference_mode()
    def _outputs(model: nn.Module, batch: Batch) -> dict[str, Tensor]:
        """Output name -> (n, d) float32, without padding."""
        inputs = inputs_of(model, batch)
        output = model(**on_device_of(model, inputs))
        names = next(
            (ns for ns in OUTPUTS if all(getattr(output, n, None) is not None for n in ns)), None
        )
        if names is None:
            raise ValueError(
                f"{type(model).__name__} has no output that is known here (it has: "
                f"{', '.join(output)})"
            )
        masks = [
            inputs[key] for key in ("decoder_attention_mask", "attention_mask") if key in inputs
        ]
        outputs = {}
        for name in names:
            values = output[name].float().cpu()
            mask = next((m for m in masks if m.shape == values.shape[:-1]), None)
            rows = values[mask.bool()] if mask is not None else values.flatten(0, -2)
            outputs[name] = rows.contiguous()
        return outputs


def _summed(logits: Tensor, targets: Tensor) -> float:
    """Summed cross-entropy in nats. logits: (…, n_classes). targets: (…), IGNORED or a class."""
    rows, classes = logits.flatten(0, -2), targets.flatten().to(logits.device)
    return sum(
        cross_entropy(part.float(), wanted, reduction="sum", ignore_index=IGNORED).item()
        for part, wanted in zip(rows.split(ROWS), classes.split(ROWS), strict=True)
    )


def _is_distribution(model: nn.Module, outputs: dict[str, Tensor]) -> bool:
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


def _with_labels(batches: Sequence[Batch]) -> Iterable[tuple[Batch, Tensor]]:
    return ((batch, batch["labels"]) for batch in batches)


def _next_tokens(batches: Sequence[Batch]) -> Iterable[tuple[Batch, Tensor]]:
    for batch in batches:
        labels = batch.get("labels", batch["input_ids"])
        if "attention_mask" in batch:
            labels = labels.masked_fill(batch["attention_mask"] == 0, IGNORED)
        none = torch.full_like(labels[:, :1], IGNORED)
        yield batch, torch.cat([labels[:, 1:], none], dim=1)


def _masked(batches: Sequence[Batch], tokenizer: Any) -> Iterable[tuple[Batch, Tensor]]:
    """Replace some tokens by the mask token, always the same ones."""
    random = torch.Generator().manual_seed(SEED)
    special = torch.tensor(tokenizer.all_special_ids)
    for batch in batches:
        ids = batch["input_ids"]
        chosen = torch.rand(ids.shape, generator=random) < MASKED
        chosen &= ~torch.isin(ids, special) & batch["attention_mask"].bool()
        masked = ids.masked_fill(chosen, tokenizer.mask_token_id)
        yield {**batch, "input_ids": masked}, ids.masked_fill(~chosen, IGNORED)


def _small(
    batches: Iterable[tuple[Batch, Tensor]], model: nn.Module
) -> Iterable[tuple[Batch, Tensor]]:
    """Split into batches of as many examples as N_LOGITS allows, at least one."""
    n_words = getattr(model.config.get_text_config(), "vocab_size", 1)
    for batch, targets in batches:
        size = max(1, N_LOGITS // (n_words * targets[0].numel()))
        for start in range(0, len(targets), size):
            part = slice(start, start + size)
            yield {key: value[part] for key, value in batch.items()}, targets[part]


Loss = CrossEntropy | Divergence
