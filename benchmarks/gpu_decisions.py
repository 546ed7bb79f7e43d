"""Parts of check_gpu.py: the same decisions on a GPU as on a processor.

Both run the workflow's functions on the demo's models, from features to the test score. Results may
differ by the tolerances that the workflow's rules state for a second run (`reproduces`).
"""

import json
import re
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

import subjects
from check_gpu import Findings, Setting
from experiment.tasks import Task
from experiment.tasks.task import joined
from ffmerge.method.candidates import CandidateScorer
from ffmerge.method.cka import cka_matrix
from ffmerge.method.correlation import cross_correlation
from ffmerge.method.features import SUBLAYERS, Features, collect_features, collect_outputs
from ffmerge.method.permutation import Alignment, Pair, Permutations, align_all_pairs
from ffmerge.method.windows import pairs_in_windows, select_windows, starts, window
from ffmerge.models import checkpoint
from provenance.job import prepare_torch

METHODS = ("permute", "vanilla")
# Largest loss of mean correlation by another permutation. With the same features, only a float32
# product differs; if each device collects its own, the features differ too, by about 1e-5.
SAME_FEATURES, OWN_FEATURES = 2e-6, 1e-5


@cache
def tolerances(rule: str) -> dict[str, float]:
    """Read the tolerances that a rule of the workflow states for a second run of its job."""
    for file in sorted((subjects.REPOSITORY / "workflow/rules").glob("*.smk")):
        pattern = rf'job\(\s*"{rule}",.*?reproduces=(\{{.*?\}})'
        if match := re.search(pattern, file.read_text().partition(f"rule {rule}:")[2], re.DOTALL):
            return json.loads(match[1])
    raise ValueError(f"no rule of the workflow states tolerances of {rule}")


@dataclass(frozen=True)
class Size:
    """Changes of the demo's size.

    features, validation, test: changed keys of these parts of the task. k: sizes of windows, None
    for the demo's. n_starts: how many windows of each size are scored, None for all.
    """

    features: dict[str, int]
    validation: dict[str, int]
    test: dict[str, int]
    k: tuple[int, ...] | None = None
    n_starts: int | None = None


SIZES = {
    "gpt2": Size({}, {"max_tokens": 4096}, {"max_tokens": 8192}),
    "vit": Size({}, {"max_examples": 250}, {"max_examples": 1000}),
    "marian": Size({}, {"max_examples": 40}, {"max_examples": 100}),
}
SMALL = {
    name: Size({"n_tokens": 150, "batch_size": 4}, limits, limits, k=(2,), n_starts=2)
    for name, limits in {
        "gpt2": {"max_tokens": 300},
        "vit": {"max_examples": 8},
        "marian": {"max_examples": 3, "num_beams": 2, "max_length": 8},
    }.items()
}


def decisions_gpt2(setting: Setting) -> Findings:
    """Compare the language model, up to its perplexity."""
    return _decisions("gpt2", setting)


def decisions_vit(setting: Setting) -> Findings:
    """Compare the image classifier, up to its top-1 accuracy."""
    return _decisions("vit", setting)


def decisions_marian(setting: Setting) -> Findings:
    """Compare the translator, up to its BLEU."""
    return _decisions("marian", setting)


@dataclass
class Outcome:
    """Everything that one device computed.

    features: file. alignments: tower -> pair -> alignment. cka: (tower, sublayer) -> matrix.
    candidates: (method, k, start) -> score and loss. test: score and loss of the base model.
    """

    features: Features
    alignments: dict[str, dict[Pair, Alignment]]
    cka: dict[tuple[str, str], Tensor]
    candidates: dict[tuple[str, int, int], tuple[float, float]]
    selection: dict[str, Any]
    test: tuple[float, float]


def _decisions(name: str, setting: Setting) -> Findings:
    size = (SMALL if setting.small else SIZES)[name]
    task = subjects.demo_task(
        name, features=size.features, validation=size.validation, test=size.test
    )
    cpu = _outcome(name, task, size, "cpu", setting.scratch / "cpu")
    gpu = _outcome(name, task, size, setting.device, setting.scratch / "gpu")
    findings = Findings()
    figures = findings.figures
    figures["features_difference"] = _largest(
        (cpu.features.layer(tower, i) - gpu.features.layer(tower, i)).abs().max().item()
        for tower, n_layers in cpu.features.towers().items()
        for i in range(n_layers)
    )
    _within(findings, "collect_features", "features", figures["features_difference"])
    figures["own_features"] = _compared(findings, cpu, gpu.alignments, OWN_FEATURES, "own features")
    again = _aligned(cpu.features, _pairs(task, name, size), setting.device)
    figures["same_features"] = _compared(findings, cpu, again, SAME_FEATURES, "the same features")
    figures["cka_difference"] = _largest(
        (matrix - gpu.cka[key]).abs().max().item() for key, matrix in cpu.cka.items()
    )
    _within(findings, "compute_cka", "cka", figures["cka_difference"])
    for i, value in enumerate(("score", "loss")):
        apart = [abs(cpu.candidates[c][i] - gpu.candidates[c][i]) for c in cpu.candidates]
        figures[f"windows_{value}_difference"] = _largest(apart)
        _within(findings, "score_windows", value, figures[f"windows_{value}_difference"])
        figures[f"test_{value}"] = {"cpu": cpu.test[i], setting.device: gpu.test[i]}
        _within(findings, "score_test", value, abs(cpu.test[i] - gpu.test[i]))
    figures["n_windows"] = len(cpu.candidates)
    figures["selection"] = gpu.selection
    findings.require(
        cpu.selection == gpu.selection,
        f"selection: {cpu.selection} on the processor, {gpu.selection} on the GPU",
    )
    own, same = figures["own_features"], figures["same_features"]
    findings.shown = (
        f"{own['n_pairs']} pairs: {own['n_differing']} of {own['n_matches']} matches differ "
        f"({same['n_differing']} of the same features); {len(cpu.candidates)} windows: score "
        f"± {figures['windows_score_difference']:.1g}; {task.metric.name} {gpu.test[0]:.2f}"
    )
    return findings


