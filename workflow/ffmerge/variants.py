"""What is computed: candidates, variants and roles, from the configuration alone.

A variant is one compressed model. Its name holds roles, never layer numbers, so that the DAG does
not depend on which window wins: `permute-k5-first-best` is the best window of five sublayers.
"""

from dataclasses import dataclass
from typing import NamedTuple

from ffmerge import config
from ffmerge.windows import starts

BASE, TUNED_BASE = "base", "base-tuned"
PATTERN = r"(permute|vanilla)-k\d+-(first|middle|last)-(best|random\d+)"


class Candidate(NamedTuple):
    """A window to score before tuning."""

    method: str
    k: int
    start: int


@dataclass(frozen=True)
class Variant:
    """A compressed model: method, window size k, anchor, and the window's role."""

    method: str
    k: int
    anchor: str
    role: str = "best"

    def __str__(self) -> str:
        return f"{self.method}-k{self.k}-{self.anchor}-{self.role}"

    @classmethod
    def parse(cls, name: str) -> "Variant":
        """The variant of a name. Raises ValueError for a name that is not one."""
        try:
            method, k, anchor, role = name.split("-")
            return cls(method, int(k.removeprefix("k")), anchor, role)
        except ValueError:
            raise ValueError(f"{name!r} is not METHOD-kK-ANCHOR-ROLE") from None


def candidates(task: config.TaskBase) -> list[Candidate]:
    """All N-k+1 windows of the three ratios, for every method."""
    return [
        Candidate(method, k, start)
        for method in task.merge.methods
        for k in task.merge.k.sizes()
        for start in starts(task.base_model.n_layers, k)
    ]


def reported_base(task: config.TaskBase) -> str:
    """The uncompressed model that Table 5 sets the others against (Section 4.1)."""
    return TUNED_BASE if task.fine_tune_base else BASE


def table5_variants(task: config.TaskBase) -> list[Variant]:
    """The compressed models of Table 5, a row after the other."""
    return [
        Variant(method, k, task.merge.anchor)
        for k in task.merge.k.sizes()
        for method in task.merge.methods
    ]
