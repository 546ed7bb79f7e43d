"""Compare ways to make a user's model smaller at the same size: `ffmerge.compare`.

Features and alignments are computed once, and every way is tuned on the same batches.
"""

import copy
import json
import shutil
import signal
import tempfile
import time
import warnings
from dataclasses import asdict, dataclass, field, fields, replace
from functools import cached_property, partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
from torch import nn

from ffmerge.compression import record, source
from ffmerge.compression.batches import Data, forward, without_cache
from ffmerge.compression.drop import best_blocks, least_influential
from ffmerge.compression.encodings import tokenizer_if_any
from ffmerge.compression.loss import (
    CrossEntropy,
    Divergence,
    check_filled,
    check_finite,
    loss_for,
    losses_by_example,
    objective_of,
)
from ffmerge.compression.pipeline import (
    UserData,
    all_files,
    compressed,
    files_of,
    loaded_with_fit,
    read_data,
    read_entry,
)
from ffmerge.compression.select import (
    COLLECTED,
    FEATURES,
    Aligner,
    Selected,
    all_layers,
    by_greedy,
    by_loss,
    by_similarity,
    collect,
    correlations,
    n_to_remove,
    neurons_in,
    output_similarities,
    pairs_of,
    searches,
)
from ffmerge.compression.settings import DROP, LOW_RANK, Comparing, Tuning
from ffmerge.compression.summary import aligned_columns, change, layers_text
from ffmerge.compression.tune import (
    OwnTask,
    check_tuning,
    kept_beside,
    of_batches,
    of_files,
    recipe_for,
)
from ffmerge.compression.write import check_new, check_outside, new_directory, round_to_stored
from ffmerge.evaluation.intervals import Scored, scored_models
from ffmerge.method.declared import check_declared
from ffmerge.method.features import Features
from ffmerge.method.groups import Group
from ffmerge.method.layer_drop import changed_keys, drop_feed_forwards
from ffmerge.method.merge import merge_in_model
from ffmerge.method.reconstruct import INPUT, OUTPUT, Reconstruction
from ffmerge.method.relax import NEURON, approximate, merge_relaxed, more_removed
from ffmerge.method.tie import count_parameters
from ffmerge.models.memory import check_device, give_back
from ffmerge.models.pretrained import Fit, quiet
from ffmerge.models.towers import towers
from ffmerge.training.processes import SIGNALS
from ffmerge.training.trainer import train
from provenance.csv_files import write_csv
from provenance.progress import note

DROP_FFS = "drop-ffs"
ORIGINAL = "original"
RESAMPLES, CONFIDENCE, SEED = 1000, 0.95, 0
FITTED = " reconstructed"  # at the end of a strategy
RELAXED = "window relaxed"  # a strategy: a larger window, with corrections
WAYS = {  # (method, strategy) -> in words
    ("permute", "window"): "merged aligned, best window",
    ("permute", "correlation"): "merged aligned, by correlation",
    ("permute", "cka"): "merged aligned, by CKA",
    ("permute", "greedy"): "merged aligned, greedy groups",
    ("permute", f"window{FITTED}"): "merged aligned, best window, reconstructed",
    ("permute", f"greedy{FITTED}"): "merged aligned, greedy groups, reconstructed",
    ("permute", RELAXED): "merged aligned, larger window, corrected",
    ("vanilla", "window"): "merged unaligned, best window",
    (DROP, "window"): "layers dropped, best block",
    (DROP, "influence"): "layers dropped, block influence",
    (DROP_FFS, "window"): "FFs dropped, best block",
    (LOW_RANK, "window"): "FFs low-rank",
}
PHASES = ("untuned", "tuned")


def ways_of(settings: Comparing) -> list[tuple[str, str]]:
    """The ways that are asked for, of WAYS."""
    left_out = set() if settings.greedy else {"greedy", f"greedy{FITTED}"}
    if not settings.rank:
        left_out.add(RELAXED)
    if not settings.reconstruct:
        left_out |= {f"window{FITTED}", f"greedy{FITTED}"}
    return [(method, strategy) for method, strategy in WAYS if strategy not in left_out]


@dataclass
class Loss:
    """A loss with its difference from the original's, the interval of that if the loss is a mean
    over examples, and why the model cannot be used so, if it cannot."""

    loss: float
    difference: float
    interval: tuple[float, float] | None
    fault: str | None


