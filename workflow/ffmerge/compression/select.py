"""Select the layers to merge, by the user's strategy, and solve the alignments that they need."""

import math
import re
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from fractions import Fraction
from functools import cached_property, partial
from itertools import chain, combinations
from pathlib import Path
from types import MappingProxyType
from typing import NamedTuple

import torch
from torch import Tensor, nn

from ffmerge.compression.batches import (
    Batch,
    Data,
    check_ids,
    explained,
    forward,
    inputs_of,
    on_device_of,
)
from ffmerge.compression.loss import Loss, Term, mean, or_infinite
from ffmerge.compression.settings import LOW_RANK, Settings
from ffmerge.compression.write import check_space
from ffmerge.extensions import greedy
from ffmerge.extensions.clustering import most_similar
from ffmerge.extensions.massive import massive, measured
from ffmerge.extensions.reconstruct import INPUT, MAPS, OUTPUT, Reconstruction
from ffmerge.extensions.relax import GIVEN, MOMENTS, NEURON, approximate, check_rank, merge_relaxed
from ffmerge.method import cka, groups
from ffmerge.method.candidates import CandidateScorer
from ffmerge.method.features import Features, Tap, collect_outputs
from ffmerge.method.groups import Group
from ffmerge.method.merge import check_mergeable, merge_in_model
from ffmerge.method.permutation import Alignment, Pair, Permutations, align_all_pairs
from ffmerge.method.windows import candidate_windows
from ffmerge.models.memory import drop_cycles
from ffmerge.models.towers import towers
from provenance.progress import progress

FEATURES = "features"  # what is aligned; reconstruct.MAPS has what is fitted, and what CKA compares
COLLECTED = {FEATURES: None, **MAPS, **GIVEN}  # see features.collect_outputs


class Trial(NamedTuple):
    """A window that was tried, one group per tower. stopped: whether its loss is at least `loss`.

    That is, its loss on the first part of the data was already above that of another window. A loss
    that is not finite is infinite here.
    """

    window: list[Group]
    loss: float
    stopped: bool = False


Tried = list[Trial]
Widths = dict[str, list[tuple[int, int]]]
"""Tower -> (d_model, d_ff) of each layer; layers of equal widths can be merged."""
StageTimer = Callable[[str], AbstractContextManager[None]]
"""Times a named stage."""
Merging = Callable[[nn.Module, Sequence[Group]], None]
"""Merges groups in a model, in place."""


@dataclass(frozen=True)
class Selected:
    """The groups to merge, or to drop. merge: merges them in the model, or in a copy of it.

    tried: windows, if any. reconstruction: to fit the merged model, if that was asked for.
    """

    groups: list[Group]
    merge: Merging | None = None
    tried: Tried = field(default_factory=list)
    reconstruction: Reconstruction | None = None


