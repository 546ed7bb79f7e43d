"""State the paper's findings so that each can be tested (Sections 5.1 to 5.5, Appendix C).

A claim holds if the measured value is on the claimed side of the bound and the test is significant
after correction for all tests of the table. It fails if the value is significantly on the other
side. Otherwise the data do not decide it. Each is tested on the task's metric (perplexity as its
logarithm) and on the loss. Tests are over test examples, not over seeds of tuning.
"""

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

from pandas import DataFrame

from experiment.claims.evidence import Evidence, TaskEvidence, holm, more_similar, read_cka
from experiment.reported import Reported, read_reported, tolerances
from experiment.tables.layout import Row, as_text
from experiment.tables.tested import Tested, in_nats, read_tests
from experiment.variants import BASE, RATIO_LABELS
from ffmerge.evaluation.intervals import scored_models
from ffmerge.evaluation.metrics import metric_named
from provenance.cells import JOB, Cell, Interval, Source
from provenance.job import Job

SIMILAR = "ff_more_similar_than_attention"  # the claim about CKA
UNTUNED = " untuned"  # after the name of a model that was tested before tuning
Tests = dict[str, Tested]  # of a task, by model
HOLDS, FAILS, UNDECIDED = "holds", "fails", "undecided"
CLAIM = ["claim", "task", "removed"]  # columns that name a claim; it has a row for each endpoint


@dataclass(frozen=True)
class Statement:
    """A finding: its section, its wording with the bound, and the quantity that is measured."""

    section: str
    wording: str
    quantity: str


STATEMENTS = {
    "permuting_beats_averaging": Statement(
        "5.1",
        "with {ratio} removed, aligned merging scores better than averaging alone",
        "gain by aligning",
    ),
    "gain_grows": Statement(
        "5.1",
        "with all but one removed, aligning gains more than with 1/3",
        "growth of the gain by aligning",
    ),
    "third_stays_close": Statement(
        "5.1",
        "removing {ratio} costs less than {bound}",
        "loss on the uncompressed",
    ),
    "matches_layer_drop": Statement(
        "5.1",
        "with {ratio} removed, merging loses less than {bound} on layer drop",
        "loss on layer drop",
    ),
    "window_matters_untuned": Statement(
        "5.2",
        "after tuning, windows differ by less than before it",
        "decrease of the difference between windows",
    ),
    "window_hardly_matters_tuned": Statement(
        "5.2", "after tuning, windows differ by less than {bound}", "difference between windows"
    ),
    "anchor_hardly_matters": Statement(
        "5.3", "anchors differ by less than {bound}", "difference between anchors"
    ),
    "int8_costs_nothing": Statement(
        "5.4", "LLM.int8() costs less than {bound} further", "loss by quantizing"
    ),
    SIMILAR: Statement(
        "5.5",
        "FF outputs are on average more similar than attention outputs",
        "difference in mean CKA",
    ),
}


def about_task(
    evidence: TaskEvidence, models: dict[str, Any], reductions: dict[str, float]
) -> Iterator[Evidence]:
    """Yield the evidence of a task's models on every claim except the one about CKA.

    models: names of the tested models: `base`, the uncompressed one; `permute` and `vanilla`, where
    they were run, by ratio (third, half, all); `merged`, our method at third and half; `dropped`,
    layer drop, if it was run; `windows` of Table 2, and the same `untuned`; `anchors` of Table 3;
    `int8`. reductions: model -> parameters removed, %.
    """
    merged, windows = models["merged"], models["windows"]
    if "permute" in models and "vanilla" in models:
        pairs = {
            ratio: (models["permute"][ratio], models["vanilla"][ratio])
            for ratio in models["permute"]
        }
        for ratio, pair in pairs.items():
            yield replace(evidence.gains("permuting_beats_averaging", *pair), ratio=ratio)
        if "all" in pairs:
            yield evidence.gain_grows("gain_grows", pairs["all"], pairs["third"])
    third = evidence.loses_less("third_stays_close", merged["third"], models["base"], "close")
    yield replace(third, ratio="third")
    curve = [models["base"], *models["dropped"]]
    for ratio, model in merged.items() if models["dropped"] else ():
        on_curve = evidence.loses_less_than_curve("matches_layer_drop", model, curve, reductions)
        yield replace(on_curve, ratio=ratio)
    if len(windows) > 1:
        yield evidence.differ_less_than_before("window_matters_untuned", windows, models["untuned"])
        yield evidence.differ_less("window_hardly_matters_tuned", windows)
    if "permute" in models:  # other methods have no anchor
        yield evidence.differ_less("anchor_hardly_matters", models["anchors"])
    yield evidence.loses_less("int8_costs_nothing", models["int8"], merged["third"], "equal")


