"""The lineage of all numbers as one graph, in which each job and each file stands once.

A page walks it backwards from a number; jobs are in an order in which each follows those that it
builds on, so that the jobs of a number, sorted, are its chain.
"""

import ast
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from provenance.numbers import Ledger, Number
from provenance.records import Evidence, Record, embedded
from provenance.verify.findings import UNCHECKED, Report

N_PARAMS = 40  # of a job, shown; a table's parameters are those of all tasks
LONG = 100  # characters of a parameter's value, shown


class Graph:
    """Jobs, files, machines and so on, each in a list and called by its place there.

    files: path, sha256, place of the job that made it (-1: none did), and how it stands:
    "" if its maker left it with this digest or it is part of the repository; "unrecorded"; "other".
    """

    def __init__(self, evidence: Evidence, ledgers: Sequence[Ledger]) -> None:
        shown = [path for ledger in ledgers for path in (*ledger.about, *ledger.content["files"])]
        of_numbers = evidence.ancestry(*shown)
        rest = evidence.ancestry(*evidence.records)
        records = {record.file: record for record in [*of_numbers, *rest]}
        self._evidence = evidence
        self._places = {file: place for place, file in enumerate(records)}
        self._interned: dict[str, dict[Any, int]] = {}
        self.files: list[list[Any]] = []
        self.faults: list[str] = []
        self.environments: list[dict[str, Any]] = []
        self.machines: list[dict[str, Any]] = []
        self.jobs = [self._job(record) for record in records.values()]

    def as_json(self) -> dict[str, Any]:
        """What the page holds of it, when all numbers were asked for."""
        names = ("jobs", "files", "environments", "machines", "faults")
        return {name: getattr(self, name) for name in names}

    def maker(self, path: str | Path) -> int:
        """The place of the job that made a file; -1 if no record says."""
        record = self._evidence.maker(path)
        return self._places[record.file] if record else -1

    def number(self, number: Number, report: Report | None) -> dict[str, Any]:
        """What is shown of a number, without what is null."""
        cell, digests = number.cell, number.ledger.content["files"]
        sources = [
            [self._file(source["file"], digests[source["file"]]), source["pointer"]]
            for source in cell["sources"]
        ]
        about = next(iter(number.ledger.about))
        words = [text for column, text in number.row.items() if column != cell["column"]]
        of = {
            "of": number.ledger.name,
            "where": [text for text in words[:4] if text and text != "–"],
            "sources": sources,
            "job": self.maker(about),
            **{name: cell[name] for name in ("column", "shown", "rule", "raw", "derivation")},
            **{name: cell[name] for name in ("interval", "paper") if cell[name]},
        }
        state = report.state_of(number.id) if report else UNCHECKED
        faults = report.faults_of(number.id) if report else []
        if faults:
            texts = [f"{fault.what}: {fault.why}" for fault in faults]
            of["faults"] = [self._place("faults", text, lambda text=text: text) for text in texts]
        return {**of, "state": state}

    def _file(self, path: str, sha256: str) -> int:
        def made() -> list[Any]:
            record = self._evidence.maker(path)
            if record is None:
                return [path, sha256, -1, "" if embedded(path) else "unrecorded"]
            left = record.outputs.get(path, sha256)  # of a directory's files it has no digest
            return [path, sha256, self._places[record.file], "" if left == sha256 else "other"]

        return self._place("files", (path, sha256), made)

    def _place(self, kind: str, key: Any, make: Any) -> int:
        """The place of a thing in the list of its kind, where it is put if it is not there yet."""
        places = self._interned.setdefault(kind, {})
        if key not in places:
            places[key] = len(places)
            getattr(self, kind).append(make())
        return places[key]

    def _job(self, record: Record) -> dict[str, Any]:
        content = record.content
        environment, machine = content.get("environment") or {}, content.get("machine") or {}
        code, git, time = (content.get(name) or {} for name in ("code", "git", "time"))
        params = [each for each in flat(content.get("params", {})) if each[0] != "seed"]
        rule = content.get("rule", "?")
        return {
            "rule": rule,
            "name": str(record),
            "did": purpose(rule, self._evidence.root),
            "record": str(record.file),
            "digest": content.get("digest"),
            "altered": record.altered,
            "params": params[:N_PARAMS],
            "more_params": max(0, len(params) - N_PARAMS),
            "seed": content.get("seed"),
            "in": [self._file(*entry) for entry in record.inputs.items()],
            "out": [self._file(*entry) for entry in record.outputs.items()],
            "code": code.get("digest"),
            "n_code": len(code.get("files", {})),
            "commit": git.get("commit"),
            "dirty": git.get("dirty"),
            "patch": git.get("patch"),
            "environment": self._place("environments", repr(environment), lambda: environment),
            "machine": self._place("machines", repr(machine), lambda: machine),
            "started": time.get("started"),
            "ended": time.get("ended"),
            "seconds": time.get("seconds"),
            "memory": time.get("peak_memory_bytes"),
            "warnings": content.get("warnings", []),
        }


def flat(params: Any, name: str = "") -> Iterable[tuple[str, str]]:
    """Parameters as names and values, `fine_tuning.batch_size` and 16, without those of null."""
    if isinstance(params, dict):
        for key, value in params.items():
            inner = "" if not name and key == "task" else f"{name}.{key}" if name else key
            yield from flat(value, inner)
    elif params is not None and params != []:
        items = params if isinstance(params, list) else [params]
        parts = (each if isinstance(each, list) else [each] for each in items)
        text = ", ".join(" ".join(map(str, part)) for part in parts)
        yield name, text if len(text) <= LONG else text[: LONG - 1] + "…"


def purpose(rule: str, root: Path = Path()) -> str:
    """What the jobs of a rule do, in the words of its script; nothing if there is none."""
    try:
        text = (root / "workflow/scripts" / f"{rule}.py").read_text()
        return (ast.get_docstring(ast.parse(text)) or "").partition("\n\n")[0].replace("\n", " ")
    except (OSError, SyntaxError):
        return ""
