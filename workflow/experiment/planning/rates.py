"""What a plan reckons with: rates with their units and sources, sizes of data, shapes of models."""

import csv
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from experiment.variants import BASE, INT8, TUNED_BASE, Variant

SOURCES = ("measured", "stated", "assumed")


@dataclass(frozen=True)
class Shape:
    """A model of config/paper_reported/models.csv, all in numbers of parameters or of layers.

    layer: of one layer of each tower. n_layers: of each tower.
    """

    n_layers: int
    d_model: int
    d_ff: int
    parameters: int
    feed_forward: int
    layer: tuple[int, ...]

    @property
    def n_towers(self) -> int:
        """1, or 2 of an encoder-decoder."""
        return len(self.layer)

    @property
    def rest(self) -> int:
        """Parameters outside the layers: embeddings, and the head that shares them."""
        return self.parameters - self.n_layers * sum(self.layer)

    def computed(self, model: str) -> "Shape":
        """What a pass through a model of this name computes: all that is merged, none dropped."""
        variant = _variant(model)
        if variant is None or variant.method != "drop":
            return self
        n_layers, parameters = self.n_layers - variant.k, self.stored(model)
        return Shape(n_layers, self.d_model, self.d_ff, parameters, self.feed_forward, self.layer)

    def stored(self, model: str) -> int:
        """Parameters that a model of this name has: of k merged sublayers of each tower, one."""
        variant = _variant(model)
        if variant is None:
            return self.parameters
        if variant.method == "drop":
            return self.parameters - variant.k * sum(self.layer)
        return self.parameters - self.n_towers * (variant.k - 1) * self.feed_forward


def _variant(model: str) -> Variant | None:
    return None if model in (BASE, TUNED_BASE) else Variant.parse(model.removesuffix(INT8))


def read_shapes(file: Path) -> dict[str, Shape]:
    """Each model's shape, by the name of its repository."""
    with file.open(newline="") as stream:
        rows = list(csv.DictReader(stream))
    return {
        row["repository"]: Shape(
            *(int(row[key]) for key in ("n_layers", "d_model", "d_ff", "n_parameters")),
            int(row["ff_parameters"]),
            tuple(int(n) for n in row["layer_parameters"].split("/")),
        )
        for row in rows
    }


class Rates:
    """The file of rates: `rates["read"]` is a value, `rates.data` the sizes of data sets.

    Raises ValueError naming a rate that lacks its value, its unit, or its source.
    """

    def __init__(self, file: Path) -> None:
        content = yaml.safe_load(file.read_text())
        self.machine: dict[str, Any] = content["machine"]
        self.entries: dict[str, dict[str, Any]] = content["rates"]
        self.data: dict[str, dict[str, Any]] = content["data"]
        self.file = file
        for name, entry in {**self.entries, **self.data}.items():
            needed = {"source"} if name in self.data else {"value", "unit", "source"}
            if lacking := sorted(needed - set(entry)):
                raise ValueError(f"{file}: {name} has no {', '.join(lacking)}")
            if not str(entry["source"]).startswith(SOURCES):
                raise ValueError(f"{file}: source of {name}: begins with {', '.join(SOURCES)}")
            value = entry.get("value", 0)
            numbers = value.values() if isinstance(value, dict) else [value]
            if not all(isinstance(number, int | float) for number in numbers):
                raise ValueError(f"{file}: {name} is no number: {value!r} (YAML wants 1.0e+9)")

    def __getitem__(self, name: str) -> Any:
        return self.entries[name]["value"]

    def split(self, dataset: str | None, split: str) -> dict[str, float]:
        """`bytes`, `examples` and `cache_bytes` of a split.

        Raises ValueError naming a data set, or a split, whose sizes are not in the file.
        """
        if split not in self.data.get(dataset, {}):
            raise ValueError(f"{self.file}: data.{dataset} has no sizes of {split}; put them there")
        return self.data[dataset][split]
