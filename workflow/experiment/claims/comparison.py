"""Set every number that the paper prints beside ours, with a verdict.

The paper's numbers and the tolerances are in config/paper_reported/. A number is compared only if
the run's base model is the paper's.
"""

import re
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from pandas import DataFrame

from experiment.reported import Reported, tolerances
from experiment.tables.layout import Row, as_text
from experiment.tables.scores import Result, bound_cell
from experiment.tables.tested import by_model
from ffmerge.models.architectures import architecture_of
from provenance import cells
from provenance.cells import JOB, Cell, Printed, Source
from provenance.job import Job

FINE_TUNING = "/params/task/fine_tuning"  # in a record
WITHIN, DIFFERS = "within tolerance", "differs"
OTHER_MODEL = "not comparable: another base model"
MISSING = "not computed"
NO_RESULT = "not a result"
EXACT, AT_LEAST = "exact", "at least"  # instead of a tolerance
OF_SCORES, OF_PERCENT = "of scores", "percent"  # which tolerance of tolerances.csv


# --- our numbers ----------------------------------------------------------------------------------


@dataclass(frozen=True)
class Recomputed:
    """The results and settings of one task of a run.

    comparable: whether its base model is the paper's. results: its tested models, including the
    reported uncompressed one. ratios: name -> k. storage: storage.json of the quantized model.
    hyperparameters: of its fine-tuning; settings: other numbers of its set-up, named as in
    text.csv. Both are read from the records of the jobs.
    """

    comparable: bool
    results: list[Result]
    ratios: dict[str, int]
    storage: Path
    hyperparameters: dict[str, Cell]
    settings: dict[str, Cell]

    @property
    def base(self) -> Result:
        """The uncompressed model that the others are compared with."""
        return next(result for result in self.results if result.method is None)

    def find(
        self,
        method: str,
        ratio: str,
        anchor: str = "first",
        window: str = "best",
        int8: bool = False,
    ) -> Result | None:
        """Find the model of a row of Tables 2 to 5, if it was tested; anchor "" matches any."""
        if method == "base":
            return self.base
        for result in self.results:
            found, wanted = (result.k, result.role), (self.ratios.get(ratio), window)
            same = result.method == method and found == wanted
            if same and result.int8 == int8 and anchor in ("", result.anchor):
                return result
        return None


def recomputed(job: Job, results: Sequence[Result], models: DataFrame) -> dict[str, Recomputed]:
    """Gather the numbers of each task of the run whose files are a job's inputs.

    Inputs, in the order of the tasks: directories of base models, storage.json, and records of
    collecting features and of testing the base model; besides them the records of every
    fine-tuning. Parameters: `tasks`, name -> `repository` of the base model, and `ratios`.
    models: models.csv of the paper.
    """
    papers = dict(zip(models["task"], models["repository"], strict=True))
    inputs, tuned = job.input, by_model(job.input.tuned)
    files = zip(inputs.base_models, inputs.storage, inputs.collected, inputs.tested, strict=True)
    run = {}
    for (name, task), paths in zip(job.params.tasks.items(), files, strict=True):
        base_model, storage, collected, tested = paths
        records = list(tuned[name].values())
        run[name] = Recomputed(
            comparable=name in papers and task["repository"] == papers[name],
            results=[result for result in results if result.task == name],
            ratios=task["ratios"],
            storage=storage,
            hyperparameters=shared(records, FINE_TUNING),
            settings=settings_of(base_model, collected, tested, records),
        )
    return run


def shared(records: Sequence[Path], pointer: str) -> dict[str, Cell]:
    """The settings below a pointer that have the same value, not null, in all records."""
    settings = [Source(record, pointer).value() for record in records]
    return {
        key: Cell(tuple(Source(r, f"{pointer}/{key}") for r in records), derivation="common")
        for key, value in settings[0].items()
        if value is not None and all(other[key] == value for other in settings)
    }


def settings_of(
    base_model: Path, collected: Path, tested: Path, tuned: Sequence[Path]
) -> dict[str, Cell]:
    """The known numbers of a task's set-up, named as in text.csv.

    base_model: directory; the rest are records (see recomputed).
    """
    n_tokens = cells.of(collected, "/params/task/features/n_tokens")
    tuning = shared(tuned, FINE_TUNING)
    settings = {
        "feature_tokens": n_tokens,
        "feature_patches": n_tokens,
        "context": shared([collected], "/params/task").get("context"),
        "test_window": shared([tested], "/params/task/test").get("stride"),
        "validation_sentences": shared(tuned, "/params/task/validation").get("max_examples"),
        "max_steps": tuning.get("max_steps"),
        "batch_size": tuning.get("batch_size"),
        **_of_architecture(base_model / "config.json"),
    }
    return {name: cell for name, cell in settings.items() if cell}


