"""LLM.int8() on merged models: which tensors become int8, ties, and sizes."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn
from transformers.initialization import no_init_weights
from transformers.pytorch_utils import Conv1D

import families
import paper_models
from experiment.evaluation.storage import computed_ratio, inventory, storage
from families import FAMILIES
from ffmerge.method import quantization
from ffmerge.method.quantization import quantize
from ffmerge.models import checkpoint
from ffmerge.models.format import GROUPS, INT8, WEIGHTS
from ffmerge.models.size import count_parameters, count_sublayers
from ffmerge.models.towers import towers
from merged_windows import merge_window
from provenance.sources import REPOSITORY, closure, code_digest

D_MODEL, D_FF = 8, 16
LAYERS = [1, 2, 3]
# Linear maps of 4 layers: q, k and v are one in GPT-2; a decoder layer of Marian attends twice.
N_LINEAR = {"gpt2": 4 * 4, "vit": 4 * 6, "marian": 4 * 6 + 4 * 10}


def merged(model):
    """The model with LAYERS merged and noted in its configuration."""
    merge_window(model, LAYERS, 2)
    return model


def linear_maps(model) -> dict[str, nn.Module]:
    """Every linear map in the layers, by place; a tied one in each of its places."""
    layers = tuple(f"{path}." for tower in towers(model).values() for path in tower.paths)
    return {
        name: module
        for name, module in model.named_modules(remove_duplicate=False)
        if isinstance(module, nn.Linear | Conv1D) and name.startswith(layers)
    }


def float_weights(model) -> dict[str, torch.Tensor]:
    """(n_out, n_in) weights of the linear maps, by place."""
    return {
        name: (m.weight.T if isinstance(m, Conv1D) else m.weight).detach().clone()
        for name, m in linear_maps(model).items()
    }


def dequantized(module) -> torch.Tensor:
    return module.state.CB * module.state.SCB[:, None] / 127


def tensor_bytes(directory: Path) -> int:
    """Size of a file without its header."""
    content = (directory / WEIGHTS).read_bytes()
    return len(content) - 8 - int.from_bytes(content[:8], "little")


def saved(model, directory: Path) -> Path:
    quantization.save(quantize(model), directory)
    return directory


def rewrite(directory: Path, change) -> None:
    """Change the tensors of a file."""
    tensors = load_file(directory / WEIGHTS)
    change(tensors)
    save_file(tensors, directory / WEIGHTS, metadata={"format": "pt"})


# --- what is quantized ----------------------------------------------------------------------------


def test_every_linear_map_of_the_layers_is_int8_and_nothing_else_is(model_type, pico):
    from bitsandbytes.nn import Linear8bitLt

    model = merged(pico(model_type))
    places = set(linear_maps(model))
    assert len(places) == N_LINEAR[model_type]
    quantize(model)
    named = dict(model.named_modules(remove_duplicate=False))
    assert {name for name, m in named.items() if isinstance(m, Linear8bitLt)} == places
    assert {
        n for n, p in model.named_parameters(remove_duplicate=False) if p.dtype == torch.int8
    } == {f"{place}.weight" for place in places}
    inside = [model.get_submodule(path) for tower in towers(model).values() for path in tower.paths]
    assert not [p for m in inside for p in m.parameters() if p.ndim > 1 and p.is_floating_point()]


def test_int8_weights_are_the_nearest_steps_to_the_float_ones(model_type, pico):
    model = pico(model_type)
    weights = float_weights(model)
    for name, module in linear_maps(quantize(model)).items():
        scale = module.state.SCB[:, None]
        assert torch.equal(scale[:, 0], weights[name].half().abs().amax(dim=1).float())
        error = (dequantized(module) - weights[name]).abs()
        # half a step of 1/127, and float16's rounding of the weight, at most 2^-11 of it
        assert (error <= scale * (0.5 / 127 + 2**-11) * 1.001).all()


def test_the_output_of_every_linear_map_is_within_about_a_percent(model_type, pico):
    model = pico(model_type, d_ff=64)
    inputs, before = {}, {}
    generator = torch.Generator().manual_seed(1)
    for name, module in linear_maps(model).items():
        n_in = module.weight.shape[0 if isinstance(module, Conv1D) else 1]
        inputs[name] = torch.randn(20, 25, n_in, generator=generator).clamp(-5, 5)
        before[name] = module(inputs[name]).detach()
    for name, module in linear_maps(quantize(model)).items():
        error = (module(inputs[name]) - before[name]).norm() / before[name].norm()
        # steps of 1/127 of a maximum of 2 to 3 deviations, evenly spread: 0.7 % from each factor
        assert 0 < error < 0.015


@pytest.mark.parametrize("shape", [(1, 1), (1, 7), (3, 1), (5, 3)])
def test_batches_of_every_shape_and_layers_of_any_width_work(model_type, shape, pico):
    model = pico(model_type, d_ff=13)
    before = {name: m for name, m in linear_maps(model).items()}
    weights = float_weights(model)
    x = {n: torch.randn(*shape, w.shape[1]) for n, w in weights.items()}
    expected = {name: module(x[name]) for name, module in before.items()}
    for name, module in linear_maps(quantize(model)).items():
        output = module(x[name])
        assert (output.shape, output.dtype) == (expected[name].shape, torch.float32)
        assert (output - expected[name]).norm() < 0.05 * expected[name].norm()  # of 1 token only


def test_outliers_are_multiplied_in_floating_point(pico):
    model = quantize(pico("gpt2", d_ff=64))
    module = model.get_submodule("transformer.h.0.mlp.c_proj")
    x = torch.randn(40, 64, generator=torch.Generator().manual_seed(0)).clamp(-5, 5)
    ordinary = x.clone()
    ordinary[:, 9] = 0
    x[:, 9] = 300.0
    exact = x @ dequantized(module).T + module.bias
    scale = (ordinary @ dequantized(module).T).norm()
    assert (module(x) - exact).norm() < 0.01 * scale
    module.state.threshold = 0.0  # plain int8, without the outliers of LLM.int8()
    assert (module(x) - exact).norm() > 0.2 * scale


def test_a_neuron_of_zeros_stays_zero(pico, logits, random_batch):
    model = pico("vit")
    with torch.no_grad():
        model.vit.layers[1].mlp.fc1.weight[3] = 0
    quantize(model)
    module = model.vit.layers[1].mlp.fc1
    assert not module.state.CB[3].any()
    assert torch.equal(module(torch.ones(2, D_MODEL))[:, 3], module.bias[3].expand(2))
    assert logits(model, random_batch("vit")).isfinite().all()


def test_tensors_that_are_not_quantized_have_the_precision_of_the_file(model_type, pico):
    model = pico(model_type)
    before = {n: t.clone() for n, t in model.state_dict().items()}
    after = quantize(model).state_dict()
    places = linear_maps(model)
    for name, tensor in before.items():
        if name.removesuffix(".weight") not in places:
            assert after[name].dtype == torch.float32
            assert torch.equal(after[name], tensor.half().float())


def test_a_model_that_computes_in_float16_as_on_a_gpu_gives_nearly_the_same(
    model_type, pico, random_batch, logits, tmp_path, monkeypatch
):
    expected = logits(quantize(merged(pico(model_type))), random_batch(model_type))
    monkeypatch.setattr(quantization, "_dtype", lambda device: torch.float16)
    model = quantization.load(saved(merged(pico(model_type)), tmp_path / "m"))
    floats = {t.dtype for t in model.parameters() if t.is_floating_point()}
    assert floats == {torch.float16}
    found = logits(model, random_batch(model_type)).float()
    # 10 bits of mantissa through 4 layers, and occasionally another int8 step of 1/127
    assert (found - expected).norm() < 0.03 * expected.norm()


@pytest.mark.parametrize("name", ["llama", "gemma3_text", "m2m_100"])
def test_rotary_frequencies_stay_float32_where_float16_is_computed(name, tmp_path, monkeypatch):
    monkeypatch.setattr(quantization, "_dtype", lambda device: torch.float16)
    model, batch = families.pico(FAMILIES[name]), families.batch_of(FAMILIES[name])
    before = {k: buffer.clone() for k, buffer in model.named_buffers() if "inv_freq" in k}
    assert bool(before) == (name != "m2m_100")  # its table of positions is added to float16
    loaded = quantization.load(saved(model, tmp_path / "m"))  # and `model` is quantized
    for quantized in (model, loaded):
        after = dict(quantized.named_buffers())
        for k, frequencies in before.items():
            assert after[k].dtype == torch.float32 and torch.equal(after[k], frequencies)
        with torch.no_grad():
            assert quantized(**batch).logits.dtype == torch.float16


@pytest.mark.parametrize(
    ("value", "name"),
    [(float("nan"), "transformer.h.2.mlp.c_fc.weight"), (70000.0, "transformer.wpe.weight")],
)
def test_a_weight_that_float16_cannot_hold_is_named_and_nothing_is_changed(value, name, pico):
    model = pico("gpt2")
    with torch.no_grad():
        model.get_parameter(name)[0, 0] = value
    before = {n: t.clone() for n, t in model.state_dict().items()}
    with pytest.raises(ValueError, match=rf"float16: {name}$"):
        quantize(model)
    for n, tensor in model.state_dict().items():
        assert torch.equal(tensor.nan_to_num(), before[n].nan_to_num())


def test_quantizing_twice_is_an_error(pico):
    with pytest.raises(ValueError, match="quantized already"):
        quantize(quantize(pico("vit")))


# --- ties -----------------------------------------------------------------------------------------


def test_tied_sublayers_are_one_module_before_and_after_the_disk(model_type, pico, tmp_path):
    counted = count_sublayers(merged(pico(model_type)))
    n_parameters = count_parameters(merged(pico(model_type)))
    model = quantize(merged(pico(model_type)))
    for state in (model, quantization.load(saved(merged(pico(model_type)), tmp_path / "m"))):
        assert count_sublayers(state) == counted
        assert count_parameters(state) == n_parameters
        for tower in towers(state).values():
            for which in ("up", "down"):
                first, *rest = (state.get_submodule(tower.module(n, which)) for n in LAYERS)
                assert all(module is first for module in rest)
                assert state.get_submodule(tower.module(0, which)) is not first


@pytest.mark.parametrize("model_type", ["gpt2", "marian"])
def test_embeddings_stay_tied_to_the_head(model_type, pico, tmp_path):
    model = quantization.load(saved(merged(pico(model_type)), tmp_path / "m"))
    assert model.lm_head.weight is model.get_input_embeddings().weight


# --- there and back -------------------------------------------------------------------------------


def test_a_reloaded_model_is_the_one_that_was_saved_bit_for_bit(
    model_type, pico, random_batch, logits, tmp_path
):
    model, batch = quantize(merged(pico(model_type))), random_batch(model_type)
    quantization.save(model, tmp_path / "1")
    expected = logits(model, batch)
    for n in (1, 2):  # a loaded model can be saved again
        loaded = quantization.load(tmp_path / f"{n}")
        assert isinstance(loaded, type(model))
        assert not any(module.training for module in loaded.modules())
        assert torch.equal(logits(loaded, batch), expected)
        for name, module in linear_maps(loaded).items():
            was = model.get_submodule(name)
            assert torch.equal(module.state.CB, was.state.CB)
            assert torch.equal(module.state.SCB, was.state.SCB)
            assert module.state.threshold == 6.0
        quantization.save(loaded, tmp_path / f"{n + 1}")
        assert (tmp_path / "1" / WEIGHTS).read_bytes() == (
            tmp_path / f"{n + 1}" / WEIGHTS
        ).read_bytes()


def test_the_weights_in_the_file_count_and_not_what_quantizing_again_would_give(pico, tmp_path):
    directory = saved(pico("vit"), tmp_path / "m")
    name = "vit.layers.2.mlp.fc1"

    def change(tensors):
        tensors[f"{name}.weight"][3] = 5  # no maximum of 127, which quantizing always gives
        tensors[f"{name}.SCB"][3] = 0.7

    rewrite(directory, change)
    module = quantization.load(directory).get_submodule(name)
    assert torch.equal(module.weight[3], torch.full((D_MODEL,), 5, dtype=torch.int8))
    x = torch.eye(D_MODEL)
    expected = 5 * 0.7 / 127 + module.bias[3]
    torch.testing.assert_close(module(x)[:, 3], expected.expand(D_MODEL), rtol=1e-4, atol=1e-4)


def test_a_translation_of_a_reloaded_model_is_the_same(pico, random_batch, tmp_path):
    model = quantize(merged(pico("marian")))
    quantization.save(model, tmp_path / "m")
    batch = {k: random_batch("marian")[k] for k in ("input_ids", "attention_mask")}
    loaded = quantization.load(tmp_path / "m")
    first, second = (
        m.generate(**batch, num_beams=3, max_new_tokens=12, do_sample=False)
        for m in (model, loaded)
    )
    assert torch.equal(first, second)
    assert first.shape[1] > 2


def test_a_directory_holds_json_and_safetensors_and_says_that_it_is_int8(pico, tmp_path):
    directory = saved(merged(pico("marian")), tmp_path / "m")
    assert {path.suffix for path in directory.iterdir()} == {".json", ".safetensors"}
    config = json.loads((directory / "config.json").read_text())
    assert config[INT8] == {"threshold": 6.0}
    assert [group["layers"] for group in config[GROUPS]] == [LAYERS, LAYERS]


# --- files that do not fit ------------------------------------------------------------------------

FF = "transformer.h.1.mlp.c_fc"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda t: t.update({f"{FF}.weight": t[f"{FF}.weight"].half()}),
         rf"not quantized: {FF}\.weight\).* quantize the model again"),
        (lambda t: t.pop(f"{FF}.SCB"), rf"without its scales: {FF}\.SCB\)"),
        (lambda t: t.pop(f"{FF}.bias"), rf"missing: {FF}\.bias\)"),
        (lambda t: t.update(extra=torch.ones(1)), r"left over: extra\)"),
        (lambda t: t.update({f"{FF}.SCB": torch.ones(3)}), rf"another shape: {FF}\.SCB\)"),
        (lambda t: t.update({f"{FF}.bias": t[f"{FF}.bias"].float()}), rf"another type: {FF}\.bias"),
    ],
)  # fmt: skip
def test_a_file_that_does_not_fit_is_an_error_that_names_the_tensor(
    change, message, pico, tmp_path
):
    directory = saved(merged(pico("gpt2")), tmp_path / "m")
    rewrite(directory, change)
    with pytest.raises(ValueError, match=message):
        quantization.load(directory)


def test_a_file_without_the_ties_of_its_configuration_is_an_error(pico, tmp_path):
    saved(pico("gpt2"), tmp_path / "whole")
    saved(merged(pico("gpt2")), tmp_path / "merged")
    (tmp_path / "whole" / WEIGHTS).replace(tmp_path / "merged" / WEIGHTS)
    with pytest.raises(ValueError, match=r"left over: .*transformer\.h\.3\.mlp\.c_fc\.SCB"):
        quantization.load(tmp_path / "merged")


# --- what it weighs -------------------------------------------------------------------------------


def test_a_file_holds_a_byte_a_weight_four_a_scale_and_two_of_all_else(model_type, pico, tmp_path):
    model = merged(pico(model_type))
    kept = {module.weight.data_ptr(): w for module, w in zip(
        linear_maps(model).values(), float_weights(model).values(), strict=True)}  # fmt: skip
    weights = sum(w.numel() for w in kept.values())
    rows = sum(len(w) for w in kept.values())
    buffers = sum(buffer.numel() for buffer in model.buffers())
    rest = count_parameters(model) + buffers - weights
    directory = saved(model, tmp_path / "m")
    assert tensor_bytes(directory) == weights + 4 * rows + 2 * rest


def test_the_file_of_a_merged_model_is_smaller_by_what_was_removed(model_type, pico, tmp_path):
    whole, fewer = pico(model_type), merged(pico(model_type))
    saved(whole, tmp_path / "whole")
    saved(fewer, tmp_path / "merged")
    sublayer = 2 * D_MODEL * D_FF + (4 + 2) * (D_FF + D_MODEL)  # weights; scales and biases
    removed = len(towers(whole)) * (len(LAYERS) - 1) * sublayer
    assert tensor_bytes(tmp_path / "whole") - tensor_bytes(tmp_path / "merged") == removed


def test_the_inventory_names_what_is_not_quantized_and_adds_up(pico, tmp_path):
    directory = saved(merged(pico("gpt2")), tmp_path)
    found = inventory(directory)
    assert found["n_quantized_linear_maps"] == 16 - 2 * 2
    assert found["not_quantized"]["transformer.wte.weight"] == {"n_tensors": 1, "bytes": 800}
    assert found["not_quantized"]["transformer.h.*.ln_1.weight"] == {"n_tensors": 4, "bytes": 64}
    assert found["not_quantized"]["transformer.h.*.mlp.c_fc.bias"] == {"n_tensors": 2, "bytes": 64}
    parts = found["int8_bytes"] + found["scales_bytes"] + found["not_quantized_bytes"]
    assert parts == tensor_bytes(directory)
    assert found["int8_bytes"] == 4 * 4 * D_MODEL**2 + 2 * 2 * D_MODEL * D_FF
    assert found["file_bytes"] == (directory / WEIGHTS).stat().st_size
    assert json.loads(json.dumps(found)) == found


def paper_model(build, first: int, last: int):
    """A model of the paper's size, without weights, with a merged window -> (model, n_original)."""
    with torch.device("meta"), no_init_weights():
        model = build()
    model.tie_weights()
    n_original = count_parameters(model)
    merge_window(model, range(first, last + 1), first)
    return model, n_original


