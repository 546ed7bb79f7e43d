"""Where a merged model comes from: what the records beside it say and its files agree with."""

import json
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from ffmerge.compression.output.record import FILE
from ffmerge.models.pretrained import SOURCE
from provenance.digest import sha256_of
from provenance.record import read_record


@dataclass(frozen=True)
class Lineage:
    """What is known of a model's origin; all of it may be missing.

    records: what was recorded -> the record's digest. base_model: its directory, if it is still
    there. origin: `repository` and `revision` on a hub, or a package. method: permute or vanilla.
    tuned: whether it was fine-tuned. score: `metric` and `score` on the test split.
    """

    records: dict[str, str] = field(default_factory=dict)
    base_model: Path | None = None
    origin: dict[str, Any] = field(default_factory=dict)
    method: str | None = None
    tuned: bool | None = None
    score: dict[str, Any] | None = None

    def as_json(self) -> dict[str, Any]:
        """The same as plain values, without where the base model happens to be."""
        return {key: value for key, value in asdict(self).items() if key != "base_model"}


def lineage_of(model: Path) -> Lineage:
    """The lineage of a model of `ffmerge compress`, or of the workflow.

    Raises ValueError naming the file for one that is no longer what its record says.
    """
    if (model / FILE).exists():
        outputs = {name: model / name for name in read_record(model / FILE)["output"]}
        own = _checked(model / FILE, outputs)
        if "lineage" in own["input"]:  # exported before
            earlier = Lineage(**own["input"]["lineage"])
            return replace(earlier, records={**earlier.records, "export": own["digest"]})
        origin = {"repository": own["input"]["name"], "revision": own["input"]["revision"]}
        return Lineage(
            records={"compress": own["digest"]},
            origin=origin if origin["revision"] else {},
            method=own["params"]["method"],
            tuned=False,
        )
    if record_of(model).exists():
        return _of_workflow(model)
    return Lineage()


def _of_workflow(model: Path) -> Lineage:
    own = _checked(record_of(model), {"model": model})
    tuned = own["rule"] == "fine_tune"
    records, merged, score = {own["rule"]: own["digest"]}, None if tuned else own, None
    if tuned and (before := record_of(model.with_name("compressed"))).exists():
        found = read_record(before)
        if found["output"]["model"]["sha256"] == own["input"]["model"]["sha256"]:
            merged, records = found, {found["rule"]: found["digest"], **records}
    test, tested = model.with_name("test.json"), model.with_name("test.record.json")
    if test.exists() and tested.exists():
        found = _checked(tested, {"score": test})
        if found["input"]["model"]["sha256"] == own["output"]["model"]["sha256"]:
            records[found["rule"]] = found["digest"]
            score = {key: json.loads(test.read_text())[key] for key in ("metric", "score")}
    base_model = _there(own["input"]["base_model"]["path"], model, own["output"]["model"]["path"])
    source = base_model / SOURCE if base_model else None
    return Lineage(
        records,
        base_model,
        json.loads(source.read_text()) if source and source.exists() else {},
        merged["params"].get("method") if merged else None,
        tuned,
        score,
    )


def record_of(model: Path) -> Path:
    """The record of a model's directory in a workflow."""
    return model.with_name(f"{model.name}.record.json")


def _checked(record: Path, outputs: dict[str, Path]) -> dict[str, Any]:
    """A record, if its outputs still are what it says. outputs: names in it -> where they are."""
    content = read_record(record)
    for name, path in outputs.items():
        said = content["output"][name]
        if sha256_of(path) != (said if isinstance(said, str) else said["sha256"]):
            raise ValueError(
                f"{path} is not what {record} says that it was when it was made; make it again"
            )
    return content


def _there(path: str, model: Path, said: str) -> Path | None:
    """A directory that a record names. said: what the same record calls the model's."""
    whole = model.resolve().as_posix()
    root = Path(whole.removesuffix(said)) if whole.endswith(f"/{said}") else Path()
    return root / path if (root / path).is_dir() else None