# --- the evidence of a run ------------------------------------------------------------------------


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
        found = endpoints(label, tests, reported, job.params)
        for pair in zip(*(about_task(each, models, sizes) for each in found), strict=True):
            for entry in pair:
                files = [file for model in entry.models for file in tests[model].files]
                if entry.claim == "matches_layer_drop":
                    files.append(tests[BASE].files[0])  # for the sizes
                yield replace(entry, files=tuple(dict.fromkeys(files)))
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


def reductions(tests: Tests) -> dict[str, float]:
    """Parameters removed from each of a task's models, in % of its base model's."""
    n_base = tests[BASE].summary["n_parameters"]
    return {
        model: 100 * (1 - test.summary["n_parameters"] / n_base) for model, test in tests.items()
    }


# --- the table ------------------------------------------------------------------------------------


def judged(evidence: Sequence[Evidence], confidence: float) -> DataFrame:
    """List the claims with their p-values, corrected for the number of claims, and verdicts."""
    corrected = holm([entry.p for entry in evidence])
    files_of_all = dict.fromkeys(file for entry in evidence for file in entry.files)
    rows: list[Row] = []
    for entry, p in zip(evidence, corrected, strict=True):

        def cell(number: float, files=entry.files, interval=None) -> Cell:
            sources = tuple(map(Source, files))
            return Cell(sources, derivation=JOB, interval=interval, computed=number)

        statement, bound = STATEMENTS[entry.claim], f"{entry.bound:.4g}"
        ratio = RATIO_LABELS.get(entry.ratio, "")
        measured = entry.measured
        low, high = measured.interval(confidence)
        interval = Interval(low, high, confidence, f"bootstrap over {measured.over}")
        rows.append(
            {
                "claim": entry.claim,
                "section": statement.section,
                "task": entry.task,
                "removed": ratio,
                "endpoint": entry.endpoint,
                "statement": statement.wording.format(ratio=ratio, bound=f"{bound} {entry.unit}"),
                "compared": entry.compared,
                "quantity": statement.quantity,
                "measured": cell(measured.score, interval=interval),
                "low": cell(low),
                "high": cell(high),
                "unit": entry.unit,
                "holds_if": f"{'>' if entry.above else '<'} {bound}",
                "n": cell(measured.n),
                "over": measured.over,
                "p": cell(entry.p),
                "p_corrected": cell(p, files_of_all),
                "verdict": verdict(entry, p, confidence),
            }
        )
    return DataFrame(rows)


def verdict(entry: Evidence, p_corrected: float, confidence: float) -> str:
    """Whether a claim holds, fails, or is undecided."""
    if p_corrected > 1 - confidence:
        return UNDECIDED
    return HOLDS if entry.supports_claim else FAILS


def as_report(table: DataFrame, confidence: float) -> str:
    """Format the table of `judged` as text, and explain how to read it."""
    shown = (
        {
            "Section": row["section"],
            "Task": row["task"],
            "Claim": row["statement"],
            "On": row["endpoint"],
            "Measured": "{:+.3g} [{:+.3g}, {:+.3g}]".format(
                *(row[name].raw for name in ("measured", "low", "high"))
            ),
            "Holds If": f"{row['holds_if']} {row['unit']}",
            "p": f"{row['p_corrected'].raw:.4f}",
            "Verdict": row["verdict"],
        }
        for row in table.to_dict("records")
    )
    verdicts = Counter(overall(rows["verdict"]) for _, rows in table.groupby(CLAIM, sort=False))
    counts = ", ".join(f"{n} {verdict}" for verdict, n in verdicts.most_common())
    resampled = table[["task", "over"]].drop_duplicates().itertuples(index=False)
    return as_text(shown) + (
        f"\nMeasured: with its {100 * confidence:g} % interval. p: two-sided, corrected for all "
        f"{len(table)} tests (Holm);\na claim is decided at p <= {1 - confidence:.2g}. "
        "claims.csv says which models were compared.\n"
        "Errors are over\n"
        + "".join(f"  {task}: {over}\n" for task, over in resampled)
        + "They speak of other test examples. Of other seeds of tuning, seeds.csv speaks, if the\n"
        "configuration has further_seeds.\n"
        f"Of {verdicts.total()} claims, by whichever endpoint decides: {counts}.\n"
    )


def overall(verdicts: Iterable[str]) -> str:
    """The verdict on a claim from those of its endpoints: that of any that decides it."""
    decided = sorted(set(verdicts) - {UNDECIDED})
    return " and ".join(decided) or UNDECIDED
