"""The user's data in two parts: the first gives features, the rest the loss."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any

from torch import nn

from ffmerge.compression.data.encodings import Encoding
from ffmerge.compression.data.positions import Positions
from ffmerge.compression.data.text import Batch

N_TOKENS = 10_000  # positions whose features are aligned, as in the paper
HELD_OUT = {"text": 16, "pairs": 128, "images": 128, "images with text": 128}
SHARE_HELD_OUT = 0.2  # of data too few for both parts


@dataclass(frozen=True)
class Data:
    """features, held_out: batches. n_tokens: positions that `features` has in every tower."""

    features: list[Batch]
    held_out: list[Batch]
    n_tokens: int

    @property
    def n_held_out(self) -> int:
        """Examples in the held-out part."""
        return sum(len(next(iter(batch.values()))) for batch in self.held_out)


def from_examples(
    model: nn.Module,
    encoding: Encoding,
    examples: Iterable[Any],
    n_tokens: int | None,
    n_held_out: int | None,
    batch_size: int,
) -> Data:
    """Read as many examples as are needed, and no more.

    n_tokens: positions for features; None for 10,000 or, of fewer data, what there is.
    Raises ValueError if there is nothing to hold out, or naming how many positions there are.
    """
    encoded = encoding.encoded(examples)
    wanted = n_held_out or HELD_OUT[encoding.wanted]
    first = list(islice(encoded, max(2, batch_size)))
    if len(first) < 2:
        raise ValueError(
            f"the data hold {len(first)} examples ({encoding.wanted}); at least two are needed, "
            "one for the features and one for the loss"
        )
    count = Positions(model)
    taken = list(_batches(first, batch_size))
    n = count.of(map(encoding.batch, taken))
    while n < (n_tokens or N_TOKENS) and (more := list(islice(encoded, batch_size))):
        taken.append(more)
        n += count.of([encoding.batch(more)])
    held_out = list(islice(encoded, wanted))
    if len(held_out) < wanted:  # the data end here
        everything = [each for part in taken for each in part] + held_out
        n_last = min(wanted, max(1, round(SHARE_HELD_OUT * len(everything))))
        held_out, kept = everything[-n_last:], everything[:-n_last]
        taken = list(_batches(kept, batch_size))
    features = [encoding.batch(part) for part in taken]
    return checked(
        count, features, [encoding.batch(b) for b in _batches(held_out, batch_size)], n_tokens
    )


def from_batches(
    model: nn.Module,
    features: Iterable[Batch],
    held_out: Iterable[Batch] | None,
    n_tokens: int | None,
) -> Data:
    """The same of batches that the user has made; without `held_out`, of the last fifth of them.

    Raises ValueError as `from_examples`.
    """
    batches = list(features)
    if held_out is None:
        n_last = max(1, round(SHARE_HELD_OUT * len(batches)))
        batches, held_out = batches[:-n_last], batches[-n_last:]
    if not batches:
        raise ValueError("at least two batches are needed: one for the features, one for the loss")
    return checked(Positions(model), batches, list(held_out), n_tokens)


def checked(
    count: Positions, features: list[Batch], held_out: list[Batch], n_tokens: int | None
) -> Data:
    """Data whose features have the positions that are asked for."""
    there = count.of(features)
    if there < (n_tokens or 2):
        raise ValueError(
            f"the data hold {there} positions for features (beside those held out for the loss), "
            f"but --n-tokens is {n_tokens or 2}: give more data, or a smaller number"
        )
    return Data(features, held_out, n_tokens or min(there, N_TOKENS))


def _batches(encoded: Sequence[Any], size: int) -> Iterator[list[Any]]:
    for start in range(0, len(encoded), size):
        yield list(encoded[start : start + size])
