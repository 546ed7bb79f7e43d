"""A ledger as a page shows it: a table, or a figure with a table of its points."""

import base64
import re
from collections.abc import Iterator, Sequence
from itertools import groupby
from pathlib import Path
from typing import Any

from provenance.numbers import Ledger

# seaborn's magma, as Figures 5 and 6 have it, at 0, 1/8 … 1
MAGMA = ["000004", "1d1147", "51127c", "832681", "b73779", "e75263", "fc8961", "fec488", "fcfdbf"]


def table(ledger: Ledger, columns: Sequence[str] | None = None) -> dict[str, Any]:
    """A table: its columns, and its rows of cells.

    columns: those to show, by default all. A cell has `text`, `id`, the place of its `column`, and
    `span`: for how many rows it stands, where leading texts repeat; none in a row that is covered.
    """
    content = ledger.content
    names = list(columns or content["columns"])
    ids = {(cell["row"], cell["column"]): cell for cell in content["cells"]}
    rows = [
        [
            _cell(row[content["columns"].index(name)], ids.get((n, name))) | {"column": place}
            for place, name in enumerate(names)
        ]
        for n, row in enumerate(content["rows"], start=1)
    ]
    numeric = {cell["column"] for cell in content["cells"]}
    lead = next((n for n, name in enumerate(names) if name in numeric), len(names))
    _span(rows, lead)
    return {
        "columns": [{"name": name, "numeric": name in numeric} for name in names],
        "rows": rows,
        "groups": [row[0]["span"] > 0 for row in rows],
    }


def points(ledger: Ledger) -> dict[str, Any]:
    """The points of a figure: heat maps of those that are a pair of layers, a table of the rest."""
    whole = table(ledger)
    names = [column["name"] for column in whole["columns"]]
    if "layers" not in names or "panel" not in names:
        return {"maps": [], "table": whole}
    panel, layers = names.index("panel"), names.index("layers")
    raw = {cell["id"]: cell["raw"] for cell in ledger.content["cells"]}
    pairs, rest = [], []
    for row, texts in zip(whole["rows"], ledger.content["rows"], strict=True):
        pair = re.fullmatch(r"(\d+), (\d+)", texts[layers])
        if pair:
            pairs.append((texts[panel], int(pair[1]), row[-1] | _coloured(raw[row[-1]["id"]])))
        else:
            rest.append([_cell(text, None) | cell for text, cell in zip(texts, row, strict=True)])
    if not pairs:
        return {"maps": [], "table": whole}
    _span(rest, layers)
    whole |= {"rows": rest, "groups": [row[0]["span"] > 0 for row in rest]}
    return {"maps": list(_maps(pairs)), "table": whole if rest else None}


def picture(ledger: Ledger, root: Path = Path()) -> str | None:
    """A figure's PNG as a data URI; None if it is not there."""
    for path in ledger.about:
        if path.endswith(".png") and (root / path).exists():
            return "data:image/png;base64," + base64.b64encode((root / path).read_bytes()).decode()
    return None


def _cell(text: str, cell: dict[str, Any] | None) -> dict[str, Any]:
    """cell: the ledger's entry, of a number; one that is not rounded there is cut short here."""
    shown = {"text": text, "id": cell["id"] if cell else None, "span": 1}
    if cell and cell["rule"] == "{}" and isinstance(cell["raw"], float):
        shown["text"] = f"{cell['raw']:.4g}"
    return shown


def _span(rows: Sequence[list[dict[str, Any]]], lead: int) -> None:
    """Let texts in the first `lead` columns that repeat stand once, for all their rows."""
    for column in range(lead):
        key = lambda row, upto=column: [cell["text"] for cell in row[: upto + 1]]  # noqa: E731
        for _, same in groupby(rows, key):
            first, *others = list(same)
            first[column]["span"] = 1 + len(others)
            for row in others:
                row[column]["span"] = 0


def _maps(pairs: Sequence[tuple[str, int, dict[str, Any]]]) -> Iterator[dict[str, Any]]:
    for panel, of_panel in groupby(pairs, lambda pair: pair[0]):
        by_row = groupby(of_panel, lambda pair: pair[1])
        yield {"panel": panel, "rows": [[cell for *_, cell in row] for _, row in by_row]}


def _coloured(value: float) -> dict[str, Any]:
    """The colour of a number in [0, 1], and whether what is written on it is to be dark."""
    place = min(max(value, 0.0), 1.0) * (len(MAGMA) - 1)
    low = min(int(place), len(MAGMA) - 2)
    parts = [
        round(int(a, 16) + (place - low) * (int(b, 16) - int(a, 16)))
        for a, b in zip(*(re.findall("..", MAGMA[n]) for n in (low, low + 1)), strict=True)
    ]
    bright = 0.299 * parts[0] + 0.587 * parts[1] + 0.114 * parts[2] > 140
    return {"colour": "#{:02x}{:02x}{:02x}".format(*parts), "dark": bright}
