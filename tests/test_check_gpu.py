"""check_gpu.py on a processor: every part at a tiny size, and interrupted checks."""

import json
import os
import signal
import subprocess
import sys
import time
from argparse import Namespace
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

import pytest
import torch
import yaml
from safetensors.torch import save_file

import check_gpu
import gpu_decisions
import gpu_rates
from check_gpu import PARTS, Findings, Report, Setting
from experiment.plan import read_rates
from ffmerge.method import quantization
from ffmerge.method.features import Features
from ffmerge.method.permutation import Alignment
from workflow_copy import CEILING

WITHOUT_TRAINING = [name for name in PARTS if not name.startswith("training")]
SMALL = ("--device", "cpu", "--small")


@pytest.fixture(autouse=True)
def one_thread():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.mark.long
@pytest.mark.parametrize("name", WITHOUT_TRAINING)
def test_a_part_at_a_tiny_size_finds_no_fault_on_a_processor(name, tmp_path):
    findings = check_gpu.run_part(name, Setting("cpu", True, tmp_path))
    assert findings.verdict == "ok", findings.faults
    assert findings.shown and json.loads(json.dumps(findings.figures))
    assert set(findings.rates) == (
        {"score_windows", "score_layer_drops", "score_test", "fine_tune", "collect_features"}
        - ({"collect_features"} if name == "speed_marian" else set())
        if name.startswith("speed")
        else set()
    )


@pytest.mark.long
def test_a_device_that_rounds_weights_otherwise_is_noticed(tmp_path, monkeypatch):
    right, calls = quantization.quantize, []

    def quantize(model):
        calls.append(model)
        quantized = right(model)
        if len(calls) == 2:  # the GPU's
            quantized.transformer.h[0].mlp.c_fc.state.CB.bitwise_not_()
        return quantized

    monkeypatch.setattr(quantization, "quantize", quantize)
    findings = check_gpu.run_part("int8", Setting("cpu", True, tmp_path))
    assert findings.verdict == "FAILED"
    assert findings.faults[0].endswith("int8 weights differ")
    assert any("a layer's error" in fault for fault in findings.faults)


@pytest.mark.long
def test_training_is_interrupted_and_resumed_and_a_second_check_runs_nothing(
    tmp_path, capsys, monkeypatch
):
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    arguments = [*SMALL, "--out", str(tmp_path / "report.json")]
    arguments += ["--parts", "training_bf16", "training_fp16"]
    assert check_gpu.main(arguments) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[:2] for line in lines[:3]] == [
        ["training_fp32", "ok"],  # the others are compared with it
        ["training_fp16", "skipped"],
        ["training_bf16", "ok"],
    ]
    parts = json.loads((tmp_path / "report.json").read_text())["parts"]
    assert parts["training_fp32"]["figures"]["same_bits"]
    assert "stopped by SIGTERM at step" in parts["training_fp32"]["figures"]["stopped"]
    assert 0 < parts["training_bf16"]["figures"]["score_difference"] < 0.5
    assert check_gpu.main(arguments) == 0
    assert capsys.readouterr().out.splitlines() == lines
    again = json.loads((tmp_path / "report.json").read_text())["parts"]
    assert again == parts  # their seconds as well: none ran again


# --- interrupted checks ---------------------------------------------------------------------------


def test_a_part_that_takes_too_long_is_ended(tmp_path):
    options = Namespace(device="cpu", small=True, out=tmp_path / "report.json", scratch=tmp_path)
    entry = check_gpu.part_process("int8", options, limit=0.3)
    assert entry["verdict"] == "timed out" and entry["limit"] == 0.3
    assert not any(tmp_path.iterdir())


@pytest.mark.long
def test_a_part_that_breaks_has_failed_and_its_log_is_kept(tmp_path):
    (tmp_path / "report.json").write_text("no JSON")
    options = Namespace(device="cpu", small=True, out=tmp_path / "report.json", scratch=tmp_path)
    entry = check_gpu.part_process("int8", options, limit=CEILING)
    assert entry["verdict"] == "FAILED"
    assert entry["faults"] == ["JSONDecodeError: Expecting value: line 1 column 1 (char 0)"]
    assert entry["log"].startswith("Traceback")


def test_a_part_whose_process_dies_has_failed(tmp_path):
    options = Namespace(device="cpu", small=True, out=tmp_path / "report.json", scratch=tmp_path)
    with ThreadPoolExecutor(1) as pool:
        entry = pool.submit(check_gpu.part_process, "int8", options, 120)
        while not (pids := _running_in(tmp_path)):
            time.sleep(0.01)
        os.kill(pids[0], signal.SIGKILL)
    assert entry.result()["faults"] == ["the process ended with status -9"]


def test_a_check_that_is_stopped_leaves_a_report_and_no_process(tmp_path):
    report = tmp_path / "report.json"
    command = [sys.executable, check_gpu.__file__, *SMALL, "--out", str(report)]
    command += ["--scratch", str(tmp_path), "--parts", "int8"]
    process = subprocess.Popen(command, env=os.environ | check_gpu.ENVIRONMENT)
    while not list(tmp_path.glob("check-gpu-*/log")):
        assert process.poll() is None
        time.sleep(0.01)
    process.send_signal(signal.SIGTERM)
    assert process.wait(60) == 128 + signal.SIGTERM
    assert json.loads(report.read_text())["parts"] == {}
    assert not _running_in(tmp_path) and not list(tmp_path.glob("check-gpu-*"))


