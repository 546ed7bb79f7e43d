"""Batches of a user's data: what a model's forward takes, and how many positions they hold.

The first part of the data is held out for the loss; what follows gives the features.
"""

import inspect
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from itertools import chain, islice
from typing import Any

import torch
from torch import Tensor, nn

from ffmerge.method.features import Tap, token_mask
from ffmerge.models.format import IGNORED
from ffmerge.models.towers import towers
from provenance.job import is_out_of_memory

Batch = dict[str, Tensor]
N_TOKENS = 10_000  # positions whose features are aligned, as in the paper
HELD_OUT = {"text": 16, "pairs": 128, "images": 128, "images with text": 128}
SHARE_HELD_OUT = 0.2  # where there are too few data for both parts
MOST_HELD_OUT = 0.5  # of the data, if the user says how many


@dataclass(frozen=True)
class Data:
    """A user's data. features, held_out: batches. n_tokens: positions used in every tower.

    sequences: how texts became sequences, if there was a choice.
    """

    features: list[Batch]
    held_out: list[Batch]
    n_tokens: int
    sequences: str = ""

    @property
    def n_held_out(self) -> int:
        """Number of examples in the held-out part."""
        return n_examples(self.held_out)


def n_examples(batches: Iterable[Batch]) -> int:
    """Number of examples in batches."""
    return sum(len(next(iter(batch.values()))) for batch in batches)


def from_examples(
    model: nn.Module,
    encoding: Any,
    examples: Iterable[Any],
    n_tokens: int | None,
    n_held_out: int | None,
    batch_size: int,
    held_out: Iterable[Any] | None = None,
    n_parts: int = 1,
) -> Data:
    """Read as many examples as are needed, and no more.

    encoding: see `encodings`. n_tokens: positions for features; None for 10,000, or all there are
    if the data hold fewer. n_held_out, held_out, n_parts: as in `divided`.
    Raises ValueError if there is nothing to hold out, or if there are fewer positions than asked
    for.
    """
    own = None if held_out is None else encoding.encoded(held_out)
    kept, units = divided(encoding.encoded(examples), own, n_held_out, encoding.wanted, n_parts)
    positions, features, n = Positions(model), [], 0
    tokenizer = getattr(encoding, "tokenizer", None)
    while n < (n_tokens or N_TOKENS) and (part := list(islice(units, batch_size))):
        features.append(encoding.batch(part))
        check_ids(model, features[-1:], tokenizer)
        n += positions.count(features[-1:])
    starts = range(0, len(kept), batch_size)
    held_out_batches = [encoding.batch(kept[start : start + batch_size]) for start in starts]
    check_ids(model, held_out_batches, tokenizer)
    data = _checked(positions, features, held_out_batches, n_tokens)
    return replace(data, sequences=encoding.sequences)


def divided(
    units: Iterator[Any],
    held_out: Iterator[Any] | None,
    n_held_out: int | None,
    kind: str,
    n_parts: int = 1,
) -> tuple[list[Any], Iterator[Any]]:
    """Hold out the first units of the data, which are the same however many others are used.

    held_out: units to take instead. n_held_out: their number, n_parts times; None for HELD_OUT. A
    fifth is held out if the data have fewer than five times HELD_OUT, or than twice the number
    asked for.
    Returns the units that are held out, and the others.
    Raises ValueError if there are none of either.
    """
    wanted = n_parts * (n_held_out or HELD_OUT[kind])
    if held_out is not None:
        kept = list(islice(held_out, wanted))
        if len(kept) < n_parts:
            raise ValueError(
                f"the held-out data hold {len(kept)} examples ({kind}); needed: at least {n_parts}"
            )
        return kept, units
    enough = round(wanted / (MOST_HELD_OUT if n_held_out else SHARE_HELD_OUT))
    first = list(islice(units, enough))
    if len(first) <= n_parts:
        raise ValueError(
            f"the data hold {len(first)} examples ({kind}); at least {n_parts + 1} are needed, "
            f"{n_parts} of them held out"
            f"{'; in a .txt, blank lines separate them' * (kind == 'text')}"
        )
    n = wanted if len(first) == enough else max(n_parts, round(SHARE_HELD_OUT * len(first)))
    return first[:n], chain(first[n:], units)


