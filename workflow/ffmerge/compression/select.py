"""Select the layers to merge, by the user's strategy, and solve the alignments that they need."""

import math
import re
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from fractions import Fraction
from functools import partial
from itertools import combinations
from operator import lt
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
from ffmerge.compression.loss import Loss, Term, mean
from ffmerge.compression.settings import LOW_RANK, Settings
from ffmerge.compression.write import check_space
from ffmerge.method import cka, greedy, groups
from ffmerge.method.clustering import most_similar
from ffmerge.method.features import Features, Tap, collect_outputs
from ffmerge.method.groups import Group
from ffmerge.method.massive import massive, measured
from ffmerge.method.merge import check_mergeable, merge_in_model
from ffmerge.method.permutation import Alignment, Pair, Permutations, align_all_pairs
from ffmerge.method.reconstruct import INPUT, MAPS, OUTPUT, Reconstruction
from ffmerge.method.relax import GIVEN, MOMENTS, NEURON, approximate, check_rank, merge_relaxed
from ffmerge.method.shared_layers import SharedLayers
from ffmerge.method.windows import best_start
from ffmerge.models.memory import drop_cycles
from ffmerge.models.towers import towers
from provenance.progress import progress

FEATURES = "features"  # what is aligned; reconstruct.MAPS has what is fitted, and what CKA compares
COLLECTED = {FEATURES: None, **MAPS, **GIVEN}  # see features.collect_outputs


class Trial(NamedTuple):
    """A window that was tried, one group per tower. stopped: whether its loss is at least `loss`.

    That is, its loss on the first part of the data was already above that of another window.
    """

    window: list[Group]
    loss: float
    stopped: bool = False


Tried = list[Trial]
Widths = dict[str, list[tuple[int, int]]]
"""Tower -> (d_model, d_ff) of each layer; layers of equal widths can be merged."""
StageTimer = Callable[[str], AbstractContextManager[None]]
"""Times a named stage."""


@dataclass(frozen=True)
class Selected:
    """The groups to merge. permutations: by tower, None for vanilla. tried: windows, if any.

    reconstruction: to fit the merged model, if that was asked for. merge: merges the groups in a
    model, with corrections or without.
    """

    groups: list[Group]
    permutations: dict[str, Permutations] | None
    tried: Tried
    reconstruction: Reconstruction | None = None
    merge: Callable[..., None] = merge_in_model


