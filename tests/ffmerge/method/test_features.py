"""Features are the outputs of W_in at exactly n_tokens positions that carry tokens."""

import json
import math
import sys
from types import SimpleNamespace

import pytest
import torch

from ffmerge.method.features import Features, FeatureWriter, collect_features
from ffmerge.models.towers import towers


def batches_for(model_type, random_batch, n: int = 4) -> list[dict]:
    return [random_batch(model_type, seed=seed) for seed in range(n)]


def token_positions(model_type: str, tower: str, batch: dict) -> torch.Tensor:
    """Mask of the positions that carry tokens of a tower, (batch, length)."""
    if model_type == "vit":
        return torch.ones(3, 1 + 4, dtype=torch.bool)  # the class token and 2 × 2 patches
    if (model_type, tower) == ("marian", "decoder"):
        return batch["labels"] != -100
    return batch["input_ids"] != 0


def by_hand(model, model_type: str, batches: list[dict]) -> dict[str, torch.Tensor]:
    """W_in x + b of every token of every layer, from the inputs x that the module sees."""
    modules = {
        f"{name}.{layer}": (
            model.get_submodule(tower.module(layer, "up")),
            tower.feed_forward.layout,
        )
        for name, tower in towers(model).items()
        for layer in range(4)
    }
    inputs: dict[str, list[torch.Tensor]] = {name: [] for name in modules}
    hooks = [
        module.register_forward_pre_hook(lambda _, args, name=name: inputs[name].append(args[0]))
        for name, (module, _) in modules.items()
    ]
    with torch.inference_mode():
        for batch in batches:
            model(**batch)
    for hook in hooks:
        hook.remove()
    expected = {}
    for name, (module, layout) in modules.items():
        w = module.weight.detach() if layout == "in_out" else module.weight.detach().T
        tokens = [
            x[token_positions(model_type, name.split(".")[0], batch)]
            for x, batch in zip(inputs[name], batches, strict=True)
        ]
        expected[name] = torch.cat(tokens) @ w + module.bias.detach()
    return expected


@pytest.mark.parametrize("n_tokens", [1, 16, 40])  # part of a batch, about a batch, several
def test_features_are_w_in_x_plus_b_of_the_first_n_tokens(
    model_type, n_tokens, pico, random_batch, tmp_path
):
    model, batches = pico(model_type), batches_for(model_type, random_batch)
    collect_features(model, batches, n_tokens, tmp_path / "f")
    features, expected = Features(tmp_path / "f"), by_hand(model, model_type, batches)
    assert features.towers() == dict.fromkeys(towers(model), 4)
    for name in towers(model):
        for layer in range(4):
            found = features.layer(name, layer)
            assert found.dtype == torch.float32
            # the model may add bias and product in another order
            reference = expected[f"{name}.{layer}"][:n_tokens]
            torch.testing.assert_close(found, reference, rtol=0, atol=1e-5)


def test_padding_gives_no_features_on_either_side(pico, random_batch, tmp_path):
    model, batch = pico("marian"), random_batch("marian")
    n_source, n_target = 9 + 6 + 2, 3 + 8 + 5
    assert batch["attention_mask"].sum() == n_source < batch["attention_mask"].numel()
    assert batch["decoder_attention_mask"].sum() == n_target
    collect_features(model, [batch], n_target, tmp_path / "f")  # just enough
    with pytest.raises(
        ValueError, match=f"n_tokens = {n_source} positions: .*'decoder.3': {n_target}"
    ):
        collect_features(model, [batch], n_source, tmp_path / "g")


def test_padding_does_not_count_as_tokens_that_the_data_hold(
    model_type, pico, random_batch, tmp_path
):
    model, batches = pico(model_type), batches_for(model_type, random_batch)
    held = {
        name: sum(int(token_positions(model_type, name, batch).sum()) for batch in batches)
        for name in towers(model)
    }
    n = min(held.values())
    collect_features(model, batches, n, tmp_path / "f")
    with pytest.raises(ValueError, match=f"fewer than n_tokens = {n + 1} positions") as error:
        collect_features(model, batches, n + 1, tmp_path / "f")
    for name, count in held.items():
        assert (f"'{name}.0'" in str(error.value)) == (count == n)
        assert (f"'{name}.0': {n}" in str(error.value)) == (count == n)


def test_no_more_batches_are_run_than_n_tokens_need(pico, random_batch, tmp_path):
    batches = iter(batches_for("gpt2", random_batch, n=5))
    collect_features(pico("gpt2"), batches, 17 + 1, tmp_path / "f")  # 17 tokens a batch
    assert len(list(batches)) == 3