@dataclass
class Row:
    """A way to make the model smaller. losses: by phase, untuned and perhaps tuned."""

    way: str
    method: str
    strategy: str
    layers: str
    parameters: int
    losses: dict[str, Loss]


@dataclass
class Compared:
    """All ways; the first row is the original. steps: of the tuning, 0 without.

    best: phase -> the rows that no other one is measurably better than, the best first.
    """

    model: str
    out: Path
    loss: str
    n_held_out: int
    sequences: str
    steps: int
    rows: list[Row]
    best: dict[str, list[str]]
    seconds: float = 0.0
    warnings: list[str] = field(default_factory=list)

    @property
    def recommendation(self) -> str:
        """What was measured to be best, in a sentence."""
        parts = []
        for phase, (first, *others) in self.best.items():
            row = next(row for row in self.rows if row.way == first)
            when = "untuned" if phase == "untuned" else f"after {self.steps} steps"
            as_good = f"; not measurably worse: {'; '.join(others)}" if others else ""
            loss = row.losses[phase].loss
            parts.append(f"{when}, {first} ({row.layers}; loss {loss:.4f}{as_good})")
        return f"Best at this size, as measured: {', and '.join(parts)}."

    def as_json(self) -> dict[str, Any]:
        """Everything as plain values."""
        values = vars(self) | {"out": str(self.out), "rows": [asdict(row) for row in self.rows]}
        return values | {"confidence": CONFIDENCE, "recommendation": self.recommendation}

    def table(self) -> list[dict[str, Any]]:
        """The rows of the CSV."""
        rows = []
        for row in self.rows:
            cells = {key: getattr(row, key) for key in ("way", "method", "strategy", "layers")}
            cells |= {"parameters": row.parameters}
            for phase, loss in row.losses.items():
                low, high = loss.interval or ("", "")
                values = {"loss": loss.loss, "difference": loss.difference, "low": low}
                values |= {"high": high, "usable": "no" if loss.fault else "yes"}
                cells |= {f"{phase}_{key}": value for key, value in values.items()}
            rows.append(cells)
        return rows

    def __str__(self) -> str:
        phases = list(self.rows[0].losses)
        original = self.rows[0].parameters
        head = [("", "layers", "parameters", "")]
        head[0] += tuple(text for phase in phases for text in (phase, "minus original"))
        for row in self.rows:
            saved = change(original, row.parameters) if row.parameters != original else ""
            cells = [row.way, row.layers, f"{row.parameters:,}", saved]
            for phase in phases:
                loss = row.losses[phase]
                cells.append(f"{loss.loss:.4f}{'*' if loss.fault else ''}")
                low, high = loss.interval or (0, 0)
                span = f" [{low:+.3f}, {high:+.3f}]" if loss.interval else ""
                same = row.way == ORIGINAL and phase == "untuned"
                cells.append("" if same else f"{loss.difference:+.3f}{span}")
            head.append(tuple(cells))
        lines = [f"{self.model} -> {self.out}", "", *aligned_columns(head), ""]
        lines.append(
            f"loss: {self.loss}, on {self.n_held_out:,} held-out examples; in brackets: "
            f"{100 * CONFIDENCE:.0f} % bootstrap intervals over examples"
        )
        lines += [f"sequences: {self.sequences}"] if self.sequences else []
        if self.steps:
            lines.append(f"tuned: {self.steps} steps each, on the same batches")
        for row in self.rows:
            phase = phases[-1]
            if fault := row.losses[phase].fault:
                lines.append(f"* NOT USABLE AS IT IS ({row.way}, {phase}): {fault}")
        lines += [f"note: {warning}" for warning in self.warnings]
        return "\n".join([*lines, "", self.recommendation])


