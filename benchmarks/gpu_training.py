"""Parts of check_gpu.py: fine-tuning on a GPU by the workflow's job, interrupted and resumed.

The job `fine_tune` tunes the demo's GPT-2 with five merged sublayers. Training that SIGTERM
interrupts has to end with the same weights as uninterrupted training, bit for bit.
"""

import csv
import json
import math
import os
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from pyarrow import parquet

import subjects
from check_gpu import Findings, Setting
from experiment.config.run import Config
from ffmerge.method.merge_on_disk import merge_on_disk
from ffmerge.method.windows import window
from ffmerge.models.format import WEIGHTS
from gpu_decisions import tolerances
from provenance.sources import closure, code_digest

SCRIPT = subjects.REPOSITORY / "workflow/scripts/fine_tune.py"
IMPORTS = ["experiment.tasks.language_modeling"]
PARTS_OF_TASK = {"kind", "fine_tuning", "validation", "context", "max_tokens", "pack", "join"}
N_ROWS = 3000  # of the demo's training text: more than its 160 steps see
FULL = {"max_steps": 160, "evaluate_every": 80}
SMALL = {"max_steps": 24, "evaluate_every": 8, "batch_size": 2}
POINTS = ("score", "validation_loss")  # of a learning curve, held to the rule's tolerances