class Selector:
    """Selects layers as the user's settings ask for.

    scratch: a directory for features while they are needed. The model stays unchanged.
    Raises ValueError if the model does not have the layers asked for.
    """

    def __init__(self, model: nn.Module, settings: Settings, scratch: Path) -> None:
        self._model, self._settings, self._scratch = model, settings, scratch
        model_towers = towers(model)
        self._named, self._n_removed = None, {}
        if settings.layers is not None:
            self._named = parse_groups(settings.layers, list(model_towers), settings.anchor)
            check_mergeable(self._named, model_towers, lambda name: model.get_parameter(name).shape)
        else:
            n_layers = {name: len(tower) for name, tower in model_towers.items()}
            self._n_removed = n_to_remove(settings.remove, n_layers)
            if settings.method == LOW_RANK:
                return
            if settings.strategy == "window":
                searches(model, self._n_removed, settings.anchor)
            elif settings.strategy == "greedy":
                boundaries(model, self._n_removed)
        if settings.rank:
            fewest = [
                groups.group(name, range(n + 1), settings.anchor)
                for name, n in self._n_removed.items()
                if n
            ]
            self._check_rank(self._named or fewest)

    def _check_rank(self, selected: list[Group]) -> None:
        def shape(name: str) -> torch.Size:
            return self._model.get_parameter(name).shape

        check_rank(selected, towers(self._model), shape, self._settings.rank)

    @property
    def _maps(self) -> dict[str, str | None]:
        """What to collect, of COLLECTED."""
        strategy = self._settings.strategy if self._named is None else None
        fitted = self._settings.reconstruct is not None
        relaxed = self._settings.rank > 0 or self._settings.method == LOW_RANK
        wanted = {
            FEATURES: self._settings.method == "permute" or strategy == "correlation",
            INPUT: fitted or relaxed,
            OUTPUT: fitted or strategy == "cka",
            NEURON: relaxed,
        }
        if wanted[FEATURES] and neurons_in(self._model) == FEATURES:
            wanted[NEURON] = False
        return {name: COLLECTED[name] for name in COLLECTED if wanted[name]}

    def _n_bytes(self, n_tokens: int) -> int:
        """Bytes that the collected outputs take on disk."""
        widths = (
            Tap(self._model, tower, layer, kind).width
            for tower in towers(self._model).values()
            for layer in range(len(tower))
            for kind in self._maps.values()
        )
        return 4 * n_tokens * sum(widths)

    def plan(self, n_tokens: int, seconds_per_loss: float) -> str:
        """Say how many pairs and windows there are, and roughly how long they take.

        seconds_per_loss: measured on the original.
        """
        n_windows, aligned = 0, self._settings.method == "permute"
        most = max(d_ff for of in widths_of(self._model).values() for _, d_ff in of)
        moments = f"memory for second moments: {MOMENTS * 8 * most**2:,} bytes"
        if self._settings.method == LOW_RANK:
            return moments
        if self._named is not None:
            pairs = pairs_of(self._named)
        elif self._settings.strategy == "window":
            candidates = searches(self._model, self._n_removed, self._settings.anchor)
            pairs = pairs_of(g for windows in candidates for window in windows for g in window)
            n_windows = sum(map(len, candidates))
        elif self._settings.strategy == "greedy":
            open_ = boundaries(self._model, self._n_removed)
            n_windows = greedy.n_trials(len(open_), sum(self._n_removed.values()))
            pairs = pairs_of(greedy.groups_between([b], self._settings.anchor)[0] for b in open_)
        else:
            aligned = aligned or self._settings.strategy == "correlation"
            pairs = {
                name: set(combinations(range(len(tower)), 2))
                for name, tower in towers(self._model).items()
            }
        widths = widths_of(self._model)
        d_ffs = [widths[name][i][1] for name, of in pairs.items() for i, _ in of if aligned]
        seconds = sum(_seconds_to_align(n_tokens, d_ff) for d_ff in d_ffs)
        at_most = "at most " if self._named is None and not n_windows else ""
        lines = [f"pairs of layers to align: {at_most}{len(d_ffs)}, about {duration(seconds)}"]
        if n_windows:
            trying = duration(n_windows * seconds_per_loss)
            what = "windows" if self._settings.strategy == "window" else "groups"
            lines.append(f"{what} to try: {n_windows}, at most about {trying}")
        if self._settings.rank:
            lines.append(moments)
        return "; ".join(lines)

    def select(self, data: Data, loss: Loss, stage: StageTimer) -> Selected:
        """Choose the groups to merge and solve their alignments.

        Raises OSError if the disk has no room for the features.
        """
        check_space(self._scratch, self._n_bytes(data.n_tokens), "features")
        file, maps, reconstruction = self._scratch / "features.safetensors", self._maps, None
        with stage("features"):
            kept_out = collect(self._model, data.features, maps, data.n_tokens, file)
            if kept_out and self._settings.method != LOW_RANK:
                warnings.warn(massive_text(kept_out, self._settings.skip_massive), stacklevel=2)
            without = kept_out if self._settings.skip_massive else {}
            if self._settings.reconstruct is not None:
                reconstruction = Reconstruction(
                    self._model,
                    lambda: forward(self._model.base_model, data.features[0]),
                    Features(file, INPUT),
                    Features(file, OUTPUT),
                )
        neurons = neurons_in(self._model) if FEATURES in maps else NEURON
        inputs = {INPUT: Features(file, INPUT), NEURON: Features(file, neurons)}
        if self._settings.method == LOW_RANK:
            merging = partial(approximate, n_removed=self._n_removed, inputs=inputs)
            return Selected(all_layers(self._model, self._n_removed), None, [], merge=merging)
        aligner = Aligner(Features(file, FEATURES)) if FEATURES in maps else None
        aligned = self._settings.method == "permute"
        anchor, tried = self._settings.anchor, []
        with stage("alignment"):
            if self._named is not None:
                selected = self._named
            elif self._settings.strategy == "window":
                candidates = searches(self._model, self._n_removed, anchor, without)
                selected = [g for windows in candidates for window in windows for g in window]
            elif self._settings.strategy == "greedy":
                selected = []  # pairs are aligned when they are tried
            else:
                similarity = (
                    correlations(self._model, aligner)
                    if self._settings.strategy == "correlation"
                    else output_similarities(Features(file, OUTPUT))
                )
                selected = by_similarity(self._model, self._n_removed, anchor, similarity, without)
            if aligned:
                aligner.align(pairs_of(selected))
        permutations = aligner.permutations() if aligned else None
        if self._named is None and self._settings.strategy in ("window", "greedy"):
            with stage("search"):

                def merge(window: list[Group]) -> None:
                    nonlocal permutations
                    if aligned and self._settings.strategy == "greedy":
                        aligner.align(pairs_of(window))
                        permutations = aligner.permutations()
                    merge_in_model(self._model, window, permutations)
                    if reconstruction and (steps := self._settings.reconstruct_search):
                        reconstruction.fit_once(window, steps)

                search = by_loss if self._settings.strategy == "window" else by_greedy
                selected, tried = search(self._model, self._n_removed, anchor, merge, loss, without)
        merging = merge_in_model
        if rank := self._settings.rank:
            self._check_rank(selected)
            merging = partial(merge_relaxed, rank=rank, inputs=inputs)
        return Selected(selected, permutations, tried, reconstruction, merging)


