"""What a whole run says of the paper's claims: gathers the files that its jobs left."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from experiment.claims.evidence import Evidence, Settings, TaskEvidence
from experiment.claims.paired_tests import scored_models
from experiment.claims.similarity import more_similar, read_cka
from experiment.claims.statements import about_task
from experiment.reported import Row, tolerances
from experiment.tables.tested import Tested
from experiment.variants import BASE, Variant
from provenance.csv_files import read_csv

MARGINS = ("close", "similar", "equal")
Tests = dict[str, dict[str, Any]]  # of a task: model -> summary of its test


def about_run(
    tests: Iterable[Tested],
    tasks: dict[str, dict[str, Any]],
    windows: dict[str, Path],
    cka: dict[str, Path],
    reported: dict[str, list[Row]],
    settings: Settings,
) -> Iterator[Evidence]:
    """All evidence of a run, task after task.

    tests: see read_tests; each task's base model is among them, for its size. tasks: name ->
    `label`, and `models` (see about_task). windows: name -> windows.csv, scores before tuning;
    cka: name -> cka.csv. reported: the paper's numbers, for the margins.
    """
    by_model: dict[str, dict[str, Tested]] = {task: {} for task in tasks}
    for test in tests:
        by_model[test.task][test.model] = test
    for name, task in tasks.items():
        own = {model: test.summary for model, test in by_model[name].items()}
        columns = {model: test.columns for model, test in by_model[name].items()}
        metric = own[BASE]["metric"]
        evidence = TaskEvidence(
            task["label"],
            metric,
            scored_models(own, columns, settings.draws, settings.seed),
            {margin: tolerances(reported, margin)[metric] for margin in MARGINS},
            settings,
        )
        untuned = untuned_scores(windows[name], task["models"]["windows"], own)
        for entry in about_task(evidence, task["models"], reductions(own), untuned):
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
    """The files that evidence on models comes from."""
    files = [file for model in entry.models for file in tests[model].files]
    if entry.claim == "window_matters_untuned":
        files.append(windows)
    if entry.claim == "matches_layer_drop":
        files.append(tests[BASE].files[0])  # for the sizes
    return tuple(dict.fromkeys(files))


def reductions(tests: Tests) -> dict[str, float]:
    """Parameters that each of a task's models is without, in % of its base model's."""
    n_base = tests[BASE]["n_parameters"]
    return {model: 100 * (1 - test["n_parameters"] / n_base) for model, test in tests.items()}


def untuned_scores(file: Path, models: Sequence[str], tests: Tests) -> list[float]:
    """The validation score that each model's window had before tuning.

    file: windows.csv; which window a model has is in its test's summary.
    """
    scores = {
        (row["method"], int(row["k"]), int(row["start"])): float(row["score"])
        for row in read_csv(file)
    }
    found = []
    for model in models:
        variant = Variant.parse(model)
        start = tests[model]["merged"][0]["layers"][0]
        found.append(scores[variant.method, variant.k, start])
    return found