class Collected:
    """What selecting and merging need of a model, each computed when it is first needed.

    model: the original, which stays unchanged. names: what one pass collects, of COLLECTED.
    scratch: a directory for that.
    """

    def __init__(self, model: nn.Module, data: Data, names: Collection[str], scratch: Path) -> None:
        self.model, self.data, self._scratch = model, data, scratch
        gated = all(tower.feed_forward.gate for tower in towers(model).values())
        self._neurons = FEATURES if gated and FEATURES in names else NEURON
        self._maps = {
            name: values
            for name, values in COLLECTED.items()
            if name in names and (name != NEURON or self._neurons == NEURON)
        }
        self._file = scratch / "features.safetensors"

    @cached_property
    def massive(self) -> dict[str, list[int]]:
        """The layers that make massive activations, by tower. All outputs are collected.

        Raises OSError if the disk has no room for them.
        """
        widths = (
            Tap(self.model, tower, layer, values).width
            for tower in towers(self.model).values()
            for layer in range(len(tower))
            for values in self._maps.values()
        )
        check_space(self._scratch, 4 * self.data.n_tokens * sum(widths), "features")
        return collect(self.model, self.data, self._maps, self._file)

    def outputs(self, name: str) -> Features:
        """What was collected under a name."""
        _ = self.massive
        return Features(self._file, self._neurons if name == NEURON else name)

    @cached_property
    def aligner(self) -> "Aligner":
        """Alignments, each solved when it is first needed."""
        return Aligner(self.outputs(FEATURES))

    def similarity(self, strategy: str) -> dict[str, Tensor]:
        """Similarity of all pairs of layers, (n_layers, n_layers) by tower.

        By the mean correlation of aligned neurons, 0 for different widths; or by CKA of outputs.
        """
        if strategy == "cka":
            return output_similarities(self.outputs(OUTPUT))
        widths = widths_of(self.model)
        self.aligner.align(
            {
                name: [(i, j) for i, j in combinations(range(len(of)), 2) if of[i] == of[j]]
                for name, of in widths.items()
            }
        )
        return {name: self.aligner.correlation(name, len(of)) for name, of in widths.items()}

    @property
    def inputs(self) -> dict[str, Features]:
        """What each map of the FF sublayers gets, for low-rank maps."""
        return {name: self.outputs(name) for name in (INPUT, NEURON)}

    @cached_property
    def reconstruction(self) -> Reconstruction:
        """What fits merged sublayers."""
        run = partial(forward, self.model.base_model, self.data.features[0])
        return Reconstruction(self.model, run, self.outputs(INPUT), self.outputs(OUTPUT))