@pytest.mark.parametrize(
    ("build", "window", "percent"),
    [
        (paper_models.vit_base, (3, 7), 20.01),
        (paper_models.gpt2_large, (22, 34), 22.05),
        # Table 4 prints 51 %, but its own arithmetic gives this
        (paper_models.opus_mt_zh_en, (2, 4), 33.2),
    ],
)
def test_the_paper_s_ratios_follow_from_a_float16_rest_and_ties(build, window, percent):
    model, n_original = paper_model(build, *window)
    tolerance = 0.05 if percent == 33.2 else 0.005  # half of the last digit
    assert 100 * computed_ratio(model, n_original) == pytest.approx(percent, abs=tolerance)


def test_opus_mt_with_a_float32_rest_would_be_55_percent():
    model, n_original = paper_model(paper_models.opus_mt_zh_en, 2, 4)
    found = 100 * computed_ratio(model, n_original, rest_bytes=4)
    assert found == pytest.approx(54.9, abs=0.05)


def test_without_ties_the_paper_s_ratios_would_not_follow():
    for build, percent in ((paper_models.vit_base, 25.5), (paper_models.gpt2_large, 27.1)):
        model, n_original = paper_model(build, 0, 0)
        assert 100 * computed_ratio(model, n_original) == pytest.approx(percent, abs=0.05)


