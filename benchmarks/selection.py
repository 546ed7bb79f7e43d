"""Select windows from features, for three ratios and two methods: the library, and naively."""

import tempfile
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import median
from typing import Any

import torch
from torch import Tensor

import subjects
from experiment.tasks.task import joined
from ffmerge.method.candidates import CandidateScorer
from ffmerge.method.features import Features, collect_features
from ffmerge.method.permutation import Permutations, align_all_pairs
from ffmerge.method.windows import pairs_in_windows, select_windows, starts, window
from naive_selection import NaiveSelection
from timing import Measured, Sample, compared, timed

METHODS = ("permute", "vanilla")
Window = tuple[int, int]


@dataclass(frozen=True)
class Size:
    """A ViT, its windows, and the data to select on.

    architecture: of a ViT with random weights, or None for the demo's. sizes: k of the windows.
    sampled: windows (start, k) that the naive way runs, if running all would take too long; its
    total is extrapolated from the time of their stages. rounds: runs of the naive way, one of them
    before the library's and the others after it.
    """

    what: str
    architecture: dict[str, Any] | None
    sizes: tuple[int, ...]
    n_tokens: int
    n_images: int
    batch_size: int
    sampled: tuple[Window, ...] | None = None
    rounds: int = 1


DEMO = Size("demo size, all windows run", None, (5, 7, 12), 10_000, 200, 64)
VIT_BASE = Size(
    "ViT-base size", subjects.VIT_BASE, (5, 7, 12), 10_000, 8, 8, sampled=((3, 5),), rounds=2
)
FULL = (DEMO, VIT_BASE)
WHOLE = (replace(VIT_BASE, what="ViT-base size, all windows run", sampled=None, rounds=1),)
TOY = (Size("toy", subjects.VIT_TOY, (2, 3, 4), 170, 20, 4),)


def measure(sizes: tuple[Size, ...] = FULL) -> list[Measured]:
    """Measure two lines for each size: against the naive way, and against the unavoidable work."""
    lines = []
    for size in sizes:
        with tempfile.TemporaryDirectory() as directory:
            lines += _Selection(size, Path(directory)).measured()
    return lines


