"""Check records against the files on disk, and ledgers against tables and sources."""

import csv
import json
import shlex
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

from provenance.cells import DERIVATIONS, JOB, Source, shown
from provenance.csv_files import read_csv
from provenance.explain.causes import committed, tree_of
from provenance.hashing import MAX_BYTES, Digests
from provenance.ledger import slug
from provenance.numbers import Ledger, Number, Reach, name_of, read_ledger
from provenance.project import PROJECT, read_mapping
from provenance.records import SHAPE as RECORD
from provenance.records import Record, Records, read_json
from provenance.seal import SEAL
from provenance.sources import digest_of_trees
from provenance.verify.findings import BROKEN, MISSING, STALE, Findings
from provenance.verify.workflow_checks import Plan, check_job

NOT_OUTPUTS = {"logs", "patches"}  # folders in a folder of results that hold no job's outputs
DESCRIBED = ("rule", "wildcards", "params", "reproduces")  # in the record and on the command line
ORPHAN = "no record says what made it"


@dataclass(frozen=True)
class Scope:
    """The records, ledgers and numbers to check.

    broken: files named like records or ledgers that cannot be read. paths: the files to check;
    None for all.
    """

    records: Sequence[Record]
    ledgers: Sequence[Ledger]
    numbers: Sequence[Number]
    broken: Sequence[Path] = ()
    paths: frozenset[str] | None = None

    def holds(self, path: str | Path) -> bool:
        """Return whether a file is to be checked."""
        return self.paths is None or str(path) in self.paths

    def files(self) -> Iterator[str]:
        """Yield every file that has to be hashed."""
        for record in self.records:
            yield from filter(self.holds, (*record.inputs, *record.outputs))
            yield from _other_files(record)
        for ledger in self.ledgers:
            yield from filter(self.holds, (*ledger.about, *ledger.content["files"]))


def _other_files(record: Record) -> Iterator[str]:
    """Yield the files beside inputs and outputs that a record names."""
    environment = record.part("environment")
    lock, image = environment.get("lock"), environment.get("image")
    yield from record.sources
    yield from (path for path in (lock and lock["path"], record.patch) if path)
    if image:
        yield _image_file(image)


def _image_file(image: str) -> str:
    """Return where an image is: where it was, or under that name in this repository."""
    return image if Path(image).exists() else str(PROJECT.image_lock.with_name(Path(image).name))