class Selector:
    """Selects layers as the user's settings ask for.

    n_removed: FF sublayers to remove by tower, if not by the settings. named: groups, if they are
    known already.
    Raises ValueError if the model does not have the layers asked for.
    """

    def __init__(
        self,
        model: nn.Module,
        settings: Settings,
        n_removed: dict[str, int] | None = None,
        named: list[Group] | None = None,
    ) -> None:
        self._model, self._settings = model, settings
        self._named, self._n_removed = named, n_removed or {}
        if settings.layers is not None:
            self._named = parse_groups(settings.layers, list(towers(model)), settings.anchor)
            check_mergeable(self._named, towers(model), self._shape)
        elif n_removed is None:
            n_layers = {name: len(tower) for name, tower in towers(model).items()}
            self._n_removed = n_to_remove(settings.remove, n_layers)
        if settings.method == LOW_RANK:
            return
        if self._strategy == "window":
            searches(model, self._n_removed, settings.anchor)
        elif self._strategy == "greedy":
            boundaries(model, self._n_removed)
        fewest = [
            groups.group(name, range(n + 1), settings.anchor)
            for name, n in self._n_removed.items()
            if n
        ]
        self._check_rank(self._named or fewest)

    def _shape(self, name: str) -> torch.Size:
        return self._model.get_parameter(name).shape

    def _check_rank(self, selected: list[Group]) -> None:
        if self._settings.rank:
            check_rank(selected, towers(self._model), self._shape, self._settings.rank)

    @property
    def _strategy(self) -> str | None:
        """How layers are chosen; None if they are known."""
        return self._settings.strategy if self._named is None else None

    @property
    def collected(self) -> set[str]:
        """What to collect, of COLLECTED."""
        settings = self._settings
        fitted, relaxed = settings.reconstruct is not None, settings.rank > 0
        relaxed |= settings.method == LOW_RANK
        wanted = {
            FEATURES: settings.method == "permute" or self._strategy == "correlation",
            INPUT: fitted or relaxed,
            OUTPUT: fitted or self._strategy == "cka",
            NEURON: relaxed,
        }
        return {name for name, is_wanted in wanted.items() if is_wanted}

    def plan(self, n_tokens: int, seconds_per_loss: float) -> str:
        """Say how many pairs and windows there are, and roughly how long they take.

        seconds_per_loss: measured on the original.
        """
        settings, widths, n_trials = self._settings, widths_of(self._model), 0
        most = max(d_ff for of in widths.values() for _, d_ff in of)
        moments = f"memory for second moments: {MOMENTS * 8 * most**2:,} bytes"
        if settings.method == LOW_RANK:
            return moments
        at_most, aligned = "", settings.method == "permute"
        if self._named is not None:
            pairs = pairs_of(self._named)
        elif settings.strategy == "window":
            windows = list(chain(*searches(self._model, self._n_removed, settings.anchor)))
            pairs, n_trials = pairs_of(chain(*windows)), len(windows)
        elif settings.strategy == "greedy":
            open_ = boundaries(self._model, self._n_removed)
            n_trials = greedy.n_trials(len(open_), sum(self._n_removed.values()))
            pairs = pairs_of(greedy.groups_between([b], settings.anchor)[0] for b in open_)
        else:
            at_most, aligned = "at most ", aligned or settings.strategy == "correlation"
            pairs = {name: set(combinations(range(len(of)), 2)) for name, of in widths.items()}
        d_ffs = [widths[name][i][1] for name, of in pairs.items() for i, _ in of if aligned]
        seconds = sum(_seconds_to_align(n_tokens, d_ff) for d_ff in d_ffs)
        lines = [f"pairs of layers to align: {at_most}{len(d_ffs)}, about {duration(seconds)}"]
        if n_trials:
            what = "windows" if settings.strategy == "window" else "groups"
            trying = duration(n_trials * seconds_per_loss)
            lines.append(f"{what} to try: {n_trials}, at most about {trying}")
        return "; ".join([*lines, *([moments] if settings.rank else [])])

    def select(self, collected: Collected, loss: Loss, stage: StageTimer) -> Selected:
        """Choose the groups to merge and solve their alignments.

        collected: has at least what `self.collected` names, of the same model.
        Raises OSError if the disk has no room for the features.
        """
        model, settings, n_removed = self._model, self._settings, self._n_removed
        with stage("features"):
            kept_out = collected.massive
            reconstruction = collected.reconstruction if settings.reconstruct else None
        without = kept_out if settings.skip_massive else {}
        if settings.method == LOW_RANK:
            merge = partial(approximate, n_removed=n_removed, inputs=collected.inputs)
            return Selected(self._named or all_layers(model, n_removed), merge)

        def permutations(groups: Iterable[Group]) -> dict[str, Permutations] | None:
            return collected.aligner.permutations(groups) if settings.method == "permute" else None

        candidates, selected, tried = [], self._named or [], []
        with stage("alignment"):
            if self._strategy == "window":
                candidates = searches(model, n_removed, settings.anchor, without)
            elif self._strategy in ("correlation", "cka"):
                similarity = collected.similarity(self._strategy)
                selected = by_similarity(model, n_removed, settings.anchor, similarity, without)
            # greedy groups are aligned when they are tried
            permutations([*selected, *chain(*chain(*candidates))])
        if self._strategy in ("window", "greedy"):

            def change(window: list[Group]) -> None:
                merge_in_model(model, window, permutations(window))
                if steps := settings.reconstruct_search:
                    reconstruction.fit_once(model, window, steps)

            with stage("search"):
                if self._strategy == "window":
                    selected, tried = by_loss(model, candidates, change, loss)
                else:
                    selected, tried = by_greedy(
                        model, n_removed, settings.anchor, change, loss, without
                    )
        self._check_rank(selected)
        merge, options = merge_in_model, {}
        if settings.rank:
            merge, options = merge_relaxed, {"rank": settings.rank, "inputs": collected.inputs}
        merging = partial(merge, permutations=permutations(selected), **options)
        return Selected(selected, merging, tried, reconstruction)