@pytest.mark.parametrize(
    ("model_type", "broken"), [("gpt2", "decoder.2"), ("vit", "encoder.0"), ("marian", "decoder.3")]
)
def test_a_layer_whose_features_are_not_finite_is_named(
    model_type, broken, pico, random_batch, tmp_path
):
    model = pico(model_type)
    tower, layer = broken.split(".")
    with torch.no_grad():
        model.get_parameter(towers(model)[tower].tensors(int(layer))["up.bias"])[5] = torch.nan
    with pytest.raises(ValueError, match=f"features of {broken} .tower.layer. are not all finite"):
        collect_features(model, [random_batch(model_type)], 10, tmp_path / "f")
    assert not any(module._forward_hooks for module in model.modules())


def test_the_model_is_left_without_hooks(pico, random_batch, tmp_path):
    model = pico("vit")
    collect_features(model, [random_batch("vit")], 10, tmp_path / "f")
    assert not any(module._forward_hooks for module in model.modules())


# --- what of a neuron is its feature --------------------------------------------------------------


def silu(x: torch.Tensor) -> torch.Tensor:
    return x / (1 + torch.exp(-x))


def gelu_by_tanh(x: torch.Tensor) -> torch.Tensor:
    return 0.5 * x * (1 + torch.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3)))


def inputs_of(model, names: list[str], batch: dict) -> dict[str, torch.Tensor]:
    """Inputs of modules at the positions that carry tokens, (n_tokens, d_model)."""
    taken: dict[str, torch.Tensor] = {}
    hooks = [
        model.get_submodule(name).register_forward_pre_hook(
            lambda _, args, name=name: taken.update({name: args[0][batch["input_ids"] != 0]})
        )
        for name in names
    ]
    with torch.inference_mode():
        model(**batch)
    for hook in hooks:
        hook.remove()
    return taken


@pytest.mark.parametrize("aligned", ["pre_activation", "up", "neuron"])
def test_a_gated_sublayer_gives_its_gate_its_up_map_or_their_product(
    aligned, pico, random_batch, tmp_path
):
    model, batch = pico("llama", n_layers=2), random_batch("llama")
    collect_features(model, [batch], 17, tmp_path / "f", aligned=aligned)  # 17 tokens a batch
    features = Features(tmp_path / "f")
    assert features.towers() == {"decoder": 2}
    taken = inputs_of(model, ["model.layers.0.mlp", "model.layers.1.mlp"], batch)
    for layer in range(2):
        mlp, x = model.model.layers[layer].mlp, taken[f"model.layers.{layer}.mlp"]
        gate, up = x @ mlp.gate_proj.weight.detach().T, x @ mlp.up_proj.weight.detach().T
        expected = {"pre_activation": gate, "up": up, "neuron": silu(gate) * up}[aligned]
        found = features.layer("decoder", layer)
        assert found.shape == (17, 16)
        # sums of 8 products of order 1, perhaps in another order; the exponential adds as much
        torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("aligned", ["pre_activation", "up", "neuron"])
def test_pre_activations_of_a_plain_sublayer_are_the_outputs_of_w_in(
    aligned, pico, random_batch, tmp_path
):
    model, batch = pico("gpt2", n_layers=2), random_batch("gpt2")
    collect_features(model, [batch], 17, tmp_path / "f", aligned=aligned)
    taken = inputs_of(model, ["transformer.h.0.mlp", "transformer.h.1.mlp"], batch)
    for layer in range(2):
        w_in, x = model.transformer.h[layer].mlp.c_fc, taken[f"transformer.h.{layer}.mlp"]
        up = x @ w_in.weight.detach() + w_in.bias.detach()
        found = Features(tmp_path / "f").layer("decoder", layer)
        assert found.shape == (17, 16)
        expected = gelu_by_tanh(up) if aligned == "neuron" else up
        torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)  # as above


class FusedModel(torch.nn.Module):
    """Two layers x + W_out (silu(gate) · up) with one map for gate and up, as in Phi-3."""

    def __init__(self) -> None:
        super().__init__()
        form = {"layers": "layers.*", "gate": "both", "up": "both", "down": "down", "mask": None}
        self.config = SimpleNamespace(
            model_type="fused", ffmerge_architecture={"towers": {"decoder": form}}
        )
        torch.manual_seed(0)
        self.layers = torch.nn.ModuleList(
            torch.nn.ModuleDict({"both": torch.nn.Linear(3, 10), "down": torch.nn.Linear(5, 3)})
            for _ in range(2)
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        for layer in self.layers:
            gate, up = layer["both"](x).split(5, dim=-1)
            x = x + layer["down"](silu(gate) * up)
        return x


@pytest.mark.parametrize("aligned", ["pre_activation", "up", "neuron"])
def test_gate_and_up_in_one_map_are_its_two_halves(aligned, tmp_path):
    model, x = FusedModel(), torch.randn(2, 4, 3, generator=torch.Generator().manual_seed(1))
    collect_features(model, [{"x": x}], 8, tmp_path / "f", aligned=aligned)
    rows = x.flatten(0, 1)
    for i, layer in enumerate(model.layers):
        put_out = rows @ layer["both"].weight.detach().T + layer["both"].bias.detach()
        gate, up = put_out[:, :5], put_out[:, 5:]
        expected = {"pre_activation": gate, "up": up, "neuron": silu(gate) * up}[aligned]
        found = Features(tmp_path / "f").layer("decoder", i)
        torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-6)
        down = layer["down"]
        rows = rows + (silu(gate) * up) @ down.weight.detach().T + down.bias.detach()