@dataclass(frozen=True)
class FineTuning:
    """A job `fine_tune` in its own folder."""

    folder: Path
    inputs: dict[str, Path]
    task: dict[str, Any]
    device: str

    @property
    def weights(self) -> bytes:
        """The bytes of the tuned weights."""
        return (self.folder / "tuned" / WEIGHTS).read_bytes()

    @property
    def curve(self) -> list[dict[str, float]]:
        """The learning curve."""
        with (self.folder / "curve.csv").open(newline="") as stream:
            rows = csv.DictReader(stream)
            return [{key: float(value) for key, value in row.items() if value} for row in rows]

    @property
    def validations(self) -> list[dict[str, float]]:
        """The points of the learning curve that have a score."""
        return [point for point in self.curve if "score" in point]

    def start(self) -> subprocess.Popen:
        """Start or resume the job."""
        self.folder.mkdir(exist_ok=True)
        description = {
            "rule": "fine_tune",
            "wildcards": {"results": str(self.folder), "task": "gpt2", "model": "merged"},
            "params": {"task": self.task, "seed": 1, "device": self.device},
            "reproduces": tolerances("fine_tune"),
            "imports": IMPORTS,
            "code": code_digest(closure(SCRIPT, IMPORTS)),
        }
        outputs = {"model": "tuned", "curve": "curve.csv", "record": "tuned.record.json"}
        files = {
            "input": {name: str(path) for name, path in self.inputs.items()},
            "output": {name: str(self.folder / file) for name, file in outputs.items()},
        }
        threads = str(max(1, (os.cpu_count() or 1) // 2))
        command = [sys.executable, SCRIPT, json.dumps(description), json.dumps(files)]
        command += ["--threads", threads, "--log", self.folder / "log"]
        environment = {**os.environ, "PYTHONPATH": str(subjects.REPOSITORY / "workflow")}
        return subprocess.Popen(
            list(map(str, command)), env=environment | {"OMP_NUM_THREADS": threads}
        )

    def finish(self, process: subprocess.Popen | None = None) -> None:
        """Wait for a started job, or run it. Raises RuntimeError with its log if it fails."""
        if (process or self.start()).wait():
            raise RuntimeError(f"fine_tune on {self.device}: {(self.folder / 'log').read_text()}")

    def stop(self, after_step: int) -> str | None:
        """Run it, send SIGTERM after a checkpoint, and return its message; None if it had ended."""
        process = self.start()
        name = f"checkpoint-{after_step}/complete"
        while process.poll() is None and not any(self.folder.glob(f".checkpoints/*/{name}")):
            time.sleep(0.005)
        process.send_signal(signal.SIGTERM)
        if process.wait() == 0:
            return None
        messages = [x for x in (self.folder / "log").read_text().splitlines() if "stopped by" in x]
        return messages[-1] if messages else f"failed: {(self.folder / 'log').read_text()}"


def training_fp32(setting: Setting) -> Findings:
    """Compare scores with a processor's, and the bits after an interruption."""
    return _training("fp32", setting, resumes=True)


def training_fp16(setting: Setting) -> Findings:
    """Do the same with a gradient scaler."""
    if setting.device == "cpu":
        return Findings(skipped=True, shown="fp16 needs a GPU")
    return _training("fp16", setting, resumes=True)


def training_bf16(setting: Setting) -> Findings:
    """Compare scores with a processor's."""
    return _training("bf16", setting, resumes=False)


def _training(precision: str, setting: Setting, resumes: bool) -> Findings:
    findings, inputs = Findings(), _inputs(setting.scratch)
    task = _task(precision, setting)
    whole = FineTuning(setting.scratch / "whole", inputs, task, setting.device)
    reference = None
    if precision == "fp32" and setting.device != "cpu":  # meanwhile; else `whole` is it
        plain = FineTuning(setting.scratch / "cpu", inputs, task, "cpu")
        reference = plain, plain.start()
    begun = time.perf_counter()
    whole.finish()
    findings.figures["seconds_of_a_whole_run"] = round(time.perf_counter() - begun, 1)
    if resumes:
        _resume(findings, whole, FineTuning(setting.scratch / "cut", inputs, task, setting.device))
    if reference:
        plain.finish(reference[1])
        findings.figures["cpu"] = plain.validations
    elif precision == "fp32":
        findings.figures["cpu"] = whole.validations
    else:
        findings.figures["cpu"] = setting.earlier.get("training_fp32", {}).get("cpu", [])
    findings.figures[setting.device if setting.device != "cpu" else "here"] = whole.validations
    _compare(findings, whole)
    return findings


def _resume(findings: Findings, whole: FineTuning, cut: FineTuning) -> None:
    every = whole.task["fine_tuning"]["evaluate_every"]
    message = cut.stop(after_step=every)
    findings.figures["stopped"] = message
    findings.require(
        message is not None and "stopped by SIGTERM at step" in message,
        "it ended before the signal" if message is None else f"at SIGTERM: {message}",
    )
    cut.finish()
    same = findings.figures["same_bits"] = cut.weights == whole.weights
    findings.require(same, "resumed, it ends with other weights")
    findings.require(cut.curve == whole.curve, "resumed, it has another learning curve")


def _compare(findings: Findings, whole: FineTuning) -> None:
    cpu, gpu = findings.figures["cpu"], whole.validations
    losses = [value for point in whole.curve for key, value in point.items() if "loss" in key]
    findings.require(all(map(math.isfinite, losses)), "a loss is not finite")
    steps = [[point["step"] for point in points] for points in (cpu, gpu)]
    findings.require(
        steps[0] == steps[1], f"no validations of a processor at the same steps: {steps}"
    )
    if steps[0] != steps[1]:
        return
    for value in POINTS:
        apart = max(abs(a[value] - b[value]) for a, b in zip(cpu, gpu, strict=True))
        findings.figures[f"{value}_difference"] = apart
        bound = tolerances("fine_tune")[value]
        findings.require(apart <= bound, f"{value} differs by {apart:.3g} > {bound:g}")
    bits = {True: ", same bits when resumed", False: ", OTHER BITS when resumed", None: ""}
    findings.shown = (
        f"{gpu[-1]['step']:.0f} steps: perplexity {gpu[-1]['score']:.2f} "
        f"(± {findings.figures['score_difference']:.2g} of the processor's)"
        f"{bits[findings.figures.get('same_bits')]}"
    )


def _task(precision: str, setting: Setting) -> dict[str, Any]:
    raw = yaml.safe_load((subjects.REPOSITORY / "config/demo.yaml").read_text())
    raw["device"], task = setting.device, raw["tasks"]["gpt2"]
    task["fine_tuning"] |= (SMALL if setting.small else FULL) | {"precision": precision}
    if setting.small:
        task["validation"]["max_tokens"] = 300
    settings = Config.model_validate(raw).tasks["gpt2"]
    return settings.model_dump(mode="json", include=PARTS_OF_TASK)


def _inputs(scratch: Path) -> dict[str, Path]:
    """Prepare the job's inputs: the demo's model and data, with the first rows of its text."""
    demo = subjects.DEMO["gpt2"]
    base = subjects.REPOSITORY / demo["base_model"]["path"]
    merge_on_disk(base, window(["decoder"], 3, 5, "first"), None, scratch / "merged")
    table = parquet.read_table(subjects.REPOSITORY / demo["dataset"]["train"]["path"])
    parquet.write_table(table[:N_ROWS], scratch / "train.parquet")
    return {
        "model": scratch / "merged",
        "base_model": base,
        "train": scratch / "train.parquet",
        "validation": subjects.REPOSITORY / demo["dataset"]["validation"]["path"],
    }