def collect(
    model: nn.Module, data: Data, maps: Mapping[str, str | None], file: Path
) -> dict[str, list[int]]:
    """Collect outputs of every layer in a file, without the model's head.

    maps: of COLLECTED; the first batch is computed even if there are none. Returns the layers that
    make massive activations, by tower.
    """
    device = str(next(model.parameters()).device)
    with (
        inputs_for(model, data.features, "features", OSError, ValueError) as inputs,
        measured(model.base_model) as ratios,
    ):
        collect_outputs(model.base_model, inputs, maps, data.n_tokens, file, device)
    return massive(ratios)


@contextmanager
def inputs_for(
    model: nn.Module, batches: Iterable[Batch], doing: str, *kept: type[Exception]
) -> Iterator[Iterator[Batch]]:
    """Give batches as the model takes them without its head; an error in there names the inputs.

    kept: see `batches.explained`.
    """
    base = model.base_model
    given: Batch = {}

    def inputs() -> Iterator[Batch]:
        for batch in progress(batches, desc=doing):
            check_ids(base, [batch])
            given.clear()
            given.update(inputs_of(base, batch))
            yield on_device_of(base, given)
            drop_cycles()

    with explained(base, given, *kept):
        yield inputs()


def massive_text(layers: Mapping[str, list[int]], skipped: bool = False) -> str:
    """A line on the layers that make massive activations."""
    named = "; ".join(f"{tower} {', '.join(map(str, of))}" for tower, of in layers.items())
    return (
        f"massive activations of the residual stream are made or removed by the FF of {named}: "
        + ("no group has them" if skipped else "--skip-massive leaves them out of all groups")
    )


# --- the request ----------------------------------------------------------------------------------


def n_to_remove(
    request: str | float | int, n_layers: Mapping[str, int], what: str = "FF sublayers"
) -> dict[str, int]:
    """Split the number of FF sublayers to remove over the towers, in proportion to their depth.

    request: a share of all sublayers (`1/3`, `0.33`) or a count (`4`). n_layers: by tower.
    Remainders go to the towers with the largest fractional share.
    Raises ValueError if nothing or too much would be removed: a tower keeps one sublayer.
    """
    try:
        if "e" in str(request).lower():  # 1e999999999 would take for ever
            raise ValueError
        amount = Fraction(str(request))
    except (ValueError, ZeroDivisionError):
        raise ValueError(f"--remove {request}: has to be a share such as 1/3, or a count") from None
    n_all = sum(n_layers.values())
    is_count = amount >= 1 and amount.denominator == 1
    n = int(amount) if is_count else round(amount * n_all)
    most = n_all - len(n_layers)
    if (amount > 1 and not is_count) or not 1 <= n <= most:
        depths = ", ".join(f"{name} {count}" for name, count in n_layers.items())
        raise ValueError(
            f"--remove {request}: from 1 to {most} {what} can be removed of {n_all} ({depths})"
        )
    exact = {name: Fraction(n * count, n_all) for name, count in n_layers.items()}
    removed = {name: min(int(share), n_layers[name] - 1) for name, share in exact.items()}
    while sum(removed.values()) < n:
        open_ = [name for name in removed if removed[name] < n_layers[name] - 1]
        removed[max(open_, key=lambda name: exact[name] - removed[name])] += 1
    return removed


def parse_groups(text: str, names: list[str], anchor: str, least: int = 2) -> list[Group]:
    """Parse the groups of --layers: `3-7`, `2-4,8-10`, `1+4+7`, `encoder:2-4,decoder:0-2`.

    names: the model's towers. A group without a tower's name is of the tower named before it, or of
    all towers if none is. least: layers of a group.
    Raises ValueError for text of another form.
    """
    parsed = []
    for item in text.replace(" ", "").split(","):
        tower, colon, layers = item.rpartition(":")
        names = [tower] if colon else names
        parsed += [groups.group(name, _parse_layers(layers, text), anchor) for name in names]
    for group in parsed:
        if len(group.layers) < least:
            raise ValueError(f"--layers {text}: a group has at least two layers")
    return parsed


