"""Gather the numbers of a run that stand beside the paper's, from the files of its jobs."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from pandas import DataFrame

from experiment.tables.scores import Result
from experiment.tables.tested import by_model
from ffmerge.models.architectures import architecture_of
from provenance import cells
from provenance.cells import JOB, Cell, Source
from provenance.job import Job

FINE_TUNING = "/params/task/fine_tuning"  # in a record


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
