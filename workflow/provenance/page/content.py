"""Prepare what the report page shows: tables, figures, documents, and the lineage of numbers."""

import ast
import base64
import re
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from itertools import groupby
from pathlib import Path
from typing import Any

from markdown_it import MarkdownIt

from provenance.hashing import read_bounded
from provenance.numbers import Ledger, Number
from provenance.project import PROJECT
from provenance.records import Record, Records, is_elsewhere
from provenance.seal import digest_of_records
from provenance.text_format import leaves
from provenance.verify.findings import UNCHECKED, Report

MAX_PARAMS = 40  # of a job; a table's parameters are those of all tasks
MAX_CHARACTERS = 100  # of a parameter's value
# seaborn's magma, which the figures of heat maps use, at 0, 1/8 … 1
MAGMA = ["000004", "1d1147", "51127c", "832681", "b73779", "e75263", "fc8961", "fec488", "fcfdbf"]
PREFIX = "discrepancy-"  # keeps the names of headings apart from all others on the page
MARKDOWN = MarkdownIt("commonmark", {"html": False}).enable("table")


def table(ledger: Ledger) -> dict[str, Any]:
    """Lay out a ledger as a table: its columns, and its rows of cells.

    A cell has `text`, `id`, the place of its `column`, and `span`: for how many rows it stands,
    where leading texts repeat; 0 in a row that is covered.
    """
    content = ledger.content
    names = content["columns"]
    cells = {(cell["row"], cell["column"]): cell for cell in content["cells"]}
    rows = [
        [
            _cell(text, cells.get((n, name))) | {"column": place}
            for place, (name, text) in enumerate(zip(names, row, strict=True))
        ]
        for n, row in enumerate(content["rows"], start=1)
    ]
    numeric = {cell["column"] for cell in content["cells"]}
    lead = next((n for n, name in enumerate(names) if name in numeric), len(names))
    _span(rows, lead)
    return {
        "columns": [{"name": name, "numeric": name in numeric} for name in names],
        "rows": rows,
        "groups": [row[0]["span"] > 0 for row in rows],
    }


def figure(ledger: Ledger) -> dict[str, Any]:
    """Lay out a figure's points: heat maps of pairs of layers, a table of all others."""
    whole = table(ledger)
    names = ledger.content["columns"]
    if "layers" not in names or "panel" not in names:
        return {"maps": [], "table": whole}
    panel, layers = names.index("panel"), names.index("layers")
    raw = {cell["id"]: cell["raw"] for cell in ledger.content["cells"]}
    maps: dict[str, dict[int, list[dict[str, Any]]]] = defaultdict(lambda: defaultdict(list))
    rest = []
    for row, texts in zip(whole["rows"], ledger.content["rows"], strict=True):
        pair = re.fullmatch(r"(\d+), (\d+)", texts[layers])
        if pair and row[-1]["id"] in raw:
            cell = row[-1] | _colour(raw[row[-1]["id"]])
            maps[texts[panel]][int(pair[1])].append(cell)
        else:
            rest.append([_cell(text, None) | cell for text, cell in zip(texts, row, strict=True)])
    if not maps:
        return {"maps": [], "table": whole}
    _span(rest, layers)
    whole |= {"rows": rest, "groups": [row[0]["span"] > 0 for row in rest]}
    drawn = [{"panel": name, "rows": list(by_row.values())} for name, by_row in maps.items()]
    return {"maps": drawn, "table": whole if rest else None}


def against_paper(ledger: Ledger) -> dict[str, Any]:
    """Lay out rows of cells by column, and count the rows of each verdict."""
    names = ledger.content["columns"]
    rows = []
    for row, texts in zip(table(ledger)["rows"], ledger.content["rows"], strict=True):
        cells = [
            cell if cell["id"] else cell | {"text": text}
            for cell, text in zip(row, texts, strict=True)
        ]
        rows.append(dict(zip(names, cells, strict=True)))
    verdicts = Counter(row["verdict"]["text"] for row in rows if "verdict" in row)
    return {"rows": rows, "verdicts": verdicts.most_common()}


def picture(ledger: Ledger, results: Path, root: Path) -> str | None:
    """Return a figure's PNG as a data URI; None if it is not there."""
    for path in ledger.about:
        file = root / path
        if path.endswith(".png") and file.is_file() and not is_elsewhere(path, root, results):
            return f"data:image/png;base64,{base64.b64encode(read_bounded(file)).decode()}"
    return None


def _cell(text: str, cell: dict[str, Any] | None) -> dict[str, Any]:
    """Lay out a cell. cell: a number's entry in the ledger; unrounded ones are rounded here."""
    shown = {"text": text, "id": cell["id"] if cell else None, "span": 1}
    if cell and cell["rule"] == "{}" and isinstance(cell["raw"], float):
        shown["text"] = f"{cell['raw']:.4g}"
    return shown


