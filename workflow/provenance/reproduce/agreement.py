"""Compare two runs: their jobs and a number, as far as the rules promise to reproduce them.

A rule declares what a second run on the same inputs gives again (`reproduces` in workflow/rules/):

    "bits"               every byte of every output
    "decisions"          what was chosen: JSON files and tensors, except floating-point numbers
    {"score": 0.05, …}   each value of that name in JSON and CSV files, and the tensors of an output
                         of that name, within this much; models may differ altogether
"""

import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from math import inf, isnan
from pathlib import Path
from typing import Any

from provenance.cells import DERIVATIONS, JOB, Source, shown
from provenance.csv_files import read_csv
from provenance.digest import sha256_of
from provenance.hashing import MAX_BYTES, has_holes
from provenance.numbers import Number, numbers_of, read_ledgers
from provenance.project import PROJECT
from provenance.records import Record, Records, is_elsewhere, upwards

TEXTS = (".json", ".csv", ".txt")
SAME_BITS, SAME_DECISIONS = "same bits", "same decisions"
UNJUDGED = "not judged: what it reads differs"
SURROUNDINGS = {
    "machine": ("cpu", "gpu", "threads", "arithmetic"),
    "environment": ("python", "image_sha256", "packages"),
}


@dataclass(frozen=True)
class Agreement:
    """The verdict on two runs. holds: None if something is missing that would tell."""

    holds: bool | None
    reason: str

    @property
    def bits(self) -> bool:
        """Whether all outputs have the same bytes."""
        return self.reason == SAME_BITS


class Pair:
    """Two runs of a job, with outputs in two folders of results.

    tolerances: what values may differ by because of the jobs before; this job's own raise them.
    roots: the two repositories or collected folders that the folders of results are in.
    """

    def __init__(
        self,
        old: Record,
        new: Record,
        folders: tuple[str, str],
        tolerances: dict[str, float],
        roots: tuple[Path, Path] = (Path(), Path()),
    ) -> None:
        self.old, self.new, self.folders, self.roots = old, new, folders, roots
        self.promised: str | dict[str, float] = new.content.get("reproduces") or "bits"
        promised = self.promised if isinstance(self.promised, dict) else {}
        self.tolerances = {
            name: max(tolerances.get(name, 0), promised.get(name, 0))
            for name in {*tolerances, *promised}
        }

    @cached_property
    def differing(self) -> list[str]:
        """The outputs of the first run that have other bytes in the second."""
        return [path for path in self.old.outputs if not self._same_bits(path)]

    def agreement(self) -> Agreement:
        """Judge whether the second run gives what the rule promises, by the first one's record."""
        differing = self.differing
        if not differing:
            return Agreement(True, SAME_BITS)
        same_inputs = self._same_inputs()
        if not same_inputs and not isinstance(self.promised, dict):
            return Agreement(True, UNJUDGED)
        if self.promised == "bits":
            return Agreement(False, f"other bits in {', '.join(differing)}")
        telling = [path for path in differing if Path(path).suffix in (*TEXTS, ".safetensors")]
        for path in telling:
            if gone := self._not_as_recorded(path):
                return Agreement(None, gone)
        if self.promised == "decisions":
            return self.decisions()
        return self._within(self.promised if same_inputs else self.tolerances)

    def decisions(self) -> Agreement:
        """Judge whether both runs chose the same, whatever they read."""
        other = [path for path in self.differing if not same_decisions(*self._both(path))]
        reason = f"other decisions in {', '.join(other)}" if other else SAME_DECISIONS
        return Agreement(not other, reason)

    def other_work(self) -> list[str]:
        """List which of parameters and code differ: then nothing was promised."""
        same_params = self.old.part("params") == self.new.part("params")
        same_code = self.old.code_digest == self.new.code_digest
        return ["parameters"] * (not same_params) + ["code"] * (not same_code)

    def other_surroundings(self) -> dict[str, str]:
        """Return what differs of machine and environment: name -> `old -> new`."""
        return {
            name: change
            for part, names in SURROUNDINGS.items()
            for key in names
            for name, change in _differences(
                key, self.old.part(part).get(key), self.new.part(part).get(key)
            )
        }

    def _both(self, path: str) -> tuple[Path, Path]:
        """Return where an output is, in the first and in the second run."""
        paths = zip(self.roots, self.folders, (path, counterpart(path, self.folders)), strict=True)
        old, new = (file_in(*each) for each in paths)
        return old, new

    def _same_bits(self, path: str) -> bool:
        if self.old.outputs[path] == self.new.outputs.get(counterpart(path, self.folders)):
            return True
        if Path(path).suffix not in TEXTS or self._not_as_recorded(path):
            return False
        # They may name their folders of results, which stand for each other, but not in words:
        # results called "out" leave "about" alone.
        names = "|".join(map(re.escape, sorted(self.folders, key=len, reverse=True)))
        old, new = (
            re.sub(rf"(?<![\w-])({names})(?![\w-])", "\0", _text(each)) for each in self._both(path)
        )
        return old == new

    def _same_inputs(self) -> bool:
        """Return whether both read the same; not counting records, which hold times."""
        return all(
            self.new.inputs.get(counterpart(path, self.folders)) == digest
            for path, digest in self.old.inputs.items()
            if not path.endswith(".record.json")
        )

    def _not_as_recorded(self, path: str) -> str:
        """Say in which run an output is not what its record says; empty if it is in both."""
        there = counterpart(path, self.folders)
        recorded = self.old.outputs[path], self.new.outputs.get(there)
        for file, digest, run in zip(self._both(path), recorded, ("first", "second"), strict=True):
            if not file.is_file() or has_holes(file) or sha256_of(file) != digest:
                return f"{path} is not there as the {run} run left it"
        return ""

    def _within(self, tolerances: dict[str, float]) -> Agreement:
        largest: dict[str, float] = {}
        for name, path, _ in self.old.files("output"):
            if Path(path).suffix not in (*TEXTS, ".safetensors"):
                continue
            for metric, distance in distances(name, *self._both(path), set(tolerances)):
                distance = inf if isnan(distance) else distance
                largest[metric] = max(largest.get(metric, 0.0), distance)
        if unseen := sorted(set(self.promised) - set(largest)):
            return Agreement(None, f"none of its outputs has {', '.join(unseen)}")
        reason = ", ".join(f"{name} differs by up to {largest[name]:.2g}" for name in largest)
        return Agreement(all(largest[name] <= tolerances[name] for name in largest), reason)


