"""The chain of jobs behind a number, as data: from data and base model to where it stands."""

from collections.abc import Iterable, Iterator
from functools import cached_property
from typing import Any

from provenance import omitted_files
from provenance.file_states import GONE, OTHER, FileStates
from provenance.numbers import Number
from provenance.reach import Reach
from provenance.records import Evidence, Record, embedded


class Chain:
    """A number, its job and all jobs that it builds on.

    records: each after those it builds on, the table's own last. missing: what should be there to
    answer for the number and is not, or is not what it was.
    """

    def __init__(self, number: Number, evidence: Evidence) -> None:
        self.number, self.evidence = number, evidence
        self._states = FileStates(omitted_files.read(evidence.root))
        self._behind = Reach(evidence).behind_number(number)
        self.records = evidence.ancestry(*number.files)
        table = evidence.maker(number.ledger.file)
        if table and table not in self.records:
            self.records.append(table)
        self._place = {record.file: n for n, record in enumerate(self.records, start=1)}
        self.origins = {
            path: digest
            for made_from in (*(record.inputs for record in self.records), self._sources)
            for path, digest in made_from.items()
            if path in self._behind and evidence.maker(path) is None
        }
        self.missing = list(dict.fromkeys(self._missing(table)))

    @property
    def _sources(self) -> dict[str, str]:
        """Path -> sha256 of the files that the number itself comes from."""
        digests = self.number.ledger.content["files"]
        return {path: digests[path] for path in self.number.files if path in digests}

    def _missing(self, table: Record | None) -> Iterator[str]:
        if table is None:
            yield f"no record says what made {self.number.ledger.file}"
        for source in self.described["sources"]:
            if source["state"] in (OTHER, GONE):
                yield f"{source['file']}, where the number stands, is {source['state']}"
        for path in self.number.files:
            if self.evidence.maker(path) is None and not embedded(path):
                yield f"no record says what made {path}, where the number stands"
        for path in self.origins:
            if not embedded(path):
                yield f"no record says what made {path}"
        for record in self.records:
            if record.altered:
                yield f"{record.file} is not what {record} wrote"
        for job in self.jobs:
            for each in [*job["inputs"], *job["outputs"]]:
                if each["state"] in (OTHER, GONE):
                    yield f"{each['path']} is {each['state']}"

    @cached_property
    def described(self) -> dict[str, Any]:
        """The number: as shown, raw, where it stands and in which table."""
        ledger, cell = self.number.ledger, self.number.cell
        files = ledger.content["files"]
        return {
            **{key: value for key, value in cell.items() if key != "sources"},
            "labels": {key: self.number.row[key] for key in self.number.row},
            "table": [
                {"path": path, "sha256": digest, "state": self._states.of(path, digest)}
                for path, digest in ledger.about.items()
            ],
            "sources": [
                {
                    **source,
                    "sha256": files.get(source["file"]),
                    "state": self._states.of(source["file"], files.get(source["file"])),
                }
                for source in cell["sources"]
            ],
        }

    @cached_property
    def jobs(self) -> list[dict[str, Any]]:
        """Each job by its record; inputs with the place in the chain of the job that made them."""
        return [
            {
                "n": n,
                "name": str(record),
                "record": str(record.file),
                "altered": record.altered,
                **{
                    key: record.content.get(key)
                    for key in ("rule", "wildcards", "params", "seed", "reproduces", "command")
                },
                "inputs": list(self._files(record, "input", self._behind)),
                "n_other_inputs": len(record.inputs.keys() - self._behind),
                "outputs": list(self._files(record, "output")),
                "code": (record.content.get("code") or {}).get("digest"),
                "sources": (record.content.get("code") or {}).get("files"),
                **{
                    key: record.content.get(key)
                    for key in ("git", "environment", "machine", "time", "warnings")
                },
            }
            for n, record in enumerate(self.records, start=1)
        ]

    def _files(
        self, record: Record, kind: str, wanted: Iterable[str] | None = None
    ) -> Iterator[dict[str, Any]]:
        for name, value in record.content.get(kind, {}).items():
            for entry in value if isinstance(value, list) else [value]:
                path, digest = entry["path"], entry["sha256"]
                if wanted is not None and path not in wanted:
                    continue
                found = {"name": name, "path": path, "sha256": digest}
                if kind == "input":
                    maker = self.evidence.maker(path)
                    found["made_by"] = self._place.get(maker.file) if maker else None
                    if maker and maker.outputs.get(path, digest) != digest:
                        found["maker_says"] = maker.outputs[path]
                yield {**found, "state": self._states.of(path, digest)}

    @cached_property
    def started_from(self) -> list[dict[str, Any]]:
        """What no job made: data, base model, the paper's numbers; or what has no record."""
        return [
            {
                "path": path,
                "sha256": digest,
                "is": _kind(path),
                "embedded": embedded(path),
                "state": self._states.of(path, digest),
            }
            for path, digest in sorted(self.origins.items(), key=lambda each: _kind(each[0]))
        ]

    def as_json(self) -> dict[str, Any]:
        """All of it for machines."""
        return {
            "number": self.described,
            "missing": self.missing,
            "origins": self.started_from,
            "jobs": self.jobs,
        }


def _kind(path: str) -> str:
    """What an origin is, in the order in which one asks for it."""
    if not embedded(path):
        return "unanswered"
    kinds = {"/models/": "base model", "/data/": "data", "/paper_reported/": "paper's numbers"}
    return next((kind for part, kind in kinds.items() if part in path), "settings")
