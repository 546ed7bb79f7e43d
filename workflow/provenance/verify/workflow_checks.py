"""Compare each record with the job that the workflow would run now."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from provenance.dag import PlannedJob, dry_run, paths
from provenance.explain.causes import ABSENT, changed_sources, differences, tree_of
from provenance.hashing import Digests, is_collected
from provenance.numbers import Reach
from provenance.project import PROJECT, find_configuration
from provenance.records import Record
from provenance.verify.findings import STALE, Findings


@dataclass(frozen=True)
class Plan:
    """The jobs of `everything` and of the extra targets, by the configuration in `file`.

    skipped: why there is no such file. fails: why there are no jobs although there is one.
    """

    file: Path | None
    jobs: Sequence[PlannedJob] = ()
    skipped: str = ""
    fails: str = ""
    by_record: dict[str, PlannedJob] = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "by_record", {job.outputs["record"]: job for job in self.jobs})

    @property
    def temporary(self) -> set[str]:
        """The files that Snakemake removes once they have been used."""
        return {path for job in self.jobs for path in job.temporary}

    @property
    def outputs(self) -> set[str]:
        """All files that the jobs make."""
        return {path for job in self.jobs for path in paths(job.outputs)}


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
    extra = [
        f"{content['results']}/{target}"
        for target in PROJECT.extra_targets
        if (results / target).exists()
    ]
    try:
        return Plan(configuration, dry_run(content, "everything", *extra))
    except RuntimeError as error:
        return Plan(configuration, fails=str(error))


def check_job(
    record: Record, plan: Plan, digests: Digests, reach: Reach, findings: Findings
) -> None:
    """Compare a record with the job that would now write it."""
    about = {"reaches": reach.numbers(record.file), "record": record.file}
    if plan.file and not plan.fails:
        job = plan.by_record.get(str(record.file))
        if job is None:
            _report_unplanned(record, reach, findings)
            return
        for key, old, new in _differences(record, job):
            why = "the workflow now says otherwise"
            findings.fault(f"{job.rule}: {key}", why, new, old, STALE, **about)
        if record.code_digest != job.code:
            _check_code(record, job, digests, reach, findings)
            return
    for path, ran in record.sources.items():
        if (on_disk := digests.of[path]) == ran:
            continue
        if tree_of(path) == record.trees.get(path):
            findings.remark(path, "edited since jobs ran it, in nothing that can change a number")
        else:
            findings.fault(path, "code that jobs ran is edited", ran, on_disk, STALE, **about)


def _report_unplanned(record: Record, reach: Reach, findings: Findings) -> None:
    if numbers := reach.numbers(record.file):
        why = "no job of the workflow makes this now"
        findings.fault(record.file, why, "a job", None, STALE, numbers, record.file)
    else:
        findings.remark(record.file, "no part of `everything`, and so not compared with it")


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


def _check_code(
    record: Record, job: PlannedJob, digests: Digests, reach: Reach, findings: Findings
) -> None:
    """Name the source files whose code changed, or else the digest of all reachable code."""
    about = {"reaches": reach.numbers(record.file), "record": record.file}
    changes = changed_sources(record)
    for change in changes:
        why = f"code that jobs ran is edited ({change.hint})"
        ran, on_disk = record.sources.get(change.file), digests.of.get(change.file)
        findings.fault(change.file, why, ran, on_disk, STALE, **about)
    if not changes:
        what = f"{job.rule}: code"
        findings.fault(what, "its code is another", job.code, record.code_digest, STALE, **about)
