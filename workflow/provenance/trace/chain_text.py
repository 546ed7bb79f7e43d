"""The chain behind a number, for people: the number first, then what all jobs share, then each."""

from collections import Counter
from collections.abc import Iterator
from typing import Any

from provenance.text_format import counted, line, plain, wrapped
from provenance.trace.chain import Chain
from provenance.trace.job_text import SHARED, file_text, in_common, job_text

HOW = {
    "value": "the value that stands there",
    "values": "the values that stand there",
    "job": "computed by the code of its job from these files",
}


def as_text(chain: Chain, commands: bool = False) -> str:
    """The whole trace; commands: with the command line of each job."""
    jobs = chain.jobs
    shared = {fact: _commonest(in_common(job)[fact] for job in jobs) for fact in SHARED}
    lines = [*_number(chain.described), ""]
    if chain.missing:
        lines += ["Missing or altered", *(f"  {each}" for each in chain.missing), ""]
    lines += ["Comes from", *_origins(chain), ""]
    lines.append(f"By a chain of {counted(len(jobs), 'job')}, each after those it builds on")
    lines += [line(SHARED[fact], text) for fact, text in shared.items() if jobs]
    for job in jobs:
        lines += ["", *job_text(job, shared, commands)]
    return "\n".join(lines)


def _number(number: dict[str, Any]) -> Iterator[str]:
    row = [f"{column} {text}" for column, text in number["labels"].items() if text]
    yield f"{number['id']}   {number['shown']}"
    yield ""
    yield from wrapped("raw value", plain(number["raw"]))
    yield line("shown by", number["rule"])
    derivation = number["derivation"]
    yield line(
        "derived as", HOW.get(derivation, f"{derivation.replace('_', ' ')} of what is there")
    )
    if of := number["interval"]:
        confidence = f"{100 * of['confidence']:g} % interval"
        yield line(confidence, f"{of['low']:.6g} to {of['high']:.6g}, {of['method']}")
    if paper := number["paper"]:
        yield line("the paper has", f"{paper['value']}, {paper['where']}")
    for n, source in enumerate(number["sources"]):
        pointer = f"  at {source['pointer']}" if source["pointer"] else ""
        yield line("" if n else "stands in", f"{file_text(source['file'], source)}{pointer}")
    for n, file in enumerate(number["table"]):
        yield line("" if n else "shown in", file_text(file["path"], file))
    yield from wrapped(f"in its row {number['row']}", ", ".join(row))


def _origins(chain: Chain) -> Iterator[str]:
    for each in chain.started_from:
        why = "" if each["embedded"] else "   no record says what made it"
        yield line(each["is"], file_text(each["path"], each) + why)
    if not chain.origins:
        yield "  nothing: no record leads to data or to a base model"


def _commonest(texts: Iterator[str]) -> str:
    return next(iter(Counter(texts).most_common(1)), ("",))[0]
