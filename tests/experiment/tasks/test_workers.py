"""Workers that decode and tokenize in advance change no result, and none outlives its job."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from PIL import Image

from experiment.config.settings import Training
from experiment.tasks import task_for
from ffmerge.models import checkpoint
from ffmerge.models.workers import BadExample
from ffmerge.training.trainer import train
from provenance.sources import REPOSITORY

DEMO = REPOSITORY / "resources/demo"
KINDS = {  # task -> its settings, the folder of its data
    "vit": (
        {"kind": "image_classification", "validation": {"batch_size": 3, "max_examples": 8}},
        "images",
    ),
    "marian": (
        {
            "kind": "translation",
            "source": "zh",
            "target": "en",
            "max_tokens": 16,
            "validation": {"num_beams": 1, "max_length": 6, "batch_size": 3, "max_examples": 8},
        },
        "translation",
    ),
}
TRAINING = Training(
    learning_rate=1e-3, schedule="constant", batch_size=2, max_steps=3, evaluate_every=3
)
LONGEST = 120  # seconds to wait for what takes a few, on a busy machine


def task_of(name: str, workers: int):
    settings, folder = KINDS[name]
    data = DEMO / "data" / folder / "validation.parquet"
    return task_for(settings, DEMO / "models" / name, {"train": data, "validation": data}, workers)


def with_dropout(name: str) -> torch.nn.Module:
    """A model whose training draws random numbers, which those of a data loader must not shift."""
    model = checkpoint.load(DEMO / "models" / name)
    for module in model.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.1
        if isinstance(getattr(module, "dropout", None), float):
            module.dropout = 0.1
    return model


@pytest.mark.slow
def test_workers_make_the_same_batches_in_the_same_order():
    alone, made = (
        list(task.batches(task.limited("validation"), 3))
        for task in (task_of("vit", 0), task_of("vit", 2))
    )
    assert len(alone) == 3
    for one, other in zip(alone, made, strict=True):
        assert one.keys() == other.keys()
        assert all(torch.equal(one[key], other[key]) for key in one)


@pytest.mark.long
@pytest.mark.parametrize("name", KINDS)
def test_training_and_scores_have_the_same_bits_with_and_without_workers(name, tmp_path):
    found = []
    for workers in (0, 2):
        task, model = task_of(name, workers), with_dropout(name)
        folder = tmp_path / str(workers)
        curve = train(model, task, TRAINING, folder, seed=1, workers=workers)
        found.append((curve, model.state_dict(), task.evaluate(model, "validation")))
    (curve, weights, result), (curve2, weights2, result2) = found
    assert curve == curve2
    assert all(torch.equal(weights[key], weights2[key]) for key in weights)
    assert result == result2
    assert len(result.per_example["negative_log_likelihood"]) == 8


@pytest.mark.slow
def test_a_picture_that_a_worker_cannot_take_is_named_in_one_line():
    examples = [{"image": Image.new("F", (4, 4)), "label": 0}] * 2
    messages = []
    for workers, kind in ((0, ValueError), (1, BadExample)):
        with pytest.raises(kind) as error:
            list(task_of("vit", workers).batches(examples, 1))
        messages.append(str(error.value))
    assert messages == ["it has 32 bits a pixel: save it with 8 or 16"] * 2


HELD = """
import multiprocessing, os, signal, sys, threading, time
from test_workers import task_of

def send_early():
    while len(multiprocessing.active_children()) < 2:
        time.sleep(0.01)
    for child in multiprocessing.active_children():  # still importing
        os.kill(child.pid, signal.SIGTERM)
    print("sent", flush=True)

if __name__ == "__main__":
    task = task_of("marian", 2)
    batches = task.batches(task.rows("validation"), 1)
    threading.Thread(target=send_early).start()
    next(batches)
    print(*(child.pid for child in multiprocessing.active_children()), flush=True)
    sys.stdin.readline()
    for _ in range(40):  # more than the workers made in advance
        next(batches)
    print("went on", flush=True)
    if "exit" not in sys.argv:
        time.sleep(10_000)
"""


def running(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except OSError:
        return False


@pytest.mark.slow
@pytest.mark.parametrize("end", ["killed", pytest.param("exit", marks=pytest.mark.long)])
def test_workers_go_on_after_a_signal_and_end_with_their_job(end, tmp_path):
    script = tmp_path / "held.py"
    script.write_text(HELD)
    paths = [str(REPOSITORY / "workflow"), str(Path(__file__).parent)]
    with subprocess.Popen(
        [sys.executable, str(script), end],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(paths)},
    ) as job:
        assert job.stdout.readline() == "sent\n"
        workers = [int(pid) for pid in job.stdout.readline().split()]
        assert len(workers) == 2
        for worker in workers:
            os.kill(worker, signal.SIGTERM)
        job.stdin.write("\n")
        job.stdin.flush()
        assert job.stdout.readline() == "went on\n"
        if end == "killed":
            job.kill()
    until = time.monotonic() + LONGEST
    while any(map(running, workers)) and time.monotonic() < until:
        time.sleep(0.1)
    assert not any(map(running, workers))
