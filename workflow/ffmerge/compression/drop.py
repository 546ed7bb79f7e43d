"""Drop layers of a user's model where `select` would merge FF sublayers: which, and the result."""

from collections.abc import Mapping, Sequence

from torch import nn

from ffmerge.compression.batches import Batch
from ffmerge.compression.loss import Loss
from ffmerge.compression.select import (
    Collected,
    Selected,
    StageTimer,
    by_loss,
    duration,
    inputs_for,
    n_to_remove,
    parse_groups,
)
from ffmerge.compression.settings import Settings
from ffmerge.compression.write import keep_stored_tensors
from ffmerge.method.groups import Group, check_groups, group
from ffmerge.method.layer_drop import block_influences, changed_keys, new_name, without_layers
from ffmerge.method.windows import windows_of
from ffmerge.models.pretrained import Fit
from ffmerge.models.towers import towers


class Dropper:
    """Selects the layers to drop, as `Selector` does those to merge.

    In its groups, the anchor has no meaning. The model stays unchanged. n_dropped: number of layers
    by tower, if not by the settings. named: the layers, if they are known already.
    Raises ValueError if the model does not have the layers asked for, or cannot lose any.
    """

    collected: frozenset[str] = frozenset()  # of select.COLLECTED: it needs nothing of that

    def __init__(
        self,
        model: nn.Module,
        settings: Settings,
        n_dropped: dict[str, int] | None = None,
        named: list[Group] | None = None,
    ) -> None:
        self._model, self._settings = model, settings
        self._named, self._n_dropped = named, n_dropped or {}
        n_layers = {name: len(tower) for name, tower in towers(model).items()}
        if settings.layers is not None:
            self._named = parse_groups(settings.layers, list(n_layers), "first", least=1)
            check_groups(self._named, n_layers)
        elif n_dropped is None:
            self._n_dropped = n_to_remove(settings.remove, n_layers, "layers")
        changed_keys(model.config.to_dict(), towers(model), layers_of(self._named or ()))

    def plan(self, n_tokens: int, seconds_per_loss: float) -> str:
        """Say how many blocks of layers there are to try, and roughly how long that takes."""
        n_blocks = 0
        if self._named is None and self._settings.strategy == "window":
            n_blocks = sum(map(len, blocks_of(self._model, self._n_dropped)))
        trying = duration(n_blocks * seconds_per_loss)
        return f"blocks of layers to try: {n_blocks}, about {trying}"

    def select(self, collected: Collected, loss: Loss, stage: StageTimer) -> Selected:
        """Choose the layers to drop: those without which the loss is lowest, or by influence."""
        if self._named is not None:
            return Selected(self._named)
        if self._settings.strategy == "influence":
            with stage("block influence"):
                batches = collected.data.features
                return Selected(least_influential(self._model, self._n_dropped, batches))

        def drop(block: list[Group]) -> nn.Module:
            return without_layers(self._model, layers_of(block))

        with stage("search"):
            candidates = blocks_of(self._model, self._n_dropped)
            blocks, tried = by_loss(self._model, candidates, drop, loss)
        return Selected(blocks, tried=tried)


def blocks_of(model: nn.Module, n_dropped: Mapping[str, int]) -> list[list[list[Group]]]:
    """The blocks of adjacent layers of each search. n_dropped: by tower."""
    n_layers = {name: len(tower) for name, tower in towers(model).items()}
    return windows_of(n_layers, {name: n for name, n in n_dropped.items() if n}, "first")


def least_influential(
    model: nn.Module, n_dropped: Mapping[str, int], batches: Sequence[Batch]
) -> list[Group]:
    """Choose the layers of each tower with the least block influence, adjacent or not."""
    with inputs_for(model, batches, "block influence") as inputs:
        influences = block_influences(model.base_model, inputs)
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
