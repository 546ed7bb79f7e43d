"""Every number that the paper prints beside the one recomputed here.

What the paper prints is in config/paper_reported/. A number is comparable if the run's base model
is the paper's; a smaller model's has the same meaning, but not the same value.
"""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from ffmerge.architectures import towers
from ffmerge.paper_reported import Row, tolerances
from ffmerge.tables.results import Result

OF_UNIT = {"%": "accuracy", "perplexity": "perplexity", "BLEU": "bleu"}  # of a printed score
WITHIN, DIFFERS = "within tolerance", "differs"
OTHER_MODEL = "not comparable at demo scale"
MISSING = "not computed"
NO_RESULT = "not a result"


@dataclass(frozen=True)
class Ours:
    """A recomputed number; low and high: its interval, where it has one."""

    value: float | str
    low: float | None = None
    high: float | None = None


@dataclass(frozen=True)
class Recomputed:
    """What a run made of one task.

    comparable: whether its base model is the paper's. results: its tested models, the reported
    uncompressed one among them. ratios: name -> k. storage: storage.json of the quantized model.
    hyperparameters: of its fine-tuning, from the records. settings: other numbers, by the name of
    their quantity.
    """

    comparable: bool
    results: list[Result]
    ratios: dict[str, int]
    storage: dict[str, Any]
    hyperparameters: dict[str, Any]
    settings: dict[str, Any]

    @property
    def base(self) -> Result:
        """The uncompressed model that the others are set against."""
        return next(result for result in self.results if result.method is None)

    def find(self, method: str, ratio: str, anchor: str, role: str, int8: bool) -> Result | None:
        """The model of a row of Tables 2 to 5; a vanilla model's anchor does not matter."""
        if method == "base":
            return self.base
        for result in self.results:
            same = (result.method, result.k, result.role) == (method, self.ratios[ratio], role)
            if same and result.int8 == int8 and anchor in ("", result.anchor):
                return result
        return None


def compared(
    reported: dict[str, list[Row]], tasks: dict[str, Recomputed]
) -> Iterator[dict[str, Any]]:
    """A row for every printed number: the paper's, ours with its interval, and a verdict."""
    allowed = tolerances(reported, "reproduction")
    for row in reported["scores"]:
        task = tasks.get(row["task"])
        ours, tolerance = (None, None) if task is None else _of_table(row, task, allowed)
        setting = ", ".join(
            row[key] for key in ("method", "ratio", "anchor", "window") if row[key]
        ) + (", int8" if row["int8"] == "yes" else "")
        yield _row(f"Table {row['table']}", row, row["quantity"], setting, task, ours, tolerance)
    for row in reported["hyperparameters"]:
        task = tasks.get(row["task"])
        value = task.hyperparameters.get(row["name"]) if task else None
        ours = Ours(value) if value is not None else None
        yield _row(f"Table {row['table']}", row, row["name"], "fine-tuning", task, ours, 0.0)
    for row in reported["text"]:
        task, where = tasks.get(row["task"]), f"Section {row['section']}"
        where = where if row["section"][0].isdigit() or len(row["section"]) < 4 else row["section"]
        quantity = QUANTITIES.get(row["quantity"])
        if not row["task"] or quantity is None:
            yield {**_row(where, row, row["quantity"], "", None, None, None), "verdict": NO_RESULT}
            continue
        ours = quantity(task) if task else None
        tolerance = 0.0 if row["quantity"] in SETTINGS else allowed["percent"]
        yield _row(where, row, row["quantity"], "", task, ours, tolerance)


def _of_table(
    row: Row, task: Recomputed, allowed: dict[str, float]
) -> tuple[Ours | None, float | None]:
    result = task.find(
        row["method"], row["ratio"], row["anchor"], row["window"], row["int8"] == "yes"
    )
    if result is None:
        return None, None
    match row["quantity"]:
        case "score":
            return Ours(result.score, result.low, result.high), allowed[OF_UNIT[row["unit"]]]
        case "storage_percent":
            key = "measured_percent" if result.int8 else "merged_percent"
            return Ours(task.storage[key]), allowed["percent"]
        case "merged_indices":
            return Ours(result.merged_indices), 0.0
        case "ffs_removed":
            return Ours(f"{result.sublayers_removed}/{result.sublayers}"), 0.0
    raise ValueError(f"quantity {row['quantity']!r} of Table {row['table']} is not known")