def _span(rows: Sequence[list[dict[str, Any]]], lead: int) -> None:
    """Let repeated texts in the first `lead` columns stand once, for all their rows."""
    for column in range(lead):
        key = lambda row, last=column: [cell["text"] for cell in row[: last + 1]]  # noqa: E731
        for _, same in groupby(rows, key):
            first, *others = list(same)
            first[column]["span"] = 1 + len(others)
            for row in others:
                row[column]["span"] = 0


def _colour(value: float) -> dict[str, Any]:
    """Return the colour of a number in [0, 1], and whether text on it is to be dark."""
    place = min(max(value, 0.0), 1.0) * (len(MAGMA) - 1)
    low = min(int(place), len(MAGMA) - 2)
    parts = [
        round(int(a, 16) + (place - low) * (int(b, 16) - int(a, 16)))
        for a, b in zip(*(re.findall("..", MAGMA[n]) for n in (low, low + 1)), strict=True)
    ]
    bright = 0.299 * parts[0] + 0.587 * parts[1] + 0.114 * parts[2] > 140
    return {"colour": "#{:02x}{:02x}{:02x}".format(*parts), "dark": bright}


def sections(text: str) -> list[dict[str, Any]]:
    """Split a Markdown document at its headings, each with `title`, `name`, `level` and `html`.

    The document's title, of level 1, is not in its html; links to headings lead to names.
    Raises ValueError for a document without any.
    """
    tokens = MARKDOWN.parse(text)
    for child in (child for token in tokens for child in token.children or []):
        target = child.attrGet("href") if child.type == "link_open" else None
        if target and target.startswith("#"):
            child.attrSet("href", f"#{PREFIX}{target[1:]}")
    starts = [n for n, token in enumerate(tokens) if token.type == "heading_open"]
    if not starts:
        raise ValueError(f"{text[:40]!r} has no heading; {PROJECT.discrepancies} needs one")
    parts = []
    for start, end in zip(starts, [*starts[1:], len(tokens)], strict=True):
        title = tokens[start + 1].content
        part = {
            "title": title,
            "name": PREFIX + anchor(title),
            "level": int(tokens[start].tag[1]),
            "html": MARKDOWN.renderer.render(tokens[start + 3 : end], MARKDOWN.options, {}),
        }
        parts.append(part)
    return parts


def anchor(title: str) -> str:
    """Return the name that links use for a heading, as code hosts form it."""
    return re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-")


class Graph:
    """The lineage of all numbers as one graph, in which each job and file stands once.

    Jobs, files, machines and so on are lists, and are referred to by their place there. Jobs are
    each after those they build on, so that the jobs of a number, sorted, are its chain.
    files: path, sha256, place of the job that made it (-1: none did), and state: "" if it is as
    its maker left it or part of the repository; "unrecorded"; "other".
    """

    def __init__(self, records: Records, ledgers: Sequence[Ledger]) -> None:
        shown = [path for ledger in ledgers for path in (*ledger.about, *ledger.content["files"])]
        chains = [*records.ancestry(*shown), *records.ancestry(*records.by_file)]
        ordered = {record.file: record for record in chains}
        self._records = records
        self._places = {file: place for place, file in enumerate(ordered)}
        self._interned: dict[int, dict[Any, int]] = {}
        self.files: list[list[Any]] = []
        self.faults: list[str] = []
        self.environments: list[dict[str, Any]] = []
        self.machines: list[dict[str, Any]] = []
        self.jobs = [self._job(record) for record in ordered.values()]

    def as_json(self) -> dict[str, Any]:
        """Return the lists. Complete once `number` was called for all numbers."""
        names = ("jobs", "files", "environments", "machines", "faults")
        return {name: getattr(self, name) for name in names}

    def maker(self, path: str | Path) -> int:
        """Return the place of the job that made a file; -1 if no record says."""
        record = self._records.maker(path)
        return self._places[record.file] if record else -1

    def number(self, number: Number, report: Report | None) -> dict[str, Any]:
        """Describe a number, without what is null. report: of a verification, if there was one."""
        cell, digests = number.cell, number.ledger.content["files"]
        sources = [
            [self._file(source["file"], digests.get(source["file"], "")), source["pointer"]]
            for source in cell["sources"]
        ]
        described = {
            "of": number.ledger.name,
            "where": [text for text in number.labels if text != "–"],
            "sources": sources,
            "job": self.maker(next(iter(number.ledger.about), number.ledger.file)),
            **{name: cell[name] for name in ("column", "shown", "rule", "raw", "derivation")},
            **{name: cell[name] for name in ("interval", "paper") if cell[name]},
        }
        if report and (faults := report.by_number.get(number.id)):
            texts = [f"{fault.what}: {fault.why}" for fault in faults]
            described["faults"] = [self._place(self.faults, text, text) for text in texts]
        return {**described, "state": report.state_of(number.id) if report else UNCHECKED}

    def _file(self, path: str, sha256: str) -> int:
        record = self._records.maker(path)
        if record:
            left = record.outputs.get(path, sha256)  # files in a directory have no digest there
            state = "" if left == sha256 else "other"
        else:
            state = "" if self._records.is_origin(path) else "unrecorded"
        file = [path, sha256, self.maker(path), state]
        return self._place(self.files, (path, sha256), file)

    def _place(self, things: list[Any], key: Any, thing: Any) -> int:
        """Return a thing's place in the list of its kind, to which it is added if it is new."""
        places = self._interned.setdefault(id(things), {})
        if key not in places:
            places[key] = len(places)
            things.append(thing)
        return places[key]

    def _job(self, record: Record) -> dict[str, Any]:
        content = record.content
        environment, machine = record.part("environment"), record.part("machine")
        git, time = record.part("git"), record.part("time")
        params = list(_params(record.part("params")))
        return {
            "rule": record.rule,
            "name": str(record),
            "did": _purpose(record.rule, self._records.root),
            "record": str(record.file),
            "digest": content.get("digest"),
            "altered": record.altered,
            "params": params[:MAX_PARAMS],
            "more_params": max(0, len(params) - MAX_PARAMS),
            "seed": content.get("seed"),
            "in": [self._file(*entry) for entry in record.inputs.items()],
            "out": [self._file(*entry) for entry in record.outputs.items()],
            "code": record.code_digest,
            "n_code": len(record.sources),
            "commit": git.get("commit"),
            "dirty": git.get("dirty"),
            "patch": git.get("patch"),
            "environment": self._place(self.environments, repr(environment), environment),
            "machine": self._place(self.machines, repr(machine), machine),
            "started": time.get("started"),
            "ended": time.get("ended"),
            "seconds": time.get("seconds"),
            "memory": time.get("peak_memory_bytes"),
            "warnings": content.get("warnings") or [],
        }


