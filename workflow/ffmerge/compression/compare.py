"""Compare ways to make a user's model smaller at the same size: `ffmerge.compare`.

Features and alignments are computed once, and every way is tuned on the same batches. One half of
the held-out data chooses layers and the steps that are kept; the other half gives the losses, so
that what was searched has no advantage.
"""

import copy
import json
import math
import shutil
import signal
import tempfile
import time
import warnings
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import asdict, dataclass, field, fields
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
from torch import nn

from ffmerge.compression import record, source
from ffmerge.compression.batches import halves, n_examples, without_cache
from ffmerge.compression.drop import blocks_of
from ffmerge.compression.encodings import tokenizer_if_any
from ffmerge.compression.loss import (
    CrossEntropy,
    Divergence,
    check_filled,
    check_finite,
    loss_for,
    losses_by_example,
    objective_of,
    or_infinite,
)
from ffmerge.compression.pipeline import (
    UserData,
    all_files,
    compressed,
    files_of,
    loaded_with_fit,
    read_data,
    read_entry,
    selector_for,
    warn_of_missing,
)
from ffmerge.compression.select import (
    COLLECTED,
    Collected,
    Selected,
    by_loss,
    n_to_remove,
    searches,
)
from ffmerge.compression.settings import DROP, LOW_RANK, Comparing, Settings, Tuning
from ffmerge.compression.summary import aligned_columns, change, layers_text, loss_text
from ffmerge.compression.tune import (
    OwnTask,
    check_tuning,
    in_order,
    kept_beside,
    of_batches,
    of_files,
    recipe_for,
)
from ffmerge.compression.write import check_new, check_outside, new_directory, round_to_stored
from ffmerge.evaluation.intervals import Scored, scored_models
from ffmerge.extensions.relax import more_removed
from ffmerge.method.declared import check_declared
from ffmerge.method.groups import Group
from ffmerge.method.layer_drop import changed_keys, drop_feed_forwards
from ffmerge.models.memory import check_device, give_back
from ffmerge.models.pretrained import Fit, quiet
from ffmerge.models.size import count_parameters
from ffmerge.models.towers import towers
from ffmerge.training.processes import SIGNALS
from ffmerge.training.trainer import train
from provenance.csv_files import write_csv
from provenance.progress import note
from provenance.record import write_atomically

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
TICKS = (-1, -0.2, -0.1, -0.05, 0, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 100)  # of the picture


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
            loss = loss_text(row.losses[phase].loss)
            parts.append(f"{when}, {first} ({row.layers}; loss {loss}{as_good})")
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
                cells.append(loss_text(loss.loss) + "*" * bool(loss.fault))
                low, high = loss.interval or (0, 0)
                span = f" [{low:+.3f}, {high:+.3f}]" if loss.interval else ""
                is_told = math.isfinite(loss.loss) and (row.way, phase) != (ORIGINAL, "untuned")
                cells.append(f"{loss.difference:+.3f}{span}" if is_told else "")
            head.append(tuple(cells))
        lines = [f"{self.model} -> {self.out}", "", *aligned_columns(head), ""]
        lines.append(
            f"loss: {self.loss}, on {self.n_held_out:,} held-out examples, of which none chose "
            f"layers or steps; in brackets: {100 * CONFIDENCE:.0f} % bootstrap intervals over them"
        )
        lines += [f"sequences: {self.sequences}"] if self.sequences else []
        if self.steps:
            lines.append(f"tuned: {self.steps} steps each, on the same batches")
        *earlier, phase = phases
        for row in self.rows:
            if fault := row.losses[phase].fault:
                lines.append(f"* NOT USABLE AS IT IS ({row.way}, {phase}): {fault}")
        if any(row.losses[phase].fault for row in self.rows for phase in earlier):
            lines.append(f"* not usable as it is, {earlier[0]}: compared.csv says which")
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
    named, tune_files = all_files(features, held_out), files_of(tune)
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
        loaded, stored = loaded_with_fit(readable, "float32", settings.device, entry)
        warn_of_missing(stored)
        data = read_data(loaded, original, (features, held_out), settings, n_parts=2)
        choosing, scoring = halves(data.held_out)
        examples, recipe = None, {}
        if tune is not None:
            if tune_files is None:
                examples = of_batches(tune, choosing)
            else:
                examples = of_files(loaded, original, tune_files, None, tuning)
            recipe = recipe_for(tuning, examples.kind)
        inputs = record.inputs(original, named, data)
        if examples is not None:
            inputs["tune"] = record.data_digests(tune_files, examples.items)
        identity = {"params": asdict(settings) | {"recipe": recipe}, "input": inputs}
        identity["files"] = in_order(features, held_out, tune)
        with kept_beside(out, identity, "comparing") as kept, without_cache(loaded):
            first = data.features[0]
            check_declared(loaded, lambda: Divergence.outputs(loaded.base_model, first))
            tokenizer = tokenizer_if_any(original.directory)
            loss, score = (
                loss_for(loaded, batches, Path(scratch, name), tokenizer, stored.missing)
                for name, batches in (("choosing", choosing), ("scoring", scoring))
            )
            if loss.name != score.name:
                raise ValueError(
                    "only one half of the held-out data has labels, or what else its loss needs: "
                    "hold out more, --n-held-out"
                )
            value = score.of(loaded)
            check_finite({loss.name: torch.tensor(value)})
            tuner = None
            if examples is not None:
                check_filled(loaded, choosing[0], original.directory)
                objective = objective_of(loaded, choosing, tokenizer)
                teacher = loaded if objective is None else None

                def tuner(candidate: nn.Module, directory: Path) -> None:
                    task = OwnTask(candidate, examples, objective, loss, teacher)
                    how = {"seed": settings.seed, "device": settings.device}
                    how["signals"] = (*SIGNALS, signal.SIGINT)
                    train(candidate, task, SimpleNamespace(**recipe), directory, **how)

            n_dropped = layers_to_drop(loaded, n_removed)
            collected = Collected(loaded, data, COLLECTED, Path(scratch))
            ways = Ways(collected, loss, score, settings, n_removed, n_dropped, stored, kept, tuner)
            asked = ways_of(settings)
            if not n_dropped:
                warnings.warn("layers of this model cannot be dropped", stacklevel=2)
                asked = [(method, strategy) for method, strategy in asked if method != DROP]
            measured = {way: ways.row(*way) for way in [(ORIGINAL, ""), *asked]}
            rows, best = _compared(measured, score)
            with new_directory(out, 0) as directory:
                result = Compared(
                    str(model),
                    out,
                    loss.name,
                    n_examples(scoring),
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


def layers_to_drop(model: nn.Module, n_removed: dict[str, int]) -> dict[str, int]:
    """Layers by tower that take about as many parameters as these FF sublayers.

    Empty if the model cannot lose layers.
    """
    found, n_dropped = towers(model), {}
    for name, n in n_removed.items():
        tower = found[name]
        removed = n * sum(model.get_parameter(of).numel() for of in tower.tensors(0).values())
        layers = [model.get_submodule(path) for path in tower.paths]
        mean = sum(map(count_parameters, layers)) / len(layers)
        n_dropped[name] = min(len(layers) - 1, max(n > 0, round(removed / mean)))
    try:
        changed_keys(model.config.to_dict(), found, {})
    except ValueError:  # no key counts the layers
        return {}
    return n_dropped


class Ways:
    """Measures the ways, with features and alignments that all of them share.

    loss: chooses layers. score: what the rows are compared by, on other data. n_removed: FF
    sublayers by tower. n_dropped: layers by tower, of about as many parameters. stored: the model's
    fit. kept: a directory for what is done. tuner: None if nothing is tuned.
    """

    def __init__(
        self,
        collected: Collected,
        loss: Any,
        score: Any,
        settings: Comparing,
        n_removed: dict[str, int],
        n_dropped: dict[str, int],
        stored: Fit,
        kept: Path,
        tuner: Callable[[nn.Module, Path], None] | None,
    ) -> None:
        self._model, self._collected = collected.model, collected
        self._loss, self._score = loss, score
        self._settings, self._n_removed, self._n_dropped = settings, n_removed, n_dropped
        self._stored, self._kept, self._tuner = stored, kept, tuner

    def row(self, method: str, strategy: str) -> dict[str, Any]:
        """Groups, parameters and losses by phase, from a file as far as they are there."""
        file = self._kept / f"{method} {strategy}.json"
        done = json.loads(file.read_text()) if file.exists() else {}
        if "tuned" in done or ("untuned" in done and self._tuner is None):
            return done
        selected = self._selected(method, strategy, done)
        candidate, stored = self._candidate(method, selected)
        if "untuned" not in done:
            parameters = count_parameters(candidate)
            if method == DROP_FFS:
                parameters = sum(p.numel() for p in candidate.parameters() if p.requires_grad)
            done = {
                "groups": [group.as_json() for group in selected.groups],
                "rank": self._settings.rank if strategy == RELAXED else 0,
                "parameters": parameters,
                "untuned": self._losses(candidate),
            }
            write_atomically(file, json.dumps(done).encode())
        if self._tuner is not None:
            checkpoints = file.with_suffix("")
            self._tuner(candidate, checkpoints)
            candidate.eval()
            round_to_stored(candidate, stored)
            done["tuned"] = self._losses(candidate)
            write_atomically(file, json.dumps(done).encode())
            shutil.rmtree(checkpoints)
        del candidate
        give_back()
        return done

    def _selected(self, method: str, strategy: str, done: dict[str, Any]) -> Selected:
        """Choose the layers of a way, unless they are known. done: its row so far."""
        if method == ORIGINAL:
            return Selected([])
        plain = self._kept / f"{method} {strategy.removesuffix(FITTED)}.json"
        if not done and not self._settings.reconstruct_search and plain.exists():
            done = json.loads(plain.read_text())  # the search is that of the row without fitting
        named = groups_of(done) if done else None
        if not done:
            note(f"{WAYS[method, strategy]}: choosing layers")
        if method == DROP_FFS:
            if named is None:
                drop = partial(drop_feed_forwards, self._model)
                blocks = blocks_of(self._model, self._n_removed)
                named, _ = by_loss(self._model, blocks, drop, self._loss)
            return Selected(named)
        given = self._settings
        options: dict[str, Any] = {"method": method, "strategy": strategy.split()[0]}
        options |= {"remove": given.remove, "anchor": given.anchor}
        n_removed = self._n_dropped if method == DROP else self._n_removed
        if strategy.endswith(FITTED):
            options["reconstruct"] = given.reconstruct
            options["reconstruct_search"] = given.reconstruct_search
        if strategy == RELAXED:
            options["rank"] = given.rank
            n_removed = more_removed(self._model, n_removed, given.rank)
        settings = Settings(**options)
        selector = selector_for(settings)(self._model, settings, n_removed, named)
        return selector.select(self._collected, self._loss, lambda stage: nullcontext())

    def _candidate(self, method: str, selected: Selected) -> tuple[nn.Module, Fit]:
        """A copy of the model with a way applied, and its fit."""
        candidate, stored = copy.deepcopy(self._model), self._stored
        if method == DROP_FFS:
            drop_feed_forwards(candidate, selected.groups)
        elif method != ORIGINAL:
            candidate, stored = compressed(candidate, stored, method, selected)
            if selected.reconstruction:
                steps = self._settings.reconstruct
                selected.reconstruction.fit(candidate, selected.groups, steps)
                round_to_stored(candidate, stored)
        return candidate, stored

    def _losses(self, model: nn.Module) -> dict[str, list[float]]:
        """The loss by example, or a single one of all, in the columns that intervals take."""
        if not isinstance(self._score, CrossEntropy):
            return {"loss": [self._score.of(model)]}
        scored = losses_by_example(model, self._score.batches)
        summed, n = zip(*((total, n) for total, n, _ in scored if n), strict=True)
        return {"negative_log_likelihood": list(summed), "n_tokens": list(n)}


def groups_of(done: dict[str, Any]) -> list[Group]:
    """The layers of a row."""
    return [Group.from_json(entry) for entry in done["groups"]]


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
        tests = {
            name: {"metric": "loss", "score": value}
            for name, value in values.items()
            if math.isfinite(value)
        }
        scored = scored_models(tests, columns, RESAMPLES, SEED)
    rows = []
    for key, done in measured.items():
        losses = {}
        for phase in PHASES:
            if (name := (key, phase)) not in values:
                continue
            interval = None
            if name in scored and name != first:
                interval = scored[name].minus(scored[first]).interval(CONFIDENCE)
            fault = None if key == first[0] else loss.fault(values[first], values[name])
            losses[phase] = Loss(values[name], values[name] - values[first], interval, fault)
        layers = layers_text(groups_of(done)) + (f", rank {done['rank']}" if done["rank"] else "")
        row = Row(WAYS.get(key, ORIGINAL), *key, layers, done["parameters"], losses)
        rows.append(row)
    best = {}
    for phase in rows[0].losses:
        order = sorted(list(measured)[1:], key=lambda key: values[key, phase])
        as_good = [
            WAYS[key]
            for key in order[1:]
            if (key, phase) in scored
            and scored[key, phase].minus(scored[order[0], phase]).interval(CONFIDENCE)[0] <= 0
        ]
        best[phase] = [WAYS[order[0]], *as_good]
    return rows, best


def _mean(columns: dict[str, list[float]]) -> float:
    if "loss" in columns:
        return or_infinite(columns["loss"][0])
    return or_infinite(sum(columns["negative_log_likelihood"]) / sum(columns["n_tokens"]))


def draw(result: Compared, directory: Path) -> None:
    """Draw how far each row's loss is from the original's, as `compared.png` and `.svg`.

    A line for each way, with the parameters that it keeps: all are of about one size. Error bars:
    intervals of the difference. An open circle is untuned. The axis is linear near 0, then
    logarithmic: some ways ruin a model.
    """
    from matplotlib.figure import Figure
    from matplotlib.ticker import NullLocator

    original = result.rows[0]
    figure = Figure(figsize=(8.5, 1.4 + 0.32 * len(result.rows)), layout="constrained")
    axis = figure.subplots()
    phases = list(original.losses)
    for phase in phases:
        style = {"color": "C0" if phase == "tuned" else "#444444", "linestyle": "none"}
        style |= {"marker": "o", "capsize": 2, "linewidth": 0.8}
        style["markerfacecolor"] = "C0" if phase == "tuned" else "white"
        label = f"after {result.steps} steps" if phase == "tuned" else phase
        for y, row in enumerate(result.rows):
            loss = row.losses[phase]
            if (row.way == ORIGINAL and phase == "untuned") or not math.isfinite(loss.difference):
                continue
            bars = None
            if loss.interval:
                low, high = (bound - loss.difference for bound in loss.interval)
                bars = [[max(0.0, -low)], [max(0.0, high)]]
            above = 0.12 * (1 if phase == "tuned" else -1) * (len(phases) - 1)
            axis.errorbar([loss.difference], [y + above], None, bars, label=label, **style)
            label = None
    axis.axvline(0, color="#444444", linewidth=0.8)
    axis.set_xscale("symlog", linthresh=0.05)
    low, high = axis.dataLim.intervalx * 1.2
    axis.set_xlim(low := min(low, -0.01), high := max(high, 0.05))
    axis.set_xticks([x for x in TICKS if low <= x <= high])
    axis.xaxis.set_major_formatter("{x:g}")
    axis.xaxis.set_minor_locator(NullLocator())
    kept = [f"{100 * row.parameters / original.parameters:.1f} %" for row in result.rows]
    names = [f"{row.way}  {share}" for row, share in zip(result.rows, kept, strict=True)]
    axis.set_yticks(range(len(names)), names)
    axis.set_ylim(len(names) - 0.5, -0.5)
    axis.grid(axis="x", linewidth=0.3)
    axis.set_xlabel(f"loss minus the original's: {result.loss}")
    axis.set_title("parameters kept", loc="left", fontsize=9, x=0, ha="right")
    if len(phases) > 1:
        figure.legend(loc="outside upper right", ncols=len(phases), frameon=False)
    axis.spines[["top", "right"]].set_visible(False)
    figure.savefig(directory / "compared.png", dpi=150, metadata={"Software": None})
    figure.savefig(directory / "compared.svg", metadata={"Date": None})