def collect(
    model: nn.Module,
    batches: list[Batch],
    maps: Mapping[str, str | None],
    n_tokens: int,
    file: Path,
) -> dict[str, list[int]]:
    """Collect outputs of every layer at n_tokens positions in a file, without the model's head.

    maps: of COLLECTED; the first batch is computed even if there are none. Returns the layers that
    make massive activations, by tower.
    """
    base = model.base_model

    def inputs() -> Iterator[Batch]:
        for batch in progress(batches, desc="features"):
            check_ids(base, [batch])
            given.clear()
            given.update(inputs_of(base, batch))
            yield on_device_of(base, given)
            drop_cycles()

    given: Batch = {}
    device = str(next(model.parameters()).device)
    with explained(base, given, OSError, ValueError), measured(base) as ratios:
        collect_outputs(base, inputs(), maps, n_tokens, file, device)
    return massive(ratios)


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

    names: the model's towers; a group without a tower's name applies to all of them. least: layers
    of a group.
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


def neurons_in(model: nn.Module) -> str:
    """Which of COLLECTED has the neurons' values: FEATURES if all sublayers are gated."""
    gated = all(tower.feed_forward.gate for tower in towers(model).values())
    return FEATURES if gated else NEURON


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
    candidates = groups.candidate_windows(n_layers, n_removed, anchor)
    fitting = [[window for window in windows if _fit(window, widths)] for windows in candidates]
    if not all(fitting):
        raise _too_few_of_equal_widths(widths)
    return fitting