class _Selection:
    def __init__(self, size: Size, scratch: Path) -> None:
        self.size, self.scratch = size, scratch
        changes = {
            "features": {"n_tokens": size.n_tokens, "batch_size": size.batch_size},
            "validation": {"max_examples": size.n_images, "batch_size": size.batch_size},
        }
        if size.architecture is None:
            self.model = subjects.demo_model("vit")
            self.task = subjects.demo_task("vit", **changes)
        else:
            self.model = subjects.random_vit(size.architecture, scratch / "model")
            self.task = subjects.vit_task(scratch / "model", **changes)
        config = self.model.config
        self.n_layers, self.d_ff = config.num_hidden_layers, config.intermediate_size
        self.pairs = pairs_in_windows(self.n_layers, [(k, "first") for k in size.sizes])
        self.windows = [(start, k) for k in size.sizes for start in starts(self.n_layers, k)]

    def measured(self) -> list[Measured]:
        """Run both ways, check that their results are the same, and compare their times."""
        naive_windows = self.size.sampled or self.windows
        images = self.batches()
        naive = [self.run_naive(images, naive_windows)]
        floor = [self.unavoidable(images)]
        ours = timed(self.run_library)
        if self.size.rounds > 1:
            floor.append(self.unavoidable(images))
            naive += [self.run_naive(images, naive_windows) for _ in range(self.size.rounds - 1)]
        permutations, losses, chosen = ours.returned
        for way in naive:
            naive_permutations, theirs = way.returned
            for (start, k), orders in naive_permutations.items():
                for i, order in enumerate(orders):
                    assert torch.equal(order, permutations.towards(start, start + i)), (start, k, i)
            for candidate, loss in theirs.items():
                assert abs(loss - losses[candidate]) < 1e-4, candidate  # sums in another order
            if naive_windows == self.windows:
                assert self.choose(theirs) == chosen
        what = f"selection, {self.size.what}"
        return [
            compared(f"{what}: naive / library", naive, [ours] * len(naive), ("at least", 12)),
            compared(
                f"{what}: library / forward passes and products alone",
                [ours] * len(floor),
                floor,
                ("at most", 1.4),
            ),
        ]

    def run_library(self) -> tuple[Permutations, dict, dict]:
        """Do what the workflow's jobs do. Returns permutations, losses of candidates, selection."""
        model, task, file = self.model, self.task, self.scratch / "features.safetensors"
        collect_features(model, task.feature_batches(), self.size.n_tokens, file)
        features = Features(file)
        solved = align_all_pairs(lambda i: features.layer("encoder", i), self.pairs, workers=2)
        permutations = Permutations({pair: found.permutation for pair, found in solved})
        merged = {
            (method, start, k): (
                window(["encoder"], start, k, "first"),
                {"encoder": permutations} if method == "permute" else None,
            )
            for method in METHODS
            for start, k in self.windows
        }
        scores = CandidateScorer(model).scores(
            [*merged.values()],
            task.to_score("validation"),
            lambda batch: task.scores(model, batch, "cpu"),
        )
        losses = {
            key: task.evaluation("validation", joined(parts)).loss
            for key, parts in zip(merged, scores, strict=True)
        }
        return permutations, losses, self.choose(losses)

    def choose(self, losses: dict[tuple[str, int, int], float]) -> dict:
        """Select by validation loss, because accuracy on so few images has too many ties."""
        scores: dict = {}
        for (method, start, k), loss in losses.items():
            scores.setdefault(k, {}).setdefault(method, {})[start] = loss
        return select_windows(scores, self.n_layers, lambda a, b: a < b, "full", 0, seed=1)

    def run_naive(self, images: tuple, windows: list[Window]) -> Sample:
        """Run windows naively. Returns permutations and losses, and the time of all windows."""
        features, validation = images
        way = NaiveSelection(self.model, features, self.size.n_tokens, validation, self.scratch)
        permutations, losses = {}, {}
        for start, k in windows:
            for method in METHODS:
                loss, orders = way.loss(start, k, aligned=method == "permute")
                losses[method, start, k] = loss
                if method == "permute":
                    permutations[start, k] = orders
        units = self.naive_units(sum(len(batch["pixel_values"]) for batch in features))
        seconds, cpu_seconds = (
            sum(spent[stage] / way.units[stage] * n for stage, n in units.items())
            for spent in (way.seconds, way.cpu_seconds)
        )
        return Sample((permutations, losses), seconds, cpu_seconds)

    def naive_units(self, n_images: int) -> dict[str, int]:
        """Count the units of work of each stage of the naive way for all windows."""
        sizes = [k for _, k in self.windows]
        candidates = len(METHODS) * len(sizes)
        return {
            "forward": n_images * len(sizes),
            "covariance": self.size.n_tokens * sum(k * k for k in sizes),
            "assignment": sum(k - 1 for k in sizes),
            "merge": candidates,
            "save and load": candidates,
            "evaluation": candidates,
        }

    def batches(self) -> tuple[list[dict[str, Tensor]], list[dict[str, Tensor]]]:
        """Prepare batches of images for features and for validation."""
        rows, size = self.task.rows("validation"), self.size.batch_size
        per_image = (self.model.config.image_size // self.model.config.patch_size) ** 2 + 1
        n = -(-self.size.n_tokens // per_image)

        def ready(n_images: int) -> list[dict[str, Tensor]]:
            ends = [(begin, min(begin + size, n_images)) for begin in range(0, n_images, size)]
            return [self.task.collate([rows[i] for i in range(*end)]) for end in ends]

        return ready(n), ready(self.size.n_images)

    @torch.inference_mode()
    def unavoidable(self, images: tuple) -> Sample:
        """Time the unavoidable work: one pass for features and for each candidate, all products.

        Passes and products are timed a few times each, and multiplied by their number.
        """
        features, validation = images
        x, y = torch.randn(2, self.size.n_tokens, self.d_ff)
        parts = [
            (1, [self.passes(features)]),
            (len(METHODS) * len(self.windows), [self.passes(validation) for _ in range(3)]),
            (len(self.pairs), [timed(lambda: x.T @ y) for _ in range(3)]),
        ]
        return Sample(
            None,
            sum(n * median(s.seconds for s in samples) for n, samples in parts),
            sum(n * median(s.cpu_seconds for s in samples) for n, samples in parts),
        )

    def passes(self, batches: list[dict[str, Tensor]]) -> Sample:
        """Time a pass of the bare model over batches."""
        return timed(lambda: [self.model(pixel_values=b["pixel_values"]) for b in batches])
