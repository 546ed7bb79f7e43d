"""Gather the evidence of a whole run on the paper's claims, from the files of its jobs."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

from experiment.claims.evidence import Evidence, TaskEvidence, more_similar, read_cka
from experiment.claims.statements import about_task
from experiment.reported import Reported, read_reported, tolerances
from experiment.tables.tested import Tested, in_nats, read_tests
from experiment.variants import BASE
from ffmerge.evaluation.intervals import scored_models
from ffmerge.evaluation.metrics import metric_named
from provenance.job import Job

SIMILAR = "ff_more_similar_than_attention"  # the claim about CKA
UNTUNED = " untuned"  # after the name of a model that was tested before tuning
Tests = dict[str, Tested]  # of a task, by model


def about_run(job: Job) -> Iterator[Evidence]:
    """Gather the evidence of the run whose files are a job's inputs, task by task.

    Inputs: see read_tests; each task's base model has to be among them, for its size; `untuned`,
    the tests of the windows before tuning. Parameters: `tasks`, name -> `label` and `models` (see
    about_task); `draws`, `seed`.
    """
    reported = read_reported(job.input.reported)
    tested: dict[str, Tests] = {task: {} for task in job.params.tasks}
    for test in read_tests(job.input.scores, job.input.per_example):
        tested[test.task][test.model] = test
    for test in read_tests(job.input.untuned, job.input.untuned_per_example):
        tested[test.task][test.model + UNTUNED] = test
    for (name, task), cka in zip(job.params.tasks.items(), job.input.cka, strict=True):
        label, models, tests = task["label"], task["models"], tested[name]
        models = {**models, "untuned": [model + UNTUNED for model in models["windows"]]}
        sizes = reductions(tests)
        for pair in zip(
            *(
                about_task(evidence, models, sizes)
                for evidence in endpoints(label, tests, reported, job.params)
            ),
            strict=True,
        ):
            for entry in pair:
                yield replace(entry, files=_files_of(entry, tests))
        for tower, *matrices in read_cka(cka):
            draws = job.params.draws, job.params.seed
            similar = more_similar(SIMILAR, f"{label} {tower}", *matrices, *draws)
            yield replace(similar, files=(cka,))


def endpoints(
    label: str, tests: Tests, reported: Reported, resampling: Any
) -> tuple[TaskEvidence, TaskEvidence]:
    """Return a task's models with their scores in the paper's metric, and with their losses.

    A perplexity is compared by its logarithm, in nats. resampling: has `draws` and `seed`.
    """
    base = tests[BASE]
    metric = metric_named(base.summary["metric"])
    name = {"accuracy": "accuracy", "bleu": "BLEU", "perplexity": "log perplexity"}[metric.name]
    unit, better = metric.short_unit, metric.higher_is_better
    if metric.name == "perplexity":
        unit = "nats"
    scores = {model: in_nats(test.summary) for model, test in tests.items()}
    losses = {m: {"metric": "loss", "score": test.summary["loss"]} for m, test in tests.items()}
    images = "image" if "n_images" in base.summary else "query"
    counted = "token" if "n_tokens" in base.examples else images

    def endpoint(name: str, unit: str, better: bool, summaries: dict) -> TaskEvidence:
        examples = {model: test.examples for model, test in tests.items()}
        models = scored_models(summaries, examples, resampling.draws, resampling.seed)
        return TaskEvidence(label, name, unit, better, models, margins(reported, unit))

    return (
        endpoint(name, unit, better, scores),
        endpoint(f"loss per {counted}", "nats", False, losses),
    )


def margins(reported: Reported, unit: str) -> dict[str, float]:
    """Margins of the claims in a unit of scores: what the paper printed, and a tolerance."""
    return {margin: tolerances(reported, margin)[unit] for margin in ("close", "similar", "equal")}


def _files_of(entry: Evidence, tests: Tests) -> tuple[Path, ...]:
    """The files behind evidence on models."""
    files = [file for model in entry.models for file in tests[model].files]
    if entry.claim == "matches_layer_drop":
        files.append(tests[BASE].files[0])  # for the sizes
    return tuple(dict.fromkeys(files))


def reductions(tests: Tests) -> dict[str, float]:
    """Parameters removed from each of a task's models, in % of its base model's."""
    n_base = tests[BASE].summary["n_parameters"]
    return {
        model: 100 * (1 - test.summary["n_parameters"] / n_base) for model, test in tests.items()
    }