def _of_architecture(file: Path) -> dict[str, Cell]:
    """The numbers that follow from a base model's config.json."""
    architecture = Source(file).value()
    counts = [forms[0].count for forms in architecture_of(architecture).towers.values()]
    settings = {}
    if all(counts):
        layers = tuple(Source(file, f"/{count.replace('.', '/')}") for count in counts)
        settings["n_layers"] = Cell(layers, derivation="sum")
        settings["anchors"] = Cell(layers, derivation="count")
    for name, key in (("resolution", "image_size"), ("patch_size", "patch_size")):
        if key in architecture:
            settings[name] = cells.of(file, f"/{key}", "{0}x{0}")
    if "id2label" in architecture:
        settings["classes"] = cells.of(file, "/id2label", derivation="entries")
    widths = ("n_inner", "intermediate_size", "encoder_ffn_dim")
    if width := next((key for key in widths if architecture.get(key)), None):
        settings["d_ff"] = cells.of(file, f"/{width}")
    elif "n_embd" in architecture:  # GPT-2's, where n_inner is not given
        settings["d_ff"] = Cell(
            (Source(file),), derivation=JOB, computed=4 * architecture["n_embd"]
        )
    return settings


# --- the comparison -------------------------------------------------------------------------------

PrintedRow = dict[str, str]  # of a file of config/paper_reported/
OurNumber = Callable[[Recomputed, PrintedRow], Cell | None]  # unrounded, for a printed row


def _of_table(number: Callable[[Recomputed, Result], Cell]) -> OurNumber:
    """Look up the model of a row of scores.csv, and take a number of it."""

    def number_of(task: Recomputed, row: PrintedRow) -> Cell | None:
        names = row["method"], row["ratio"], row["anchor"], row["window"]
        result = task.find(*names, int8=row["int8"] == "yes")
        return number(task, result) if result else None

    return number_of


def _stored(task: Recomputed, result: Result) -> Cell:
    """The bytes left, in % of the original's."""
    return cells.of(task.storage, f"/{'measured' if result.int8 else 'merged'}_percent")


def _removed(ratio: str) -> OurNumber:
    """The parameters that our method removes at a ratio, in %."""

    def number_of(task: Recomputed, row: PrintedRow) -> Cell | None:
        result = task.find("permute", ratio)
        return replace(result.reduction_cell(), rule="{}") if result else None

    return number_of


def _from_scores(derivation: str, *models: tuple[str, str]) -> OurNumber:
    """Derive a number from the scores of models, each given as (method, ratio)."""

    def number_of(task: Recomputed, row: PrintedRow) -> Cell | None:
        results = [task.find(*model) for model in models]
        if None in results:
            return None
        return Cell(tuple(Source(r.file, "/score") for r in results), derivation=derivation)

    return number_of


TABLES: dict[str, tuple[str, OurNumber]] = {  # quantity of scores.csv -> tolerance, our number
    "score": (OF_SCORES, _of_table(lambda task, r: replace(r.score_cell(), rule="{}"))),
    "storage_percent": (OF_PERCENT, _of_table(_stored)),
    "merged_indices": (EXACT, _of_table(lambda task, r: r.window_cell())),
    "ffs_removed": (EXACT, _of_table(lambda task, r: r.removed_cell())),
}
COMPARED_SETTINGS = (
    *("n_layers", "d_ff", "feature_tokens", "feature_patches", "max_steps", "batch_size"),
    *("context", "test_window", "resolution", "patch_size", "classes", "anchors"),
    "validation_sentences",
)
UNCOMPRESSED_MODEL, THIRD = ("base", ""), ("permute", "third")
TEXT: dict[str, tuple[str, OurNumber]] = {  # quantity of text.csv -> tolerance, our number
    "parameters_removed": (AT_LEAST, _removed("third")),
    "parameters_removed_at_half": (AT_LEAST, _removed("half")),
    "performance_kept": (OF_PERCENT, _from_scores("percent", THIRD, UNCOMPRESSED_MODEL)),
    "score_drop_at_third": (OF_SCORES, _from_scores("difference", UNCOMPRESSED_MODEL, THIRD)),
    "score_rise_at_third": (OF_SCORES, _from_scores("difference", THIRD, UNCOMPRESSED_MODEL)),
    "storage_with_quantization": (
        OF_PERCENT,
        lambda task, row: cells.of(task.storage, "/measured_percent"),
    ),
    **{
        name: (EXACT, lambda task, row: task.settings.get(row["quantity"]))
        for name in COMPARED_SETTINGS
    },
}