@quiet()
def compare(
    model: str | Path,
    *,
    features: UserData,
    out: str | Path,
    held_out: UserData | None = None,
    tune: UserData | None = None,
    command: str | None = None,
    **options: Any,
) -> Compared:
    """Score the ways to make a model smaller, and write table, picture and record to `out`.

    model, features, held_out: as for `compress`. tune: data to tune every way on; those of its
    first part that `ffmerge.tune` would hold out are not used. options: see `Comparing`. Layers are
    dropped in a number that takes about as many parameters as the merging does. command: for the
    record. After a kill, the same call goes on with the row it was at; until then, finished rows
    are beside `out`.
    Raises ValueError or OSError with a message for the user, and ImportError without matplotlib.
    """
    import matplotlib  # noqa: F401 (if it is missing, say so before the work)

    settings, out, started = Comparing(**options), Path(out), time.time()
    common = {option.name for option in fields(Tuning)} & vars(settings).keys() - {"batch_size"}
    tuning = Tuning(**{name: getattr(settings, name) for name in common})
    check_device(settings.device)
    if tune is not None:
        check_tuning(tuning)
    check_new(out)
    original = source.find(model, settings.revision)
    entry = read_entry(settings.architecture)
    files, held_out_files, tune_files = files_of(features), files_of(held_out), files_of(tune)
    named = all_files(files, held_out, held_out_files)
    check_outside(out, [original.directory, *(named or ()), *(tune_files or ())])
    outline = source.outline(original, entry)
    n_removed = n_to_remove(settings.remove, {n: len(t) for n, t in towers(outline).items()})
    searches(outline, n_removed, settings.anchor)
    if settings.rank:
        searches(outline, more_removed(outline, n_removed, settings.rank), settings.anchor)
    with (
        tempfile.TemporaryDirectory(prefix="ffmerge") as scratch,
        warnings.catch_warnings(record=True) as noted,
    ):
        readable = source.with_safetensors(original, Path(scratch))
        loading = SimpleNamespace(dtype="float32", device=settings.device)
        loaded, stored = loaded_with_fit(readable, loading, entry)
        data = read_data(loaded, original, (features, held_out), settings)
        examples, recipe = None, {}
        if tune is not None:
            if tune_files is None:
                examples = of_batches(tune, data.held_out)
            else:
                examples = of_files(loaded, original, tune_files, None, tuning)
            recipe = recipe_for(tuning, examples.kind)
        used = [*(named or ()), *(tune_files or ())]
        inputs = record.inputs(original, used if files is not None else None, data)
        identity = {"params": asdict(settings) | {"recipe": recipe}, "input": inputs}
        with kept_beside(out, identity, "comparing") as kept, without_cache(loaded):
            first = data.features[0]
            check_declared(loaded, lambda: Divergence.outputs(loaded.base_model, first))
            tokenizer = tokenizer_if_any(original.directory)
            loss = loss_for(loaded, data.held_out, Path(scratch), tokenizer, stored.missing)
            value = loss.of(loaded)
            check_finite({loss.name: torch.tensor(value)})
            ways = Ways(loaded, data, loss, settings, n_removed, Path(scratch))
            tuner = None
            if examples is not None:
                check_filled(loaded, data.held_out[0], original.directory)
                objective = objective_of(loaded, data.held_out, tokenizer)
                teacher = loaded if objective is None else None

                def tuner(candidate: nn.Module, directory: Path) -> None:
                    task = OwnTask(candidate, examples, objective, loss, teacher)
                    how = {"seed": settings.seed, "device": settings.device}
                    how["signals"] = (*SIGNALS, signal.SIGINT)
                    train(candidate, task, SimpleNamespace(**recipe), directory, **how)

            measured = {}
            for method, strategy in [(ORIGINAL, ""), *ways_of(settings)]:
                if method == DROP and not ways.n_dropped:
                    warnings.warn("layers of this model cannot be dropped", stacklevel=2)
                    continue
                file = kept / f"{method} {strategy}.json"
                measured[method, strategy] = Measuring(ways, stored, file, tuner).row(
                    method, strategy
                )
            rows, best = _compared(measured, loss)
            with new_directory(out, 0) as directory:
                result = Compared(
                    str(model),
                    out,
                    loss.name,
                    data.n_held_out,
                    data.sequences,
                    settings.steps if tuner else 0,
                    rows,
                    best,
                    round(time.time() - started, 1),
                    list(dict.fromkeys(str(warning.message) for warning in noted)),
                )
                write_csv(result.table(), directory / "compared.csv")
                draw(result, directory)
                record.write(
                    directory,
                    inputs,
                    {**asdict(settings), "recipe": recipe},
                    result.as_json(),
                    started,
                    command,
                    "compare",
                )
    return result


