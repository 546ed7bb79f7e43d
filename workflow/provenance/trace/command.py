"""Show where a number comes from: the chain of jobs from data and base model to it.

    ffmerge trace results/demo/tables/table5.csv --row "ViT 4/12" --column Permute
    ffmerge trace table5:7:permute                 the same by its short name
    ffmerge trace results/demo/tables/table5.csv   the names of all numbers of a table or figure

Digests are sha256. Files up to 1 MB are hashed again on the way, `ffmerge verify` hashes all.
"""

import argparse
import json
from collections import Counter
from collections.abc import Iterator, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

from provenance.hashing import (
    ALTERED,
    GONE,
    LEFT,
    SAME,
    UNREAD,
    digest_if_small,
    omitted_files,
)
from provenance.numbers import Ledger, Number, Reach, ledger_called, named, read_ledgers
from provenance.project import PROJECT, add_results_argument, configurations_of, recorded_name
from provenance.records import Record, Records, results_of
from provenance.text_format import counted, leaves, line, plain, short, wrapped

MAX_PARAMS_LINES = 6  # --json has all
SHARED = {"git": "commit", "environment": "environment", "machine": "host"}
"""Keys of facts that most jobs of a chain have in common -> their labels in the text."""
TEMPORARY = " (as expected, if the configuration names it under `temporary`)"
DERIVED = {
    "value": "the value that stands there",
    "values": "the values that stand there",
    "job": "computed by the code of its job from these files",
}