def counterpart(path: str, folders: tuple[str, str]) -> str:
    """Return the same path in the second folder of results, if it is in the first."""
    old, new = folders
    return new + path.removeprefix(old) if path.startswith(f"{old}/") else path


def file_in(root: Path, results: str, path: str) -> Path:
    """Return where a recorded file is. Raises ValueError if that is outside root and results.

    And for one that is too large to be what its name says.
    """
    file = root / path
    if is_elsewhere(path, root, Path(results)):
        raise ValueError(f"{path} leads out of {root}")
    large = file.is_file() and file.suffix in TEXTS and file.stat().st_size > MAX_BYTES
    if large or (file.is_file() and has_holes(file)):
        raise ValueError(f"{path} is too large to be read")
    return file


def _differences(name: str, old: Any, new: Any) -> Iterator[tuple[str, str]]:
    if isinstance(old, dict) and isinstance(new, dict):
        for key in sorted({*old, *new}):
            yield from _differences(key, old.get(key), new.get(key))
    elif old != new:
        yield name, f"{old} -> {new}"


def _text(file: Path) -> str:
    """Read a text; a ledger without digests of files, since some files hold times."""
    text = file.read_text()
    if not file.name.endswith(".ledger.json"):
        return text
    content = {name: value for name, value in json.loads(text).items() if name != "files"}
    content["about"] = [entry["path"] for entry in content["about"].values()]
    return json.dumps(content)


def same_decisions(old: Path, new: Path) -> bool:
    """Return whether JSON files or tensors agree except in floats; other files may differ."""
    if old.suffix == ".json":
        return _chosen(json.loads(old.read_text())) == _chosen(json.loads(new.read_text()))
    if old.suffix == ".safetensors":
        tensors, others = dict(_tensors(old)), dict(_tensors(new))
        return tensors.keys() == others.keys() and all(
            tensor.dtype.kind == "f"
            or (tensor.shape == others[name].shape and (tensor == others[name]).all())
            for name, tensor in tensors.items()
        )
    return True


def _chosen(value: Any) -> Any:
    """Return a JSON value without its floating-point numbers."""
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
    """Yield how far values of these names are apart; inf where the other file lacks them.

    They are the numbers of that name in JSON and CSV files, and the tensors of an output with that
    name.
    """
    if old.suffix == ".safetensors" and output in metrics:
        others = dict(_tensors(new))
        for name, tensor in _tensors(old):
            other = others.get(name)
            fits = other is not None and other.shape == tensor.shape
            yield output, float(abs(tensor - other).max()) if fits else inf
    elif old.suffix in (".json", ".csv"):
        before, after = (list(_values(_content(file), metrics)) for file in (old, new))
        same_names = [name for name, _ in before] == [name for name, _ in after]
        for (name, was), (_, now) in zip(before, after, strict=False):
            yield name, abs(was - now) if same_names else inf


def _content(file: Path) -> Any:
    return read_csv(file) if file.suffix == ".csv" else json.loads(file.read_text())


def _values(content: Any, names: set[str]) -> Iterator[tuple[str, float]]:
    """Yield the numbers of these names, at any depth."""
    if isinstance(content, list):
        for each in content:
            yield from _values(each, names)
    elif isinstance(content, dict):
        for name, value in content.items():
            if name in names and value not in ("", None):
                yield name, float(value)
            else:
                yield from _values(value, names)


