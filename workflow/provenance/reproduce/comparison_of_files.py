"""How two files of two runs differ: in text, in decisions, in values of a name."""

import json
from collections.abc import Iterator
from math import inf
from pathlib import Path
from typing import Any

from provenance.csv_files import read_csv


def same_text(old: Path, new: Path, folders: tuple[str, str]) -> bool:
    """Whether two text files differ in nothing but the folder of results that they name."""
    return _text(old) == _text(new).replace(*reversed(folders))


def _text(file: Path) -> str:
    """A file's text; of a ledger without the digests of files, of which some hold times."""
    text = file.read_text()
    if not file.name.endswith(".ledger.json"):
        return text
    content = {name: value for name, value in json.loads(text).items() if name != "files"}
    content["about"] = [each["path"] for each in content["about"].values()]
    return json.dumps(content)


def same_decisions(old: Path, new: Path) -> bool:
    """Whether JSON files or tensors agree but for floating-point numbers; others may differ."""
    if old.suffix == ".json":
        return _chosen(json.loads(old.read_text())) == _chosen(json.loads(new.read_text()))
    if old.suffix == ".safetensors":
        tensors = dict(_tensors(old)), dict(_tensors(new))
        return tensors[0].keys() == tensors[1].keys() and all(
            tensor.dtype.kind == "f"
            or (tensor.shape == tensors[1][name].shape and (tensor == tensors[1][name]).all())
            for name, tensor in tensors[0].items()
        )
    return True


def _chosen(value: Any) -> Any:
    """A JSON value without its floating-point numbers."""
    if isinstance(value, dict):
        return {name: _chosen(each) for name, each in value.items()}
    if isinstance(value, list):
        return [_chosen(each) for each in value]
    return None if isinstance(value, float) else value


def _tensors(file: Path) -> Iterator[tuple[str, Any]]:
    from safetensors import safe_open

    with safe_open(file, "numpy") as opened:
        for name in opened.keys():  # noqa: SIM118 (it is no dict)
            yield name, opened.get_tensor(name)


def distances(output: str, old: Path, new: Path, metrics: set[str]) -> Iterator[tuple[str, float]]:
    """How far values of these names are apart; infinitely, where the other file lacks them.

    They are the numbers of that name in JSON and CSV files, and the tensors of an output that is
    called so.
    """
    if old.suffix == ".safetensors" and output in metrics:
        others = dict(_tensors(new))
        for name, tensor in _tensors(old):
            other = others.get(name)
            fits = other is not None and other.shape == tensor.shape
            yield output, float(abs(tensor - other).max()) if fits else inf
    elif old.suffix in (".json", ".csv"):
        values = [list(_values(_content(file), metrics)) for file in (old, new)]
        names = [[name for name, _ in each] for each in values]
        for (name, was), (_, now) in zip(*values, strict=False):
            yield name, abs(was - now) if names[0] == names[1] else inf


def _content(file: Path) -> Any:
    return read_csv(file) if file.suffix == ".csv" else json.loads(file.read_text())


def _values(content: Any, names: set[str]) -> Iterator[tuple[str, float]]:
    """The numbers of these names, wherever they stand."""
    if isinstance(content, list):
        for each in content:
            yield from _values(each, names)
    elif isinstance(content, dict):
        for name, value in content.items():
            if name in names and value not in ("", None):
                yield name, float(value)
            else:
                yield from _values(value, names)