@dataclass(frozen=True)
class Checks:
    """All checks of a verification; each adds to the findings.

    collected: whether this folder was collected, so that nothing of it is run, nor git in it.
    """

    scope: Scope
    records: Records
    plan: Plan
    digests: Digests
    reach: Reach
    findings: Findings
    collected: bool = False

    def run(self) -> None:
        """Check everything in the scope."""
        lock = PROJECT.image_lock
        images = read_mapping(lock) if lock.exists() else {}
        temporary = self.plan.temporary
        shows = {path: ledger for ledger in self.scope.ledgers for path in ledger.about}
        for record in self.scope.records:
            self._check_record(record, images)
            for path in filter(self.scope.holds, record.inputs):
                self._check_input(record, path)
            for path in filter(self.scope.holds, record.outputs):
                self._check_output(record, path, temporary, shows.get(path))
            check_job(record, self.plan, self.digests, self.reach, self.findings)
        for ledger in self.scope.ledgers:
            self._check_ledger(ledger)
            self._check_table(ledger)
        for number in self.scope.numbers:
            self._check_number(number)
        self._check_unnamed_files()
        for file in self.scope.broken:
            kind = "ledger" if file.name.endswith(".ledger.json") else "record"
            unknown = {f"{name_of(file)}:*"}  # nothing says which numbers the ledger has
            reaches = unknown if kind == "ledger" else self.reach.numbers(file)
            why, expected = f"no {kind} that can be read", f"a {kind}"
            self.findings.fault(file, why, expected, _misfit(file, kind), BROKEN, reaches)
        if self.plan.file and self.plan.fails:
            why = "the workflow cannot be planned"
            self.findings.fault(self.plan.file, why, "a dry run", self.plan.fails)
        elif not self.plan.file:
            why = f"not compared with what it would do now: {self.plan.skipped}"
            self.findings.remark("workflow", why)

    def _about(self, record: Record) -> dict[str, Any]:
        return {"reaches": self.reach.numbers(record.file), "record": record.file}

    def _check_record(self, record: Record, images: dict[str, Any]) -> None:
        """Check the seal of a record, its command, its environment and its patch.

        images: content of containers/lock.yaml.
        """
        about, fault = self._about(record), self.findings.fault
        if record.altered:
            fault(record.file, "the record is not what the job wrote", **about)
        for key, recorded, ran in _contradictions(record):
            what = f"{record.file}: {key}"
            fault(what, "the record's command says otherwise", ran, recorded, **about)
        self._check_code(record)
        environment = record.part("environment")
        lock, image = environment.get("lock"), environment.get("image")
        if lock and (on_disk := self.digests.of[lock["path"]]) != lock["sha256"]:
            why = "the environment's lock was another when jobs ran"
            fault(lock["path"], why, lock["sha256"], on_disk, STALE, **about)
        if image and environment.get("image_sha256"):
            self._check_image(_image_file(image), environment["image_sha256"], images, about)
        if not lock and not image:
            why = "some jobs ran in no locked environment and in no image"
            self.findings.remark("environment", why)
        if record.patch:
            recorded, on_disk = Path(record.patch).stem, self.digests.of[record.patch]
            if on_disk != recorded:
                state = BROKEN if on_disk else MISSING
                why = "the patch of the tree that jobs ran from"
                fault(record.patch, why, recorded, on_disk, state, **about)

    def _check_code(self, record: Record) -> None:
        """Check that the files that ran are the code with the record's digest.

        Their bytes are on disk, or in the commit of a tree that was not changed.
        """
        about, fault = self._about(record), self.findings.fault
        if record.sources and digest_of_trees(record.trees) != record.code_digest:
            why = "code.trees are not those of code.digest"
            fault(record.file, why, record.code_digest, digest_of_trees(record.trees), **about)
        for path, ran in record.sources.items():
            tree, git = record.trees.get(path), record.part("git")
            if self.digests.of[path] == ran:
                now = tree_of(path)
                if now != tree:
                    why = f"code.digest is not that of {path}, which ran"
                    fault(record.file, why, tree, now, **about)
            elif not (git.get("dirty", True) or self.collected):
                content = committed(git.get("commit"), path)
                if content is not None and (found := sha256(content).hexdigest()) != ran:
                    why = f"its commit has another {path}, and its tree was not changed"
                    fault(record.file, why, found, ran, **about)

    def _check_image(
        self, file: str, recorded: str, images: dict[str, Any], about: dict[str, Any]
    ) -> None:
        if (on_disk := self.digests.of[file]) is None:
            self.findings.remark(file, "the image that jobs ran in is not here")
        elif on_disk != recorded:
            self.findings.fault(
                file, "jobs ran in another image", recorded, on_disk, STALE, **about
            )
        locked = [entry.get("sha256") for entry in images.values() if isinstance(entry, dict)]
        if recorded not in locked:
            why = "the image that jobs ran in is none of those"
            self.findings.fault(PROJECT.image_lock, why, recorded, locked, STALE, **about)

    def _check_input(self, record: Record, path: str) -> None:
        """Check a file that a job read: it is what its maker wrote, or what the repository has."""
        read, on_disk, maker = record.inputs[path], self.digests.of[path], self.records.maker(path)
        # of a table's job, only those numbers that depend on the file
        reaches = self.reach.numbers(record.file) & self.reach.numbers(path)
        about = {"reaches": reaches, "record": record.file}
        if maker and path in maker.outputs:
            if maker.outputs[path] != read:
                why = f"{maker} wrote another version than {record} read"
                self.findings.fault(path, why, read, maker.outputs[path], **about)
        elif on_disk is None:
            self.findings.fault(path, "what jobs read is gone", read, None, MISSING, **about)
        elif on_disk != read:
            why = "not what jobs read" if not maker else f"not the record that {record} read"
            self.findings.fault(path, why, read, on_disk, BROKEN, **about)
        if maker is None and not self.records.is_origin(path):
            self.findings.fault(path, ORPHAN, "a record", None, MISSING, **about)

    def _check_output(
        self, record: Record, path: str, temporary: set[str], ledger: Ledger | None
    ) -> None:
        """Check a file that a job wrote. temporary: files that Snakemake removes after use."""
        made, on_disk = record.outputs[path], self.digests.of[path]
        reaches = _altered_numbers(ledger, path) if ledger else self.reach.numbers(path)
        about = {"reaches": reaches, "record": record.file}
        if on_disk is None and path in temporary:
            self.findings.remark(path, "removed after use, as the configuration says")
        elif on_disk is None:
            self.findings.fault(path, f"what {record} wrote is gone", made, None, MISSING, **about)
        elif on_disk != made:
            self.findings.fault(path, f"not what {record} wrote", made, on_disk, **about)

    def _check_unnamed_files(self) -> None:
        """Report files that no record names, and the records that should name them."""
        whole, orphans = self.scope.paths is None, list(self._orphans())
        behind = set().union(*self.reach.behind.values()) if whole else self.scope.paths
        for path in sorted(behind.union(orphans if whole else ())):
            silent = self.records.silent_record(path)
            if silent in self.records.by_file and Path(path).exists():
                why, reaches = f"does not name {path} beside it", self.reach.numbers(path)
                self.findings.fault(silent, why, path, None, BROKEN, reaches, silent)
        made = self.plan.outputs
        for path in orphans if whole else ():
            if not made or any(str(each) in made for each in (Path(path), *Path(path).parents)):
                reaches = self.reach.numbers(path)
                self.findings.fault(path, ORPHAN, "a record", None, MISSING, reaches)
            else:
                self.findings.remark(path, f"{ORPHAN}, and no job of the workflow does")

    def _orphans(self) -> Iterator[str]:
        """Yield the files in the folder of results that no record names.

        Not hidden ones, which belong to a job that runs or was killed; nor those of results of
        their own, as results/demo is in results.
        """
        results, known = self.records.results, {*self.records.by_file, *self.records.broken}
        made = {path for record in self.records.by_file.values() for path in record.outputs}
        others = {tables.parent for tables in results.glob("*/tables") if tables.is_dir()}
        for path in sorted(results.rglob("*")):
            parts = path.relative_to(results).parts
            signs = path.parent == results and path.name.startswith(SEAL)
            if not path.is_file() or signs or path in known or str(path) in made:
                continue
            if any(part.startswith(".") for part in parts) or NOT_OUTPUTS.intersection(parts):
                continue
            if not any(folder in others or str(folder) in made for folder in path.parents):
                yield str(path)

    def _check_ledger(self, ledger: Ledger) -> None:
        """Check a ledger against its job, the files it is about, and those of its numbers."""
        every = [number.id for number in ledger.numbers]
        fault, maker = self.findings.fault, self.records.maker(ledger.file)
        if maker is None:
            why = "no record answers for the ledger"
            fault(ledger.file, why, "a record", None, MISSING, every)
        for path, written in ledger.about.items():
            made = maker.outputs.get(path) if maker else None
            if maker and made != written:
                why = f"the ledger and its job's record disagree on {path}"
                fault(ledger.file, why, made, written, BROKEN, every)
            elif not maker and (on_disk := self.digests.of.get(path)) != written:
                state, why = BROKEN if on_disk else MISSING, "not what its ledger is about"
                fault(path, why, written, on_disk, state, _altered_numbers(ledger, path))
        for path in filter(self.scope.holds, ledger.content["files"]):
            read, path_maker = ledger.content["files"][path], self.records.maker(path)
            recorded = [maker.inputs.get(path)] if maker else []
            recorded += [path_maker.outputs.get(path)] if path_maker else []
            if read not in recorded and (on_disk := self.digests.of[path]) != read:
                reaches = [number.id for number in ledger.by_source[path]]
                state, why = BROKEN if on_disk else MISSING, f"not what {ledger.name} was made of"
                fault(path, why, read, on_disk, state, reaches)

    def _check_table(self, ledger: Ledger) -> None:
        """Check what a table's CSV file shows against the ledger's rows, cell by cell."""
        table = ledger.content["about"].get("table")
        for row, column, expected, there in _differing_cells(ledger, table and table["path"]):
            what, why = f"{table['path']}: row {row}, {column}", "not what the ledger shows"
            reaches = _numbers_at(ledger, row, column)
            self.findings.fault(what, why, expected, there, BROKEN, reaches)

    def _check_number(self, number: Number) -> None:
        """Check a number's text against its raw value, its row and name; that against its sources.

        Raises nothing: a number that cannot be computed again is a fault.
        """
        cell, ledger = number.cell, number.ledger

        def fault(why: str, expected: Any, there: Any) -> None:
            what = f"{ledger.file}: {number.id}"
            self.findings.fault(what, why, expected, there, BROKEN, [number.id])

        try:
            if (text := shown(cell["raw"], cell["rule"])) != cell["shown"]:
                fault("what is shown is not the raw value, rounded", text, cell["shown"])
            if cell["shown"] != number.row[cell["column"]]:
                fault("the ledger's row shows something else", cell["shown"], number.row)
            if number.id != f"{ledger.name}:{cell['row']}:{slug(cell['column'])}":
                fault("the name is not that of its row and column", cell["column"], number.id)
            for file in number.files:
                if file not in ledger.content["files"]:
                    fault("the ledger has no digest of a source", file, None)
            if cell["derivation"] != JOB:  # only its job can compute such a number
                raw = _recomputed(cell)
                if raw != cell["raw"]:
                    fault("the raw value is not what its sources give", raw, cell["raw"])
        except Exception as error:  # a cell that somebody altered may raise anything
            why, reason = "cannot be computed again", f"{type(error).__name__}: {error}"
            fault(why, cell.get("raw"), reason)


