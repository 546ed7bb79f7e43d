"""Sizes of models in memory."""

from torch import nn
from transformers.pytorch_utils import Conv1D

from ffmerge.method import quantization
from ffmerge.method.layer_drop import without_layers
from ffmerge.models import checkpoint
from ffmerge.models.size import count_parameters, weight_bytes
from ffmerge.models.towers import towers
from merged_windows import merge_window

D_MODEL, D_FF = 8, 16
SUBLAYER = 2 * D_MODEL * D_FF + D_FF + D_MODEL
LAYERS = [1, 2, 3]


def merged(model):
    """The model with LAYERS merged, and its configuration saying so."""
    merge_window(model, LAYERS, 2)
    return model


def test_weights_have_four_bytes_a_parameter_or_buffer(model_type, pico):
    model = pico(model_type)
    n = count_parameters(model) + sum(buffer.numel() for buffer in model.buffers())
    assert weight_bytes(model) == 4 * n
    assert weight_bytes(model.half()) == 2 * n


def test_a_tensor_in_several_places_counts_once():
    model = nn.ModuleList([nn.Linear(3, 5) for _ in range(4)])
    model[2].weight = model[0].weight  # the same parameter
    model[3].weight = nn.Parameter(model[1].weight.detach())  # another one on the same memory
    assert weight_bytes(model) == 4 * (2 * 15 + 4 * 5)


def test_a_merged_models_weights_shrink_by_the_removed_sublayers(model_type, pico, tmp_path):
    whole, fewer = pico(model_type), merged(pico(model_type))
    removed = 4 * len(towers(whole)) * (len(LAYERS) - 1) * SUBLAYER
    assert weight_bytes(whole) - weight_bytes(fewer) == removed
    checkpoint.save(fewer, tmp_path)
    assert weight_bytes(checkpoint.load(tmp_path)) == weight_bytes(fewer)


def test_weights_shrink_by_the_dropped_layers(model_type, pico):
    model = pico(model_type)
    of_layers = sum(
        count_parameters(model.get_submodule(path))
        for tower in towers(model).values()
        for path in tower.paths[1:3]
    )
    assert weight_bytes(model) - weight_bytes(without_layers(model, [1, 2])) == 4 * of_layers


def test_an_int8_model_has_a_byte_a_weight_and_four_a_scale(model_type, pico, tmp_path):
    model = merged(pico(model_type, d_ff=64))
    before = weight_bytes(model)
    maps = [linear for linear, _ in quantization.linear_maps(model)]
    weights = sum(linear.weight.numel() for linear in maps)
    rows = sum(m.weight.shape[1] if isinstance(m, Conv1D) else m.weight.shape[0] for m in maps)
    quantization.save(quantization.quantize(model), tmp_path)
    # each map is counted once where a merged one is in three places; the rest stays float32
    expected = before - 3 * weights + 4 * rows
    assert weight_bytes(model) == weight_bytes(quantization.load(tmp_path)) == expected
    assert expected < 0.6 * before
