"""Check records against the files on disk, the workflow's jobs, and what was signed."""

import json
import shlex
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from hashlib import sha256
from pathlib import Path
from typing import Any

from provenance.dag import PlannedJob, dry_run, paths
from provenance.explain.causes import ABSENT, changed_sources, committed, differences, tree_of
from provenance.hashing import Digests, digests, is_collected
from provenance.numbers import Ledger, Number, Reach, name_of, read_ledger
from provenance.project import PROJECT, find_configuration, read_mapping
from provenance.records import SHAPE as RECORD
from provenance.records import Record, Records, is_nested, read_json, upwards
from provenance.seal import SEAL, Signature, read, sealed_files, signatures
from provenance.sources import digest_of_trees
from provenance.verify.findings import BROKEN, MISSING, STALE, Findings
from provenance.verify.ledger_checks import altered_numbers, check_number, check_table

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
            yield from record.sources
            environment = record.part("environment")
            if lock := environment.get("lock"):
                yield lock["path"]
            if record.patch:
                yield record.patch
            if image := environment.get("image"):
                yield _image_file(image)
        for ledger in self.ledgers:
            yield from filter(self.holds, (*ledger.about, *ledger.content["files"]))


def _image_file(image: str) -> str:
    """Return where an image is: where it was, or under that name in this repository."""
    return image if Path(image).exists() else str(PROJECT.image_lock.with_name(Path(image).name))


@dataclass(frozen=True)
class Plan:
    """The jobs of `everything` and of the extra targets, by the configuration in `file`.

    skipped: why there is no such file. fails: why there are no jobs although there is one.
    """

    file: Path | None
    jobs: Sequence[PlannedJob] = ()
    skipped: str = ""
    fails: str = ""

    @cached_property
    def by_record(self) -> dict[str, PlannedJob]:
        """Path of its record -> job."""
        return {job.outputs["record"]: job for job in self.jobs}


