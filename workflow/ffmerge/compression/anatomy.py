"""The FF sublayers of a model: their sizes, how much merging removes, and how similar they are."""

import tempfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ffmerge.compression.pipeline import data_of_files, files_of
from ffmerge.compression.select import (
    collect,
    n_to_remove,
    output_similarities,
    searches,
    widths_of,
)
from ffmerge.compression.settings import Settings
from ffmerge.compression.source import SourceModel, load_original, with_safetensors
from ffmerge.compression.summary import aligned_columns
from ffmerge.method.cka import mean_off_diagonal
from ffmerge.method.features import Features
from ffmerge.method.reconstruct import MAPS, OUTPUT
from ffmerge.method.tie import count_parameters
from ffmerge.models.pretrained import fit
from ffmerge.models.towers import Tower, towers

SHARES = {"1/6": "1/6", "1/3": "1/3", "1/2": "1/2", "all but one": None}


@dataclass(frozen=True)
class TowerSizes:
    """The sublayers of a tower. widths: (d_model, d_ff) by layer. parameters: by layer."""

    tower: str
    widths: list[tuple[int, int]]
    gated: bool
    parameters: list[int]


@dataclass(frozen=True)
class Removal:
    """Savings of removing a share of the sublayers.

    parameters, bytes: of the smallest and of the largest window; None if there are too few layers
    of equal widths.
    """

    share: str
    sublayers: int
    parameters: tuple[int, int] | None
    bytes: tuple[int, int] | None


def tower_sizes(model: nn.Module) -> list[TowerSizes]:
    """Measure the FF sublayers of every tower. model: may be an outline, without weights."""
    widths = widths_of(model)
    return [
        TowerSizes(
            name,
            widths[name],
            tower.feed_forward.gate is not None,
            [_n_parameters(model, tower, i) for i in range(len(tower))],
        )
        for name, tower in towers(model).items()
    ]


def removals(model: nn.Module, bytes_per_parameter: int) -> list[Removal]:
    """Compute what a window of each of SHARES would remove."""
    parameters = {sizes.tower: sizes.parameters for sizes in tower_sizes(model)}
    n_layers = {tower: len(of_layers) for tower, of_layers in parameters.items()}
    computed = []
    for share, request in SHARES.items():
        n = sum(n_layers.values()) - len(n_layers) if request is None else request
        try:
            removed = n_to_remove(n, n_layers)
        except ValueError:  # so few layers that nothing would be removed
            continue
        count = sum(removed.values())
        try:
            candidates = searches(model, removed, "first")
        except ValueError:
            computed.append(Removal(share, count, None, None))
            continue
        saved = {tower: [] for tower in removed}
        for group in (g for windows in candidates for window in windows for g in window):
            of_layers = parameters[group.tower]
            saved[group.tower].append(sum(of_layers[i] for i in group.layers[1:]))
        least = sum(min(of_windows) for of_windows in saved.values() if of_windows)
        most = sum(max(of_windows) for of_windows in saved.values() if of_windows)
        n_bytes = (least * bytes_per_parameter, most * bytes_per_parameter)
        computed.append(Removal(share, count, (least, most), n_bytes))
    return computed


def bytes_per_parameter(source: SourceModel) -> int:
    """Size of the dtype that most values are stored in; 4 if the files are pickles."""
    n_values: dict[torch.dtype, int] = {}
    for stored in source.stored.values():
        n_values[stored.dtype] = n_values.get(stored.dtype, 0) + stored.n_values
    return max(n_values, key=n_values.get).itemsize if n_values else 4


def as_json(model: nn.Module, source: SourceModel) -> dict[str, Any]:
    """Everything as plain values."""
    return {
        "model": source.name,
        "class": type(model).__name__,
        "parameters": count_parameters(model),
        "bytes": sum(file.stat().st_size for file in source.weights),
        "towers": [asdict(sizes) for sizes in tower_sizes(model)],
        "missing": missing(model, source),
        "removals": [asdict(removal) for removal in removals(model, bytes_per_parameter(source))],
    }


