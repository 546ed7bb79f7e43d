"""Run time and memory of models relative to the base model (Table 1), robust on a busy machine.

The models take turns on the same batch, and each is compared with the base model in the same round:
a busy machine slows both down.
"""

import gc
import statistics
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace

import torch
from torch import Tensor, nn

from ffmerge.models.memory import give_back
from ffmerge.models.size import weight_bytes


@dataclass(frozen=True)
class ForwardCost:
    """Cost of a model's forward pass.

    seconds: median; ratio, low, high: median and quartiles of its seconds divided by the first
    model's in the same round. weight_bytes: memory of its weights, shared ones once.
    """

    seconds: float
    ratio: float
    low: float
    high: float
    weight_bytes: int


@contextmanager
def peak_memory(device: str = "cpu") -> Iterator[SimpleNamespace]:
    """Measure the memory that the body adds at its peak, as `bytes` of the value given.

    It is that of the GPU, or of this process on Linux; None where nothing counts it.
    """
    measured = SimpleNamespace(bytes=None)
    gc.collect()
    give_back()  # or the body would reuse what others have freed, and that would not count
    if device != "cpu":
        torch.cuda.reset_peak_memory_stats(device)
        before = torch.cuda.memory_allocated(device)
        yield measured
        measured.bytes = torch.cuda.max_memory_allocated(device) - before
        return
    try:
        Path("/proc/self/clear_refs").write_text("5")  # the peak is counted from here
    except OSError:
        yield measured
        return
    before = _status("VmRSS")
    yield measured
    measured.bytes = max(0, _status("VmHWM") - before)


def _status(name: str) -> int:
    """Bytes of this process by their name in Linux's list."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(1024 * int(line.split()[1]) for line in lines if line.startswith(f"{name}:"))


@torch.inference_mode()
def measure(
    models: dict[str, nn.Module], batch: dict[str, Tensor], rounds: int, device: str = "cpu"
) -> dict[str, ForwardCost]:
    """Measure forward passes on a batch, relative to the first model.

    rounds: measured passes of each model, after one to warm up.
    """
    batch = {name: tensor.to(device) for name, tensor in batch.items()}
    seconds: dict[str, list[float]] = {name: [] for name in models}
    for _ in range(rounds + 1):
        for name, model in models.items():
            begin = time.perf_counter()
            model(**batch)
            if model.device.type == "cuda":
                torch.cuda.synchronize(model.device)
            seconds[name].append(time.perf_counter() - begin)
    base = next(iter(seconds.values()))[1:]
    costs = {}
    for name, model in models.items():
        counted = seconds[name][1:]
        ratios = [a / b for a, b in zip(counted, base, strict=True)]
        low, ratio, high = statistics.quantiles(ratios, n=4, method="inclusive")
        costs[name] = ForwardCost(statistics.median(counted), ratio, low, high, weight_bytes(model))
    return costs