def planned(results: Path, file: Path | None, find: bool) -> Plan:
    """Dry-run a configuration, or with `find` the one in config/ that made these results."""
    if is_collected():
        return Plan(None, skipped="nothing of a collected folder is executed")
    if file is None and not find:
        return Plan(None, skipped="nobody asked for it")
    try:
        configuration, content = find_configuration(results, file)
    except (ValueError, OSError) as error:
        if file:
            raise
        return Plan(None, skipped=str(error))
    extra = [each for each in PROJECT.extra_targets if (results / each).exists()]
    targets = [f"{content['results']}/{target}" for target in extra]
    try:
        return Plan(configuration, dry_run(content, "everything", *targets))
    except RuntimeError as error:
        return Plan(configuration, fails=str(error))


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
        temporary = {path for job in self.plan.jobs for path in job.temporary}
        shows = {path: ledger for ledger in self.scope.ledgers for path in ledger.about}
        for record in self.scope.records:
            about = {"reaches": self.reach.numbers(record.file), "record": record.file}
            self._check_record(record, images, about)
            for path in filter(self.scope.holds, record.inputs):
                self._check_input(record, path)
            for path in filter(self.scope.holds, record.outputs):
                self._check_output(record, path, temporary, shows.get(path))
            self._check_job(record, about)
        for ledger in self.scope.ledgers:
            self._check_ledger(ledger)
            check_table(ledger, self.findings)
        for number in self.scope.numbers:
            check_number(number, self.findings)
        self._check_unnamed_files()
        for file in self.scope.broken:
            self._check_broken(file)
        if self.plan.fails:
            why = "the workflow cannot be planned"
            self.findings.fault(self.plan.file, why, "a dry run", self.plan.fails)
        elif not self.plan.file:
            why = f"not compared with what it would do now: {self.plan.skipped}"
            self.findings.remark("workflow", why)

    def _check_broken(self, file: Path) -> None:
        """Say what is wrong with a file that cannot be read as a ledger or record."""
        is_ledger = file.name.endswith(".ledger.json")
        kind, misfit = "ledger" if is_ledger else "record", ""
        # Nothing says which numbers such a ledger has.
        reaches = {f"{name_of(file)}:*"} if is_ledger else self.reach.numbers(file)
        try:
            read_ledger(file) if is_ledger else read_json(file, RECORD)
        except ValueError as error:
            misfit = str(error)
        why = f"no {kind} that can be read"
        self.findings.fault(file, why, f"a {kind}", misfit, reaches=reaches)

    def _check_record(self, record: Record, images: dict[str, Any], about: dict[str, Any]) -> None:
        """Check the seal of a record, its command, its environment and its patch.

        images: content of containers/lock.yaml. about: what a fault of this record reaches.
        """
        fault, environment = self.findings.fault, record.part("environment")
        if record.altered:
            fault(record.file, "the record is not what the job wrote", **about)
        for key, recorded, ran in _contradictions(record):
            what = f"{record.file}: {key}"
            fault(what, "the record's command says otherwise", ran, recorded, **about)
        self._check_code(record, about)
        lock, image = environment.get("lock"), environment.get("image")
        if lock and (on_disk := self.digests.of[lock["path"]]) != lock["sha256"]:
            why = "the environment's lock was another when jobs ran"
            fault(lock["path"], why, lock["sha256"], on_disk, STALE, **about)
        if image and (recorded := environment.get("image_sha256")):
            file = _image_file(image)
            if (on_disk := self.digests.of[file]) is None:
                self.findings.remark(file, "the image that jobs ran in is not here")
            elif on_disk != recorded:
                fault(file, "jobs ran in another image", recorded, on_disk, STALE, **about)
            locked = [entry.get("sha256") for entry in images.values() if isinstance(entry, dict)]
            if recorded not in locked:
                why = "the image that jobs ran in is none of those"
                fault(PROJECT.image_lock, why, recorded, locked, STALE, **about)
        if not lock and not image:
            why = "some jobs ran in no locked environment and in no image"
            self.findings.remark("environment", why)
        if record.patch:
            recorded, on_disk = Path(record.patch).stem, self.digests.of[record.patch]
            if on_disk != recorded:
                state = BROKEN if on_disk else MISSING
                why = "the patch of the tree that jobs ran from"
                fault(record.patch, why, recorded, on_disk, state, **about)

    def _check_code(self, record: Record, about: dict[str, Any]) -> None:
        """Check that the files that ran are the code with the record's digest.

        Their bytes are on disk, or in the commit of a tree that was not changed.
        """
        fault, git = self.findings.fault, record.part("git")
        if record.sources and digest_of_trees(record.trees) != record.code_digest:
            why = "code.trees are not those of code.digest"
            fault(record.file, why, record.code_digest, digest_of_trees(record.trees), **about)
        for path, ran in record.sources.items():
            tree = record.trees.get(path)
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
            self.findings.fault(path, why, read, on_disk, **about)
        if maker is None and not self.records.is_origin(path):
            self.findings.fault(path, ORPHAN, "a record", None, MISSING, **about)

    def _check_output(
        self, record: Record, path: str, temporary: set[str], ledger: Ledger | None
    ) -> None:
        """Check a file that a job wrote. temporary: files that Snakemake removes after use."""
        made, on_disk = record.outputs[path], self.digests.of[path]
        reaches = altered_numbers(ledger, path) if ledger else self.reach.numbers(path)
        about = {"reaches": reaches, "record": record.file}
        if on_disk is None and path in temporary:
            self.findings.remark(path, "removed after use, as the configuration says")
        elif on_disk is None:
            self.findings.fault(path, f"what {record} wrote is gone", made, None, MISSING, **about)
        elif on_disk != made:
            self.findings.fault(path, f"not what {record} wrote", made, on_disk, **about)

    def _check_job(self, record: Record, about: dict[str, Any]) -> None:
        """Compare a record with the job of the workflow that would now write it."""
        fault = self.findings.fault
        if self.plan.file and not self.plan.fails:
            job = self.plan.by_record.get(str(record.file))
            if job is None and about["reaches"]:
                why = "no job of the workflow makes this now"
                fault(record.file, why, "a job", None, STALE, **about)
            elif job is None:
                why = "no part of `everything`, and so not compared with it"
                self.findings.remark(record.file, why)
            if job is None:
                return
            for key, old, new in _differences(record, job):
                why = "the workflow now says otherwise"
                fault(f"{job.rule}: {key}", why, new, old, STALE, **about)
            if record.code_digest != job.code:
                changes = changed_sources(record)
                for file, hint in changes.items():
                    why = f"code that jobs ran is edited ({hint})"
                    ran, on_disk = record.sources.get(file), self.digests.of.get(file)
                    fault(file, why, ran, on_disk, STALE, **about)
                if not changes:
                    what, why = f"{job.rule}: code", "its code is another"
                    fault(what, why, job.code, record.code_digest, STALE, **about)
                return
        for path, ran in record.sources.items():
            if (on_disk := self.digests.of[path]) == ran:
                continue
            if tree_of(path) == record.trees.get(path):
                why = "edited since jobs ran it, in nothing that can change a number"
                self.findings.remark(path, why)
            else:
                fault(path, "code that jobs ran is edited", ran, on_disk, STALE, **about)

    def _check_unnamed_files(self) -> None:
        """Report files that no record names, and the records that should name them."""
        whole, orphans = self.scope.paths is None, list(self._orphans())
        behind = set().union(*self.reach.behind.values()) if whole else self.scope.paths
        for path in sorted(behind.union(orphans if whole else ())):
            silent = self.records.silent_record(path)
            if silent in self.records.by_file and Path(path).exists():
                why, reaches = f"does not name {path} beside it", self.reach.numbers(path)
                self.findings.fault(silent, why, path, reaches=reaches, record=silent)
        made = {path for job in self.plan.jobs for path in paths(job.outputs)}
        for path in orphans if whole else ():
            if not made or made.intersection(upwards(path)):
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
        made = self.records.made
        others = {tables.parent for tables in results.glob("*/tables") if tables.is_dir()}
        for path in sorted(results.rglob("*")):
            parts = path.relative_to(results).parts
            signs = path.parent == results and path.name.startswith(SEAL)
            if not path.is_file() or signs or path in known or str(path) in made:
                continue
            if any(part.startswith(".") for part in parts) or NOT_OUTPUTS.intersection(parts):
                continue
            if any(folder in others or str(folder) in made for folder in path.parents):
                continue
            if not is_nested(path, results):
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
                fault(path, why, written, on_disk, state, altered_numbers(ledger, path))
        for path in filter(self.scope.holds, ledger.content["files"]):
            read, path_maker = ledger.content["files"][path], self.records.maker(path)
            recorded = [maker.inputs.get(path)] if maker else []
            recorded += [path_maker.outputs.get(path)] if path_maker else []
            if read not in recorded and (on_disk := self.digests.of[path]) != read:
                reaches = [number.id for number in ledger.by_source[path]]
                state, why = BROKEN if on_disk else MISSING, f"not what {ledger.name} was made of"
                fault(path, why, read, on_disk, state, reaches)

    def check_seal(self, signers: Path) -> list[str]:
        """Add to the findings what nobody vouches for. Return who signed what, a line a signature.

        signers: a file in OpenSSH's format of allowed signers. Nothing of a seal is believed before
        one of its signatures is good.
        """
        file, fault = self.records.results / SEAL, self.findings.fault
        found = signatures(file, signers)
        good = [signature for signature in found if signature.who]
        every = [number.id for number in self.scope.numbers]
        if not good:
            for each in found or [Signature(file, None, "nobody signed these results")]:
                fault(each.file, each.reason, "a signature", None, MISSING, every)
            return []
        for each in set(found) - set(good):
            self.findings.remark(each.file, each.reason)
        try:
            seal = read(file.read_bytes())
        except ValueError as error:
            fault(file, str(error), "a seal", None, BROKEN, every)
            return []
        by = f"{' and '.join(dict.fromkeys(each.who for each in good))} signed on {seal.on}"
        for path, on_disk in digests(sorted(filter(self.scope.holds, seal.files))).of.items():
            if on_disk != seal.files[path]:
                state, why = BROKEN if on_disk else MISSING, f"not what {by}{self._made(path)}"
                fault(path, why, seal.files[path], on_disk, state, self.reach.numbers(path))
        unsigned = sealed_files(self.records, self.scope.ledgers) - seal.files.keys()
        for path in sorted(filter(self.scope.holds, unsigned)):
            why = f"not among what {by}{self._made(path)}"
            fault(path, why, "a digest", None, BROKEN, self.reach.numbers(path))
        return [f"{each.who} {each.reason}, on {seal.on}: {seal.summary}" for each in good]

    def _made(self, path: str) -> str:
        """Say when the job ended that made what is there now, by its record."""
        record = self.records.by_file.get(Path(path)) or self.records.maker(path)
        ended = record.part("time").get("ended") if record else None
        return f"; the job that made what is here ended at {ended}" if ended else ""


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


def _differences(record: Record, job: PlannedJob) -> list[tuple[str, object, object]]:
    """List key, old and new value of what the workflow now says otherwise; None for absent."""
    keys = ("wildcards", "params", "reproduces")
    old = {key: record.content.get(key) for key in keys}
    new = {key: getattr(job, key) for key in keys}
    old["input"] = dict.fromkeys(record.inputs, "read")
    new["input"] = dict.fromkeys(paths(job.inputs), "read")
    return [
        (key, *(None if value is ABSENT else value for value in values))
        for key, *values in differences(old, new)
    ]
