"""What a whole run says of the paper's claims: gathers the files that its jobs left."""

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from ffmerge.against_paper.claims import about_task
from ffmerge.against_paper.evidence import Evidence, Settings, TaskEvidence
from ffmerge.against_paper.paired_tests import scored_models
from ffmerge.against_paper.paper_reported import Row, tolerances
from ffmerge.against_paper.similarity import more_similar, read_cka
from ffmerge.csv_files import read_csv
from ffmerge.tables.results import Columns
from ffmerge.variants import BASE, Variant

MARGINS = ("close", "similar", "equal")
Tests = dict[str, dict[str, Any]]  # of a task: model -> summary of its test


def about_run(
    tests: Iterable[tuple[str, str, dict[str, Any], Columns]],
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
    summaries: dict[str, Tests] = {task: {} for task in tasks}
    per_example: dict[str, dict[str, Columns]] = {task: {} for task in tasks}
    for task, model, test, columns in tests:
        summaries[task][model], per_example[task][model] = test, columns
    for name, task in tasks.items():
        own = summaries[name]
        metric = own[BASE]["metric"]
        evidence = TaskEvidence(
            task["label"],
            metric,
            scored_models(own, per_example[name], settings.draws, settings.seed),
            {margin: tolerances(reported, margin)[metric] for margin in MARGINS},
            settings,
        )
        untuned = untuned_scores(windows[name], task["models"]["windows"], own)
        yield from about_task(evidence, task["models"], reductions(own), untuned)
        for tower, feed_forward, attention in read_cka(cka[name]):
            yield more_similar(
                "ff_more_similar_than_attention",
                f"{task['label']} {tower}",
                feed_forward,
                attention,
                settings,
            )


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