def _outcome(name: str, task: Task, size: Size, device: str, scratch: Path) -> Outcome:
    """Do on a device what the workflow's jobs do."""
    prepare_torch(torch.get_num_threads(), device)
    scratch.mkdir()
    model = checkpoint.load(task.base_model, device)
    n_tokens, files = task.settings.features.n_tokens, (scratch / "features", scratch / "outputs")
    collect_features(model, task.feature_batches(), n_tokens, files[0], device)
    collect_outputs(model, task.feature_batches(), SUBLAYERS, n_tokens, files[1], device)
    features, pairs = Features(files[0]), _pairs(task, name, size)
    alignments = _aligned(features, pairs, "cpu")  # as the workflow's job
    permutations = {
        tower: Permutations({pair: each.permutation for pair, each in solved.items()})
        for tower, solved in alignments.items()
    }
    n_layers = min(features.towers().values())
    merged = {
        (method, k, start): (
            window(permutations, start, k, "first"),
            permutations if method == "permute" else None,
        )
        for method in METHODS
        for k in _sizes(name, size)
        for start in starts(n_layers, k)[: size.n_starts]
    }
    of_batches = CandidateScorer(model, one_pass=task.one_pass).scores(
        [*merged.values()],
        task.to_score("validation"),
        lambda batch: task.scores(model, batch, device),
    )
    results = [task.evaluation("validation", joined(parts)) for parts in of_batches]
    candidates = {
        key: (result.score, result.loss) for key, result in zip(merged, results, strict=True)
    }
    scores: dict[int, dict[str, dict[int, float]]] = {}
    for (method, k, start), (score, _) in candidates.items():
        scores.setdefault(k, {}).setdefault(method, {})[start] = score
    only = {str(k): starts(n_layers, k)[: size.n_starts] for k in scores}
    result = task.evaluate(model, "test", device)
    return Outcome(
        features=features,
        alignments=alignments,
        cka={
            (tower, sublayer): cka_matrix(partial(outputs.layer, tower), min(n, _cka_layers(size)))
            for sublayer in SUBLAYERS
            for outputs in [Features(files[1], sublayer)]
            for tower, n in outputs.towers().items()
        },
        candidates=candidates,
        selection=select_windows(scores, n_layers, task.metric.better, "full", 0, 1, only),
        test=(result.score, result.loss),
    )


def _sizes(name: str, size: Size) -> tuple[int, ...]:
    return size.k or tuple(subjects.DEMO[name]["merge"]["k"].values())


def _cka_layers(size: Size) -> int:
    return 100 if size.n_starts is None else 2


def _pairs(task: Task, name: str, size: Size) -> list[Pair]:
    windows = [(k, "first") for k in _sizes(name, size)]
    pairs = pairs_in_windows(subjects.DEMO[name]["base_model"]["n_layers"], windows)
    return pairs if size.n_starts is None else pairs[: size.n_starts + 1]


def _aligned(
    features: Features, pairs: list[Pair], device: str
) -> dict[str, dict[Pair, Alignment]]:
    workers = max(1, torch.get_num_threads())
    return {
        tower: dict(align_all_pairs(partial(features.layer, tower), pairs, workers, device=device))
        for tower in features.towers()
    }


def _compared(
    findings: Findings,
    cpu: Outcome,
    others: dict[str, dict[Pair, Alignment]],
    bound: float,
    features: str,
) -> dict[str, float]:
    """Count differing matches, and measure how much less correlation the others reach.

    The processor's features decide. Neurons that tie may be matched in either way.
    """
    n_differing, n_matches, gap, n_pairs = 0, 0, 0.0, 0
    for tower, solved in cpu.alignments.items():
        for (i, j), alignment in solved.items():
            ours, theirs = alignment.permutation, others[tower][i, j].permutation
            n_pairs, n_matches = n_pairs + 1, n_matches + len(ours)
            n_differing += (differing := int((ours != theirs).sum()))
            if differing:
                layers = (cpu.features.layer(tower, layer) for layer in (i, j))
                correlation, rows = cross_correlation(*layers).double(), torch.arange(len(ours))
                reached = [correlation[rows, columns].mean().item() for columns in (ours, theirs)]
                gap = max(gap, reached[0] - reached[1])
    findings.require(
        gap <= bound, f"permutations of {features}: mean correlation {gap:.2g} less than {bound:g}"
    )
    return {
        "n_pairs": n_pairs,
        "n_matches": n_matches,
        "n_differing": n_differing,
        "correlation_lacking": gap,
        "bound": bound,
    }


def _within(findings: Findings, rule: str, value: str, difference: float) -> None:
    bound = tolerances(rule)[value]
    findings.require(
        difference <= bound, f"{rule}: {value} differs by {difference:.3g} > {bound:g}"
    )


def _largest(differences: Any) -> float:
    return max(differences, default=0.0)