# --- the file -------------------------------------------------------------------------------------


def test_the_file_is_plain_safetensors_with_a_tensor_for_each_layer(pico, random_batch, tmp_path):
    from safetensors.torch import load_file

    collect_features(pico("marian"), [random_batch("marian")], 11, tmp_path / "f")
    shapes = {name: tuple(tensor.shape) for name, tensor in load_file(tmp_path / "f").items()}
    names = {f"{tower}.{layer}" for tower in ("encoder", "decoder") for layer in range(4)}
    assert shapes == dict.fromkeys(names, (11, 16))


def test_rows_fill_a_file_in_order_and_those_past_the_end_are_left_out(tmp_path):
    rows = torch.arange(30.0).view(10, 3)
    with FeatureWriter(tmp_path / "f", {"t.0": (7, 3), "t.1": (2, 3)}) as writer:
        for begin in range(0, 10, 4):
            writer.append("t.0", rows[begin : begin + 4])
        writer.append("t.1", rows[3:5].half())
    assert writer.written == {"t.0": 7, "t.1": 2}
    assert torch.equal(Features(tmp_path / "f").layer("t", 0), rows[:7])
    assert torch.equal(Features(tmp_path / "f").layer("t", 1), rows[3:5])


def test_a_file_far_larger_than_the_memory_it_takes_is_written_and_read(tmp_path):
    resource = pytest.importorskip("resource")
    unit = 1 if sys.platform == "darwin" else 1024

    def peak() -> int:
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit

    before = peak()
    shapes = {f"t.{layer}": (2**15, 512) for layer in range(16)}
    with FeatureWriter(tmp_path / "f", shapes) as writer:
        for name in shapes:
            writer.append(name, torch.ones(2, 512))
    assert (tmp_path / "f").stat().st_size > 2**30  # sparse
    features = Features(tmp_path / "f")
    for layer in range(16):  # 64 MiB each: no layer stays in memory
        assert features.layer("t", layer).sum() == 1024
    assert peak() - before < 2**27 + 2**26


@pytest.mark.parametrize("tower", ["a", "ab", "abc", "abcd"])  # so that headers differ in length
def test_the_header_describes_every_byte_of_the_file(tower, tmp_path):
    with FeatureWriter(tmp_path / "f", {f"{tower}.0": (5, 3), f"{tower}.1": (5, 3)}):
        pass
    content = (tmp_path / "f").read_bytes()
    size = int.from_bytes(content[:8], "little")
    assert size % 8 == 0  # so that the tensors are aligned
    header = json.loads(content[8 : 8 + size])
    assert [header[f"{tower}.{i}"]["data_offsets"] for i in (0, 1)] == [[0, 60], [60, 120]]
    assert len(content) == 8 + size + 120


def test_a_decoders_padding_is_left_out_however_the_batch_marks_it(pico, random_batch, tmp_path):
    """By its mask, by labels, or by any mask if the decoder is the whole model."""
    model, batch = pico("marian"), random_batch("marian")
    n_tokens = int(batch["decoder_attention_mask"].sum())
    unmasked = {key: value for key, value in batch.items() if key != "decoder_attention_mask"}
    found = []
    for name, given in (("mask", batch), ("labels", unmasked)):
        collect_features(model, [given], n_tokens, tmp_path / name)
        found.append(Features(tmp_path / name).layer("decoder", 0))
        with pytest.raises(ValueError, match="fewer than n_tokens"):
            collect_features(model, [given], n_tokens + 1, tmp_path / "more")
    assert torch.equal(*found)


@pytest.mark.parametrize(
    ("model_type", "compared"), [("llama", "neuron"), ("gpt2", "pre_activation")]
)
def test_by_default_a_gated_neuron_is_compared_by_its_value_and_a_plain_one_as_in_the_paper(
    model_type, compared, pico, random_batch, tmp_path
):
    model, batch = pico(model_type), random_batch("gpt2")
    for name, aligned in (("default", None), ("named", compared)):
        collect_features(model, [batch], 5, tmp_path / name, aligned=aligned)
    found, expected = (
        Features(tmp_path / name).layer("decoder", 1) for name in ("default", "named")
    )
    assert torch.equal(found, expected)
