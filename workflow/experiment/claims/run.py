"""Gather the evidence of a whole run on the paper's claims, from the files of its jobs."""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas

from experiment.claims.evidence import Evidence, ResamplingSettings, TaskEvidence
from experiment.claims.paired_tests import scored_models
from experiment.claims.similarity import more_similar, read_cka
from experiment.claims.statements import about_task
from experiment.reported import read_reported, tolerances
from experiment.tables.tested import Tested, read_tests
from experiment.variants import BASE, Variant
from ffmerge.evaluation.metrics import metric_named
from provenance.job import Job

MARGINS = ("close", "similar", "equal")
SIMILAR = "ff_more_similar_than_attention"  # the claim about CKA
Tests = dict[str, dict[str, Any]]  # of a task: model -> summary of its test


def about_run(job: Job) -> Iterator[Evidence]:
    """Gather the evidence of the run whose files are a job's inputs, task by task.

    Inputs: see read_tests; each task's base model has to be among them, for its size. Parameters:
    `tasks`, name -> `label` and `models` (see about_task); `draws`, `confidence`, `seed`.
    """
    settings = ResamplingSettings(job.params.draws, job.params.confidence, job.params.seed)
    reported = read_reported(job.input.reported)
    tested: dict[str, dict[str, Tested]] = {task: {} for task in job.params.tasks}
    for test in read_tests(job.input.scores, job.input.per_example):
        tested[test.task][test.model] = test
    files = zip(job.params.tasks.items(), job.input.windows, job.input.cka, strict=True)
    for (name, task), windows, cka in files:
        label, models, tests = task["label"], task["models"], tested[name]
        summaries = {model: test.summary for model, test in tests.items()}
        examples = {model: test.examples for model, test in tests.items()}
        metric = summaries[BASE]["metric"]
        evidence = TaskEvidence(
            label,
            metric_named(metric),
            scored_models(summaries, examples, settings.draws, settings.seed),
            {margin: tolerances(reported, margin)[metric] for margin in MARGINS},
            settings,
        )
        untuned = untuned_scores(windows, models["windows"], summaries)
        for entry in about_task(evidence, models, reductions(summaries), untuned):
            yield replace(entry, files=_files_of(entry, tests, windows))
        for tower, *matrices in read_cka(cka):
            similar = more_similar(SIMILAR, f"{label} {tower}", *matrices, settings)
            yield replace(similar, files=(cka,))


def _files_of(entry: Evidence, tests: dict[str, Tested], windows: Path) -> tuple[Path, ...]:
    """The files behind evidence on models."""
    files = [file for model in entry.models for file in tests[model].files]
    if entry.claim == "window_matters_untuned":
        files.append(windows)
    if entry.claim == "matches_layer_drop":
        files.append(tests[BASE].files[0])  # for the sizes
    return tuple(dict.fromkeys(files))


def reductions(tests: Tests) -> dict[str, float]:
    """Parameters removed from each of a task's models, in % of its base model's."""
    n_base = tests[BASE]["n_parameters"]
    return {model: 100 * (1 - test["n_parameters"] / n_base) for model, test in tests.items()}


def untuned_scores(file: Path, models: Sequence[str], tests: Tests) -> list[float]:
    """Look up the validation score of each model's window before tuning.

    file: windows.csv. The summary of a model's test says which window it has.
    """
    scores = pandas.read_csv(file).set_index(["method", "k", "start"])["score"].to_dict()
    variants = map(Variant.parse, models)
    starts = [tests[model]["merged"][0]["layers"][0] for model in models]
    return [scores[v.method, v.k, start] for v, start in zip(variants, starts, strict=True)]