def test_the_measured_ratio_is_the_computed_one_with_scales_buffers_and_header(
    model_type, pico, tmp_path
):
    base = pico(model_type)
    checkpoint.save(pico(model_type).half(), tmp_path / "base")  # as the embedded models are
    checkpoint.save(merged(pico(model_type)), tmp_path / "merged")
    saved(merged(pico(model_type)), tmp_path / "int8")
    (tmp_path / "scratch").mkdir()
    found = storage(*(tmp_path / name for name in ("base", "merged", "int8", "scratch")))
    assert not any((tmp_path / "scratch").iterdir())

    checkpoint.save(base, tmp_path / "float32")
    original_bytes = (tmp_path / "float32" / WEIGHTS).stat().st_size
    assert found["original_bytes"] == original_bytes
    assert found["merged_bytes"] == (tmp_path / "merged" / WEIGHTS).stat().st_size
    assert found["merged_percent"] == 100 * found["merged_bytes"] / original_bytes
    assert found["measured_percent"] == 100 * found["file_bytes"] / original_bytes
    n, kept = count_parameters(base), count_parameters(merged(base))
    assert found["merged_computed_percent"] == pytest.approx(100 * kept / n)
    buffers = sum(buffer.numel() for buffer in base.buffers())
    parameter_bytes = found["int8_bytes"] + found["not_quantized_bytes"] - 2 * buffers
    assert found["computed_percent"] == pytest.approx(100 * parameter_bytes / (4 * n))


