"""Derive the models to compute from the configuration: candidates, variants and roles.

A variant is a compressed model. Its name holds roles instead of layer numbers, so that the DAG does
not depend on which window wins: `permute-k5-first-best` has the best window of five sublayers
merged towards its first; `permute-k5-first-cka` has merged groups that remove as many;
`drop-k2-best` is the model without the best window of two layers. `-int8` marks the quantized form
of a merged variant, `-seed2` one that is tuned with another seed than the configuration's.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from typing import NamedTuple

from experiment.config.tasks import TaskBase
from ffmerge.method.groups import ANCHORS
from ffmerge.method.windows import pairs_in_windows, printed_starts, starts

BASE, TUNED_BASE = "base", "base-tuned"
PROPOSED = ("correlation", "cka")  # roles of groups proposed from features
ROLE_PATTERN = rf"best|random\d+|{'|'.join(PROPOSED)}"
MERGED_PATTERN = rf"(?:permute|vanilla)-k\d+-(?:{'|'.join(ANCHORS)})-(?:{ROLE_PATTERN})"
DROPPED_PATTERN = r"drop-k\d+-best"
INT8_SUFFIX = "-int8"
SEED_PATTERN = r"-seed\d+"
VARIANT_PATTERN = f"{DROPPED_PATTERN}|{MERGED_PATTERN}(?:{INT8_SUFFIX}|{SEED_PATTERN})?"
MODEL_PATTERN = f"(?:{BASE}|{TUNED_BASE}|{VARIANT_PATTERN})"
RANDOM_WINDOWS = 3  # of Table 2
RATIO_LABELS = {
    "sixth": "1/6",
    "quarter": "1/4",
    "third": "1/3",
    "half": "1/2",
    "all": "all but one",
}
"""The share of FF sublayers, or of layers, that each ratio of a configuration removes."""


class Candidate(NamedTuple):
    """A window to score before tuning: of sublayers to merge, or of layers to drop."""

    method: str
    k: int
    start: int


UNCOMPRESSED = Candidate(BASE, 0, 0)


@dataclass(frozen=True)
class Variant:
    """A compressed model.

    method: permute, vanilla or drop; k: window size; anchor: None for dropped layers; role: of the
    window or groups; int8: whether it is quantized; seed: of tuning, None for the configuration's.
    """

    method: str
    k: int
    anchor: str | None = None
    role: str = "best"
    int8: bool = False
    seed: int | None = None

    def __str__(self) -> str:
        seed = "" if self.seed is None else f"seed{self.seed}"
        parts = [self.method, f"k{self.k}", self.anchor, self.role, seed]
        return "-".join(filter(None, parts)) + INT8_SUFFIX * self.int8

    @classmethod
    def parse(cls, name: str) -> "Variant":
        """Parse a variant's name. Raises ValueError for any other text."""
        if not re.fullmatch(VARIANT_PATTERN, name):
            raise ValueError(
                f"{name!r} is not METHOD-kK-ANCHOR-ROLE, possibly with {INT8_SUFFIX} or -seedN, or "
                "drop-kK-ROLE"
            )
        untuned, _, seed = name.removesuffix(INT8_SUFFIX).partition("-seed")
        method, k, *anchor, role = untuned.split("-")
        return cls(
            method,
            int(k[1:]),
            anchor[0] if anchor else None,
            role,
            int8=name.endswith(INT8_SUFFIX),
            seed=int(seed) if seed else None,
        )


def scored_starts(task: TaskBase, k: int) -> list[int]:
    """First layers of the windows of k to score: all unless `windows.only` is configured."""
    if task.windows.only is None:
        return starts(task.base_model.n_layers, k)
    ratio = next(ratio for ratio, size in task.merge.k.ratios().items() if size == k)
    return sorted(getattr(task.windows.only, ratio))


def candidates(task: TaskBase) -> list[Candidate]:
    """The windows to score at every ratio, all N-k+1 or those configured, for every method."""
    return [
        Candidate(method, k, start)
        for method in task.merge.methods
        for k in task.merge.k.sizes()
        for start in scored_starts(task, k)
    ]


def drop_candidates(task: TaskBase) -> list[Candidate]:
    """The uncompressed model, then every window of layers to try dropping (Section 4.4)."""
    sizes, n_layers = drop_sizes(task).values(), task.base_model.n_layers
    return [UNCOMPRESSED, *(Candidate("drop", k, s) for k in sizes for s in starts(n_layers, k))]


def drop_sizes(task: TaskBase) -> dict[str, int]:
    """Number of layers to drop at each ratio; none without that baseline."""
    return task.layer_drop.ratios() if task.layer_drop else {}


def in_parts(candidates: Sequence[Candidate], jobs: int | None) -> dict[str, list[Candidate]]:
    """Divide candidates among jobs: every n-th of all, or those of a method and k. By name."""
    if jobs is not None:
        return {f"{i + 1}-of-{jobs}": list(candidates[i::jobs]) for i in range(jobs)}
    parts: dict[str, list[Candidate]] = {}
    for candidate in candidates:
        parts.setdefault(f"{candidate.method}-k{candidate.k}", []).append(candidate)
    return parts