class Ways:
    """Selects layers for each way, with features and alignments that all ways share.

    n_removed: FF sublayers by tower. n_dropped: layers by tower that take about as many parameters;
    none if the model cannot lose layers. steps, search_steps: of reconstruction, for a result and
    in a search. rank: of corrections.
    """

    def __init__(
        self,
        model: nn.Module,
        data: Data,
        loss: Any,
        settings: Comparing,
        n_removed: dict[str, int],
        scratch: Path,
    ) -> None:
        self.model, self.data, self.loss = model, data, loss
        self.anchor, self.n_removed, self._scratch = settings.anchor, n_removed, scratch
        self.steps, self.search_steps = settings.reconstruct, settings.reconstruct_search
        self.rank, self._n_corrected = settings.rank, n_removed
        if settings.rank:
            self._n_corrected = more_removed(model, n_removed, settings.rank)

    @cached_property
    def n_dropped(self) -> dict[str, int]:
        """Layers to drop, by tower."""
        found, n_dropped = towers(self.model), {}
        for name, n in self.n_removed.items():
            tower = found[name]
            removed = n * _size(self.model, f"{tower.paths[0]}.", set(tower.tensors(0).values()))
            mean = sum(_size(self.model, f"{path}.") for path in tower.paths) / len(tower)
            n_dropped[name] = min(len(tower) - 1, max(n > 0, round(removed / mean)))
        try:
            changed_keys(self.model.config.to_dict(), found, {})
        except ValueError:  # no key counts the layers
            return {}
        return n_dropped

    @cached_property
    def aligner(self) -> Aligner:
        """Alignments, each solved when it is first needed."""
        return Aligner(Features(self._file, FEATURES))

    def reconstruction(self, model: nn.Module) -> Reconstruction:
        """What fits merged sublayers of the model, or of a copy that is not merged yet."""
        return Reconstruction(
            model,
            lambda: forward(model.base_model, self.data.features[0]),
            Features(self._file, INPUT),
            Features(self._file, OUTPUT),
        )

    def select(self, method: str, strategy: str) -> Selected:
        """Choose the layers of a way."""
        model, n_removed, anchor = self.model, self.n_removed, self.anchor
        if method == ORIGINAL:
            return Selected([], None, [])
        if method == LOW_RANK:
            return self.aligned(method, strategy, all_layers(model, n_removed))
        if method == DROP and strategy == "influence":
            return Selected(least_influential(model, self.n_dropped, self.data.features), None, [])
        if method in (DROP, DROP_FFS):
            n, drop = (self.n_dropped, None) if method == DROP else (n_removed, self._drop)
            return Selected(best_blocks(model, n, self.loss, drop)[0], None, [])
        if strategy.startswith(("window", "greedy")):
            return self._searched(method, strategy)
        if strategy == "correlation":
            similarity = correlations(model, self.aligner)
        else:
            similarity = output_similarities(Features(self._file, OUTPUT))
        groups = by_similarity(model, n_removed, anchor, similarity)
        return self.aligned(method, strategy, groups)

    def _searched(self, method: str, strategy: str) -> Selected:
        """Choose a window, or groups greedily, by loss."""
        model, anchor = self.model, self.anchor
        n_removed = self._n_corrected if strategy == RELAXED else self.n_removed
        windows = strategy.startswith("window")
        fits = self.search_steps and strategy.endswith(FITTED)
        reconstruction = self.reconstruction(model) if fits else None
        if method == "permute" and windows:
            candidates = (w for of in searches(model, n_removed, anchor) for w in of)
            self._permutations([group for window in candidates for group in window])

        def merge(window: list[Group]) -> None:
            permutations = self._permutations(window) if method == "permute" else None
            merge_in_model(model, window, permutations)
            if reconstruction:
                reconstruction.fit_once(window, self.search_steps)

        search = by_loss if windows else by_greedy
        groups, _ = search(model, n_removed, anchor, merge, self.loss)
        return self.aligned(method, strategy, groups)

    def aligned(self, method: str, strategy: str, groups: list[Group]) -> Selected:
        """Groups with the alignments that their merging needs, and how they are merged."""
        permutations = self._permutations(groups) if method == "permute" else None
        selected = Selected(groups, permutations, [])
        if method != LOW_RANK and strategy != RELAXED:
            return selected
        neurons = neurons_in(self.model)
        inputs = {INPUT: Features(self._file, INPUT), NEURON: Features(self._file, neurons)}
        if method == LOW_RANK:
            merge = partial(approximate, n_removed=self.n_removed, inputs=inputs)
        else:
            merge = partial(merge_relaxed, rank=self.rank, inputs=inputs)
        return replace(selected, merge=merge)

    def _permutations(self, groups: list[Group]) -> Any:
        self.aligner.align(pairs_of(groups))
        return self.aligner.permutations()

    @cached_property
    def _file(self) -> Path:
        """What the ways need of every layer, collected in one pass."""
        file = self._scratch / "features.safetensors"
        names = {FEATURES, OUTPUT, INPUT, neurons_in(self.model)}
        maps = {name: COLLECTED[name] for name in COLLECTED if name in names}
        collect(self.model, self.data.features, maps, self.data.n_tokens, file)
        return file

    def _drop(self, block: list[Group]) -> None:
        drop_feed_forwards(self.model, block)


