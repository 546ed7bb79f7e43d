"""What a run recomputed of the paper's numbers, gathered from the files that its jobs left."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ffmerge.against_paper.paper_reported import Row
from ffmerge.architectures import towers
from ffmerge.tables.hyperparameters import shared_settings
from ffmerge.tables.results import Result


@dataclass(frozen=True)
class Recomputed:
    """What a run made of one task.

    comparable: whether its base model is the paper's. results: its tested models, the reported
    uncompressed one among them. ratios: name -> k. storage: storage.json of the quantized model.
    hyperparameters: of its fine-tuning, from the records. settings: other numbers of its set-up, by
    the name that text.csv has for them.
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


def recomputed(
    tasks: dict[str, dict[str, Any]],
    models: Sequence[Row],
    results: Sequence[Result],
    base_models: dict[str, Path],
    storage: dict[str, Path],
    records: Sequence[Path],
) -> dict[str, Recomputed]:
    """What a run made of each task.

    tasks: name -> `repository` of the base model, `ratios`, and `settings`, numbers of the
    configuration; models: rows of models.csv; base_models: name -> directory; storage: name ->
    storage.json; records: …/TASK/models/MODEL/tuned.record.json.
    """
    papers = {row["task"]: row["repository"] for row in models}
    made = {}
    for name, task in tasks.items():
        hyperparameters = shared_settings(
            [json.loads(file.read_text()) for file in records if file.parts[-4] == name]
        )
        architecture = json.loads((base_models[name] / "config.json").read_text())
        made[name] = Recomputed(
            comparable=name in papers and task["repository"] == papers[name],
            results=[result for result in results if result.task == name],
            ratios=task["ratios"],
            storage=json.loads(storage[name].read_text()),
            hyperparameters=hyperparameters,
            settings=settings_of(task["settings"], architecture, hyperparameters),
        )
    return made


def settings_of(
    configured: dict[str, Any], architecture: dict[str, Any], hyperparameters: dict[str, Any]
) -> dict[str, Any]:
    """The numbers of a task's set-up, by the names that text.csv has for them; None is unknown.

    configured: those of the configuration, so named; architecture: config.json of the base model.
    """
    towers_of_model = towers(architecture["model_type"])
    d_ff = [architecture.get(key) for key in ("n_inner", "intermediate_size", "encoder_ffn_dim")]
    if "n_embd" in architecture:
        d_ff.append(4 * architecture["n_embd"])  # GPT-2's, where n_inner is not given
    squares = {
        name: f"{architecture[key]}x{architecture[key]}"
        for name, key in (("resolution", "image_size"), ("patch_size", "patch_size"))
        if key in architecture
    }
    return {
        **configured,
        **{key: hyperparameters.get(key) for key in ("max_steps", "batch_size")},
        **squares,
        "n_layers": sum(architecture[tower.count] for tower in towers_of_model.values()),
        "anchors": len(towers_of_model),
        "d_ff": next((d for d in d_ff if d), None),
        "classes": len(architecture["id2label"]) if "id2label" in architecture else None,
    }
