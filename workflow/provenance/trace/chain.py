"""Collect the chain of jobs behind a number, from data and base model to its table."""

from collections.abc import Iterator
from functools import cached_property
from typing import Any

from provenance.hashing import ALTERED, GONE, FileStates, omitted_files
from provenance.numbers import Number, Reach
from provenance.project import PROJECT
from provenance.records import Record, Records


class Chain:
    """A number, its job, and all jobs that it builds on.

    records: each after those it builds on, the table's last. missing: what should be there to
    answer for the number and is gone or altered, in words.
    """

    def __init__(self, number: Number, records: Records) -> None:
        self.number, self._all = number, records
        self._states = FileStates(omitted_files(records.root))
        self._behind = Reach(records).behind_number(number)
        self.records = records.ancestry(*number.files)
        table = records.maker(number.ledger.file)
        if table and table not in self.records:
            self.records.append(table)
        self._places = {record.file: n for n, record in enumerate(self.records, start=1)}
        digests = number.ledger.content["files"]
        sources = {path: digests[path] for path in number.files if path in digests}
        self.origins = {
            path: digest
            for made_from in (*(record.inputs for record in self.records), sources)
            for path, digest in made_from.items()
            if path in self._behind and records.maker(path) is None
        }
        self.missing = list(dict.fromkeys(self._missing(table)))

    def _missing(self, table: Record | None) -> Iterator[str]:
        if table is None:
            yield f"no record says what made {self.number.ledger.file}"
        for source in self.described["sources"]:
            if source["state"] in (ALTERED, GONE):
                yield f"{source['file']}, where the number stands, is {source['state']}"
        for path in self.number.files:
            if self._all.maker(path) is None and not PROJECT.embeds(path):
                yield f"no record says what made {path}, where the number stands"
        for path in self.origins:
            if not PROJECT.embeds(path):
                yield f"no record says what made {path}"
        for record in self.records:
            if record.altered:
                yield f"{record.file} is not what {record} wrote"
        for job in self.jobs:
            for file in [*job["inputs"], *job["outputs"]]:
                if file["state"] in (ALTERED, GONE):
                    yield f"{file['path']} is {file['state']}"

    @cached_property
    def described(self) -> dict[str, Any]:
        """The number: as shown, raw, where it stands, and in which table."""
        ledger, cell = self.number.ledger, self.number.cell
        digests = ledger.content["files"]
        return {
            **{key: value for key, value in cell.items() if key != "sources"},
            "labels": self.number.row,
            "table": [
                {"path": path, "sha256": digest, "state": self._states.of(path, digest)}
                for path, digest in ledger.about.items()
            ],
            "sources": [
                {
                    **source,
                    "sha256": digests.get(source["file"]),
                    "state": self._states.of(source["file"], digests.get(source["file"])),
                }
                for source in cell["sources"]
            ],
        }

    @cached_property
    def jobs(self) -> list[dict[str, Any]]:
        """Each job by its record; inputs with the place in the chain of the job that made them."""
        return [self._job(n, record) for n, record in enumerate(self.records, start=1)]

    def _job(self, n: int, record: Record) -> dict[str, Any]:
        content = record.content
        described = ("rule", "wildcards", "params", "seed", "reproduces", "command")
        circumstances = ("git", "environment", "machine", "time", "warnings")
        return {
            "n": n,
            "name": str(record),
            "record": str(record.file),
            "altered": record.altered,
            **{key: content.get(key) for key in described},
            "inputs": [
                self._input(*file) for file in record.files("input") if file[1] in self._behind
            ],
            "n_other_inputs": len(record.inputs.keys() - self._behind),
            "outputs": [self._file(*file) for file in record.files("output")],
            "code": record.code_digest,
            "sources": record.sources,
            **{key: content.get(key) for key in circumstances},
        }

    def _input(self, name: str, path: str, digest: str) -> dict[str, Any]:
        maker = self._all.maker(path)
        made = {"made_by": self._places.get(maker.file) if maker else None}
        if maker and maker.outputs.get(path, digest) != digest:
            made["maker_says"] = maker.outputs[path]
        entry = self._file(name, path, digest)
        return {**entry, **made, "state": entry.pop("state")}

    def _file(self, name: str, path: str, digest: str) -> dict[str, Any]:
        state = self._states.of(path, digest)
        return {"name": name, "path": path, "sha256": digest, "state": state}

    @cached_property
    def started_from(self) -> list[dict[str, Any]]:
        """The files that no job made, such as data, or that have no record."""
        origins = [
            {
                "path": path,
                "sha256": digest,
                "is": PROJECT.kind_of_origin(path),
                "embedded": PROJECT.embeds(path),
                "state": self._states.of(path, digest),
            }
            for path, digest in self.origins.items()
        ]
        return sorted(origins, key=lambda origin: origin["is"])

    def as_json(self) -> dict[str, Any]:
        """Return all of it as JSON."""
        return {
            "number": self.described,
            "missing": self.missing,
            "origins": self.started_from,
            "jobs": self.jobs,
        }
