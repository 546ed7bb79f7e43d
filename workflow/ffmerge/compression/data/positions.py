"""How many positions of a user's data carry tokens: what features are taken at."""

from collections import Counter
from collections.abc import Iterable

import torch
from torch import nn

from ffmerge.compression.data.text import Batch
from ffmerge.compression.forward import inputs_of, on_device_of
from ffmerge.method.features import Tap, token_mask
from ffmerge.models.towers import towers


class Positions:
    """Counts the positions of batches that carry tokens, in the tower that has the fewest."""

    def __init__(self, model: nn.Module) -> None:
        self._model, self._towers = model, towers(model)
        self._of_example: dict[str, int] = {}

    def of(self, batches: Iterable[Batch]) -> int:
        total: Counter[str] = Counter()
        for batch in batches:
            total += self._of_batch(batch)
        return min(total[name] for name in self._towers)

    def _of_batch(self, batch: Batch) -> Counter[str]:
        inputs = inputs_of(self._model, batch)
        counted: Counter[str] = Counter()
        for name, tower in self._towers.items():
            mask = token_mask(tower, inputs)
            if mask is not None:
                counted[name] = int(mask.sum())
            else:
                n = len(next(iter(inputs.values())))
                counted[name] = n * self._rows_of_an_example(name, inputs)
        return counted

    @torch.inference_mode()
    def _rows_of_an_example(self, name: str, inputs: Batch) -> int:
        """Positions of an example in a tower without a mask, such as an image's patches."""
        if name not in self._of_example:
            tap = Tap(self._model, self._towers[name], 0, None)
            n_rows: list[int] = []
            hook = tap.call(lambda values: n_rows.append(values.flatten(0, -2).shape[0]))
            try:
                one = {key: value[:1] for key, value in inputs.items()}
                self._model(**on_device_of(self._model, one))
            finally:
                hook.remove()
            self._of_example[name] = sum(n_rows)
        return self._of_example[name]