def test_a_merged_model_in_half_precision_is_no_measure(pico, tmp_path):
    checkpoint.save(pico("vit").half(), tmp_path / "m")
    with pytest.raises(ValueError, match=r"float32 throughout, not \['F16'\]"):
        storage(tmp_path / "m", tmp_path / "m", tmp_path / "m", tmp_path)


# --- the job --------------------------------------------------------------------------------------


@pytest.mark.long
def test_the_script_writes_model_and_sizes_and_says_nothing_alarming(pico, tmp_path):
    checkpoint.save(pico("marian").half(), tmp_path / "base")
    checkpoint.save(merged(pico("marian")), tmp_path / "merged")
    script = REPOSITORY / "workflow" / "scripts" / "quantize.py"
    description = {
        "rule": "quantize", "wildcards": {"results": str(tmp_path)}, "params": {"device": "cpu"},
        "reproduces": "bits", "imports": [], "code": code_digest(closure(script)),
    }  # fmt: skip
    names = {
        "input": {"model": "merged", "base_model": "base"},
        "output": {"model": "int8", "storage": "storage.json", "record": "record.json"},
    }
    files = {
        kind: {key: str(tmp_path / name) for key, name in named.items()}
        for kind, named in names.items()
    }
    command = [sys.executable, script, json.dumps(description), json.dumps(files)]
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY / "workflow"), "HF_HUB_OFFLINE": "1"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    sizes = json.loads((tmp_path / "storage.json").read_text())
    assert sizes["file_bytes"] < sizes["merged_bytes"] < sizes["original_bytes"]
    assert count_sublayers(quantization.load(tmp_path / "int8")) == (8, 4)


def test_products_on_a_processor_are_not_announced(pico, random_batch, logits, caplog):
    logits(quantize(pico("vit")), random_batch("vit"))
    assert not caplog.records
