"""The FF sublayers of a model by tower, and what each share of them would remove."""

from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import nn

from ffmerge.compression import choice
from ffmerge.compression.output.summary import table
from ffmerge.compression.request import n_to_remove
from ffmerge.compression.source import Source
from ffmerge.method.tie import count_parameters
from ffmerge.models.towers import Tower, towers

RATIOS = {"1/6": "1/6", "1/3": "1/3", "1/2": "1/2", "all but one": None}


@dataclass(frozen=True)
class Anatomy:
    """Of one tower. widths: (d_model, d_ff) of each layer. parameters: of each FF sublayer."""

    tower: str
    widths: list[tuple[int, int]]
    gated: bool
    parameters: list[int]


@dataclass(frozen=True)
class Removal:
    """What a share removes. parameters, bytes: of the least and of the largest window; None where
    layers of one width are too few."""

    share: str
    sublayers: int
    parameters: tuple[int, int] | None
    bytes: tuple[int, int] | None


def anatomy(model: nn.Module) -> list[Anatomy]:
    """The towers of a model. model: weights are not needed (`outline`)."""
    found = []
    for name, tower in towers(model).items():
        layers = range(len(tower))
        found.append(
            Anatomy(
                name,
                [_widths(model, tower, i) for i in layers],
                tower.feed_forward.gate is not None,
                [_n_parameters(model, tower, i) for i in layers],
            )
        )
    return found


def removals(model: nn.Module, bytes_each: int) -> list[Removal]:
    """What a window of each of RATIOS would remove. bytes_each: that a parameter takes on disk."""
    sizes = {each.tower: each.parameters for each in anatomy(model)}
    n_layers = {tower: len(of) for tower, of in sizes.items()}
    found = []
    for share, asked in RATIOS.items():
        n = sum(n_layers.values()) - len(n_layers) if asked is None else asked
        try:
            removed = n_to_remove(n, n_layers)
        except ValueError:  # so few layers that nothing would be removed
            continue
        count = sum(removed.values())
        try:
            windows = choice.windows_of(model, removed, "first")
        except ValueError:
            found.append(Removal(share, count, None, None))
            continue
        gone = {tower: [] for tower in removed}
        for window in windows:
            for group in window:
                gone[group.tower].append(sum(sizes[group.tower][i] for i in group.layers[1:]))
        least = sum(min(of) for of in gone.values() if of)
        most = sum(max(of) for of in gone.values() if of)
        found.append(Removal(share, count, (least, most), (least * bytes_each, most * bytes_each)))
    return found


def bytes_of_a_parameter(source: Source) -> int:
    """Of the dtype that most of a model's values are stored in; 4 where that is not known."""
    n_values: dict[torch.dtype, int] = {}
    for stored in source.stored.values():
        n_values[stored.dtype] = n_values.get(stored.dtype, 0) + stored.n_values
    return max(n_values, key=n_values.get).itemsize if n_values else 4


def as_json(model: nn.Module, source: Source) -> dict[str, Any]:
    """Everything as plain values."""
    return {
        "model": source.name,
        "class": type(model).__name__,
        "parameters": count_parameters(model),
        "bytes": sum(file.stat().st_size for file in source.weights),
        "towers": [asdict(each) for each in anatomy(model)],
        "removals": [asdict(each) for each in removals(model, bytes_of_a_parameter(source))],
    }


def as_text(model: nn.Module, source: Source) -> str:
    """The same for people."""
    n_all = count_parameters(model)
    n_bytes = sum(file.stat().st_size for file in source.weights)
    rows = [("tower", "FF sublayers", "d_model", "d_ff", "gated", "parameters", "of all")]
    for each in anatomy(model):
        n = sum(each.parameters)
        d_model, d_ff = (_listed(widths) for widths in zip(*each.widths, strict=True))
        gated = "yes" if each.gated else "no"
        share = f"{100 * n / n_all:.1f} %"
        rows.append((each.tower, str(len(each.widths)), d_model, d_ff, gated, f"{n:,}", share))
    shares = [("remove", "FF sublayers", "parameters", "of all", "bytes")]
    for each in removals(model, bytes_of_a_parameter(source)):
        if each.parameters is None:
            told = ("too few of one width", "", "")
        else:
            part = _span(tuple(100 * n / n_all for n in each.parameters), "{:.1f}")
            told = (_span(each.parameters, "{:,}"), f"{part} %", _span(each.bytes, "{:,}"))
        shares.append((each.share, str(each.sublayers), *told))
    head = f"{source.name}: {type(model).__name__}, {n_all:,} parameters, {n_bytes:,} bytes"
    return "\n".join([head, "", *table(rows), "", *table(shares)])


def _widths(model: nn.Module, tower: Tower, layer: int) -> tuple[int, int]:
    shape = model.get_submodule(tower.module(layer, "down")).weight.shape
    d_model, d_ff = shape if tower.feed_forward.layout == "out_in" else shape[::-1]
    return d_model, d_ff


def _n_parameters(model: nn.Module, tower: Tower, layer: int) -> int:
    return sum(model.get_parameter(name).numel() for name in tower.tensors(layer).values())


def _listed(widths: tuple[int, ...]) -> str:
    return ", ".join(map(str, dict.fromkeys(widths)))


def _span(ends: tuple[float, float], form: str) -> str:
    return " to ".join(dict.fromkeys(form.format(end) for end in ends))
