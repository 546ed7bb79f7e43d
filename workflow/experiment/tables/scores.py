"""The test result of each model, with its confidence interval, behind all tables of scores."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from experiment.tables.tested import in_nats, read_tests
from experiment.variants import BASE, TUNED_BASE, Variant
from ffmerge.evaluation.intervals import scored_models
from ffmerge.evaluation.metrics import metric_named
from provenance import cells
from provenance.cells import JOB, Cell, Interval, Printed, Source
from provenance.csv_files import write_csv
from provenance.job import Job

NO_WINDOW = "–"
UNNAMED = {**dict.fromkeys(("method", "k", "anchor", "role", "seed")), "int8": False}


@dataclass(frozen=True)
class Result:
    """A tested model with unrounded numbers.

    variant: its name in the DAG; method, k, anchor, role, int8, seed: the parts of that name, None
    for an uncompressed model. first_layer, last_layer: of the window that was merged or dropped.
    low, high: bounds of the score's interval at the level `confidence`; over: what was resampled;
    from_base_low, from_base_high: bounds of the interval of the difference from the uncompressed
    model in the same table (of the ratio, for perplexities), in pairs, at that model's score.
    loss: nats.
    sublayers_removed, sublayers: FF sublayers that share another's weights, and all that compute.
    reduction_percent: parameters removed, in % of the base model's, embeddings included.
    file, base_file: test.json of the model and of its base model.
    """

    task: str
    model: str
    metric: str
    variant: str
    method: str | None
    k: int | None
    anchor: str | None
    role: str | None
    int8: bool
    seed: int | None
    first_layer: int | None
    last_layer: int | None
    n_towers: int
    sublayers_removed: int
    sublayers: int
    score: float
    low: float
    high: float
    confidence: float
    over: str
    from_base_low: float | None
    from_base_high: float | None
    loss: float
    n_parameters: int
    reduction_percent: float
    file: Path
    base_file: Path

    @property
    def interval(self) -> Interval:
        """The confidence interval of the score."""
        return Interval(self.low, self.high, self.confidence, f"bootstrap over {self.over}")

    @property
    def from_base(self) -> Interval | None:
        """The interval of the score, given the uncompressed model's, that curves are read by."""
        if self.from_base_low is None:
            return None
        bounds, how = (self.from_base_low, self.from_base_high), f"bootstrap over {self.over}"
        return Interval(*bounds, self.confidence, f"{how}, of the difference from the uncompressed")

    @property
    def names(self) -> dict[str, str]:
        """The model and its metric, as the tables name them."""
        return {"Model": self.model, "Metric": metric_named(self.metric).label}

    def score_cell(self, printed: Printed | None = None, decimals: int | None = None) -> Cell:
        """The score, by default with as many decimals as the paper gives its metric."""
        decimals = metric_named(self.metric).decimals if decimals is None else decimals
        rule = f"{{:.{decimals}f}}"
        return cells.of(self.file, "/score", rule, interval=self.interval, printed=printed)

    def reduction_cell(self) -> Cell:
        """Parameters removed, in % of the base model's."""
        sources = tuple(Source(file, "/n_parameters") for file in (self.file, self.base_file))
        return Cell(sources, "{:.1f}", "reduction_percent")

    def window_cell(self, printed: Printed | None = None) -> Cell | str:
        """The window as in Table 5: `3-7`, or `2-4/2-4` for encoder and decoder."""
        if self.first_layer is None:
            return NO_WINDOW
        key = "dropped" if self.method == "drop" else "merged"
        towers = [Source(self.file, f"/{key}/{i}/layers") for i in range(self.n_towers)]
        return Cell(tuple(towers), "window", "values", printed=printed)

    def removed_cell(self, printed: Printed | None = None) -> Cell:
        """FF sublayers removed, and the number of all: `4/12`."""
        names = ("n_sublayers_removed", "n_sublayers")
        sources = tuple(Source(self.file, f"/{name}") for name in names)
        return Cell(sources, "{}/{}", "values", printed=printed)


def bound_cell(score: Cell, bound: float) -> Cell:
    """An unrounded bound of a score's interval; the job computes it from the test's examples."""
    (tested,) = score.sources
    files = tested.file, tested.file.with_suffix(".csv")
    return Cell(tuple(map(Source, files)), derivation=JOB, computed=bound)


def read_results(job: Job) -> list[Result]:
    """Read the tests that a job shows, in the order of its files.

    Inputs: see read_tests; each task's base model has to be among them, for its size. Parameters:
    `tasks`, name -> `label` in tables and names of the `models` to show; `intervals`, `resamples`
    and `confidence`; `seed`.
    """
    tasks, intervals = job.params.tasks, job.params.intervals
    tests = list(read_tests(job.input.scores, job.input.per_example))
    base = {test.task: test for test in tests if test.model == BASE}
    shown = [test for test in tests if test.model in tasks[test.task]["models"]]
    scored = {
        task: scored_models(
            {test.model: in_nats(test.summary) for test in shown if test.task == task},
            {test.model: test.examples for test in shown if test.task == task},
            intervals["resamples"],
            job.params.seed,
        )
        for task in {test.task for test in shown}
    }
    results = []
    for task, model, test, _, (file, _) in shown:
        of_model, confidence = scored[task][model], intervals["confidence"]
        scale = math.exp if test["metric"] == "perplexity" else float
        low, high = map(scale, of_model.interval(confidence))
        uncompressed = next(filter(scored[task].get, (TUNED_BASE, BASE)), None)
        from_base = [None, None]
        if uncompressed not in (None, model):
            reference = scored[task][uncompressed]
            bounds = of_model.minus(reference).interval(confidence)
            from_base = [scale(reference.score + bound) for bound in bounds]
        windows = test["merged"] or test["dropped"]
        layers = windows[0]["layers"] if windows else [None]
        name = vars(Variant.parse(model)) if windows else UNNAMED
        n_base = base[task].summary["n_parameters"]
        results.append(
            Result(
                task=task,
                model=tasks[task]["label"],
                metric=test["metric"],
                variant=model,
                **name,
                first_layer=layers[0],
                last_layer=layers[-1],
                n_towers=max(1, len(windows)),
                sublayers_removed=test["n_sublayers_removed"],
                sublayers=test["n_sublayers"],
                score=test["score"],
                low=low,
                high=high,
                confidence=confidence,
                over=of_model.over,
                from_base_low=from_base[0],
                from_base_high=from_base[1],
                loss=test["loss"],
                n_parameters=test["n_parameters"],
                reduction_percent=100 * (1 - test["n_parameters"] / n_base),
                file=file,
                base_file=base[task].files[0],
            )
        )
    return results


def write_results(results: Sequence[Result], file: Path) -> None:
    """Write results as CSV, a row for each, unrounded."""
    write_csv(map(vars, results), file)