Compared = Sequence[tuple[Pair | None, Agreement]]  # no pair where the first run has no record


def compare_jobs(
    targets: Sequence[str], old: Records, new: Records, folders: tuple[str, str]
) -> Compared:
    """Compare each job of the second run with the first's, each after those it builds on."""
    compared: list[tuple[Pair | None, Agreement]] = []
    tolerances: dict[Path, dict[str, float]] = {}
    for record in new.ancestry(*(counterpart(target, folders) for target in targets)):
        inherited: dict[str, float] = {}
        for maker in filter(None, map(new.maker, record.inputs)):
            for name, tolerance in tolerances.get(maker.file, {}).items():
                inherited[name] = max(inherited.get(name, 0.0), tolerance)
        first = old.by_file.get(Path(counterpart(str(record.file), folders[::-1])))
        if first is None:
            compared.append((None, Agreement(None, f"the first run has no record of {record}")))
            continue
        pair = Pair(first, record, folders, inherited, (old.root, new.root))
        tolerances[record.file] = pair.tolerances
        try:
            agreement = pair.agreement()
        except Exception as error:  # a file that somebody altered may raise anything
            agreement = Agreement(None, f"cannot be compared: {error}")
        compared.append((pair, agreement))
    return compared


def made_files(number: Number, records: Records) -> list[str]:
    """Return what to make again: the outputs that a number is read from, or its table.

    Raises ValueError if no job makes it: a number that is copied from the repository; and for a
    file outside these results, which a second run must not overwrite.
    """
    files = [file for file in number.files if not PROJECT.embeds(file)]
    if number.cell["derivation"] == JOB:  # only the table's own job can compute it
        outputs = [*number.ledger.about, str(number.ledger.file)]
    elif files:
        outputs = [_output_with(file, records.maker(file)) for file in files]
    else:
        raise ValueError(f"{number.id} stands in {', '.join(number.files)}: no job makes that")
    for path in outputs:
        if ".." in Path(path).parts or not Path(path).is_relative_to(records.results):
            raise ValueError(f"{number.id} stands in {path}, which is not in {records.results}")
    return list(dict.fromkeys(outputs))


def _output_with(file: str, maker: Record | None) -> str:
    """Return the output that a file is, or is in: Snakemake knows a directory only as a whole."""
    return next((path for path in upwards(file) if maker and path in maker.outputs), file)


@dataclass(frozen=True)
class Remade:
    """A number in two runs, unrounded and as shown. agreement: whether it may differ like that."""

    before: Any
    after: Any
    shown_before: str
    shown_after: str
    agreement: Agreement


def remade(number: Number, compared: Compared, folders: tuple[str, str]) -> Remade:
    """Compute a number from the files of the second run, and judge it."""
    cell = number.cell
    if cell["derivation"] == JOB:
        ledgers, _ = read_ledgers(Path(folders[1]))
        again = next((each for each in numbers_of(ledgers) if each.id == number.id), None)
        if again is None:
            raise ValueError(f"the second run has no number {number.id}")
        after, text = again.cell["raw"], again.cell["shown"]
    else:
        values = []
        for source in cell["sources"]:
            file = file_in(Path(), folders[1], counterpart(source["file"], folders))
            values.append(Source(file, source["pointer"]).value())
        after = DERIVATIONS[cell["derivation"]](values)
        text = shown(after, cell["rule"])
    agreement = number_agreement(cell, after, compared, folders)
    return Remade(cell["raw"], after, cell["shown"], text, agreement)


def number_agreement(
    cell: dict[str, Any],
    after: Any,
    compared: Compared,
    folders: tuple[str, str],
    roots: tuple[Path, Path] = (Path(), Path()),
) -> Agreement:
    """Judge a number of the first run (an entry of its ledger) by its value in the second."""
    if cell["raw"] == after:
        return Agreement(True, "the same number")
    if cell["derivation"] == JOB:
        return Agreement(None, "another number; what it may differ by, no rule declares")
    for file, pointer in dict.fromkeys((each["file"], each["pointer"]) for each in cell["sources"]):
        try:
            both = zip(roots, folders, (file, counterpart(file, folders)), strict=True)
            old, new = (Source(file_in(*each), pointer).value() for each in both)
        except (OSError, ValueError, RecursionError) as error:
            return Agreement(None, f"another number, and what it came from is gone: {error}")
        metric = pointer.rpartition("/")[2]
        pairs = (pair for pair, _ in compared if pair and file in pair.old.outputs)
        tolerance = next((pair.tolerances.get(metric) for pair in pairs), None)
        if old != new and (tolerance is None or not abs(old - new) <= tolerance):
            allowed = f"may differ by {tolerance:g}" if tolerance else "may not differ"
            return Agreement(False, f"another number: {metric} {old!r} -> {new!r} {allowed}")
    return Agreement(True, "within the tolerance that rules declare")