def _misfit(file: Path, kind: str) -> str:
    """Return why a file cannot be read as a ledger or record."""
    try:
        read_ledger(file) if kind == "ledger" else read_json(file, RECORD)
    except ValueError as error:
        return str(error)
    return ""


def _contradictions(record: Record) -> list[tuple[str, Any, Any]]:
    """List key, recorded value and the command line's value where these differ."""
    content = record.content
    try:
        words = shlex.split(content.get("command") or "")  # of None it would read stdin
        script = next(i for i, word in enumerate(words) if word.endswith(".py"))
        job = json.loads(words[script + 1])
        pairs = [(key, content.get(key), job.get(key)) for key in DESCRIBED]
        pairs.append(("code.digest", record.code_digest, job.get("code")))
    except (LookupError, ValueError, StopIteration, AttributeError):
        return [("command", content.get("command"), "the command of a job")]
    return [(key, recorded, ran) for key, recorded, ran in pairs if recorded != ran]


def _recomputed(cell: dict[str, Any]) -> Any:
    sources = [Source(Path(each["file"]), each["pointer"]) for each in cell["sources"]]
    if any(source.file.stat().st_size > MAX_BYTES for source in sources):
        raise ValueError(f"it comes from a file of more than {MAX_BYTES:,} bytes")
    values = [source.value() for source in sources]
    return json.loads(json.dumps(DERIVATIONS[cell["derivation"]](values)))


