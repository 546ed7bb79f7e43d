"""All that a report page shows, as plain data: read from records, ledgers and documents."""

import re
from collections import Counter
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from provenance.numbers import Ledger, read_ledgers
from provenance.page import facts, prose, shown
from provenance.page.lineage import Graph
from provenance.records import RESULTS, Evidence
from provenance.verify.findings import HOLDS, UNCHECKED, Report

DISCREPANCIES = Path("docs/discrepancies.md")
ABOUT_PAPER = ("claims", "comparison")  # ledgers with a section of their own
PAGE = "report.html"  # below a folder of results; its own record is no part of it


def gather(
    results: Path, captions: dict[str, Any], report: Report | None = None, root: Path = Path()
) -> dict[str, Any]:
    """The data of the page of a run; see workflow/report/page/page.html.jinja.

    captions: name of a table or figure -> `title` and `text`. report: what a verification found;
    None if there was none.
    Raises ValueError if there is no ledger below `results`.
    """
    evidence = Evidence(results, root)
    evidence.records = {
        file: record
        for file, record in evidence.records.items()
        if str(results / PAGE) not in record.outputs
    }
    ledgers, broken = read_ledgers(results, root)
    if not ledgers:
        raise ValueError(f"{results} has no ledgers, so there is nothing to report on")
    graph = Graph(evidence, ledgers)
    numbers = {
        number.id: graph.number(number, report) for ledger in ledgers for number in ledger.numbers
    }
    by_name = {ledger.name: ledger for ledger in sorted(ledgers, key=lambda each: each.name)}
    states = Counter(number["state"] for number in numbers.values())
    return {
        "results": str(results),
        "made": datetime.now(UTC).isoformat(timespec="seconds"),
        "run": facts.run(graph) | {"configuration": facts.configurations(results, root)},
        "check": check(report, states) | {"unreadable": list(map(str, evidence.broken + broken))},
        "n_numbers": len(numbers),
        "tables": [
            section(ledger, captions, graph, table=shown.table(ledger))
            for name, ledger in by_name.items()
            if name.startswith("table")
        ],
        "figures": [
            section(ledger, captions, graph, **shown.points(ledger))
            | {"picture": shown.picture(ledger, root)}
            for name, ledger in by_name.items()
            if name.startswith("figure")
        ],
        **{
            name: section(by_name[name], captions, graph, **against_paper(by_name[name]))
            for name in ABOUT_PAPER
            if name in by_name
        },
        "rules": facts.rules(graph),
        "discrepancies": discrepancies(root),
        "captions": captions,
        "lineage": {
            **graph.as_json(),
            "numbers": numbers,
            "options": "" if results == RESULTS else f" --results {results}",
            "made": datetime.now(UTC).isoformat(timespec="minutes"),
        },
    }


def section(
    ledger: Ledger, captions: dict[str, Any], graph: Graph, **content: Any
) -> dict[str, Any]:
    """A table or a figure with its name, caption, files and the job that made it."""
    caption = captions.get(ledger.name, {"title": "", "text": ""})
    first = next(iter(ledger.about))
    return {
        "name": ledger.name,
        "label": re.sub(r"(\d+)$", r" \1", ledger.name).capitalize(),
        "title": caption["title"],
        "caption": prose.inline(caption["text"]),
        "files": list(ledger.about),
        "job": graph.maker(first),
        **content,
    }


def against_paper(ledger: Ledger) -> dict[str, Any]:
    """Rows of cells by column, and how many rows have each verdict."""
    whole = shown.table(ledger)
    names = [column["name"] for column in whole["columns"]]
    cells = [
        [
            shown_cell | {"text": text} if not shown_cell["id"] else shown_cell
            for shown_cell, text in zip(row, texts, strict=True)
        ]
        for row, texts in zip(whole["rows"], ledger.content["rows"], strict=True)
    ]
    rows = [dict(zip(names, row, strict=True)) for row in cells]
    verdicts = Counter(row["verdict"]["text"] for row in rows)
    return {"rows": rows, "verdicts": verdicts.most_common()}


def check(report: Report | None, states: Counter[str]) -> dict[str, Any]:
    """What the verification came to, of all numbers together."""
    if report is None:
        return {"state": UNCHECKED, "states": dict(states)}
    wrong = [state for state in states if state != HOLDS]
    state = HOLDS if not wrong and not report.faults else "faulty"
    faults: dict[tuple[str, str], list[str]] = {}
    for fault in report.faults:
        faults.setdefault((fault.state, fault.why), []).append(str(fault.what))
    return {
        "state": state,
        "states": dict(states),
        "n_faults": len(report.faults),
        "faults": [(*kind, what) for kind, what in faults.items()],
        "counts": report.counts,
        "configuration": report.configuration,
    }


def discrepancies(root: Path = Path()) -> list[dict[str, Any]]:
    """The sections of docs/discrepancies.md."""
    return prose.sections((root / DISCREPANCIES).read_text(encoding="utf-8"))