def _parse_layers(item: str, text: str) -> list[int]:
    layers: list[int] = []
    for part in item.split("+"):
        if not (match := re.fullmatch(r"(\d{1,4})(?:-(\d{1,4}))?", part)):
            raise ValueError(f"--layers {text}: write 3-7, or 2-4,8-10, or 1+4+7 ({part!r}?)")
        first, last = int(match[1]), int(match[2] or match[1])
        if first > last:
            raise ValueError(f"--layers {text}: {part} ends before it begins; write {last}-{first}")
        layers += range(first, last + 1)
    return layers


def all_layers(model: nn.Module, n_removed: Mapping[str, int]) -> list[Group]:
    """All layers of each tower of which something is to be removed."""
    return [
        groups.group(name, range(len(tower)), "first")
        for name, tower in towers(model).items()
        if n_removed[name]
    ]


# --- the strategies -------------------------------------------------------------------------------


def searches(
    model: nn.Module,
    n_removed: dict[str, int],
    anchor: str,
    without: Mapping[str, list[int]] = MappingProxyType({}),
) -> list[list[list[Group]]]:
    """The windows that each search scores: those whose layers have equal widths.

    without: layers by tower that no window may have.
    Raises ValueError if a search has none.
    """
    widths = widths_of(model, without)
    n_layers = {name: len(of_layers) for name, of_layers in widths.items()}
    candidates = candidate_windows(n_layers, n_removed, anchor)
    fitting = [[window for window in windows if _fit(window, widths)] for windows in candidates]
    if not all(fitting):
        raise _too_few_of_equal_widths(widths)
    return fitting


def by_loss(
    model: nn.Module,
    candidates: Iterable[Sequence[list[Group]]],
    change: Callable[[list[Group]], nn.Module | None],
    loss: Loss,
) -> tuple[list[Group], Tried]:
    """Find the window with the lowest loss in each search (Section 3.4), the first of equals.

    candidates: the windows of each search. change: as in `tried_windows`. Returns the best windows,
    and all that were tried.
    """
    selected: list[Group] = []
    tried: Tried = []
    for windows in candidates:
        trials = tried_windows(model, windows, change, loss)
        selected += min(trials, key=lambda trial: trial.loss).window
        tried += trials
    return selected, tried


def tried_windows(
    model: nn.Module,
    windows: Sequence[list[Group]],
    change: Callable[[list[Group]], nn.Module | None],
    loss: Loss,
) -> Tried:
    """Compute the windows' losses, each as far as it may be the lowest.

    change: merges or drops a window in the model, which is put back afterwards; or returns another
    model, of which every layer is computed. After the first part of the data, the best window so
    far is computed on all of them. Any other one stops when its loss so far, as a share of the
    whole, exceeds the lowest loss of those that are done: no part's loss is negative.
    """
    changed = model

    def apply(window: list[Group], _: None) -> None:
        nonlocal changed
        changed = change(window) or model

    shared = CandidateScorer(model, apply)
    parts, candidates = loss.parts(model), [(window, None) for window in windows]

    def score(part: tuple) -> Term:
        return loss.term(changed, part)

    terms = shared.scores(candidates, parts[:1], score)
    first = min(range(len(windows)), key=lambda i: or_infinite(terms[i][0][0]))
    terms[first] += shared.scores([candidates[first]], parts[1:], score)[0]
    lowest, size = or_infinite(mean(terms[first])), sum(n for _, n in terms[first])

    def so_far(of: list[Term]) -> float:
        return mean([*((total, 0) for total, _ in of), (0.0, size)])

    def is_open(n: int, new: list[Term]) -> bool:
        nonlocal lowest
        of = terms[others[n]] + new
        if len(of) == len(parts):
            lowest = min(lowest, or_infinite(mean(of)))
        return so_far(of) <= lowest

    others = [i for i in range(len(windows)) if i != first]
    more = shared.scores([candidates[i] for i in others], parts[1:], score, is_open)
    for i, new in zip(others, more, strict=True):
        terms[i] += new
    losses = [or_infinite(mean(of) if len(of) == len(parts) else so_far(of)) for of in terms]
    return [
        Trial(window, value, len(of) < len(parts) and math.isfinite(value))
        for window, value, of in zip(windows, losses, terms, strict=True)
    ]