def from_batches(
    model: nn.Module,
    features: Iterable[Batch],
    held_out: Iterable[Batch] | None,
    n_tokens: int | None,
) -> Data:
    """Use batches that the user made. Raises ValueError like `from_examples` and `own_parts`."""
    return _checked(Positions(model), *own_parts(features, held_out), n_tokens)


def own_parts(
    data: Iterable[Batch], held_out: Iterable[Batch] | None
) -> tuple[list[Batch], list[Batch]]:
    """Copy a user's batches to the processor. Without `held_out`, hold out the last fifth.

    Raises ValueError if a part is empty, or if a batch is no dict of tensors with rows, or a mask
    is not of its ids.
    """
    kept, own = list(map(_on_cpu, data)), list(map(_on_cpu, held_out or ()))
    if not own:
        n_last = max(1, round(SHARE_HELD_OUT * len(kept)))
        kept, own = kept[:-n_last], kept[-n_last:]
    if not kept:
        raise ValueError("at least two batches are needed: one of them is held out for the loss")
    return kept, own


def halves(batches: Iterable[Batch]) -> tuple[list[Batch], list[Batch]]:
    """Divide batches in the middle of their examples.

    Raises ValueError if there is one example alone.
    """
    batches = list(batches)
    left, first, second = n_examples(batches) // 2, [], []
    if not left:
        raise ValueError("one example is held out; at least two are needed")
    for batch in batches:
        size = n_examples([batch])
        n = min(left, size)
        left -= n
        first += [{key: value[:n] for key, value in batch.items()}] * bool(n)
        second += [{key: value[n:] for key, value in batch.items()}] * (n < size)
    return first, second


def _on_cpu(batch: Batch) -> Batch:
    named = isinstance(batch, Mapping) and all(isinstance(key, str) for key in batch)
    if not (named and batch and all(isinstance(v, Tensor) and v.ndim for v in batch.values())):
        raise ValueError("a batch has to be a dict of tensors, as the model's forward takes them")
    for key, value in batch.items():
        ids = batch.get(key.replace("attention_mask", "input_ids"), value)
        if not len(value):
            raise ValueError(f"a batch has no rows: {key} has the shape {tuple(value.shape)}")
        if value.shape != ids.shape:
            raise ValueError(
                f"a batch has {key} of the shape {tuple(value.shape)}, but ids of the shape "
                f"{tuple(ids.shape)}: give a mask with a 1 or a 0 for each id"
            )
    return {key: value.cpu() for key, value in batch.items()}


def _checked(
    positions: "Positions", features: list[Batch], held_out: list[Batch], n_tokens: int | None
) -> Data:
    available = positions.count(features)
    if available < (n_tokens or 2):
        raise ValueError(
            f"the data hold {available} positions for features (beside those held out for the "
            f"loss), but --n-tokens is {n_tokens or 2}: give more data, or smaller numbers of "
            "--n-tokens or --n-held-out"
        )
    return Data(features, held_out, n_tokens or min(available, N_TOKENS))


# --- calling the model ----------------------------------------------------------------------------


def inputs_of(model: nn.Module, batch: Batch) -> Batch:
    """Select the arguments of the model's forward. Labels are left out: the loss comes later.

    The decoder of an encoder-decoder gets the labels shifted by one, after its start token, and a
    mask.
    Raises ValueError if nothing is left.
    """
    inputs = {key: value for key, value in batch.items() if key != "labels"}
    labels = batch.get("labels")
    if model.config.is_encoder_decoder and labels is not None:
        mask = labels != IGNORED
        inputs.setdefault("decoder_input_ids", _shifted(model.config, labels.masked_fill(~mask, 0)))
        inputs.setdefault("decoder_attention_mask", mask.long())
    accepted = inspect.signature(model.forward).parameters
    taken = {key: value for key, value in inputs.items() if key in accepted}
    if not taken:
        raise ValueError(f"{type(model).__name__} takes none of a batch's {', '.join(batch)}")
    return taken


def on_device_of(model: nn.Module, batch: Batch) -> Batch:
    """Move a batch to the model's device; floating-point tensors also get the model's dtype."""
    parameter = next(model.parameters())
    return {
        key: value.to(parameter.device, parameter.dtype if value.is_floating_point() else None)
        for key, value in batch.items()
    }


def forward(model: nn.Module, batch: Batch) -> Any:
    """Call the model.

    Raises ValueError with the batch's shapes if the model cannot compute it, or like `check_ids`.
    """
    check_ids(model, [batch])
    inputs = inputs_of(model, batch)
    with explained(model, inputs, OSError):
        return model(**on_device_of(model, inputs))


