"""The FF sublayers of a model: their sizes, how much merging removes, and how similar they are."""

import tempfile
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from ffmerge.compression import select
from ffmerge.compression.pipeline import read_data, size_of
from ffmerge.compression.settings import Settings
from ffmerge.compression.source import SourceModel, load_original, with_safetensors
from ffmerge.compression.summary import aligned_columns
from ffmerge.extensions.reconstruct import MAPS, OUTPUT
from ffmerge.method.cka import mean_off_diagonal
from ffmerge.method.features import Features
from ffmerge.models.pretrained import fit, quiet
from ffmerge.models.size import count_parameters
from ffmerge.models.towers import towers

SHARES = {"1/6": "1/6", "1/3": "1/3", "1/2": "1/2", "all but one": None}


@dataclass
class Anatomy:
    """The FF sublayers of a model.

    towers: of each `tower`, `widths` (d_model, d_ff) and `parameters` of every layer, and whether
    they are `gated`. missing: tensors that the files lack, such as a pooler's; none for pickles.
    removals: for each `share`, the number of `sublayers`, and `parameters` and `bytes` that the
    smallest and the largest window save; None if there are too few layers of equal widths. cka,
    massive: with data, linear CKA of all pairs of FF outputs, and the layers that make massive
    activations, both by tower.
    """

    model: str
    model_class: str
    parameters: int
    bytes: int
    towers: list[dict[str, Any]]
    missing: list[str]
    removals: list[dict[str, Any]]
    cka: dict[str, list[list[float]]] | None = None
    massive: dict[str, list[int]] | None = None

    def as_json(self) -> dict[str, Any]:
        """Everything as plain values."""
        values = {"model": self.model, "class": self.model_class, **vars(self)}
        del values["model_class"]
        return {key: value for key, value in values.items() if value is not None}

    def __str__(self) -> str:
        def share(n: int) -> str:
            return f"{100 * n / self.parameters:.1f}"

        rows = [("tower", "FF sublayers", "d_model", "d_ff", "gated", "parameters", "of all")]
        for of in self.towers:
            n, widths = sum(of["parameters"]), zip(*of["widths"], strict=True)
            d_model, d_ff = (", ".join(map(str, dict.fromkeys(each))) for each in widths)
            cells = (d_model, d_ff, "yes" if of["gated"] else "no", f"{n:,}", f"{share(n)} %")
            rows.append((of["tower"], str(len(of["widths"])), *cells))
        shares = [("remove", "FF sublayers", "parameters", "of all", "bytes")]
        for removal in self.removals:
            cells = ("too few of one width", "", "")
            if saved := removal["parameters"]:
                parameters, n_bytes = (
                    _span(f"{n:,}" for n in each) for each in (saved, removal["bytes"])
                )
                cells = (parameters, f"{_span(map(share, saved))} %", n_bytes)
            shares.append((removal["share"], str(removal["sublayers"]), *cells))
        lines = [
            f"{self.model}: {self.model_class}, {self.parameters:,} parameters, {self.bytes:,} "
            "bytes",
            *("", *aligned_columns(rows), "", *aligned_columns(shares)),
        ]
        if self.missing:
            lacking = ", ".join(self.missing)
            lines += ["", f"note: the files lack {lacking}; the result will, too"]
        if self.massive:
            lines.append(f"note: {select.massive_text(self.massive)}")
        return "\n".join(lines)


def anatomy_of(model: nn.Module, source: SourceModel) -> Anatomy:
    """Measure a model, which may be an outline, and what merging would remove."""
    widths = select.widths_of(model)
    sizes, parameters = [], {}
    for name, tower in towers(model).items():
        parameters[name] = [
            sum(model.get_parameter(tensor).numel() for tensor in tower.tensors(layer).values())
            for layer in range(len(tower))
        ]
        gated = tower.feed_forward.gate is not None
        of_tower = {"tower": name, "widths": widths[name], "gated": gated}
        sizes.append(of_tower | {"parameters": parameters[name]})
    return Anatomy(
        source.name,
        type(model).__name__,
        count_parameters(model),
        size_of(source.weights),
        sizes,
        sorted(fit(model, source.stored, source.directory).missing) if source.stored else [],
        _removals(model, parameters, _value_bytes(source)),
    )


def _removals(
    model: nn.Module, parameters: dict[str, list[int]], value_bytes: int
) -> list[dict[str, Any]]:
    """Compute what a window of each of SHARES would remove. parameters: by tower and layer."""
    n_layers = {tower: len(of_layers) for tower, of_layers in parameters.items()}
    computed = []
    for share, request in SHARES.items():
        n = sum(n_layers.values()) - len(n_layers) if request is None else request
        try:
            removed = select.n_to_remove(n, n_layers)
        except ValueError:  # so few layers that nothing would be removed
            continue
        removal = {"share": share, "sublayers": sum(removed.values())}
        computed.append(removal | {"parameters": None, "bytes": None})
        try:
            candidates = select.searches(model, removed, "first")
        except ValueError:
            continue
        saved: dict[str, list[int]] = {}
        for group in (g for windows in candidates for window in windows for g in window):
            of_layers = parameters[group.tower]
            n_saved = sum(of_layers[i] for i in group.layers[1:])
            saved.setdefault(group.tower, []).append(n_saved)
        least, most = (sum(map(end, saved.values())) for end in (min, max))
        n_bytes = (least * value_bytes, most * value_bytes)
        computed[-1] |= {"parameters": (least, most), "bytes": n_bytes}
    return computed


def _value_bytes(source: SourceModel) -> int:
    """Size of the dtype that most values are stored in; 4 if the files are pickles."""
    n_values: Counter = Counter()
    for stored in source.stored.values():
        n_values[stored.dtype] += stored.n_values
    return n_values.most_common(1)[0][0].itemsize if n_values else 4


def _span(ends: Iterable[str]) -> str:
    return " to ".join(dict.fromkeys(ends))


# --- similarity -----------------------------------------------------------------------------------


@quiet()
def similarities(
    source: SourceModel, features: Sequence[str | Path], settings: Settings, entry: dict | None
) -> tuple[dict[str, Tensor], dict[str, list[int]]]:
    """Compute linear CKA of all pairs of FF sublayers' outputs, (n_layers, n_layers) by tower.

    Returns it, and the layers by tower that make massive activations.
    features: files or directories of data. entry: of an architecture that is not in the table.
    """
    with tempfile.TemporaryDirectory() as scratch:
        readable = with_safetensors(source, Path(scratch))
        model = load_original(readable, architecture=entry).to(settings.device)
        data = read_data(model, source, (features, None), settings)
        file = Path(scratch) / "outputs"
        massive = select.collect(model, data, {OUTPUT: MAPS[OUTPUT]}, file)
        return select.output_similarities(Features(file, OUTPUT)), massive


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