def boundaries(
    model: nn.Module,
    n_removed: dict[str, int],
    without: Mapping[str, list[int]] = MappingProxyType({}),
) -> list[greedy.Boundary]:
    """The pairs of adjacent layers of equal widths, by the first of each.

    without: as in `searches`.
    Raises ValueError if there are fewer than FF sublayers to remove.
    """
    widths = widths_of(model, without)
    found = [
        (name, i) for name, of in widths.items() for i in range(len(of) - 1) if of[i] == of[i + 1]
    ]
    if len(found) < sum(n_removed.values()):
        raise _too_few_of_equal_widths(widths)
    return found


def by_greedy(
    model: nn.Module,
    n_removed: dict[str, int],
    anchor: str,
    merge: Callable[[list[Group]], None],
    loss: Loss,
    without: Mapping[str, list[int]] = MappingProxyType({}),
) -> tuple[list[Group], Tried]:
    """Find groups greedily by loss. Returns them, and those after each step.

    All towers compete: n_removed is only summed up. merge: merges groups in the model, which is put
    back afterwards. without: as in `boundaries`.
    """
    open_, n = boundaries(model, n_removed, without), sum(n_removed.values())
    bar = progress(total=greedy.n_trials(len(open_), n), desc="groups")
    shared, parts = CandidateScorer(model, lambda groups, _: merge(groups)), loss.parts(model)

    def losses_without(tried: list[frozenset[greedy.Boundary]]) -> list[float]:
        candidates = [(greedy.groups_between(removed, anchor), None) for removed in tried]
        terms = shared.scores(candidates, parts, lambda part: loss.term(model, part))
        bar.update(len(tried))
        return [or_infinite(mean(of)) for of in terms]

    steps = greedy.joined(open_, n, losses_without)
    bar.close()
    tried = [Trial(greedy.groups_between(removed, anchor), value) for removed, value in steps]
    return tried[-1].window, tried


def by_similarity(
    model: nn.Module,
    n_removed: dict[str, int],
    anchor: str,
    similarity: dict[str, Tensor],
    without: Mapping[str, list[int]] = MappingProxyType({}),
) -> list[Group]:
    """Cluster the most similar layers. similarity: by tower, (n_layers, n_layers).

    Raises ValueError if layers of different widths would have to be merged.
    """
    widths = widths_of(model, without)
    within_widths = {name: similarity[name].clone() for name in n_removed}
    for name, of_layers in widths.items():
        for i, j in combinations(range(len(of_layers)), 2):
            if of_layers[i] != of_layers[j]:  # less than any similarity
                within_widths[name][i, j] = within_widths[name][j, i] = -len(of_layers)
    selected = most_similar(within_widths, n_removed, anchor)
    if not _fit(selected, widths):
        raise _too_few_of_equal_widths(widths)
    return selected


