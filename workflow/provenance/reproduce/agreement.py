"""Whether two runs of a job agree as far as its rule promises: its class of determinism.

A rule declares what a second run on the same inputs gives again (`reproduces` in workflow/rules/):

    "bits"               the very bytes of every output
    "decisions"          what was chosen: JSON files and tensors, but for floating-point numbers
    {"score": 0.05, …}   each value of that name in JSON and CSV files, and the tensors of an output
                         of that name, within this much; models may be others altogether
"""

from collections.abc import Iterator
from dataclasses import dataclass
from math import inf, isnan
from pathlib import Path
from typing import Any

from provenance.digest import sha256_of
from provenance.records import Record
from provenance.reproduce.comparison_of_files import distances, same_decisions, same_text

Class = str | dict[str, float]
TEXTS = (".json", ".csv", ".txt")
SURROUNDINGS = {
    "machine": ("cpu", "gpu", "threads", "arithmetic"),
    "environment": ("python", "image_sha256", "packages"),
}


@dataclass(frozen=True)
class Agreement:
    """Of two runs of a job. holds: None if something is missing that tells. said: in words."""

    holds: bool | None
    said: str

    @property
    def bits(self) -> bool:
        return self.said == SAME_BITS


SAME_BITS = "same bits"


class Pair:
    """Two runs of a job, with outputs in two folders of results.

    tolerances: what values may differ by that follow from what ran before; raised by its own.
    """

    def __init__(
        self, old: Record, new: Record, folders: tuple[str, str], tolerances: dict[str, float]
    ) -> None:
        self.old, self.new, self.folders = old, new, folders
        own = new.content["reproduces"]
        self.promised: Class = own
        own = own if isinstance(own, dict) else {}
        names = {*tolerances, *own}
        self.tolerances = {name: max(tolerances.get(name, 0), own.get(name, 0)) for name in names}

    def agreement(self) -> Agreement:
        """Whether the second run gives what the rule declares, by the first one's record."""
        differing = [path for path in self.old.outputs if not self._same_bits(path)]
        if not differing:
            return Agreement(True, SAME_BITS)
        same_inputs = self._same_inputs()
        if not same_inputs and not isinstance(self.promised, dict):
            return Agreement(True, "not judged: what it reads differs")
        if self.promised == "bits":
            return Agreement(False, f"other bits in {', '.join(differing)}")
        telling = [path for path in differing if Path(path).suffix in (*TEXTS, ".safetensors")]
        altered = [path for path in telling if not self._as_recorded(path)]
        if altered:
            return Agreement(None, f"{altered[0]} is not there as the first run left it")
        if self.promised == "decisions":
            pairs = {path: (Path(path), Path(self._counterpart(path))) for path in differing}
            other = [path for path, files in pairs.items() if not same_decisions(*files)]
            said = f"other decisions in {', '.join(other)}" if other else "same decisions"
            return Agreement(not other, said)
        return self._within(self.promised if same_inputs else self.tolerances)

    def other_work(self) -> list[str]:
        """Which of parameters and code are not those of the first run: it promised nothing then."""
        old, new = self.old.content, self.new.content
        return ["parameters"] * (old["params"] != new["params"]) + ["code"] * (
            old["code"]["digest"] != new["code"]["digest"]
        )

    def other_surroundings(self) -> dict[str, str]:
        """What of machine and environment differs: name -> `old -> new`."""
        old, new = self.old.content, self.new.content
        return {
            name: change
            for part, names in SURROUNDINGS.items()
            for each in names
            for name, change in _differences(
                each, (old.get(part) or {}).get(each), (new.get(part) or {}).get(each)
            )
        }

    def _counterpart(self, path: str) -> str:
        return counterpart(path, self.folders)

    def _same_bits(self, path: str) -> bool:
        other = self._counterpart(path)
        if self.old.outputs[path] == self.new.outputs.get(other):
            return True
        if Path(path).suffix not in TEXTS or not self._as_recorded(path):
            return False
        return same_text(Path(path), Path(other), self.folders)

    def _same_inputs(self) -> bool:
        """Whether both read the same; records hold times, and so are never the same."""
        return all(
            self.new.inputs.get(self._counterpart(path)) == digest
            for path, digest in self.old.inputs.items()
            if not path.endswith(".record.json")
        )

    def _as_recorded(self, path: str) -> bool:
        return Path(path).exists() and sha256_of(Path(path)) == self.old.outputs[path]

    def _within(self, tolerances: dict[str, float]) -> Agreement:
        largest: dict[str, float] = {}
        for name, entries in self.old.content["output"].items():
            for path in (each["path"] for each in _listed(entries)):
                files = Path(path), Path(self._counterpart(path))
                for metric, distance in distances(name, *files, set(tolerances)):
                    distance = inf if isnan(distance) else distance
                    largest[metric] = max(largest.get(metric, 0.0), distance)
        if unseen := sorted(set(self.promised) - set(largest)):
            return Agreement(None, f"none of its outputs has {', '.join(unseen)}")
        said = ", ".join(f"{name} differs by up to {largest[name]:.2g}" for name in largest)
        return Agreement(all(largest[name] <= tolerances[name] for name in largest), said)


def counterpart(path: str, folders: tuple[str, str]) -> str:
    """The same path in the other folder of results, if it is in the first."""
    old, new = folders
    return new + path.removeprefix(old) if path.startswith(f"{old}/") else path


def _listed(entries: Any) -> list[dict[str, str]]:
    return entries if isinstance(entries, list) else [entries]


def _differences(name: str, old: Any, new: Any) -> Iterator[tuple[str, str]]:
    if isinstance(old, dict) and isinstance(new, dict):
        for each in sorted({*old, *new}):
            yield from _differences(each, old.get(each), new.get(each))
    elif old != new:
        yield name, f"{old} -> {new}"
