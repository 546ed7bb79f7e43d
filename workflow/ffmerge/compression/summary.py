"""Results of a compression or an export, printed for people and as JSON for machines."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ffmerge.compression.select import Tried
from ffmerge.method.groups import Group


@dataclass(frozen=True)
class Compressed:
    """A compressed model. Pairs hold the original's value and the compressed model's.

    method: permute or vanilla. bytes: size of the files of weights. loss: its name. tried: windows
    with their losses. seconds: by stage.
    """

    model: str
    out: Path
    form: str
    method: str
    groups: list[Group]
    sublayers: tuple[int, int]
    parameters: tuple[int, int]
    bytes: tuple[int, int]
    loss: str
    losses: tuple[float, float]
    tried: Tried
    n_tokens: int | None
    n_held_out: int
    seconds: dict[str, float]
    warnings: tuple[str, ...] = ()
    record: str = ""

    def as_json(self) -> dict[str, Any]:
        """The result as plain values."""
        values = vars(self) | _plain(self)
        for name in ("sublayers", "parameters", "bytes"):
            values[name] = dict(zip(("before", "after"), values[name], strict=True))
        before, after = values.pop("losses")
        values["loss"] = {"of": self.loss, "before": before, "after": after}
        values["tried"] = [
            {"groups": [group.as_json() for group in window], "loss": loss}
            for window, loss in self.tried
        ]
        return values

    def __str__(self) -> str:
        rows = [
            ("FF sublayers", *map(str, self.sublayers), _change(*self.sublayers)),
            ("parameters", *(f"{n:,}" for n in self.parameters), _change(*self.parameters)),
            ("bytes on disk", *(f"{n:,}" for n in self.bytes), _change(*self.bytes)),
            ("loss", *(f"{loss:.4f}" for loss in self.losses), ""),
        ]
        lines = [
            f"{self.model} -> {self.out} ({self.form})",
            f"merged: {layers_text(self.groups)}",
            "",
            *aligned_columns([("", "before", "after", ""), *rows]),
            "",
            f"loss: {self.loss}, on {self.n_held_out:,} held-out examples, before any tuning",
        ]
        if self.tried:
            lines += ["", *windows_table(self.tried, self.groups)]
        spent = ", ".join(f"{stage} {seconds:.1f}" for stage, seconds in self.seconds.items())
        lines += ["", f"seconds: {spent}", *(f"note: {warning}" for warning in self.warnings)]
        return "\n".join(lines)


@dataclass(frozen=True)
class Exported:
    """A merged model in another form. sublayers: computed and stored. bytes: of the weights."""

    model: str
    out: Path
    form: str
    groups: list[Group]
    sublayers: tuple[int, int]
    parameters: int
    bytes: int
    score: dict[str, Any] | None
    warnings: tuple[str, ...] = ()
    record: str = ""

    def as_json(self) -> dict[str, Any]:
        """The result as plain values."""
        sublayers = dict(zip(("computed", "stored"), self.sublayers, strict=True))
        return vars(self) | _plain(self) | {"sublayers": sublayers}

    def __str__(self) -> str:
        computed, stored = self.sublayers
        lines = [
            f"{self.model} -> {self.out} ({self.form})",
            f"merged: {layers_text(self.groups)}",
            f"FF sublayers stored: {computed if self.form == 'expanded' else stored} of {computed}",
            f"distinct parameters: {self.parameters:,}; bytes on disk: {self.bytes:,}",
        ]
        if self.score:
            lines.append(f"{self.score['metric']} on the test split: {self.score['score']:.4g}")
        return "\n".join([*lines, *(f"note: {warning}" for warning in self.warnings)])


def _plain(result: Compressed | Exported) -> dict[str, Any]:
    return {
        "out": str(result.out),
        "groups": [group.as_json() for group in result.groups],
        "warnings": list(result.warnings),
    }


def windows_table(tried: Tried, chosen: list[Group]) -> list[str]:
    """A table of every window with its loss; the chosen ones are marked."""
    rows = [("window", "loss", "")]
    for window, loss in tried:
        mark = "chosen" if all(group in chosen for group in window) else ""
        rows.append((layers_text(window), f"{loss:.4f}", mark))
    return aligned_columns(rows)


def aligned_columns(rows: list[tuple[str, ...]]) -> list[str]:
    """Align columns: the first to the left, the others to the right."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return [
        "  ".join(
            cell.ljust(width) if i == 0 else cell.rjust(width)
            for i, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    ]


def layers_text(groups: list[Group]) -> str:
    """Groups as text: `encoder 3-7; decoder 2-4, 8-10`; layers that are not adjacent: `1+4+7`."""
    of_tower: dict[str, list[str]] = {}
    for group in groups:
        first, last = group.layers[0], group.layers[-1]
        adjacent = last - first + 1 == len(group.layers)
        layers = f"{first}-{last}" if adjacent else "+".join(map(str, group.layers))
        of_tower.setdefault(group.tower, []).append(layers)
    return "; ".join(f"{tower} {', '.join(layers)}" for tower, layers in of_tower.items())


def _change(before: int, after: int) -> str:
    return f"{100 * (after - before) / before:+.1f} %"
