"""Gather the evidence of a whole run on the paper's claims, from the files of its jobs."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas

from experiment.claims.evidence import Evidence, Settings, TaskEvidence
from experiment.claims.paired_tests import scored_models
from experiment.claims.similarity import more_similar, read_cka
from experiment.claims.statements import about_task
from experiment.reported import Reported, read_reported, tolerances
from experiment.tables.tested import Tested, read_tests
from experiment.variants import BASE, Variant
from provenance.job import Job

MARGINS = ("close", "similar", "equal")
Tests = dict[str, dict[str, Any]]  # of a task: model -> summary of its test


def evidence_of(job: Job) -> list[Evidence]:
    """Gather the evidence of the run whose files are a job's inputs."""
    tasks = job.params.tasks
    evidence = about_run(
        read_tests(job.input.scores, job.input.per_example),
        tasks,
        windows=dict(zip(tasks, job.input.windows, strict=True)),
        cka=dict(zip(tasks, job.input.cka, strict=True)),
        reported=read_reported(job.input.reported),
        settings=Settings(job.params.draws, job.params.confidence, job.params.seed),
    )
    return list(evidence)


def about_run(
    tests: Iterable[Tested],
    tasks: dict[str, dict[str, Any]],
    windows: dict[str, Path],
    cka: dict[str, Path],
    reported: Reported,
    settings: Settings,
) -> Iterator[Evidence]:
    """Gather the evidence of a run, task by task.

    tests: see read_tests; each task's base model has to be among them, for its size. tasks: name ->
    `label`, and `models` (see about_task). windows: name -> windows.csv, scores before tuning;
    cka: name -> cka.csv. reported: the paper's numbers, for the margins.
    """
    by_model: dict[str, dict[str, Tested]] = {task: {} for task in tasks}
    for test in tests:
        by_model[test.task][test.model] = test
    for name, task in tasks.items():
        summaries = {model: test.summary for model, test in by_model[name].items()}
        examples = {model: test.examples for model, test in by_model[name].items()}
        metric = summaries[BASE]["metric"]
        evidence = TaskEvidence(
            task["label"],
            metric,
            scored_models(summaries, examples, settings.draws, settings.seed),
            {margin: tolerances(reported, margin)[metric] for margin in MARGINS},
            settings,
        )
        untuned = untuned_scores(windows[name], task["models"]["windows"], summaries)
        for entry in about_task(evidence, task["models"], reductions(summaries), untuned):
            yield replace(entry, files=_files_of(entry, by_model[name], windows[name]))
        for tower, feed_forward, attention in read_cka(cka[name]):
            similar = more_similar(
                "ff_more_similar_than_attention",
                f"{task['label']} {tower}",
                feed_forward,
                attention,
                settings,
            )
            yield replace(similar, files=(cka[name],))


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