def _running_in(scratch: Path) -> list[int]:
    """Find the processes whose command line names the directory."""
    pids = []
    for process in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            if os.fsencode(scratch) in (process / "cmdline").read_bytes():
                pids.append(int(process.name))
    return pids


HEADER = dict.fromkeys(("device", "small", "card", "torch", "commit", "cpu"), "x")


def test_a_check_continues_a_report_only_of_the_same_machine_and_commit(tmp_path, capsys):
    file = tmp_path / "report.json"
    report = Report(file, HEADER, again=False)
    for verdict in ("ok", "FAILED", "timed out"):
        report.add(verdict, {"verdict": verdict})
    same = Report(file, HEADER, again=False)
    assert same.entry("ok") and same.entry("FAILED") and not same.entry("timed out")
    assert Report(file, HEADER, again=True).entry("ok") is None
    assert Report(file, HEADER | {"commit": "y"}, again=False).entry("ok") is None
    assert "starting over" in capsys.readouterr().out


def test_the_report_s_rates_are_rules_of_the_file_of_rates(tmp_path):
    report = Report(tmp_path / "report.json", HEADER | {"card": "NVIDIA H200"}, again=False)
    for task, seconds in (("gpt2", 10.0), ("vit", 20.0)):
        findings = Findings()
        gpu_rates.add_rate(findings, "score_test", task, seconds, f"{seconds} things/s")
        report.add(task, {"verdict": "ok", "rates": findings.rates})
    rules = json.loads((tmp_path / "report.json").read_text())["rates"]
    assert rules["score_test"]["source"] == (
        "measured; NVIDIA H200, make check-gpu: gpt2 10.0 things/s; vit 20.0 things/s"
    )
    (tmp_path / "rates.yaml").write_text(yaml.safe_dump({"paper": {"rules": rules}}))
    rates = read_rates(tmp_path / "rates.yaml", "paper")
    assert rates["score_test", "vit"].seconds == 20 + gpu_rates.START_UP
    assert rates["score_test", "vit"].basis == "measured"


# --- without a GPU --------------------------------------------------------------------------------


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_without_a_gpu_one_line_says_so_and_it_is_no_failure(monkeypatch, tmp_path, capsys):
    monkeypatch.setenv("PATH", str(tmp_path))  # no nvidia-smi
    assert check_gpu.main([]) == 0
    assert capsys.readouterr().out == "check-gpu: no CUDA GPU here, nothing was checked\n"


@pytest.mark.skipif(torch.version.cuda is not None, reason="torch was built with CUDA")
def test_a_gpu_that_this_torch_cannot_use_is_named_with_the_command_to_run(
    monkeypatch, tmp_path, capsys
):
    shown = tmp_path / "nvidia-smi"
    shown.write_text("#!/bin/sh\necho 'NVIDIA A100-SXM4-40GB, 580.1'\n")
    shown.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    assert check_gpu.card_and_driver() == ("NVIDIA A100-SXM4-40GB", "580.1")
    assert check_gpu.main([]) == 1
    (line,) = capsys.readouterr().out.splitlines()
    assert "NVIDIA A100-SXM4-40GB" in line and "make environment ENV=cuda" in line


# --- what counts as equal -------------------------------------------------------------------------


def test_tolerances_are_those_of_the_rules():
    assert gpu_decisions.tolerances("score_windows") == {"score": 0.05, "loss": 1e-3}
    assert gpu_decisions.tolerances("score_test") == {"score": 0.05, "loss": 1e-3}
    assert gpu_decisions.tolerances("fine_tune") == {"score": 0.5, "validation_loss": 0.02}
    assert gpu_decisions.tolerances("collect_features") == {"features": 1e-3}
    assert gpu_decisions.tolerances("compute_cka") == {"cka": 1e-3}
    with pytest.raises(ValueError, match="no rule of the workflow states tolerances of compress"):
        gpu_decisions.tolerances("compress")


def test_other_matches_are_a_fault_unless_neurons_tie(tmp_path):
    x, y = torch.randn(2, 50, 4, generator=torch.Generator().manual_seed(0))
    y[:, 1] = y[:, 0]  # these two tie
    save_file({"decoder.0": x, "decoder.1": y}, tmp_path / "features")
    ours, tied, worse = (
        torch.tensor(order) for order in ([0, 1, 2, 3], [1, 0, 2, 3], [0, 1, 3, 2])
    )
    cpu = gpu_decisions.Outcome(
        Features(tmp_path / "features"),
        {"decoder": {(0, 1): Alignment(ours, 0.0, 0.0)}},
        *({}, {}, {}, (0.0, 0.0)),
    )
    counted = []
    for order in (ours, tied, worse):
        findings, others = Findings(), {"decoder": {(0, 1): Alignment(order, 0.0, 0.0)}}
        figures = gpu_decisions._compared(findings, cpu, others, 1e-6, "x")
        counted.append((figures["n_differing"], findings.verdict))
    assert counted == [(0, "ok"), (2, "ok"), (2, "FAILED")]


@pytest.mark.parametrize(
    ("card", "peak"),
    [
        ("NVIDIA A100-SXM4-40GB", 312e12),
        ("NVIDIA H100 PCIe", 756e12),
        ("NVIDIA H100 80GB HBM3", 989e12),
        ("NVIDIA A10", 125e12),
        ("NVIDIA RTX A4000", "unknown"),
    ],
)
def test_a_card_s_peak_is_found_by_the_words_of_its_name(card, peak):
    assert (gpu_rates.peak_flops(card) or "unknown") == peak