def _altered_numbers(ledger: Ledger, path: str) -> list[str]:
    """Return the numbers that an altered file shows otherwise; all, if that cannot be told."""
    table = ledger.content["about"].get("table", {}).get("path")
    cells = _differing_cells(ledger, path) if path == table else []
    numbers = [name for row, column, *_ in cells for name in _numbers_at(ledger, row, column)]
    return numbers or [number.id for number in ledger.numbers]


def _numbers_at(ledger: Ledger, row: int, column: str) -> Iterable[str]:
    """Return the number in a cell; for a label, all numbers of its row."""
    in_row = ledger.by_row[row]
    there = [number.id for number in in_row if number.cell["column"] == column]
    return there or [number.id for number in in_row]


def _differing_cells(
    ledger: Ledger, table: str | None
) -> list[tuple[int, str, str | None, str | None]]:
    """List row, column, the ledger's text and the table's, where they differ; [] if shapes do."""
    columns, rows = ledger.content["columns"], ledger.content["rows"]
    try:
        if table and Path(table).stat().st_size > MAX_BYTES:
            return []
        there = [list(row.values()) for row in read_csv(Path(table))] if table else []
    except (OSError, ValueError, csv.Error):
        return []
    if [len(row) for row in there] != [len(row) for row in rows]:
        return []  # no single cell is altered: the digest of the file tells
    return [
        (n, column, expected, found)
        for n, (ours, theirs) in enumerate(zip(rows, there, strict=True), start=1)
        for column, expected, found in zip(columns, ours, theirs, strict=False)
        if expected != found
    ]