def by_loss(
    model: nn.Module,
    n_removed: dict[str, int],
    anchor: str,
    merge: Callable[[list[Group]], None],
    loss: Loss,
    without: Mapping[str, list[int]] = MappingProxyType({}),
) -> tuple[list[Group], Tried]:
    """Find the window with the lowest loss (Section 3.4). Returns it and all windows tried.

    merge: merges groups in the model, which is put back afterwards.
    Raises ValueError if a search has no window with layers of equal widths.
    """
    selected: list[Group] = []
    tried: Tried = []
    for windows in searches(model, n_removed, anchor, without):
        trials = tried_windows(model, windows, merge, loss)
        losses = {n: trial.loss for n, trial in enumerate(trials)}
        selected += windows[best_start(losses, losses, better=lt)]
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
    whole, exceeds the lowest loss: no part's loss is negative.
    """
    changed = model

    def apply(window: list[Group], _: None) -> None:
        nonlocal changed
        changed = change(window) or model

    shared = SharedLayers(model, apply)
    parts, candidates = loss.parts(model), [(window, None) for window in windows]

    def score(part: tuple) -> Term:
        return loss.term(changed, part)

    terms = shared.scores(candidates, parts[:1], score)
    first = min(range(len(windows)), key=lambda i: _or_infinite(terms[i][0][0]))
    terms[first] += shared.scores([candidates[first]], parts[1:], score)[0]
    lowest, size = _or_infinite(mean(terms[first])), sum(n for _, n in terms[first])

    def so_far(of: list[Term]) -> float:
        return mean([*((total, 0) for total, _ in of), (0.0, size)])

    def is_open(n: int, new: list[Term]) -> bool:
        nonlocal lowest
        of = terms[others[n]] + new
        if len(of) == len(parts):
            lowest = min(lowest, _or_infinite(mean(of)))
        return so_far(of) <= lowest

    others = [i for i in range(len(windows)) if i != first]
    more = shared.scores([candidates[i] for i in others], parts[1:], score, is_open)
    for i, new in zip(others, more, strict=True):
        terms[i] += new
    losses = [_or_infinite(mean(of) if len(of) == len(parts) else so_far(of)) for of in terms]
    return [
        Trial(window, value, len(of) < len(parts) and math.isfinite(value))
        for window, value, of in zip(windows, losses, terms, strict=True)
    ]


def _or_infinite(loss: float) -> float:
    return loss if math.isfinite(loss) else math.inf


def boundaries(
    model: nn.Module,
    n_removed: dict[str, int],
    without: Mapping[str, list[int]] = MappingProxyType({}),
) -> list[greedy.Boundary]:
    """The pairs of adjacent layers of equal widths, by the first of each.

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

    All towers compete: n_removed is only summed up. merge, without: as in `by_loss`.
    """
    open_, n = boundaries(model, n_removed, without), sum(n_removed.values())
    bar = progress(total=greedy.n_trials(len(open_), n), desc="groups")
    shared, parts = SharedLayers(model, lambda groups, _: merge(groups)), loss.parts(model)

    def losses_without(tried: list[frozenset[greedy.Boundary]]) -> list[float]:
        candidates = [(greedy.groups_between(removed, anchor), None) for removed in tried]
        terms = shared.scores(candidates, parts, lambda part: loss.term(model, part))
        bar.update(len(tried))
        return [_or_infinite(mean(of)) for of in terms]

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


def correlations(model: nn.Module, aligner: "Aligner") -> dict[str, Tensor]:
    """Mean correlation of aligned neurons for all pairs of layers; 0 for different widths."""
    widths = widths_of(model)
    aligner.align(
        {
            name: [(i, j) for i, j in combinations(range(len(of)), 2) if of[i] == of[j]]
            for name, of in widths.items()
        }
    )
    return {name: aligner.correlation(name, len(of)) for name, of in widths.items()}


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
        bar = progress(total=len(todo), desc="aligning pairs")
        for tower in pairs:
            of_tower = [pair for name, pair in todo if name == tower]
            layer = lambda i, tower=tower: self._features.layer(tower, i)  # noqa: E731
            for pair, alignment in align_all_pairs(layer, of_tower, overwrite=True):
                self.solved[tower][pair] = alignment
                bar.update()
        bar.close()

    def permutations(self) -> dict[str, Permutations]:
        """The permutations solved so far, by tower."""
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
