"""The requests of the SLURM profile in a dry run; tests/cluster uses a real cluster."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from workflow_copy import COPIED, REPOSITORY

MODEL = "permute-k2-first-best"
MADE = ["tuned", "untuned.json"]


def asked_for(folder: Path, devices: int) -> dict[str, dict[str, str]]:
    """The resources of each rule's jobs up to a tuned model, and of a test before, by name."""
    for name in COPIED:
        (folder / name).symlink_to(REPOSITORY / name)
    config = yaml.safe_load((folder / "config/pico.yaml").read_text())
    config["tasks"] = {"vit": config["tasks"]["vit"]}
    config["tasks"]["vit"]["fine_tuning"]["devices"] = devices
    (folder / "run.yaml").write_text(yaml.safe_dump(config))
    command = [sys.executable, "-m", "snakemake", "--profile", "workflow/profiles/slurm", "-n"]
    done = subprocess.run(
        # a dry run starts nothing in Apptainer, but asks whether it is there
        [*command, *(f"results/pico/vit/models/{MODEL}/{name}" for name in MADE)]
        + ["--configfile", "run.yaml"]
        + ["--software-deployment-method", "env-modules"],
        cwd=folder,
        capture_output=True,
        text=True,
        env=os.environ | {"PYTHONPATH": ""},
    )
    assert done.returncode == 0, done.stdout + done.stderr
    found = re.findall(r"rule (\w+):\n(?:.+\n)*? +resources: (.*)", done.stdout)
    return {rule: dict(re.findall(r"(\w+)=([^,]+)", line)) for rule, line in found}


@pytest.mark.parametrize("devices", [pytest.param(1, marks=pytest.mark.long), 2])
def test_fine_tuning_asks_for_a_gpu_and_a_core_for_each_device_on_one_node(tmp_path, devices):
    resources = asked_for(tmp_path, devices)
    n = str(devices)
    tuning = resources["fine_tune"]
    assert (tuning["gpu"], tuning["cpus_per_task"], tuning["nodes"]) == (n, n, "1")
    assert resources["compress"]["gpu"] == resources["score_windows"]["gpu"] == "1"
    assert resources["score_untuned"]["gpu"] == "1"
    assert "gpu" not in resources["align_feed_forwards"]
