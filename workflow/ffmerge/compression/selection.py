"""From data to groups and permutations: features on disk, alignment, and the user's strategy."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from torch import nn

from ffmerge.compression import choice
from ffmerge.compression.alignment import Aligner, pairs_of
from ffmerge.compression.data.parts import Data
from ffmerge.compression.data.text import Batch
from ffmerge.compression.forward import inputs_of, on_device_of
from ffmerge.compression.loss import Loss
from ffmerge.compression.output.directory import check_space
from ffmerge.compression.request import groups_of, n_to_remove
from ffmerge.compression.settings import Settings
from ffmerge.compression.stopwatch import Stopwatch
from ffmerge.method.features import Features, Tap, collect_outputs
from ffmerge.method.groups import Group
from ffmerge.method.permutation import Permutations
from ffmerge.models.memory import drop_cycles
from ffmerge.models.towers import towers
from provenance.progress import progress

FEATURES, OUTPUT = None, "down"  # what is aligned (see features.Tap), and what CKA compares
FILES = {FEATURES: "features.safetensors", OUTPUT: "outputs.safetensors"}


@dataclass(frozen=True)
class Selected:
    """permutations: by tower, None for vanilla. tried: the windows that were scored, if any."""

    groups: list[Group]
    permutations: dict[str, Permutations] | None
    tried: choice.Tried


class Selector:
    """Selects what a user's settings ask for.

    scratch: a directory for features, while they are needed. The model is left as it was.
    Raises ValueError if the model does not have what is asked for.
    """

    def __init__(self, model: nn.Module, settings: Settings, scratch: Path) -> None:
        self._model, self._settings, self._scratch = model, settings, scratch
        n_layers = {name: len(tower) for name, tower in towers(model).items()}
        self._named, self._n_removed = None, {}
        if settings.layers is not None:
            self._named = groups_of(settings.layers, n_layers, settings.anchor)
            choice.check_widths(model, self._named)
        else:
            self._n_removed = n_to_remove(settings.remove, n_layers)
            if settings.strategy == "window":
                choice.windows_of(model, self._n_removed, settings.anchor)

    @property
    def _collects(self) -> list[str | None]:
        """The outputs that have to be collected."""
        kinds = []
        strategy = self._settings.strategy if self._named is None else None
        if self._settings.method == "permute" or strategy == "correlation":
            kinds.append(FEATURES)
        return kinds + [OUTPUT] * (strategy == "cka")

    def n_bytes(self, n_tokens: int) -> int:
        """What the features take on disk."""
        widths = (
            Tap(self._model, tower, layer, kind).width
            for tower in towers(self._model).values()
            for layer in range(len(tower))
            for kind in self._collects
        )
        return 4 * n_tokens * sum(widths)

    def select(self, data: Data, loss: Loss, clock: Stopwatch) -> Selected:
        """Choose what to merge, and solve the alignments that it needs.

        Raises OSError if the disk has no room for the features.
        """
        check_space(self._scratch, {"features": self.n_bytes(data.n_tokens)})
        with clock.stage("features"):
            files = {kind: self._collected(data, kind) for kind in self._collects}
        aligner = Aligner(files[FEATURES]) if FEATURES in files else None
        aligned = self._settings.method == "permute"
        anchor, tried = self._settings.anchor, []
        with clock.stage("alignment"):
            if self._named is not None:
                groups = self._named
            elif self._settings.strategy == "window":
                windows = choice.windows_of(self._model, self._n_removed, anchor)
                groups = [group for window in windows for group in window]
            else:
                similarity = (
                    choice.correlations(self._model, aligner)
                    if self._settings.strategy == "correlation"
                    else choice.output_similarities(files[OUTPUT])
                )
                groups = choice.by_similarity(self._model, self._n_removed, anchor, similarity)
            if aligned:
                aligner.align(pairs_of(groups))
        permutations = aligner.permutations() if aligned else None
        if self._named is None and self._settings.strategy == "window":
            with clock.stage("search"):
                groups, tried = choice.by_loss(
                    self._model, self._n_removed, anchor, permutations, loss
                )
        for kind in files:
            (self._scratch / FILES[kind]).unlink()
        return Selected(groups, permutations, tried)

    def _collected(self, data: Data, kind: str | None) -> Features:
        file = self._scratch / FILES[kind]
        return collected(self._model, data.features, kind, data.n_tokens, file)


def collected(
    model: nn.Module, batches: list[Batch], kind: str | None, n_tokens: int, file: Path
) -> Features:
    """Outputs of every layer at n_tokens positions, in a file. A head, if any, is not computed."""
    base = model.base_model

    def inputs() -> Iterator[Batch]:
        for batch in progress(batches, desc="features"):
            yield on_device_of(base, inputs_of(base, batch))
            drop_cycles()

    device = str(next(model.parameters()).device)
    collect_outputs(base, inputs(), {None: kind}, n_tokens, file, device)
    return Features(file)
