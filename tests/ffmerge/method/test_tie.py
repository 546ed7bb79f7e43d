"""Tied sublayers: the parameters that they save, how they train, and how to untie them."""

import pytest
import torch

from ffmerge.method.tie import temporary_changes, tie
from ffmerge.models.format import GROUPS
from ffmerge.models.size import count_parameters, count_sublayers
from ffmerge.models.towers import towers
from merged_windows import merge_window
from paper_models import gpt2_large, opus_mt_zh_en, vit_base

D_MODEL, D_FF = 8, 16


def sublayer_size(d_model: int, d_ff: int) -> int:
    return 2 * d_model * d_ff + d_ff + d_model


def parameters(model, tower, layer: int) -> dict[str, torch.nn.Parameter]:
    return {role: model.get_parameter(name) for role, name in tower.tensors(layer).items()}


# --- the count ------------------------------------------------------------------------------------


@pytest.mark.parametrize("layers", [[0, 1], [1, 2, 3], [0, 1, 2, 3]])
def test_merging_k_sublayers_removes_k_minus_1_of_each_tower(model_type, layers, pico):
    model = pico(model_type)
    before = count_parameters(model)
    merge_window(model, layers, layers[0])
    n_towers = len(towers(model))
    removed = n_towers * (len(layers) - 1) * sublayer_size(D_MODEL, D_FF)
    assert before - count_parameters(model) == removed
    assert count_sublayers(model) == (4 * n_towers, (4 - len(layers) + 1) * n_towers)


def test_a_model_that_is_not_merged_stores_every_sublayer_it_computes(model_type, pico):
    model = pico(model_type)
    n = 4 * len(towers(model))
    assert count_sublayers(model) == (n, n)


def test_only_the_window_is_tied(model_type, pico):
    model = pico(model_type)
    merge_window(model, [1, 2], anchor=1)
    for tower in towers(model).values():
        own = [parameters(model, tower, layer) for layer in range(4)]
        for role in own[0]:
            assert own[1][role] is own[2][role]
            assert len({id(layer[role]) for layer in own}) == 3


# Parameters, size of a sublayer, and the share of parameters that merging k sublayers per tower
# removes (%), counted from the published configurations; the paper's Table 5 rounds the shares.
PAPER = {
    gpt2_large: (774_030_080, 13_113_600, {13: 20.33, 19: 30.50, 36: 59.30}),
    vit_base: (86_567_656, 4_722_432, {5: 21.82, 7: 32.73, 12: 60.01}),
    opus_mt_zh_en: (77_943_296, 2_099_712, {3: 10.78, 4: 16.16, 6: 26.94}),
}


@pytest.mark.parametrize("build", PAPER, ids=lambda build: build.__name__)
def test_the_paper_s_models_lose_what_arithmetic_says(build):
    from transformers.initialization import no_init_weights

    total, sublayer, reductions = PAPER[build]
    with torch.device("meta"), no_init_weights():
        model = build()
    model.tie_weights()
    assert count_parameters(model) == total
    table = towers(model)
    for k, percent in reductions.items():  # increasing, so each window swallows the one before
        merge_window(model, range(k), anchor=0)
        removed = total - count_parameters(model)
        assert removed == len(table) * (k - 1) * sublayer
        assert round(100 * removed / total, 2) == percent


# --- the way back ---------------------------------------------------------------------------------


@pytest.mark.parametrize("fails", [False, True])
def test_after_temporary_changes_the_parameters_are_the_same_bit_for_bit(model_type, fails, pico):
    model, layers = pico(model_type), [1, 2, 3]
    before = dict(model.named_parameters())
    values = {name: tensor.detach().clone() for name, tensor in before.items()}
    try:
        with temporary_changes(model):
            merge_window(model, layers, anchor=2)
            for tower in towers(model).values():
                with torch.no_grad():  # as training would
                    for tensor in parameters(model, tower, 1).values():
                        tensor.add_(1)
            if fails:
                raise ArithmeticError
    except ArithmeticError:
        assert fails
    after = dict(model.named_parameters())
    assert after.keys() == before.keys()
    for name in before:
        assert after[name] is before[name]
        assert torch.equal(after[name], values[name])


def test_after_temporary_changes_the_model_is_the_one_it_was(
    model_type, pico, random_batch, logits
):
    model, batch = pico(model_type), random_batch(model_type)
    before, size = logits(model, batch), count_parameters(model)
    for start in range(2):
        with temporary_changes(model):
            merge_window(model, range(start, start + 3), start)
            assert count_parameters(model) < size
            assert not torch.equal(logits(model, batch), before)
        assert torch.equal(logits(model, batch), before)
        assert count_parameters(model) == size