def as_text(model: nn.Module, source: SourceModel) -> str:
    """Everything as two tables for people."""
    n_all = count_parameters(model)
    n_bytes = sum(file.stat().st_size for file in source.weights)
    rows = [("tower", "FF sublayers", "d_model", "d_ff", "gated", "parameters", "of all")]
    for sizes in tower_sizes(model):
        n = sum(sizes.parameters)
        d_model, d_ff = (_listed(widths) for widths in zip(*sizes.widths, strict=True))
        gated = "yes" if sizes.gated else "no"
        share = f"{100 * n / n_all:.1f} %"
        rows.append((sizes.tower, str(len(sizes.widths)), d_model, d_ff, gated, f"{n:,}", share))
    shares = [("remove", "FF sublayers", "parameters", "of all", "bytes")]
    for removal in removals(model, bytes_per_parameter(source)):
        if removal.parameters is None:
            savings = ("too few of one width", "", "")
        else:
            part = _span(tuple(100 * n / n_all for n in removal.parameters), "{:.1f}")
            savings = (
                _span(removal.parameters, "{:,}"),
                f"{part} %",
                _span(removal.bytes, "{:,}"),
            )
        shares.append((removal.share, str(removal.sublayers), *savings))
    head = f"{source.name}: {type(model).__name__}, {n_all:,} parameters, {n_bytes:,} bytes"
    lines = [head, "", *aligned_columns(rows), "", *aligned_columns(shares)]
    if lacking := missing(model, source):
        lines += ["", f"note: the files lack {', '.join(lacking)}; the result will, too"]
    return "\n".join(lines)


def missing(model: nn.Module, source: SourceModel) -> list[str]:
    """The model's tensors that its files lack, such as a pooler's; none for pickles."""
    stored = source.stored
    return sorted(fit(model, stored, source.directory).missing) if stored else []


def _n_parameters(model: nn.Module, tower: Tower, layer: int) -> int:
    return sum(model.get_parameter(name).numel() for name in tower.tensors(layer).values())


def _listed(widths: tuple[int, ...]) -> str:
    return ", ".join(map(str, dict.fromkeys(widths)))


def _span(ends: tuple[float, float], form: str) -> str:
    return " to ".join(dict.fromkeys(form.format(end) for end in ends))


# --- similarity -----------------------------------------------------------------------------------


def similarities(
    source: SourceModel, features: Sequence[str | Path], settings: Settings, entry: dict | None
) -> tuple[dict[str, Tensor], dict[str, list[int]]]:
    """Compute linear CKA of all pairs of FF sublayers' outputs, (n_layers, n_layers) by tower.

    Returns it, and the layers by tower that make massive activations.
    features: files or directories of data. entry: of an architecture that is not in the table.
    """
    with tempfile.TemporaryDirectory() as scratch:
        readable = with_safetensors(source, Path(scratch))
        model = load_original(readable, architecture=entry, partial=True).to(settings.device)
        data = data_of_files(model, source, files_of(features), settings)
        file = Path(scratch) / "outputs"
        massive = collect(model, data.features, {OUTPUT: MAPS[OUTPUT]}, data.n_tokens, file)
        return output_similarities(Features(file, OUTPUT)), massive


def draw(similarity: dict[str, Tensor], name: str, file: Path) -> None:
    """Draw one heat map per tower, in the style of Figure 5.

    similarity: (n_layers, n_layers) by tower. name: of the model, for the titles.
    """
    from matplotlib.figure import Figure

    from ffmerge.method.heat_map import CKA, heat_map

    figure = Figure(figsize=(2.5 * len(similarity) + 0.6, 3.2))
    axes = figure.subplots(1, len(similarity), squeeze=False)
    for axis, (tower, matrix) in zip(axes[0], similarity.items(), strict=True):
        image = heat_map(axis, matrix.numpy())
        axis.set_title(
            f"{name} {tower}\nmean off-diagonal {mean_off_diagonal(matrix):.2f}", fontsize=8
        )
        axis.set_xlabel("FF sublayer")
    axes[0][0].set_ylabel("FF sublayer")
    bar = figure.colorbar(image, cax=axes[0][-1].inset_axes((1.08, 0, 0.07, 1)))
    bar.set_label(CKA)
    bar.outline.set_visible(False)
    figure.savefig(file, dpi=200, bbox_inches="tight")