def settings_of(
    configured: dict[str, Any], architecture: dict[str, Any], hyperparameters: dict[str, Any]
) -> dict[str, Any]:
    """The numbers of a task's set-up, by the names that text.csv has for them.

    configured: those of the configuration, so named; architecture: config.json of the base model.
    """
    towers_of_model = towers(architecture["model_type"])
    d_model = architecture.get("n_embd")
    image = {
        name: f"{architecture[key]}x{architecture[key]}"
        for name, key in (("resolution", "image_size"), ("patch_size", "patch_size"))
        if key in architecture
    }
    d_ff = [architecture.get(key) for key in ("n_inner", "intermediate_size", "encoder_ffn_dim")]
    return {
        **configured,
        **{key: hyperparameters.get(key) for key in ("max_steps", "batch_size")},
        **image,
        "n_layers": sum(architecture[tower.count] for tower in towers_of_model.values()),
        "anchors": len(towers_of_model),
        "d_ff": next((d for d in d_ff if d), 4 * d_model if d_model else None),
        "classes": len(architecture["id2label"]) if "id2label" in architecture else None,
    }


def _third(task: Recomputed) -> Result | None:
    return task.find("permute", "third", "first", "best", False)


def _half(task: Recomputed) -> Result | None:
    return task.find("permute", "half", "first", "best", False)


def _of(
    find: Callable[[Recomputed], Result | None], number: Callable[[Result, Result], float]
) -> Callable[[Recomputed], Ours | None]:
    """A number made of a model's result and the uncompressed one's."""

    def of_task(task: Recomputed) -> Ours | None:
        result = find(task)
        return Ours(number(result, task.base)) if result else None

    return of_task


SETTINGS = (
    *("n_layers", "d_ff", "feature_tokens", "feature_patches", "max_steps", "batch_size"),
    *("context", "test_window", "resolution", "patch_size", "classes", "anchors"),
    "validation_sentences",
)


def _setting(name: str) -> Callable[[Recomputed], Ours | None]:
    return lambda task: Ours(task.settings[name]) if task.settings.get(name) is not None else None


QUANTITIES: dict[str, Callable[[Recomputed], Ours | None]] = {
    "parameters_removed": _of(_third, lambda third, base: third.reduction_percent),
    "parameters_removed_at_half": _of(_half, lambda half, base: half.reduction_percent),
    "performance_kept": _of(_third, lambda third, base: 100 * third.score / base.score),
    "score_drop_at_third": _of(_third, lambda third, base: base.score - third.score),
    "score_rise_at_third": _of(_third, lambda third, base: third.score - base.score),
    **{name: _setting(name) for name in SETTINGS},
}


def _row(
    where: str,
    row: Row,
    quantity: str,
    setting: str,
    task: Recomputed | None,
    ours: Ours | None,
    tolerance: float | None,
) -> dict[str, Any]:
    return {
        "where": where,
        "task": row["task"],
        "quantity": quantity,
        "setting": setting,
        "paper": row["value"],
        "ours": "" if ours is None else ours.value,
        "low": "" if ours is None or ours.low is None else ours.low,
        "high": "" if ours is None or ours.high is None else ours.high,
        "unit": row.get("unit", ""),
        "tolerance": "" if tolerance is None else tolerance,
        "verdict": _verdict(row["value"], ours, tolerance, task),
    }


def _verdict(
    paper: str, ours: Ours | None, tolerance: float | None, task: Recomputed | None
) -> str:
    if ours is None or task is None:
        return MISSING
    if not task.comparable:
        return OTHER_MODEL
    try:
        printed, value = float(paper), float(ours.value)
    except ValueError:
        return WITHIN if paper == str(ours.value) else DIFFERS
    half_a_digit = 0.5 * 10.0 ** -len(paper.partition(".")[2]) if "e" not in paper else 0.0
    low = value if ours.low is None else ours.low
    high = value if ours.high is None else ours.high
    slack = half_a_digit if tolerance else 0.0  # a setting is exact
    near = abs(printed - value) <= (tolerance or 0.0) + slack
    return WITHIN if near or low - slack <= printed <= high + slack else DIFFERS


def summary(rows: Iterable[dict[str, Any]]) -> dict[str, int]:
    """How many numbers have each verdict."""
    counts: dict[str, int] = {}
    for row in rows:
        counts[row["verdict"]] = counts.get(row["verdict"], 0) + 1
    return counts