def selecting_method(task: TaskBase) -> str:
    """The method whose scores select the window of a ratio for all methods."""
    return "permute" if "permute" in task.merge.methods else task.merge.methods[0]


def reported_base(task: TaskBase) -> str:
    """The name of the uncompressed model to compare with (Section 4.1)."""
    return TUNED_BASE if task.fine_tune_base else BASE


def partial_sizes(task: TaskBase) -> list[int]:
    """k of the ratios that leave more than one sublayer: 1/3, 1/2 and smaller ones."""
    return [k for ratio, k in task.merge.k.ratios().items() if ratio != "all"]


def main_variant(task: TaskBase) -> Variant:
    """Our method at 1/3, which Tables 2-4 vary; it aligns unless only vanilla is configured."""
    return Variant(selecting_method(task), task.merge.k.third, task.merge.anchor)


def table1_variants(task: TaskBase) -> list[Variant]:
    """One model of each method at 1/3: merged, merged and quantized, with layers dropped."""
    main, drop = main_variant(task), task.layer_drop
    return [main, replace(main, int8=True), *([Variant("drop", drop.third)] if drop else [])]


def table2_variants(task: TaskBase) -> list[Variant]:
    """The best window of 1/3 and the random ones, as many as the model has."""
    main = main_variant(task)
    among = scored_starts(task, main.k)
    if task.windows.starts == "printed":
        among = [s for s in among if s in printed_starts(task.base_model.n_layers, main.k)] or among
    others = len(among) - 1
    roles = ["best", *(f"random{i}" for i in range(1, min(RANDOM_WINDOWS, others) + 1))]
    return [replace(main, role=role) for role in roles]


def table3_variants(task: TaskBase) -> list[Variant]:
    """The best window of 1/3, merged towards each anchor."""
    return [replace(main_variant(task), anchor=anchor) for anchor in ANCHORS]


def table4_variants(task: TaskBase) -> list[Variant]:
    """Our method at 1/3, without and with LLM.int8()."""
    return [main_variant(task), replace(main_variant(task), int8=True)]


def table5_variants(task: TaskBase) -> list[Variant]:
    """The compressed models of Table 5, row by row."""
    return [
        Variant(method, k, task.merge.anchor)
        for k in task.merge.k.sizes()
        for method in task.merge.methods
    ]


def merged_windows(task: TaskBase) -> list[tuple[int, str]]:
    """Size and anchor of the windows that are scored or that a table or figure shows."""
    of_sizes = [(k, task.merge.anchor) for k in task.merge.k.sizes()]
    return of_sizes + [(task.merge.k.third, anchor) for anchor in ANCHORS]  # Table 3


def aligned_pairs(task: TaskBase) -> list[tuple[int, int]]:
    """The pairs of layers i < j that one of these windows needs, wherever it starts."""
    return pairs_in_windows(task.base_model.n_layers, merged_windows(task))


def other_pairs(task: TaskBase) -> list[tuple[int, int]]:
    """The pairs that only proposed groups and windows of other anchors need."""
    pairs = combinations(range(task.base_model.n_layers), 2)
    return sorted({*pairs} - {*aligned_pairs(task)})


def needs_other_pairs(task: TaskBase, variant: Variant) -> bool:
    """Whether aligning a variant's layers may need `other_pairs`."""
    is_window = variant.role not in PROPOSED
    return not (is_window and (variant.k, variant.anchor) in merged_windows(task))


def seed_variants(
    task: TaskBase, further_seeds: Sequence[int], ratios: Sequence[str] | None = None
) -> list[Variant]:
    """The compressed models of Table 5, tuned with the configuration's seed and with others.

    ratios: those to tune so (keys of `merge.k`); None: all.
    """
    sizes = {k for ratio, k in task.merge.k.ratios().items() if ratios is None or ratio in ratios}
    return [
        replace(variant, seed=seed)
        for variant in table5_variants(task)
        if variant.k in sizes
        for seed in (None, *further_seeds)
    ]


def strategy_variants(task: TaskBase) -> list[Variant]:
    """Our method at 1/3 with each strategy of selection: the window search, then groups."""
    return [replace(main_variant(task), role=role) for role in ("best", *PROPOSED)]


def size_variants(task: TaskBase) -> list[Variant]:
    """Each method of merging at every ratio, then layers dropped where that is configured."""
    merged, dropped = task.merge.k.ratios(), drop_sizes(task)
    found = []
    for ratio in RATIO_LABELS:
        found += [each for each in table5_variants(task) if each.k == merged.get(ratio)]
        found += [Variant("drop", dropped[ratio])] if ratio in dropped else []
    return found


def figure3_variants(task: TaskBase) -> list[Variant]:
    """Our method at 1/3 and 1/2, and 1/6 and 1/3 of the layers dropped."""
    main = main_variant(task)
    merged = [replace(main, k=k) for k in partial_sizes(task)]
    return merged + [Variant("drop", k) for k in drop_sizes(task).values()]
