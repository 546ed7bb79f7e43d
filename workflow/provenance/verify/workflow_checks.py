"""Whether the workflow would now do what the jobs did: parameters, code and inputs of each job."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from provenance import configuration
from provenance.dag import PlannedJob, dry_run, paths
from provenance.explain.causes import NOTHING, differences
from provenance.explain.source_changes import changed_sources
from provenance.hashing import Digests
from provenance.reach import Reach
from provenance.records import Record
from provenance.verify.findings import STALE, Findings
from provenance.verify.record_checks import sources

BESIDES = ("tables/strategies.csv",)  # what a run may have made that is no part of `everything`


@dataclass(frozen=True)
class Plan:
    """The jobs of `everything` and of BESIDES, as the configuration in `file` has them.

    skipped: why there is no such file; fails: why there are no jobs though there is one.
    """

    file: Path | None
    jobs: Sequence[PlannedJob] = ()
    skipped: str = ""
    fails: str = ""
    of: dict[str, PlannedJob] = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "of", {job.outputs["record"]: job for job in self.jobs})

    @property
    def temporary(self) -> set[str]:
        """What Snakemake removes when it was used."""
        return {path for job in self.jobs for path in job.temporary}

    @property
    def outputs(self) -> set[str]:
        """All that the jobs make."""
        return {path for job in self.jobs for path in paths(job.outputs)}


def planned(results: Path, file: Path | None, find: bool) -> Plan:
    """What a dry run of a configuration says; `find`: of the one in config/ with these results."""
    if not (file or find):
        return Plan(None, skipped="nobody asked for it")
    try:
        found, content = configuration.find(results, file)
    except (ValueError, OSError) as error:
        if file:
            raise
        return Plan(None, skipped=str(error))
    besides = [f"{content['results']}/{table}" for table in BESIDES if (results / table).exists()]
    try:
        return Plan(found, dry_run(content, "everything", *besides))
    except RuntimeError as error:
        return Plan(found, fails=str(error))


def check_job(
    record: Record, plan: Plan, digests: Digests, reach: Reach, findings: Findings
) -> None:
    """A record against the job that would now write it."""
    if plan.file and not plan.fails:
        job = plan.of.get(str(record.file))
        if job is None:
            _check_unplanned(record, reach, findings)
            return
        _check_description(record, job, reach, findings)
        if (record.content.get("code") or {}).get("digest") != job.code:
            _check_code(record, job, digests, reach, findings)
            return
    for path, ran in sources(record).items():
        if (found := digests.of[path]) == ran:
            continue
        if plan.of:
            findings.remark(path, "edited since jobs ran it, in nothing that can change a number")
        else:
            why = "edited since jobs ran it; whether it matters, a configuration would tell"
            about = {"reaches": reach.of(record.file), "record": record.file}
            findings.fault(path, why, ran, found, STALE, **about)


def _check_unplanned(record: Record, reach: Reach, findings: Findings) -> None:
    if numbers := reach.of(record.file):
        why = "no job of the workflow makes this now"
        findings.fault(record.file, why, "a job", None, STALE, numbers, record.file)
    else:
        findings.remark(record.file, "no part of `everything`, and so not compared with it")


def _check_description(record: Record, job: PlannedJob, reach: Reach, findings: Findings) -> None:
    about = {"reaches": reach.of(record.file), "record": record.file}
    was = {
        **{key: record.content.get(key) for key in ("wildcards", "params", "reproduces")},
        "input": {path: "read" for path in record.inputs},
    }
    now = {
        **{key: getattr(job, key) for key in ("wildcards", "params", "reproduces")},
        "input": {path: "read" for path in paths(job.inputs)},
    }
    for key, old, new in differences(was, now):
        what = f"{job.rule}: {key}"
        why = "the workflow now says otherwise"
        findings.fault(what, why, _plain(new), _plain(old), STALE, **about)


def _plain(value: Any) -> Any:
    return None if value is NOTHING else value


def _check_code(
    record: Record, job: PlannedJob, digests: Digests, reach: Reach, findings: Findings
) -> None:
    """Name the files whose code is another, or else the digest of all that the job can reach."""
    about = {"reaches": reach.of(record.file), "record": record.file}
    changes = changed_sources(record)
    for change in changes:
        why = f"code that jobs ran is edited ({change.hint})"
        ran, found = sources(record).get(change.file), digests.of.get(change.file)
        findings.fault(change.file, why, ran, found, STALE, **about)
    if not changes:
        ran = (record.content.get("code") or {}).get("digest")
        findings.fault(f"{job.rule}: code", "its code is another", job.code, ran, STALE, **about)
