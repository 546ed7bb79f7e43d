"""A job ends in one line where the machine lacks a device or memory, or a model is not as told."""

import json
import runpy
import subprocess
import sys
from pathlib import Path

import numpy
import pyarrow as pa
import pytest
import torch
import yaml
from pyarrow import parquet
from safetensors.torch import save_file
from transformers import GPT2Config, GPT2LMHeadModel, MambaConfig, MambaForCausalLM

import own_models
from experiment.config.run import validated
from ffmerge.compression.propose import proposed
from ffmerge.models import checkpoint
from provenance import sources
from provenance.csv_files import read_csv
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
    assert "Traceback" in (tmp_path / "log").read_text()  # on disk while the job's stream is open


SMALL = {"vocab_size": 50, "bos_token_id": 1, "eos_token_id": 1, "num_hidden_layers": 2}
DECLARED = {  # model type -> a model, the neurons of what is proposed, whether it is a sublayer
    "gpt2": (lambda: GPT2LMHeadModel(GPT2Config(**SMALL, n_embd=8, n_head=2)), 32, True),
    "mamba": (lambda: MambaForCausalLM(MambaConfig(**SMALL, hidden_size=8)), 16, False),
}


def scoring_job(folder: Path, rule: str, model, width: int, params: dict) -> list[str]:
    """Write the inputs of a job that scores merges of two layers; its script and arguments."""
    checkpoint.save(model, folder / "model")
    own_models.tokenizer(folder / "model")
    rows = {"text": [own_models.text(i) for i in range(40)]}
    parquet.write_table(pa.table(rows), folder / "validation.parquet")
    order = torch.randperm(width, generator=torch.Generator().manual_seed(0)).int()
    save_file({"decoder.0.1": order}, folder / "permutations")
    (folder / "groups").write_text(json.dumps({"2": {"window": {"decoder": [[0, 1]]}}}))
    pico = yaml.safe_load((REPOSITORY / "config/pico.yaml").read_text())["tasks"]["gpt2"]
    task = validated({"tasks": {"gpt2": pico}, "results": "results/pico"}).tasks["gpt2"]
    settings = task.model_dump(mode="json", include={"kind", "pack", "features", "validation"})
    settings |= {"context": 8, "join": "blank_lines"}
    settings["validation"] |= {"context": 8, "stride": 4}
    script = REPOSITORY / f"workflow/scripts/{rule}.py"
    job = {
        **{"rule": rule, "wildcards": {"results": str(folder), "task": "gpt2"}},
        "params": {"task": settings, "anchor": "first", "device": "cpu", **params},
        **{"reproduces": "bits", "imports": [f"experiment.tasks.{task.kind}"]},
    }
    job["code"] = sources.code_digest(sources.closure(script, job["imports"]))
    permutations = str(folder / "permutations")
    files = {
        "input": {
            "base_model": str(folder / "model"),
            "validation": str(folder / "validation.parquet"),
            "permutations": permutations if rule == "score_windows" else [permutations],
            **({"groups": str(folder / "groups")} if rule == "score_groups" else {}),
        },
        "output": {"scores": str(folder / "s.csv"), "record": str(folder / "s.record.json")},
    }
    return [str(script), json.dumps(job), json.dumps(files), "--log", str(folder / "log")]


@pytest.mark.slow  # three jobs start
def test_groups_score_as_the_window_of_the_same_layers_and_method_does(tmp_path, monkeypatch):
    monkeypatch.chdir(REPOSITORY)
    make, width, _ = DECLARED["gpt2"]
    torch.manual_seed(0)
    model, losses = make(), {}
    methods = ("permute", "vanilla")
    for rule, asked in {
        "score_windows": [{"candidates": [[method, 2, 0] for method in methods]}],
        "score_groups": [{"method": method} for method in methods],
    }.items():
        for i, params in enumerate(asked):
            folder = tmp_path / f"{rule}{i}"
            folder.mkdir()
            words = scoring_job(folder, rule, model, width, params)
            subprocess.run([sys.executable, *words], check=True)
            scores = read_csv(folder / "s.csv")
            losses.setdefault(rule, []).extend(float(row["loss"]) for row in scores)
    assert losses["score_groups"] == pytest.approx(losses["score_windows"], rel=1e-6)
    assert losses["score_windows"][0] != pytest.approx(losses["score_windows"][1], rel=1e-5)


@pytest.mark.slow  # a job starts
@pytest.mark.parametrize("model_type", [pytest.param("gpt2", marks=pytest.mark.long), "mamba"])
def test_a_declared_architecture_is_permuted_before_a_window_is_scored(
    model_type, tmp_path, monkeypatch
):
    make, width, is_sublayer = DECLARED[model_type]
    model = make()
    model.config.ffmerge_architecture = proposed(model)
    windows = {"candidates": [["permute", 2, 0], ["vanilla", 2, 0]]}
    monkeypatch.chdir(REPOSITORY)
    words = scoring_job(tmp_path, "score_windows", model, width, windows)
    ended = subprocess.run([sys.executable, *words], capture_output=True, text=True)
    if is_sublayer:
        assert ended.returncode == 0, ended.stderr
        assert (tmp_path / "s.csv").read_text().count("\n") == 3
        return
    line = ended.stderr.splitlines()[-1]
    assert line.startswith("error: score_windows") and "Traceback" not in ended.stderr
    assert "names no feed-forward sublayer in backbone.layers.0 (permuting its neurons" in line
    assert ended.returncode == 1 and not (tmp_path / "s.csv").exists()