class Measuring:
    """Measures one way, and keeps in a file what is done. tuner: None if nothing is tuned."""

    def __init__(self, ways: Ways, stored: Fit, file: Path, tuner: Any) -> None:
        self.ways, self.stored, self.file, self.tuner = ways, stored, file, tuner

    def row(self, method: str, strategy: str) -> dict[str, Any]:
        """Groups, parameters and losses by phase, from the file as far as they are there."""
        done = json.loads(self.file.read_text()) if self.file.exists() else {}
        if "tuned" in done or ("untuned" in done and self.tuner is None):
            return done
        candidate, stored, selected = self._candidate(method, strategy, done)
        if "untuned" not in done:
            parameters = count_parameters(candidate)
            if method == DROP_FFS:
                parameters = sum(p.numel() for p in candidate.parameters() if p.requires_grad)
            done = {
                "groups": [group.as_json() for group in selected.groups],
                "rank": self.ways.rank if strategy == RELAXED else 0,
                "parameters": parameters,
                "untuned": self._losses(candidate),
            }
            self._keep(done)
        if self.tuner is not None:
            checkpoints = self.file.with_suffix("")
            self.tuner(candidate, checkpoints)
            candidate.eval()
            round_to_stored(candidate, stored)
            done["tuned"] = self._losses(candidate)
            self._keep(done)
            shutil.rmtree(checkpoints)
        del candidate
        give_back()
        return done

    def _candidate(
        self, method: str, strategy: str, done: dict[str, Any]
    ) -> tuple[nn.Module, Fit, Selected]:
        """A copy of the model with the way applied, its fit, and the layers chosen."""
        fits = strategy.endswith(FITTED)
        same = self.file.with_name(f"{method} {strategy.removesuffix(FITTED)}.json")
        if not done and fits and not self.ways.search_steps and same.exists():
            done = json.loads(same.read_text())  # the search is that of the row without fitting
        if done:
            groups = [Group(g["tower"], tuple(g["layers"]), g["anchor"]) for g in done["groups"]]
            selected = self.ways.aligned(method, strategy, groups)
        else:
            note(f"{WAYS.get((method, strategy), method)}: choosing layers")
            selected = self.ways.select(method, strategy)
        candidate, stored = copy.deepcopy(self.ways.model), self.stored
        if method == DROP_FFS:
            drop_feed_forwards(candidate, selected.groups)
        elif method != ORIGINAL:
            reconstruction = self.ways.reconstruction(candidate) if fits else None
            candidate, stored = compressed(candidate, stored, method, selected)
            if reconstruction:
                reconstruction.fit(selected.groups, self.ways.steps)
                round_to_stored(candidate, stored)
        return candidate, stored, selected

    def _losses(self, model: nn.Module) -> dict[str, list[float]]:
        """The loss by example, or a single one of all, in the columns that intervals take."""
        loss = self.ways.loss
        if not isinstance(loss, CrossEntropy):
            return {"loss": [loss.of(model)]}
        summed, n, _ = zip(*losses_by_example(model, loss.batches), strict=True)
        return {"negative_log_likelihood": list(summed), "n_tokens": list(n)}

    def _keep(self, done: dict[str, Any]) -> None:
        partial = self.file.with_suffix(".partial")
        partial.write_text(json.dumps(done))
        partial.replace(self.file)


def _size(model: nn.Module, prefix: str, only: set[str] | None = None) -> int:
    """Parameters whose names begin so, or only some of them."""
    return sum(
        parameter.numel()
        for name, parameter in model.named_parameters()
        if name.startswith(prefix) and (only is None or name in only)
    )


