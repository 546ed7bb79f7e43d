"""The DAG of each configuration has every job exactly once."""

import re
import subprocess
import sys
from collections import Counter

import pytest

from workflow_copy import COPIED, REPOSITORY

JOB = (  # rule, and wildcards if it has any
    r"^(?:local)?rule (\w+):\n(?:    .*\n)*?    jobid: .*\n"
    r"(?:    (?!wild).*\n)*(?:    wildcards: (.*)\n)?"
)


@pytest.fixture(scope="module", params=["demo", "paper"])
def jobs(request, tmp_path_factory) -> list[str]:
    """Rule and wildcards of every job of `everything`, without any results yet."""
    copy = tmp_path_factory.mktemp(request.param)
    for name in COPIED:
        (copy / name).symlink_to(REPOSITORY / name)
    command = [sys.executable, "-m", "snakemake", "everything", "--dry-run", "--cores", "2"]
    printed = subprocess.run(
        [*command, "--configfile", f"config/{request.param}.yaml", "--quiet", "host"],
        cwd=copy,
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    found = re.findall(JOB, printed, re.MULTILINE)
    return [f"{rule} {wildcards}".strip() for rule, wildcards in found]


def test_no_job_is_planned_twice(jobs):
    assert [job for job, n in Counter(jobs).items() if n > 1] == []


def test_a_model_that_several_tables_share_is_made_once(jobs):
    rules = Counter(job.split()[0] for job in jobs)
    # per task: two methods x three ratios, three random windows, two more anchors, two layer drops;
    # and the uncompressed GPT-2
    assert rules["fine_tune"] == 3 * (6 + 3 + 2 + 2) + 1
    assert rules["compress"] == 3 * (6 + 3 + 2)
    assert rules["drop_layers"] == 3 * 2
    assert rules["quantize"] == rules["compute_cka"] == rules["measure_cost"] == 3
    # every tuned model, every base model, every quantized model
    assert rules["score_test"] == rules["fine_tune"] + 3 + 3
    assert rules["score_untuned"] == 3 * 4  # windows of Table 2


def test_common_inputs_of_all_models_are_computed_once_for_each_task(jobs):
    rules = Counter(job.split()[0] for job in jobs)
    once = ("collect_features", "collect_outputs", "align_feed_forwards", "select_windows")
    assert {rule: rules[rule] for rule in once} == dict.fromkeys(once, 3)
    assert rules["tokenize_text"] == 1
