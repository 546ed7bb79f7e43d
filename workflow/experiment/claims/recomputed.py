"""What a run recomputed of the paper's numbers, gathered from the files that its jobs left."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from experiment.reported import Row
from experiment.tables.scores import Result
from ffmerge.models.architectures import architecture_of
from provenance import cells
from provenance.cells import JOB, Cell, Source


@dataclass(frozen=True)
class Recomputed:
    """What a run made of one task.

    comparable: whether its base model is the paper's. results: its tested models, the reported
    uncompressed one among them. ratios: name -> k. storage: storage.json of the quantized model.
    hyperparameters: of its fine-tuning; settings: other numbers of its set-up, by the name that
    text.csv has for them. Both are read from the records of the jobs: what is shown was done.
    """

    comparable: bool
    results: list[Result]
    ratios: dict[str, int]
    storage: Path
    hyperparameters: dict[str, Cell]
    settings: dict[str, Cell]

    @property
    def base(self) -> Result:
        """The uncompressed model that the others are set against."""
        return next(result for result in self.results if result.method is None)

    def find(
        self,
        method: str,
        ratio: str,
        anchor: str = "first",
        window: str = "best",
        int8: bool = False,
    ) -> Result | None:
        """The model of a row of Tables 2 to 5, if it was tested; anchor "": whichever."""
        if method == "base":
            return self.base
        for result in self.results:
            same = (result.method, result.k, result.role) == (method, self.ratios[ratio], window)
            if same and result.int8 == int8 and anchor in ("", result.anchor):
                return result
        return None


@dataclass(frozen=True)
class Files:
    """What the jobs of a task left.

    base_model: directory; storage: storage.json. The rest are records: of collecting features, of
    testing the base model, and of every fine-tuning.
    """

    base_model: Path
    storage: Path
    collected: Path
    tested: Path
    tuned: Sequence[Path]


def recomputed(
    tasks: dict[str, dict[str, Any]],
    models: Sequence[Row],
    results: Sequence[Result],
    files: dict[str, Files],
) -> dict[str, Recomputed]:
    """What a run made of each task.

    tasks: name -> `repository` of the base model, and `ratios`; models: rows of models.csv.
    """
    papers = {row["task"]: row["repository"] for row in models}
    return {
        name: Recomputed(
            comparable=name in papers and task["repository"] == papers[name],
            results=[result for result in results if result.task == name],
            ratios=task["ratios"],
            storage=files[name].storage,
            hyperparameters=shared(files[name].tuned, "/params/task/fine_tuning"),
            settings=settings_of(files[name]),
        )
        for name, task in tasks.items()
    }


def shared(records: Sequence[Path], pointer: str) -> dict[str, Cell]:
    """The settings at a place in some records that are set, and the same, in all of them."""
    settings = [Source(record, pointer).value() for record in records]
    return {
        key: Cell(tuple(Source(r, f"{pointer}/{key}") for r in records), derivation="common")
        for key, value in settings[0].items()
        if value is not None and all(each[key] == value for each in settings)
    }


def settings_of(files: Files) -> dict[str, Cell]:
    """The numbers of a task's set-up, by the names that text.csv has for them; none is unknown."""
    n_tokens = cells.of(files.collected, "/params/task/features/n_tokens")
    tuned = shared(files.tuned, "/params/task/fine_tuning")
    found = {
        "feature_tokens": n_tokens,
        "feature_patches": n_tokens,
        "context": shared([files.collected], "/params/task").get("context"),
        "test_window": shared([files.tested], "/params/task/test").get("stride"),
        "validation_sentences": shared(files.tuned, "/params/task/validation").get("max_examples"),
        "max_steps": tuned.get("max_steps"),
        "batch_size": tuned.get("batch_size"),
        **_of_architecture(files.base_model / "config.json"),
    }
    return {name: cell for name, cell in found.items() if cell}


def _of_architecture(file: Path) -> dict[str, Cell]:
    """The same of a base model's config.json."""
    architecture = Source(file).value()
    counts = [forms[0].count for forms in architecture_of(architecture).towers.values()]
    found = {}
    if all(counts):
        layers = tuple(Source(file, f"/{count.replace('.', '/')}") for count in counts)
        found["n_layers"] = Cell(layers, derivation="sum")
        found["anchors"] = Cell(layers, derivation="count")
    for name, key in (("resolution", "image_size"), ("patch_size", "patch_size")):
        if key in architecture:
            found[name] = cells.of(file, f"/{key}", "{0}x{0}")
    if "id2label" in architecture:
        found["classes"] = cells.of(file, "/id2label", derivation="entries")
    widths = ("n_inner", "intermediate_size", "encoder_ffn_dim")
    if width := next((key for key in widths if architecture.get(key)), None):
        found["d_ff"] = cells.of(file, f"/{width}")
    elif "n_embd" in architecture:  # GPT-2's, where n_inner is not given
        found["d_ff"] = Cell((Source(file),), derivation=JOB, computed=4 * architecture["n_embd"])
    return found
