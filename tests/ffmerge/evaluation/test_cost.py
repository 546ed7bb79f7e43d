"""What a model costs to run: seconds against another model's, and memory."""

from types import SimpleNamespace

import pytest
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from ffmerge.evaluation import cost
from ffmerge.evaluation.cost import measure
from ffmerge.method.layer_drop import without_layers
from ffmerge.models.size import weight_bytes
from merged_windows import merge_window

D_MODEL, D_FF = 8, 16
SUBLAYER = 2 * D_MODEL * D_FF + D_FF + D_MODEL
LAYERS = [1, 2, 3]


def merged(model):
    """The model with LAYERS merged, and its configuration saying so."""
    merge_window(model, LAYERS, 2)
    return model


# --- time -----------------------------------------------------------------------------------------


class Timed(nn.Module):
    """A model whose passes take these seconds of a clock that nothing else moves."""

    def __init__(self, clock: list[float], seconds: list[float], passes: list[str], name: str):
        super().__init__()
        self.clock, self.seconds, self.passes, self.name = clock, iter(seconds), passes, name

    device = torch.device("cpu")

    def forward(self, x):
        self.passes.append(self.name)
        self.clock[0] += next(self.seconds)
        return SimpleNamespace(logits=x)


@pytest.fixture
def clocked(monkeypatch):
    """clocked(name=seconds, …): models with the seconds of their passes, and who ran when."""
    clock, passes = [0.0], []
    monkeypatch.setattr(cost.time, "perf_counter", lambda: clock[0])

    def models(**seconds):
        return {name: Timed(clock, s, passes, name) for name, s in seconds.items()}, passes

    return models


BATCH = {"x": torch.zeros(1)}


def test_models_take_turns_and_the_first_pass_does_not_count(clocked):
    models, passes = clocked(a=[99.0, 1, 2, 3], b=[0.1, 2, 4, 6])
    costs = measure(models, BATCH, rounds=3)
    assert passes == ["a", "b"] * 4
    assert (costs["a"].seconds, costs["b"].seconds) == (2, 4)


def test_a_slow_round_does_not_change_the_ratio(clocked):
    models, _ = clocked(a=[1, 1, 1, 50, 1, 7], b=[1, 0.5, 0.5, 25, 0.5, 3.5])
    costs = measure(models, BATCH, rounds=5)
    assert (costs["a"].low, costs["a"].ratio, costs["a"].high) == (1, 1, 1)
    assert (costs["b"].low, costs["b"].ratio, costs["b"].high) == (0.5, 0.5, 0.5)


def test_median_and_quartiles_are_taken_over_the_rounds_ratios(clocked):
    models, _ = clocked(a=[1] * 6, b=[9, 5, 1, 3, 2, 4])
    measured = measure(models, BATCH, rounds=5)["b"]
    assert (measured.low, measured.ratio, measured.high, measured.seconds) == (2, 3, 4, 3)


def test_half_the_layers_cost_half_of_what_the_layers_do(pico, random_batch, monkeypatch):
    """By a clock that counts floating-point operations: seconds would depend on the machine."""
    model = pico("gpt2", n_layers=24)
    models = {"base": model, "half": without_layers(model, range(6, 18))}
    with FlopCounterMode(display=False) as operations:
        monkeypatch.setattr(cost.time, "perf_counter", operations.get_total_flops)
        costs = measure(models, random_batch("gpt2"), rounds=3)
    assert costs["base"].ratio == costs["base"].low == costs["base"].high == 1.0
    assert costs["half"].low == costs["half"].ratio == costs["half"].high
    assert costs["half"].weight_bytes == weight_bytes(models["half"])
    n_positions = random_batch("gpt2")["input_ids"].numel()
    head = 2 * n_positions * model.lm_head.weight.numel()
    assert costs["base"].seconds > head
    half_the_layers = (costs["base"].seconds - head) / 2
    assert costs["half"].seconds == half_the_layers + head
    assert costs["half"].ratio == costs["half"].seconds / costs["base"].seconds


def test_a_pass_has_ended_on_the_models_own_gpu_before_the_clock_is_read(clocked, monkeypatch):
    models, passes = clocked(a=[1] * 3, b=[1] * 3)
    for i, model in enumerate(models.values()):
        model.device = torch.device(f"cuda:{i}")
    monkeypatch.setattr(torch.cuda, "synchronize", lambda device=None: passes.append(f"{device}"))
    measure(models, BATCH, rounds=2)
    assert passes == ["a", "cuda:0", "b", "cuda:1"] * 3


# --- memory ---------------------------------------------------------------------------------------


def test_memory_that_was_freed_before_counts_where_it_is_used_again():
    def blocks():
        return [b"x" * (100_000 + i) for i in range(300)]  # of the C library's heap

    freed, last = blocks(), b"x" * 100_000  # which keeps the heap from shrinking
    del freed
    with cost.peak_memory() as memory:
        held = blocks()
    assert memory.bytes is None or memory.bytes > 0.9 * sum(map(len, held))
    assert last