def output_similarities(outputs: Features) -> dict[str, Tensor]:
    """Linear CKA of the FF outputs of all pairs of layers, (n_layers, n_layers) by tower."""
    matrices = {}
    for name, n in outputs.towers().items():
        bar = progress(total=n * (n - 1) // 2, desc=f"CKA {name}")
        matrices[name] = cka.cka_matrix(lambda i, name=name: outputs.layer(name, i), n, bar.update)
        bar.close()
    return matrices


def widths_of(model: nn.Module, without: Mapping[str, list[int]] = MappingProxyType({})) -> Widths:
    """The widths of every FF sublayer. without: layers that get (0, layer), equal to no others."""
    return {
        name: [
            (0, layer)
            if layer in without.get(name, ())
            else tower.widths(layer, lambda name: model.get_parameter(name).shape)
            for layer in range(len(tower))
        ]
        for name, tower in towers(model).items()
    }


def _fit(selected: list[Group], widths: Widths) -> bool:
    return all(len({widths[g.tower][layer] for layer in g.layers}) == 1 for g in selected)


def _too_few_of_equal_widths(widths: Widths) -> ValueError:
    """The error for a request that needs more layers of a width, listing the layers of each."""
    listed = []
    for name, of_layers in widths.items():
        for width in dict.fromkeys(of_layers):
            layers = [i for i, other in enumerate(of_layers) if other == width]
            if not width[0]:
                listed.append(f"{name} {layers}: left out")
                continue
            listed.append(f"{name} {layers}: {' × '.join(map(str, width))}")
    return ValueError(
        "only FF sublayers of equal widths can be merged, and there are not enough of them to "
        f"remove so many; remove fewer, or name --layers ({'; '.join(listed)})"
    )


# --- alignment ------------------------------------------------------------------------------------


class Aligner:
    """Solves the alignment of pairs of layers when they are needed, each once."""

    def __init__(self, features: Features) -> None:
        self._features = features
        self.solved: dict[str, dict[Pair, Alignment]] = {name: {} for name in features.towers()}

    def align(self, pairs: Mapping[str, Iterable[Pair]]) -> None:
        """Solve pairs of each tower, in either order, unless they are solved already."""
        todo = [
            (tower, pair)
            for tower, wanted in pairs.items()
            for pair in sorted({(min(pair), max(pair)) for pair in wanted})
            if pair not in self.solved[tower]
        ]
        if not todo:
            return
        bar = progress(total=len(todo), desc="aligning pairs")
        for tower in pairs:
            of_tower = [pair for name, pair in todo if name == tower]
            layer = lambda i, tower=tower: self._features.layer(tower, i)  # noqa: E731
            for pair, alignment in align_all_pairs(layer, of_tower, overwrite=True):
                self.solved[tower][pair] = alignment
                bar.update()
        bar.close()

    def permutations(self, selected: Iterable[Group]) -> dict[str, Permutations]:
        """The permutations that merging these groups needs, among others, by tower."""
        self.align(pairs_of(selected))
        return {
            tower: Permutations({pair: solution.permutation for pair, solution in solved.items()})
            for tower, solved in self.solved.items()
        }

    def correlation(self, tower: str, n_layers: int) -> Tensor:
        """Mean correlation of matched neurons, (n_layers, n_layers); 0 for pairs not solved."""
        matrix = torch.eye(n_layers, dtype=torch.float64)
        for (i, j), solution in self.solved[tower].items():
            matrix[i, j] = matrix[j, i] = solution.aligned
        return matrix


def _seconds_to_align(n_tokens: int, d_ff: int) -> float:
    """About how long a pair takes: its correlations, then its assignment (docs/performance.md)."""
    products = 2 * n_tokens * d_ff**2 / (5e10 * torch.get_num_threads())
    return products + 0.6 * (d_ff / 3072) ** 2.2


def duration(seconds: float) -> str:
    """A duration for people: `40 s`, `12 min`, `3.5 h`."""
    if seconds < 100:
        return f"{max(1, seconds):.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 6000 else f"{seconds / 3600:.1f} h"


def pairs_of(selected: Iterable[Group]) -> dict[str, set[Pair]]:
    """The pairs of layers to align before merging, by tower: each layer with its anchor."""
    pairs: dict[str, set[Pair]] = {}
    for group in selected:
        of_group = {(group.anchor, layer) for layer in group.layers if layer != group.anchor}
        pairs.setdefault(group.tower, set()).update(of_group)
    return pairs