def _compared(
    measured: dict[tuple[str, str], dict[str, Any]], loss: Any
) -> tuple[list[Row], dict[str, list[str]]]:
    """The rows with their differences from the original, and the best of each phase."""
    columns = {
        (key, phase): done[phase]
        for key, done in measured.items()
        for phase in PHASES
        if phase in done
    }
    values = {name: _mean(of) for name, of in columns.items()}
    first = ((ORIGINAL, ""), "untuned")
    scored: dict[Any, Scored] = {}
    if "n_tokens" in columns[first]:
        tests = {name: {"metric": "loss", "score": value} for name, value in values.items()}
        scored = scored_models(tests, columns, RESAMPLES, SEED)
    rows = []
    for key, done in measured.items():
        losses = {}
        for phase in PHASES:
            if (name := (key, phase)) not in values:
                continue
            interval = None
            if scored and name != first:
                interval = scored[name].minus(scored[first]).interval(CONFIDENCE)
            fault = None if key == first[0] else loss.fault(values[first], values[name])
            losses[phase] = Loss(values[name], values[name] - values[first], interval, fault)
        groups = [Group(g["tower"], tuple(g["layers"]), g["anchor"]) for g in done["groups"]]
        layers = layers_text(groups) + (f", rank {done['rank']}" if done["rank"] else "")
        row = Row(WAYS.get(key, ORIGINAL), *key, layers, done["parameters"], losses)
        rows.append(row)
    best = {}
    for phase in rows[0].losses:
        order = sorted(list(measured)[1:], key=lambda key: values[key, phase])
        as_good = [
            WAYS[key]
            for key in order[1:]
            if scored
            and scored[key, phase].minus(scored[order[0], phase]).interval(CONFIDENCE)[0] <= 0
        ]
        best[phase] = [WAYS[order[0]], *as_good]
    return rows, best


def _mean(columns: dict[str, list[float]]) -> float:
    if "loss" in columns:
        return columns["loss"][0]
    return sum(columns["negative_log_likelihood"]) / sum(columns["n_tokens"])


def draw(result: Compared, directory: Path) -> None:
    """Draw the losses against the parameters kept, as `compared.png` and `.svg`.

    Points of the same size are side by side. Error bars: intervals of the difference from the
    original. A point without a filling is untuned.
    """
    from matplotlib.figure import Figure

    original, *rows = result.rows
    figure = Figure(figsize=(8.5, 4.2), layout="constrained")
    axis = figure.subplots()
    shown = {"untuned": "--", "tuned": ":"}
    for phase, loss in original.losses.items():
        label = ORIGINAL if phase == "untuned" else f"{ORIGINAL}, tuned"
        axis.axhline(loss.loss, color="#444444", linestyle=shown[phase], linewidth=1, label=label)
    sizes = [100 * row.parameters / original.parameters for row in rows]
    apart = 0.03 * max(1.0, max(sizes) - min(sizes))
    for i, (row, size) in enumerate(zip(rows, sizes, strict=True)):
        same = [j for j, other in enumerate(sizes) if abs(other - size) < apart]
        x = size + apart * (same.index(i) - (len(same) - 1) / 2)
        color, marker = f"C{i}", "os^vDPX<>*hp"[i]
        for phase, loss in row.losses.items():
            bars = None
            if loss.interval:
                low, high = (bound - loss.difference for bound in loss.interval)
                bars = [[max(0.0, -low)], [max(0.0, high)]]
            last = phase == list(row.losses)[-1]
            style = {"color": color, "marker": marker, "capsize": 2, "linewidth": 0.8}
            style["markerfacecolor"] = color if phase == "tuned" else "white"
            axis.errorbar([x], [loss.loss], bars, label=row.way if last else None, **style)
    axis.set_xlabel("parameters kept (%)")
    axis.set_ylabel(result.loss)
    tuned = f"filled: after {result.steps} steps; open: untuned" if result.steps else ""
    figure.legend(loc="outside right center", frameon=False, fontsize=8, title=tuned)
    axis.spines[["top", "right"]].set_visible(False)
    figure.savefig(directory / "compared.png", dpi=150, metadata={"Software": None})
    figure.savefig(directory / "compared.svg", metadata={"Date": None})