class Chain:
    """A number, its job, and all jobs that it builds on.

    records: each after those it builds on, the table's last. missing: what should be there to
    answer for the number and is gone or altered, in words.
    """

    def __init__(self, number: Number, records: Records) -> None:
        self.number, self._all = number, records
        self._known = dict.fromkeys(omitted_files(records.root), LEFT)
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
            if not self._all.is_origin(path):
                yield f"no record says what made {path}"
        for record in self.records:
            if record.altered:
                yield f"{record.file} is not what {record} wrote"
        for job in self.jobs:
            for file in [*job["inputs"], *job["outputs"]]:
                if file["state"] == ALTERED:
                    yield f"{file['path']} is {ALTERED}"
                elif file["state"] == GONE:
                    removed = self._all.maker(file["path"]) is not None
                    yield f"{file['path']} is {GONE}" + TEMPORARY * removed

    def _checked(self, path: str, digest: str | None) -> dict[str, Any]:
        """Return the recorded digest of a file, and whether it is as recorded, if that is known."""
        if path not in self._known:
            self._known[path] = digest_if_small(path)
        known = self._known[path]
        state = known if known in (UNREAD, GONE, LEFT) else SAME if known == digest else ALTERED
        return {"sha256": digest, "state": state}

    @cached_property
    def described(self) -> dict[str, Any]:
        """The number: as shown, raw, where it stands, and in which table."""
        ledger, cell = self.number.ledger, self.number.cell
        digests, about = ledger.content["files"], ledger.about
        return {
            **{key: value for key, value in cell.items() if key != "sources"},
            "labels": self.number.row,
            "table": [{"path": path, **self._checked(path, of)} for path, of in about.items()],
            "sources": [
                {**source, **self._checked(source["file"], digests.get(source["file"]))}
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
            "outputs": [
                {"name": name, "path": path, **self._checked(path, digest)}
                for name, path, digest in record.files("output")
            ],
            "code": record.code_digest,
            "sources": record.sources,
            **{key: content.get(key) for key in circumstances},
        }

    def _input(self, name: str, path: str, digest: str) -> dict[str, Any]:
        maker = self._all.maker(path)
        made = {"made_by": self._places.get(maker.file) if maker else None}
        if maker and maker.outputs.get(path, digest) != digest:
            made["maker_says"] = maker.outputs[path]
        return {"name": name, "path": path, **self._checked(path, digest), **made}

    @cached_property
    def started_from(self) -> list[dict[str, Any]]:
        """The files that no job made, such as data, or that have no record."""
        origins = [
            {
                "path": path,
                "sha256": digest,
                "is": PROJECT.kind_of_origin(path) if self._all.is_origin(path) else "unanswered",
                "answered": self._all.is_origin(path),
                "state": self._checked(path, digest)["state"],
            }
            for path, digest in self.origins.items()
        ]
        return sorted(origins, key=lambda origin: origin["is"])


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of `ffmerge trace`."""
    help = "a number's name, or a table or a figure"
    parser.add_argument("target", metavar="TARGET", type=recorded_name, help=help)
    parser.add_argument("--row", help="its number, or words that stand in no other row")
    parser.add_argument("--column", help="its name")
    add_results_argument(parser)
    parser.add_argument("--commands", action="store_true", help="each job's command line, too")
    parser.add_argument("--json", action="store_true", help="everything, for machines")


def run(options: argparse.Namespace) -> int:
    """Print the chain, or a table's numbers; return 1 if any evidence is missing or altered."""
    results = options.results or results_of(options.target) or PROJECT.results
    ledgers, broken = read_ledgers(results)
    ledger = ledger_called(ledgers, options.target)
    if not ledgers or (ledger is None and ":" not in options.target):
        raise ValueError(_unanswered(options.target, results, ledgers, broken))
    if ledger and options.row is None and options.column is None:
        names = {"ledger": str(ledger.file), "numbers": [number.id for number in ledger.numbers]}
        every = "\n".join(map(str, ledger.numbers))
        print(json.dumps(names, indent=2) if options.json else every)
        return 0
    number = named(ledgers, options.target, options.row, options.column)
    chain = Chain(number, Records(results))
    if options.json:
        parts = {"number": chain.described, "missing": chain.missing}
        parts |= {"origins": chain.started_from, "jobs": chain.jobs}
        print(json.dumps(parts, indent=2, ensure_ascii=False))
    else:
        print("\n".join(_lines(chain, options.commands)))
    return 1 if chain.missing else 0


def _unanswered(
    target: str, results: Path, ledgers: Sequence[Ledger], broken: Sequence[Path]
) -> str:
    """Say why nothing answers for a target, and what to run so that something does."""
    path, known = Path(target), ", ".join(ledger.name for ledger in ledgers)
    name = path.name.partition(".")[0].removesuffix("_tidy").partition(":")[0]
    if unreadable := [file for file in broken if file.name.startswith(f"{name}.")]:
        why, made = f"{unreadable[0]} cannot be read", str(unreadable[0])
    elif path.is_file() and path.parent.name in ("tables", "figures"):
        wanted = [path.with_name(f"{name}.{kind}.json") for kind in ("ledger", "record")]
        gone = [str(file) for file in wanted if not file.is_file()]
        why = f"{target} was made without {' and '.join(gone) or 'a ledger that is about it'}"
        made = gone[0] if gone else target  # Snakemake would not miss these if asked for the table
    elif ledgers:
        return f"{target} is no table or figure with a ledger in {results}; these are: {known}"
    else:
        why, made = f"{results} has no ledgers, so nothing answers for any number", target
    if ":" in made:
        made = "everything"
    files = configurations_of(results)
    configuration = f" --configfile {files[0]}" if files else ""
    return f"{why}; made again with: snakemake {made} --cores all{configuration}"


def _lines(chain: Chain, commands: bool) -> Iterator[str]:
    """Format a chain: the number, what all jobs share, each job. commands: with command lines."""
    jobs = chain.jobs
    facts = [_facts(job) for job in jobs]
    shared = {fact: _commonest([each[fact] for each in facts]) for fact in SHARED}
    yield from _number(chain.described)
    if chain.missing:
        yield from ["", "Missing or altered", *(f"  {each}" for each in chain.missing)]
    yield from ["", "Comes from"]
    for origin in chain.started_from:
        why = "" if origin["answered"] else "   no record says what made it"
        yield line(origin["is"], _file(origin["path"], origin) + why)
    if not chain.origins:
        yield "  nothing: no record leads to data or to a base model"
    yield ""
    yield f"By a chain of {counted(len(jobs), 'job')}, each after those it builds on"
    yield from (line(SHARED[fact], text) for fact, text in shared.items() if jobs)
    for job in jobs:
        yield ""
        yield from _job(job, shared, commands)


def _commonest(texts: Sequence[str]) -> str:
    counts = Counter(texts)
    return max(counts, key=counts.__getitem__, default="")


def _number(number: dict[str, Any]) -> Iterator[str]:
    row = [f"{column} {text}" for column, text in number["labels"].items() if text]
    yield f"{number['id']}   {number['shown']}"
    yield ""
    yield from wrapped("raw value", plain(number["raw"]))
    yield line("shown by", number["rule"])
    derivation = number["derivation"]
    how = DERIVED.get(derivation, f"{derivation.replace('_', ' ')} of what is there")
    yield line("derived as", how)
    if interval := number["interval"]:
        confidence = f"{100 * interval['confidence']:g} % interval"
        bounds = f"{interval['low']:.6g} to {interval['high']:.6g}"
        yield line(confidence, f"{bounds}, {interval['method']}")
    if paper := number["paper"]:
        yield line("the paper has", f"{paper['value']}, {paper['where']}")
    for n, source in enumerate(number["sources"]):
        pointer = f"  at {source['pointer']}" if source["pointer"] else ""
        yield line("" if n else "stands in", f"{_file(source['file'], source)}{pointer}")
    for n, file in enumerate(number["table"]):
        yield line("" if n else "shown in", _file(file["path"], file))
    yield from wrapped(f"in its row {number['row']}", ", ".join(row))


def _job(job: dict[str, Any], shared: dict[str, str], commands: bool) -> Iterator[str]:
    """Format a job. shared: facts that are only repeated where this job differs."""
    yield f"{job['n']:>3}  {job['name']}" + ("   RECORD ALTERED" if job["altered"] else "")
    yield from _files("input", job["inputs"])
    if job["n_other_inputs"]:
        others = counted(job["n_other_inputs"], "other file")
        yield line("", f"and {others}, for other numbers of the table", 5)
    yield from _files("output", job["outputs"])
    yield from wrapped("params", ", ".join(_params(job["params"] or {})), 5, MAX_PARAMS_LINES)
    if job["seed"] is not None:
        yield line("seed", str(job["seed"]), 5)
    yield line("code", f"{short(job['code'])}, {counted(len(job['sources']), 'file')}", 5)
    yield line("ran", _ran(job), 5)
    yield line("must reproduce", _promise(job["reproduces"]), 5)
    facts = _facts(job)
    for fact, common in shared.items():
        if facts[fact] != common:
            yield line(SHARED[fact], facts[fact], 5)
    for warning in job["warnings"] or []:
        yield line("warned", warning, 5)
    yield line("record", job["record"], 5)
    if commands:
        yield line("command", str(job["command"]), 5)


def _facts(job: dict[str, Any]) -> dict[str, str]:
    """Describe a job's commit, environment and machine."""
    git, environment = job["git"] or {}, job["environment"] or {}
    machine, commit = job["machine"] or {}, git.get("commit")
    if git.get("dirty"):
        commit = f"{commit}, changed by {git.get('patch') or 'a patch that is not kept'}"
    lock = environment.get("lock") or {}
    where = f"{lock['path']} {short(lock['sha256'])}" if lock else "neither lock nor image"
    if environment.get("image"):
        where = f"image {environment['image']} {short(environment.get('image_sha256'))}"
    slurm = f"SLURM node {machine['slurm_node']}" if machine.get("slurm_node") else None
    parts = [machine.get("host"), machine.get("cpu"), machine.get("gpu"), slurm]
    return {
        "git": commit or "not recorded",
        "environment": f"Python {environment.get('python') or '?'}, {where}",
        "machine": ", ".join(filter(None, parts)) or "not recorded",
    }


def _file(path: str, entry: dict[str, Any]) -> str:
    """Format a file with its digest and what is wrong with it."""
    marks = {ALTERED: "  ALTERED", GONE: "  GONE", LEFT: "  left behind"}
    return f"{path}  {short(entry['sha256'])}{marks.get(entry['state'], '')}"


def _files(kind: str, entries: list[dict[str, Any]]) -> Iterator[str]:
    before = ""
    for entry in entries:
        made_by = f"   from {entry['made_by']}" if entry.get("made_by") else ""
        if "maker_says" in entry:
            made_by += f", WHICH MADE {short(entry['maker_says'])}"
        name = "" if entry["name"] == before else f"{kind} {entry['name']}"
        before = entry["name"]
        yield line(name, _file(entry["path"], entry) + made_by, 5)


def _ran(job: dict[str, Any]) -> str:
    time, machine = job["time"] or {}, job["machine"] or {}
    if not time:
        return "not recorded"
    started = str(time.get("started")).replace("T", " ").replace("+00:00", " UTC")
    slurm = f", SLURM job {machine['slurm_job']}" if machine.get("slurm_job") else ""
    threads = counted(machine.get("threads") or 0, "thread")
    return f"{started}, {time.get('seconds') or 0:.1f} s, {threads}{slurm}"


def _promise(reproduces: Any) -> str:
    if not isinstance(reproduces, dict):
        names = {"bits": "every bit", "decisions": "the same decisions"}
        return names.get(reproduces, plain(reproduces))
    return ", ".join(f"{name} within {tolerance}" for name, tolerance in reproduces.items())


def _params(params: dict[str, Any]) -> Iterator[str]:
    """Yield the parameters that are set, without the digests of inputs."""
    own = {key: value for key, value in params.items() if key not in ("inputs", "reported")}
    for name, value in leaves(own):
        if value is not None:
            yield f"{name} {plain(value)}"
