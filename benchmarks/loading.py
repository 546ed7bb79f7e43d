"""Load examples, against what a model computes with them: images decoded, texts tokenized."""

import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

import subjects
from timing import Measured, compared, in_turns


@dataclass(frozen=True)
class Size:
    """architecture: of the ViT that images are resized for. Examples of each kind, and rounds."""

    architecture: dict[str, Any]
    n_images: int
    n_sentences: int
    rounds: int


FULL = Size(subjects.VIT_BASE, 64, 256, 3)
TOY = Size(subjects.VIT_TOY, 4, 8, 1)


def measure(size: Size = FULL) -> list[Measured]:
    """Measure a line for images and one for pairs of sentences, each on one core.

    A ratio is the time of loading over that of the same examples' forward pass.
    """
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with tempfile.TemporaryDirectory() as directory:
            vit = subjects.random_vit(size.architecture, Path(directory))
            images = subjects.vit_task(Path(directory))
            marian, pairs = subjects.demo_model("marian"), subjects.demo_task("marian")
            return [
                _line("images", images, vit, size.n_images, size.rounds),
                _line("pairs of sentences", pairs, marian, size.n_sentences, size.rounds),
            ]
    finally:
        torch.set_num_threads(threads)


@torch.inference_mode()
def _line(what: str, task, model, n: int, rounds: int) -> Measured:
    rows = task.rows("validation")
    batches = [task.collate([rows[i] for i in range(n)])]  # also warms up

    def load() -> None:  # rows are decoded when they are read
        batches[0] = task.collate([rows[i] for i in range(n)])

    samples = in_turns(rounds, load=load, compute=lambda: model(**batches[0]))
    seconds = sorted(sample.cpu_seconds for sample in samples["load"])[rounds // 2]
    return compared(
        f"loading {n} {what} / their forward pass, one core",
        samples["load"],
        samples["compute"],
        None,
        f"{n / seconds:.3g} {what} a second of processor time",
    )
