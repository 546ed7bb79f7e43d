"""A job ends in one line where the machine lacks a device or memory."""

import json
import runpy
import sys
from pathlib import Path

import numpy
import pytest
import torch
import yaml

from experiment.config.run import validated
from provenance import sources
from provenance.job import Job
from provenance.sources import REPOSITORY

SCRIPTS = [
    file
    for file in sorted((REPOSITORY / "workflow/scripts").glob("*.py"))
    if "params.device" in file.read_text()
]
LOADER = "ffmerge.models.checkpoint"


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
@pytest.mark.parametrize("script", SCRIPTS, ids=lambda script: script.stem)
def test_a_job_refuses_a_device_that_is_not_here_before_it_loads_anything(
    script, tmp_path, monkeypatch, capsys
):
    monkeypatch.chdir(REPOSITORY)
    pico = validated(yaml.safe_load(Path("config/pico.yaml").read_text())).tasks["gpt2"]
    recipe = pico.base_model.from_scratch.model_dump(mode="json")
    kind = f"experiment.tasks.{pico.kind}"
    keys = {"kind", "context", "features", "validation", "test", "fine_tuning"}
    job = {
        "rule": script.stem,
        "wildcards": {"results": str(tmp_path), "task": "gpt2"},
        "params": {
            **{"task": pico.model_dump(mode="json", include=keys), "recipe": recipe, "seed": 1},
            **{"n_layers": 4, "anchor": "first", "candidates": [], "rounds": 1},
            **{"loader": LOADER, "loaders": {"base": LOADER}, "device": "cuda"},
        },
        "reproduces": "bits",
        "imports": [kind, LOADER],
        "code": sources.code_digest(sources.closure(script, [kind, LOADER])),
    }
    nothing = tmp_path / "nothing"
    nothing.write_text("no job can load this")
    named = ("base_model", "model", "train", "validation", "test", "permutations", "groups")
    files = {
        "input": {**dict.fromkeys(named, str(nothing)), "models": [str(nothing)]},
        "output": {"record": str(tmp_path / "record.json"), "model": str(tmp_path / "model")},
    }
    log = str(tmp_path / "log")
    words = [str(script), json.dumps(job), json.dumps(files), "--log", log]
    monkeypatch.setattr(sys, "argv", words)
    with pytest.raises(SystemExit) as ended:
        runpy.run_path(str(script), run_name="__main__")
    told = str(ended.value) + capsys.readouterr().err
    assert "device 'cuda': this machine has no such device that torch can use" in told
    assert "Traceback" not in told
    assert not (tmp_path / "record.json").exists()


TOO_MUCH = {
    "Python": lambda: bytearray(2**60),
    "numpy": lambda: numpy.ones(2**55),
    "torch": lambda: torch.ones(2**55),
}


@pytest.mark.parametrize("allocate", TOO_MUCH.values(), ids=TOO_MUCH)
def test_a_job_says_in_one_line_that_memory_is_short(allocate, tmp_path, monkeypatch, capsys):
    script = REPOSITORY / "workflow/scripts/plan.py"
    monkeypatch.setattr(sys, "argv", [str(script)])
    description = {
        **{"rule": "plan", "wildcards": {"results": str(tmp_path)}, "params": {}},
        **{"reproduces": "bits", "imports": []},
        "code": sources.code_digest(sources.closure(script, [])),
    }
    made = tmp_path / "table.csv"
    files = {"input": {}, "output": {"table": str(made), "record": str(tmp_path / "record.json")}}
    with pytest.raises(SystemExit), Job(description, files, log=tmp_path / "log") as job:
        job.output.table.write_text("half")
        allocate()
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"error: plan {tmp_path}: there is not enough memory: choose a smaller")
    assert {file.name for file in tmp_path.iterdir()} == {"log"}
