"""Drop layers of a user's model where `select` would merge FF sublayers: which, and the result."""

from collections.abc import Callable, Mapping, Sequence
from operator import lt
from pathlib import Path

from torch import nn

from ffmerge.compression.batches import Batch, Data, check_ids, explained, inputs_of, on_device_of
from ffmerge.compression.loss import Loss
from ffmerge.compression.select import (
    Selected,
    StageTimer,
    Tried,
    duration,
    n_to_remove,
    parse_groups,
    tried_windows,
)
from ffmerge.compression.settings import Settings
from ffmerge.compression.write import keep_stored_tensors
from ffmerge.method.groups import Group, check_groups, group, windows_of
from ffmerge.method.layer_drop import block_influences, changed_keys, new_name, without_layers
from ffmerge.method.windows import best_start
from ffmerge.models.pretrained import Fit
from ffmerge.models.towers import towers
from provenance.progress import progress


class Dropper:
    """Selects the layers to drop, as `Selector` does those to merge.

    In its groups, the anchor has no meaning. The model stays unchanged.
    Raises ValueError if the model does not have the layers asked for, or cannot lose any.
    """

    def __init__(self, model: nn.Module, settings: Settings, scratch: Path) -> None:
        self._model, self._settings = model, settings
        model_towers = towers(model)
        self._n_layers = {name: len(tower) for name, tower in model_towers.items()}
        self._named: list[Group] | None = None
        if settings.layers is not None:
            self._named = parse_groups(settings.layers, list(model_towers), "first", least=1)
            check_groups(self._named, self._n_layers)
        else:
            self._n_dropped = n_to_remove(settings.remove, self._n_layers, "layers")
        changed_keys(model.config.to_dict(), model_towers, layers_of(self._named or ()))

    def plan(self, n_tokens: int, seconds_per_loss: float) -> str:
        """Say how many blocks of layers there are to try, and roughly how long that takes."""
        n_blocks = 0
        if self._named is None and self._settings.strategy == "window":
            n_blocks = sum(map(len, windows_of(self._n_layers, self._sizes, "first")))
        trying = duration(n_blocks * seconds_per_loss)
        return f"blocks of layers to try: {n_blocks}, about {trying}"

    def select(self, data: Data, loss: Loss, stage: StageTimer) -> Selected:
        """Choose the layers to drop."""
        if self._named is not None:
            return Selected(self._named, None, [])
        if self._settings.strategy == "influence":
            with stage("block influence"):
                return Selected(
                    least_influential(self._model, self._n_dropped, data.features), None, []
                )

        with stage("search"):
            blocks, tried = best_blocks(self._model, self._n_dropped, loss)
        return Selected(blocks, None, tried)

    @property
    def _sizes(self) -> dict[str, int]:
        return {name: n for name, n in self._n_dropped.items() if n}


def best_blocks(
    model: nn.Module,
    n_dropped: Mapping[str, int],
    loss: Loss,
    drop: Callable[[list[Group]], None] | None = None,
) -> tuple[list[Group], Tried]:
    """Find the block of adjacent layers of each search without which the loss is lowest.

    n_dropped: by tower. drop: drops a block in the model, which is put back afterwards; by default
    whole layers are dropped. Returns the best blocks and all that were tried.
    """
    n_layers = {name: len(tower) for name, tower in towers(model).items()}
    searches = windows_of(n_layers, {name: n for name, n in n_dropped.items() if n}, "first")
    selected: list[Group] = []
    tried: Tried = []
    for blocks in searches:
        change = drop or (lambda block: without_layers(model, layers_of(block)))
        trials = tried_windows(model, blocks, change, loss)
        losses = {n: trial.loss for n, trial in enumerate(trials)}
        selected += blocks[best_start(losses, losses, better=lt)]
        tried += trials
    return selected, tried


def least_influential(
    model: nn.Module, n_dropped: Mapping[str, int], batches: Sequence[Batch]
) -> list[Group]:
    """Choose the layers of each tower with the least block influence, adjacent or not."""
    base, given = model.base_model, {}

    def inputs():
        for batch in progress(batches, desc="block influence"):
            check_ids(base, [batch])
            given.clear()
            given.update(inputs_of(base, batch))
            yield on_device_of(base, given)

    with explained(base, given):
        influences = block_influences(base, inputs())
    return [
        group(name, sorted(range(len(of)), key=of.__getitem__)[: n_dropped[name]], "first")
        for name, of in influences.items()
        if n_dropped[name]
    ]


def layers_of(groups: Sequence[Group]) -> dict[str, list[int]]:
    """The layers of groups, by tower."""
    layers: dict[str, list[int]] = {}
    for each in groups:
        layers.setdefault(each.tower, []).extend(each.layers)
    return layers


def dropped(model: nn.Module, stored: Fit, groups: Sequence[Group]) -> tuple[nn.Module, Fit]:
    """The model without layers, and how the original's files fill it. It shares its parameters."""
    layers, model_towers = layers_of(groups), towers(model)
    shallower = without_layers(model, layers)
    names = {
        name: new
        for name in (*stored.dtypes, *stored.missing)
        if (new := new_name(name, model_towers, layers)) is not None
    }
    kept = Fit(
        {names[name]: dtype for name, dtype in stored.dtypes.items() if name in names},
        frozenset(names[name] for name in stored.missing if name in names),
    )
    keep_stored_tensors(shallower, kept)
    shallower._weight_conversions = getattr(model, "_weight_conversions", None)
    return shallower, kept
