"""The DAG that a dry run of the real Snakemake prints, of the paper's own configuration."""

import dataclasses
import resource

import pytest
import yaml

from provenance.dag import PlannedJob, dry_run, in_order, paths
from workflow_copy import REPOSITORY, Copy


@pytest.fixture(scope="module")
def resolved(tmp_path_factory) -> tuple[list[PlannedJob], float]:
    """The jobs of everything, and the processor seconds that Snakemake took to find them."""
    root = Copy(tmp_path_factory.mktemp("dag")).root
    configuration = yaml.safe_load((REPOSITORY / "config/paper.yaml").read_text())
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    jobs = dry_run(configuration, root=root)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return jobs, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


@pytest.fixture(scope="module")
def jobs(resolved) -> list[PlannedJob]:
    return resolved[0]


def test_the_dag_resolves_in_under_5_seconds(resolved):
    assert resolved[1] < 5  # of processor time, because other programs may be running


def test_every_output_has_one_maker_and_every_input_too_or_is_a_file_of_the_repository(jobs):
    made = [path for job in jobs for path in paths(job.outputs)]
    assert len(made) == len(set(made))
    read = {path for job in jobs for path in paths(job.inputs)} - set(made)
    assert read and all((REPOSITORY / path).is_file() for path in read)


def test_jobs_come_after_what_they_wait_for(jobs):
    assert all(before < i for i, job in enumerate(jobs) for before in job.after)


def test_compressed_models_are_temporary_where_the_configuration_says_so(jobs):
    for job in jobs:
        compressed = {path for path in paths(job.outputs) if path.endswith("/compressed")}
        assert job.temporary == compressed
    assert any(job.temporary for job in jobs)


def test_a_job_waits_for_those_that_make_what_it_reads():
    first, second = (PlannedJob(rule, {}, {}, {}, {}) for rule in ("first", "second"))
    first = dataclasses.replace(first, outputs={"a": "x", "b": ["y", "z"]})
    second = dataclasses.replace(second, inputs={"c": ["z", "config/file"]}, outputs={"d": "w"})
    jobs = in_order([second, first])
    assert [(job.rule, job.after) for job in jobs] == [("first", ()), ("second", (0,))]


def test_a_dry_run_that_fails_says_why():
    with pytest.raises(RuntimeError, match=r"(?s)dry run of everything failed.*tasks"):
        dry_run({"results": "results", "tasks": {}}, root=REPOSITORY)