def compared(reported: Reported, tasks: dict[str, Recomputed]) -> DataFrame:
    """List every printed number beside ours, its interval, and a verdict.

    reported: see read_reported; tasks: by name. Raises KeyError for an unknown quantity of a table.
    """
    return DataFrame(_rows(reported, tasks))


def _rows(reported: Reported, tasks: dict[str, Recomputed]) -> Iterator[Row]:
    near = tolerances(reported, "reproduction")
    for row in reported["scores"].to_dict("records"):
        names = [row[key] for key in ("method", "ratio", "anchor", "window")]
        names += ["int8"] if row["int8"] == "yes" else []
        setting = ", ".join(name for name in names if name)
        known = TABLES[row["quantity"]]
        yield _row({**row, "setting": setting}, f"Table {row['table']}", known, near, tasks)
    for row in reported["hyperparameters"].to_dict("records"):
        named = {**row, "quantity": row["name"], "setting": "fine-tuning"}
        known = EXACT, lambda task, row: task.hyperparameters.get(row["name"])
        yield _row(named, f"Table {row['table']}", known, near, tasks)
    for row in reported["text"].to_dict("records"):
        where = re.sub(r"^(?=\d)", "Section ", row["section"])
        where = re.sub(r"^(?=[A-C](\.\d)?$)", "Appendix ", where)
        yield _row(row, where, TEXT.get(row["quantity"]) if row["task"] else None, near, tasks)


def _row(
    row: PrintedRow,
    where: str,
    known: tuple[str, OurNumber] | None,
    near: dict[str, float],
    tasks: dict[str, Recomputed],
) -> Row:
    """known: tolerance and our number; None where the row is no result or setting of a task."""
    kind, number = known or ("", None)
    task = tasks.get(row["task"])
    ours = number(task, row) if number and task else None
    if kind == OF_SCORES:
        kind = row["unit"]
    tolerance = near.get(kind, kind)
    if number is None:
        verdict = NO_RESULT
    elif ours is None:
        verdict = MISSING
    elif not task.comparable:
        verdict = OTHER_MODEL
    else:
        verdict = WITHIN if agrees(row["value"], ours, tolerance) else DIFFERS
    interval = ours.interval if ours else None
    return {
        "where": where,
        "task": row["task"],
        "quantity": row["quantity"],
        "setting": row.get("setting", ""),
        "paper": row["value"],
        "ours": replace(ours, printed=Printed(row["value"], where)) if ours else "",
        "low": bound_cell(ours, interval.low) if interval else "",
        "high": bound_cell(ours, interval.high) if interval else "",
        "unit": row.get("unit", ""),
        "tolerance": str(tolerance),
        "verdict": verdict,
        "note": row.get("note", ""),
    }


def agrees(printed: str, ours: Cell, tolerance: float | str) -> bool:
    """Whether a printed number is within a tolerance of ours.

    A printed number stands for all numbers that round to it. tolerance: in the number's unit; or
    EXACT; or AT_LEAST, where the paper says "more than".
    """
    try:
        paper, value = float(printed), float(str(ours))
    except ValueError:
        return printed == str(ours)
    if tolerance == EXACT:
        return paper == value
    if tolerance == AT_LEAST:
        return value >= paper
    slack = 0.5 * 10.0 ** -len(printed.partition(".")[2]) + 1e-9  # half a digit, and rounding
    return abs(value - paper) <= tolerance + slack


def summary(table: DataFrame) -> str:
    """Count the numbers with each verdict, and list those that differ, as text."""
    counts = Counter(table["verdict"])
    text = as_text({"Verdict": name, "Numbers": n} for name, n in counts.most_common())
    differing = [
        {
            "Where": row["where"],
            "Task": row["task"],
            "Quantity": ", ".join(filter(None, [row["quantity"], row["setting"]])),
            "Paper": row["paper"],
            "Ours": _short(row["ours"]),
            "Unit": row["unit"],
        }
        for row in table[table["verdict"] == DIFFERS].to_dict("records")
    ]
    return "\n".join([text, as_text(differing)] if differing else [text])


def _short(ours: Cell) -> str:
    return f"{ours.raw:.4g}" if isinstance(ours.raw, float) else str(ours)