@pytest.mark.parametrize("earlier", [[], [[0, 1]]], ids=str)
def test_after_temporary_changes_the_configuration_says_what_it_said(earlier, pico):
    model = pico("gpt2")
    for layers in earlier:
        merge_window(model, layers, anchor=0)
    before = model.config.to_dict()
    with temporary_changes(model):
        merge_window(model, [2, 3], anchor=2)
        noted = [group["layers"] for group in getattr(model.config, GROUPS)]
        assert noted == [*earlier, [2, 3]]
    assert model.config.to_dict() == before
    assert (GROUPS in before) == bool(earlier)


def test_after_temporary_changes_a_gated_model_has_no_biases_as_before(pico, random_batch, logits):
    model, batch = pico("llama"), random_batch("llama")
    output, before = logits(model, batch), dict(model.named_parameters())
    size = count_parameters(model)
    with temporary_changes(model):
        merge_window(model, [1, 2, 3], anchor=2)
        assert size - count_parameters(model) == 2 * 3 * D_MODEL * D_FF
    assert torch.equal(logits(model, batch), output)
    assert all(tensor is before[name] for name, tensor in model.named_parameters())


def test_a_merged_model_is_given_back_merged(pico):
    model = pico("gpt2")
    tower = towers(model)["decoder"]
    merge_window(model, [0, 1], anchor=0)
    merged = parameters(model, tower, 0)
    with temporary_changes(model):
        merge_window(model, [0, 1, 2, 3], anchor=0)
    for layer in (0, 1):
        assert all(t is merged[role] for role, t in parameters(model, tower, layer).items())
    assert count_sublayers(model) == (4, 3)


# --- training -------------------------------------------------------------------------------------


def loss(model, batch) -> torch.Tensor:
    return model(**batch).logits.square().sum()


def test_the_gradient_of_a_tied_sublayer_is_the_sum_over_its_uses(model_type, pico, random_batch):
    batch = random_batch(model_type)
    if model_type == "vit":
        batch["pixel_values"] = batch["pixel_values"].double()
    layers = [1, 2, 3]
    tied, untied = (pico(model_type) for _ in range(2))
    for model in (tied, untied):
        merge_window(model, layers, anchor=1)
    for tower in towers(untied).values():
        for layer in layers:
            for which in ("up", "down"):
                module = untied.get_submodule(tower.module(layer, which))
                module.weight = torch.nn.Parameter(module.weight.detach().clone())
                module.bias = torch.nn.Parameter(module.bias.detach().clone())
    assert count_parameters(untied) > count_parameters(tied)

    for model in (tied, untied):
        loss(model.double(), batch).backward()

    for tower in towers(tied).values():
        uses = [parameters(untied, tower, layer) for layer in layers]
        for role, tensor in parameters(tied, tower, layers[0]).items():
            gradients = torch.stack([use[role].grad for use in uses])
            assert all((gradients[i] - gradients[0]).abs().max() > 0 for i in (1, 2))
            # float64: only the order of the sum differs
            torch.testing.assert_close(tensor.grad, gradients.sum(dim=0), rtol=1e-9, atol=1e-9)


def test_a_training_step_leaves_tied_sublayers_tied(model_type, pico, random_batch):
    model, batch, layers = pico(model_type), random_batch(model_type), [0, 1, 3]
    merge_window(model, layers, anchor=0)
    table = towers(model)
    before = {
        (name, role): tensor.detach().clone()
        for name, tower in table.items()
        for role, tensor in parameters(model, tower, 0).items()
    }
    size = count_parameters(model)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2, weight_decay=0.0)
    loss(model, batch).backward()
    optimizer.step()
    assert count_parameters(model) == size
    for name, tower in table.items():
        own = [parameters(model, tower, layer) for layer in layers]
        for role in own[0]:
            assert len({layer[role].data_ptr() for layer in own}) == 1
            # Adam's first step is the learning rate, once, not once per use
            step = (own[0][role] - before[name, role]).abs().max().item()
            assert step == pytest.approx(1e-2, rel=1e-3)


def test_tying_takes_the_weights_of_the_first_layer(pico):
    model = pico("gpt2")
    tower = towers(model)["decoder"]
    first = parameters(model, tower, 2)
    tie(model, tower.shared_modules([2, 0, 3]))
    for layer in (0, 2, 3):
        for role, tensor in parameters(model, tower, layer).items():
            assert tensor is first[role]
