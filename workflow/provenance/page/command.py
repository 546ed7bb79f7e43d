"""Put all tables and figures of a run on one page, each number with its lineage.

The page is one HTML file that opens without a server or a network. A click on a number shows where
it comes from, job by job, and the commands that trace it and make it again. The page also says what
`ffmerge verify` found when it was made.
"""

import argparse
import json
import re
from collections import Counter
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import jinja2
import yaml

from provenance.hashing import read_bounded
from provenance.numbers import Ledger, numbers_of, read_ledgers
from provenance.page import content
from provenance.project import PROJECT, configurations_of, recorded_folder
from provenance.record import write_atomically
from provenance.records import Records, is_inside
from provenance.sources import REPOSITORY
from provenance.verify.command import FIND, verify
from provenance.verify.findings import HOLDS, UNCHECKED, Report

TEMPLATE = REPOSITORY / PROJECT.page_template  # a template is code: not that of a folder looked at


def write_page(
    out: Path,
    results: Path = PROJECT.results,
    report: Report | None = None,
    root: Path = Path(),
) -> None:
    """Write the page of a run. report: of a verification, None if there was none.

    Raises ValueError if there are no ledgers below `results`, or one lacks what the page shows.
    """
    captions = (TEMPLATE / "captions.yaml").read_text(encoding="utf-8")
    page = gather(results, yaml.safe_load(captions), report, root)
    try:
        html = render(page)
    except jinja2.UndefinedError as error:
        raise ValueError(f"a ledger of {results} lacks what the page shows: {error}") from None
    write_atomically(out, html.encode(errors="backslashreplace"))


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of `ffmerge report`."""
    out = f"file to write, by default {PROJECT.page} in the results"
    parser.add_argument(
        "--results", type=recorded_folder, default=PROJECT.results, help="folder of results"
    )
    parser.add_argument("--out", type=Path, help=out)
    parser.add_argument("--no-check", action="store_true", help="do not verify anything first")
    text = "show who signed the results: OpenSSH's file of allowed signers"
    parser.add_argument("--signers", type=Path, metavar="FILE", help=text)
    text = "verify only what is on disk, without running this folder's Snakefile"
    parser.add_argument("--no-plan", action="store_true", help=text)


def run(options: argparse.Namespace) -> int:
    """Write the page and say where; return 1 if something is wrong with what it shows."""
    page = options.results / PROJECT.page
    out = options.out or page
    if out == page and out.with_suffix(".record.json").exists():
        raise ValueError(f"{out} has a record of the job that made it: name another file by --out")
    folder = next(parent for parent in out.absolute().parents if parent.exists())
    if out.is_dir() or not folder.is_dir():
        raise ValueError(f"{out} cannot be a file: name another one by --out")
    if options.no_check and options.signers:
        raise ValueError("--signers is a check: leave out --no-check")
    report, file = None, None if options.no_plan else FIND
    if not options.no_check:
        report = verify(options.results, configuration=file, signers=options.signers)
    write_page(out, options.results, report)
    print(f"{out}: {out.stat().st_size / 1e6:.1f} MB")
    if report and report.faults:
        print(f"{len(report.faults)} faults were found: the page and `ffmerge verify` say which")
        return 1
    return 0


def gather(
    results: Path, captions: dict[str, Any], report: Report | None = None, root: Path = Path()
) -> dict[str, Any]:
    """Collect the data of the page; see workflow/report/page/page.html.jinja.

    captions: name of a table or figure -> `title` and `text`. report: of a verification, if any.
    Raises ValueError if there is no ledger below `results`.
    """
    records = Records(results, root)
    records.by_file = {  # without the page's own
        file: record
        for file, record in records.by_file.items()
        if str(results / PROJECT.page) not in record.outputs
    }
    ledgers, broken = read_ledgers(results, root)
    if not ledgers:
        raise ValueError(f"{results} has no ledgers, so there is nothing to report on")
    graph = content.Graph(records, ledgers)
    numbers = {number.id: graph.number(number, report) for number in numbers_of(ledgers)}
    ledgers = sorted(ledgers, key=lambda ledger: ledger.name)
    states = Counter(number["state"] for number in numbers.values())
    configurations = [str(file.relative_to(root)) for file in configurations_of(results, root)]
    document = root / PROJECT.discrepancies
    if not is_inside(document, [root]):
        raise ValueError(f"{document} is a link out of this folder")
    discrepancies = read_bounded(document).decode(errors="replace")
    now = datetime.now(UTC)
    return {
        "results": str(results),
        "made": now.isoformat(timespec="seconds"),
        "run": content.run_facts(graph) | {"configuration": configurations},
        "signed": report.signed if report else [],
        "check": _check(report, states) | {"unreadable": [*map(str, records.broken + broken)]},
        "n_numbers": len(numbers),
        "tables": [
            _section(ledger, captions, graph, table=content.table(ledger))
            for ledger in sorted(ledgers, key=lambda ledger: ledger.name in PROJECT.further_tables)
            if ledger.name.startswith("table") or ledger.name in PROJECT.further_tables
        ],
        "figures": [
            _section(ledger, captions, graph, **content.figure(ledger))
            | {"picture": content.picture(ledger, results, root)}
            for ledger in ledgers
            if ledger.name.startswith("figure")
        ],
        **{
            ledger.name: _section(ledger, captions, graph, **content.against_paper(ledger))
            for ledger in ledgers
            if ledger.name in PROJECT.page_sections
        },
        "rules": content.rule_facts(graph),
        "discrepancies": content.sections(discrepancies),
        "captions": captions,
        "lineage": {
            **graph.as_json(),
            "numbers": numbers,
            "options": "" if results == PROJECT.results else f" --results {results}",
            "made": now.isoformat(timespec="minutes"),
        },
    }


def _section(
    ledger: Ledger, captions: dict[str, Any], graph: content.Graph, **shown: Any
) -> dict[str, Any]:
    """Describe a table or figure: its name, caption, files and the job that made it."""
    caption = captions.get(ledger.name, {"title": "", "text": ""})
    return {
        "name": ledger.name,
        "label": re.sub(r"(\d+)$", r" \1", ledger.name).capitalize(),
        "title": caption["title"],
        "caption": content.MARKDOWN.renderInline(caption["text"]),
        "files": list(ledger.about),
        "job": graph.maker(next(iter(ledger.about), ledger.file)),
        **shown,
    }


def _check(report: Report | None, states: Counter[str]) -> dict[str, Any]:
    """Sum up a verification. states: how many numbers have each state."""
    if report is None:
        return {"state": UNCHECKED, "states": dict(states)}
    holds = not report.faults and set(states) <= {HOLDS}
    faults: dict[tuple[str, str], list[str]] = {}
    for fault in report.faults:
        faults.setdefault((fault.state, fault.why), []).append(str(fault.what))
    return {
        "state": HOLDS if holds else "faulty",
        "states": dict(states),
        "n_faults": len(report.faults),
        "faults": [(*kind, whats) for kind, whats in faults.items()],
        "counts": report.counts,
        "configuration": report.configuration,
    }


def render(page: dict[str, Any]) -> str:
    """Render the data of a page as one HTML file that needs no other."""
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(TEMPLATE),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"duration": _duration, "size": _size, "when": _when}
    lineage = json.dumps(page["lineage"], ensure_ascii=False, separators=(",", ":"))
    html = environment.get_template("page.html.jinja").render(
        page,
        style=(TEMPLATE / "page.css").read_text(encoding="utf-8"),
        program=(TEMPLATE / "page.js").read_text(encoding="utf-8"),
        data=lineage.replace("<", "\\u003c"),  # so that no text in it ends the script
    )
    return html.lstrip()  # the macros at the top leave blank lines


def _duration(seconds: float) -> str:
    """Format a time: `8.2 s`, `4 min 10 s`, `3 h 12 min`."""
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest} s"
    return f"{minutes // 60} h {minutes % 60} min"


def _size(n_bytes: float) -> str:
    """Format bytes in decimal units."""
    for unit in ("B", "kB", "MB", "GB"):
        if n_bytes < 1000 or unit == "GB":
            break
        n_bytes /= 1000
    return f"{n_bytes:.0f} {unit}" if unit in ("B", "kB", "MB") else f"{n_bytes:.1f} {unit}"


def _when(moment: str | None) -> str:
    """Format a time in UTC to the minute: `2026-11-25 04:50`."""
    return (moment or "")[:16].replace("T", " ")