@contextmanager
def explained(model: nn.Module, inputs: Batch, *passed: type[Exception]) -> Iterator[None]:
    """Turn any error of a forward pass into a ValueError that says what it was given.

    passed: errors that stay as they are.
    """
    try:
        yield
    except Exception as error:  # any: each model fails in its own way
        if is_out_of_memory(error) or isinstance(error, passed):
            raise
        shapes = ", ".join(f"{key} {tuple(value.shape)}" for key, value in inputs.items())
        beyond = ": a length or a value is beyond its tables" if type(error) is IndexError else ""
        raise ValueError(
            f"{type(model).__name__} cannot compute a batch of {shapes} "
            f"({str(error)[:200] or type(error).__name__}){beyond}"
        ) from None


def check_ids(model: nn.Module, batches: Sequence[Batch], tokenizer: Any = None) -> None:
    """Raise ValueError naming a token whose id has no row in the model's embeddings."""
    embedding = {"input_ids": model}
    if model.config.is_encoder_decoder:  # the decoder's may be others
        embedding |= dict.fromkeys(("decoder_input_ids", "labels"), model.get_decoder())
    for key, module in embedding.items():
        try:
            n_rows = module.get_input_embeddings().weight.shape[0]
        except (NotImplementedError, AttributeError):  # of images or sound
            continue
        for batch in batches:
            if key in batch and batch[key].numel() and (most := int(batch[key].max())) >= n_rows:
                token = f"{tokenizer.convert_ids_to_tokens(most)!r} with " if tokenizer else ""
                raise ValueError(
                    f"the data have a token, {token}the id {most}, but the model's embeddings have "
                    f"{n_rows} rows: call model.resize_token_embeddings(len(tokenizer)) and save "
                    "the model, or take the tokenizer that it was trained with"
                )


@contextmanager
def without_cache(model: nn.Module) -> Iterator[None]:
    """Turn off the cache of keys and values, which only generation needs.

    At the end the configuration is as it was, also after transformers' Trainer, which gives every
    model the setting.
    """
    text = model.config.get_text_config()
    before = [(of, getattr(of, "use_cache", None)) for of in (model.config, text)]
    if before[-1][1] is not None:
        text.use_cache = False
    try:
        yield
    finally:
        for config, value in before:
            if value is not None:
                config.use_cache = value
            elif getattr(config, "use_cache", None) is not None:
                del config.use_cache


def _shifted(config, labels: Tensor) -> Tensor:
    start = config.decoder_start_token_id
    if start is None:
        start = config.pad_token_id if config.bos_token_id is None else config.bos_token_id
    first = torch.full_like(labels[:, :1], start or 0)
    return torch.cat([first, labels[:, :-1]], dim=1)


class Positions:
    """Counts the positions of batches that carry tokens, in the tower that has the fewest."""

    def __init__(self, model: nn.Module) -> None:
        self._model, self._towers = model, towers(model)
        self._per_example: dict[tuple[Any, ...], int] = {}

    def count(self, batches: Iterable[Batch]) -> int:
        total: Counter[str] = Counter()
        for batch in batches:
            inputs = inputs_of(self._model, batch)
            n_examples = len(next(iter(inputs.values())))
            for name, tower in self._towers.items():
                mask = token_mask(tower, inputs)
                if mask is None:
                    total[name] += n_examples * self._rows_per_example(name, inputs)
                else:
                    total[name] += int(mask.sum())
        return min(total[name] for name in self._towers)

    @torch.inference_mode()
    def _rows_per_example(self, name: str, inputs: Batch) -> int:
        """Positions of one example in a tower without a mask, such as an image's patches.

        Examples of equal shapes have equally many. Counted in the last layer: where patches are
        joined between layers, it has the fewest.
        """
        key = (name, *((k, tuple(value.shape[1:])) for k, value in inputs.items()))
        if key not in self._per_example:
            tower = self._towers[name]
            tap = Tap(self._model, tower, len(tower) - 1, None)
            n_rows: list[int] = []
            hook = tap.call(lambda values: n_rows.append(values.flatten(0, -2).shape[0]))
            try:
                forward(self._model, {key: value[:1] for key, value in inputs.items()})
            finally:
                hook.remove()
            self._per_example[key] = sum(n_rows)
        return self._per_example[key]