def _params(params: dict[str, Any]) -> Iterator[tuple[str, str]]:
    """Yield names and values of parameters, `fine_tuning.batch_size` and `16`, but not of null."""
    for name, value in leaves(params):
        if value is not None and value != [] and name != "seed":
            items = value if isinstance(value, list) else [value]
            parts = (each if isinstance(each, list) else [each] for each in items)
            text = ", ".join(" ".join(map(str, part)) for part in parts)
            cut = text if len(text) <= MAX_CHARACTERS else text[: MAX_CHARACTERS - 1] + "…"
            yield name.removeprefix("task."), cut


def _purpose(rule: str, root: Path) -> str:
    """Return what the jobs of a rule do, from the docstring of its script."""
    try:
        text = read_bounded(root / PROJECT.scripts / f"{rule}.py")
        return (ast.get_docstring(ast.parse(text)) or "").partition("\n\n")[0].replace("\n", " ")
    except (ValueError, SyntaxError, RecursionError, MemoryError):
        return ""


def run_facts(graph: Graph) -> dict[str, Any]:
    """Sum up when, where and from which code the jobs ran, with a seal of all records."""
    jobs = graph.jobs
    commits: dict[str, list[bool]] = defaultdict(list)
    for job in jobs:
        commits[job["commit"] or "no commit known"].append(bool(job["dirty"]))
    hosts = Counter((m.get("host"), m.get("cpu"), m.get("gpu")) for m in graph.machines)
    environments = {}
    for environment in graph.environments:
        lock = environment.get("lock") or {}
        path = environment.get("image") or lock.get("path") or "an environment of no lock"
        digest = environment.get("image_sha256") or lock.get("sha256") or ""
        environments[path, digest] = environment.get("python") or ""
    return {
        "n_jobs": len(jobs),
        "n_altered": sum(job["altered"] for job in jobs),
        "started": min(filter(None, (job["started"] for job in jobs)), default=None),
        "ended": max(filter(None, (job["ended"] for job in jobs)), default=None),
        "seconds": sum(job["seconds"] or 0 for job in jobs),
        "commits": [
            {"commit": commit, "n": len(dirty), "n_dirty": sum(dirty)}
            for commit, dirty in sorted(commits.items(), key=lambda item: -len(item[1]))
        ],
        "hosts": [{"host": host, "cpu": cpu, "gpu": gpu} for host, cpu, gpu in hosts],
        "environments": [
            {"path": path, "sha256": digest, "python": python}
            for (path, digest), python in environments.items()
        ],
        "seal": digest_of_records(job["digest"] for job in jobs),
    }


def rule_facts(graph: Graph) -> list[dict[str, Any]]:
    """Sum up what the jobs of each rule took; each rule after those it builds on."""
    by_rule: dict[str, list[dict[str, Any]]] = defaultdict(list)
    for job in graph.jobs:
        by_rule[job["rule"]].append(job)
    return [
        {
            "rule": rule,
            "did": jobs[0]["did"],
            "n": len(jobs),
            "seconds": sum(job["seconds"] or 0 for job in jobs),
            "memory": max(job["memory"] or 0 for job in jobs),
        }
        for rule, jobs in by_rule.items()
    ]
