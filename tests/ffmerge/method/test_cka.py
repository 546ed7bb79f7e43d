"""Linear CKA equals its Gram form, is invariant, and compares the right outputs (Section 5.5)."""

import csv
import gc
import json
import math
import os
import subprocess
import sys
from functools import partial

import numpy as np
import pytest
import torch

from ffmerge.method.cka import (
    cka_matrix,
    mean_by_distance,
    mean_off_diagonal,
)
from ffmerge.method.features import SUBLAYERS, Features, collect_features, collect_outputs
from ffmerge.models.towers import towers
from provenance.sources import REPOSITORY, closure, code_digest

# Sums of float32 products: rounding of about 1e-7, over tens to hundreds of tokens.
ROUNDING = 5e-6


def random(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def related(n: int, d_x: int, d_y: int, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    """Two sets of outputs that share some of their variation and are far from centred."""
    common = random(n, 3, seed=seed)
    x = common @ random(3, d_x, seed=seed + 1) + random(n, d_x, seed=seed + 2) + 2
    y = common @ random(3, d_y, seed=seed + 3) + random(n, d_y, seed=seed + 4) - 5
    return x, y


def linear_cka(x: torch.Tensor, y: torch.Tensor) -> float:
    """CKA of two layers with these outputs."""
    return cka_matrix((x, y).__getitem__, 2)[0, 1].item()


def gram_form(x: torch.Tensor, y: torch.Tensor) -> float:
    """HSIC(K, L) / √(HSIC(K, K) HSIC(L, L)) of the n × n Gram matrices (Kornblith et al.)."""
    n = len(x)
    h = np.eye(n) - np.ones((n, n)) / n  # projects twice: tr(KHLH) = tr(HKH HLH)
    k, m = (h @ z.double().numpy() @ z.double().numpy().T @ h for z in (x, y))

    def hsic(a: np.ndarray, b: np.ndarray) -> float:
        return np.trace(a @ b) / (n - 1) ** 2

    return hsic(k, m) / math.sqrt(hsic(k, k) * hsic(m, m))


# --- two layers -----------------------------------------------------------------------------------


@pytest.mark.parametrize(("n", "d_x", "d_y"), [(40, 7, 7), (30, 4, 9), (12, 50, 20), (200, 16, 16)])
@pytest.mark.parametrize("seed", range(3))
def test_the_form_in_features_is_the_gram_form(n, d_x, d_y, seed):
    x, y = related(n, d_x, d_y, seed)
    assert linear_cka(x, y) == pytest.approx(gram_form(x, y), abs=ROUNDING)


def test_cka_is_the_ratio_of_norms_of_centred_products():
    x, y = related(50, 6, 8)
    a, b = (z.double() - z.double().mean(0) for z in (x, y))
    norm = torch.linalg.matrix_norm
    expected = norm(a.T @ b) ** 2 / (norm(a.T @ a) * norm(b.T @ b))
    assert linear_cka(x, y) == pytest.approx(expected.item(), abs=ROUNDING)


def test_a_layer_is_wholly_similar_to_itself_and_similarity_is_symmetric():
    x, y = related(60, 8, 5)
    assert linear_cka(x, x) == pytest.approx(1, abs=ROUNDING)
    assert linear_cka(x, y) == pytest.approx(linear_cka(y, x), abs=ROUNDING)


def test_cka_does_not_see_rotations_isotropic_scaling_or_shifts():
    x, y = related(80, 8, 8)
    rotation = torch.linalg.qr(random(8, 8, seed=9)).Q
    expected = linear_cka(x, y)
    assert 0.1 < expected < 0.9
    for changed in (x @ rotation, x[:, torch.randperm(8)], x * 1e-3, x * -400, x + random(8)):
        assert linear_cka(changed, y) == pytest.approx(expected, abs=ROUNDING)


def test_cka_sees_maps_that_are_invertible_but_do_not_keep_angles():
    x, y = related(80, 8, 8)
    stretched = x * torch.tensor([30.0] + [1.0] * 7)
    assert abs(linear_cka(stretched, y) - linear_cka(x, y)) > 0.05
    assert linear_cka(x, stretched) < 0.95


def test_similarities_stay_within_0_and_1():
    for seed in range(30):
        x, y = random(20, 6, seed=seed), random(20, 3, seed=seed + 100)
        assert 0 <= linear_cka(x, y) <= 1
        assert 1 - ROUNDING < linear_cka(x, -x) <= 1


def test_independent_outputs_are_dissimilar_where_tokens_far_outnumber_features():
    n, d = 20_000, 8
    # E‖XᵀY‖² = n d² against norms of n √d each: d / n = 4e-4
    assert linear_cka(random(n, d), random(n, d, seed=1)) < 2e-3
    # with few tokens the biased form is far from 0, so 10k tokens are not a detail
    assert linear_cka(random(16, d), random(16, d, seed=1)) > 0.2


@pytest.mark.parametrize(
    ("mean", "deviation"), [(1e4, 1e-1), (-1e3, 1e-2), (0.0, 1e-20), (0, 1e18)]
)
def test_outputs_far_from_zero_or_of_any_size_compare_as_in_float64(mean, deviation):
    x, y = (z * deviation + mean for z in related(200, 6, 6))
    assert linear_cka(x, y) == pytest.approx(gram_form(x, y), abs=ROUNDING)


@pytest.mark.parametrize("constant", [0.0, 0.1, -3.3, 1e4])
def test_a_constant_feature_adds_nothing(constant):
    x, y = related(100, 6, 6)
    widened = torch.cat([x, torch.full((100, 2), constant)], dim=1)
    assert linear_cka(widened, y) == pytest.approx(linear_cka(x, y), abs=ROUNDING)


def test_outputs_of_different_tokens_do_not_pair():
    with pytest.raises(ValueError, match="outputs at 10 and at 9 tokens do not pair"):
        linear_cka(random(10, 3), random(9, 3))


# --- all layers -----------------------------------------------------------------------------------


def test_the_matrix_holds_every_pair_once_computed_and_exactly_1_with_itself():
    layers = [x for seed in range(3) for x in related(50, 6, 6, seed)]
    pairs = []
    matrix = cka_matrix(layers.__getitem__, 6, lambda: pairs.append(1))
    assert len(pairs) == 15
    assert torch.equal(matrix, matrix.T)
    assert torch.equal(matrix.diagonal(), torch.ones(6, dtype=torch.float64))
    for i in range(6):
        for j in range(6):
            expected = gram_form(layers[i], layers[j])
            assert matrix[i, j].item() == pytest.approx(expected, abs=ROUNDING)


@pytest.mark.parametrize("constant", [0.0, 0.3, -1e4])
def test_a_constant_layer_has_similarity_0_with_all_others_and_1_with_itself(constant):
    layers = [random(40, 5), torch.full((40, 5), constant), random(40, 5, seed=1)]
    matrix = cka_matrix(layers.__getitem__, 3)
    assert matrix[1].tolist() == [0, 1, 0]
    assert matrix[0, 2] > 0


def test_a_layer_that_varies_by_rounding_alone_counts_as_constant():
    unit = 2.0**-10  # between neighbours of 1e4 in float32
    noise = 1e4 + unit * (random(40, 5, seed=2) > 0)
    assert noise.unique().numel() == 2
    assert cka_matrix([random(40, 5), noise].__getitem__, 2)[0, 1] == 0


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_a_layer_that_is_not_finite_is_named_with_its_feature(value):
    layers = [random(20, 5, seed=layer) for layer in range(4)]
    layers[2][11, 4] = value
    with pytest.raises(ValueError, match="layer 2: the outputs of feature 4 are not all finite"):
        cka_matrix(layers.__getitem__, 4)


def test_layers_of_different_tokens_are_named():
    layers = [random(20, 5), random(20, 5), random(19, 5)]
    with pytest.raises(ValueError, match="layers 0 and 2: outputs at 20 and at 19 tokens"):
        cka_matrix(layers.__getitem__, 3)


@pytest.mark.long
def test_one_layer_is_held_while_another_is_read():
    shape, held = (31, 7), []

    def read(layer: int) -> torch.Tensor:
        gc.collect()
        tensors = [o for o in gc.get_objects() if type(o) is torch.Tensor]
        held.append(sum(tensor.shape == shape for tensor in tensors))
        return random(*shape, seed=layer)

    cka_matrix(read, 8)
    assert len(held) == 8 + 7 + 28
    assert max(held) == 1


def test_means_are_of_different_layers_and_of_layers_so_far_apart():
    matrix = torch.tensor([[1, 0.5, 0.1], [0.5, 1, 0.3], [0.1, 0.3, 1]], dtype=torch.float64)
    assert mean_off_diagonal(matrix) == pytest.approx(0.3)
    assert mean_by_distance(matrix) == {1: pytest.approx(0.4), 2: pytest.approx(0.1)}


# --- the outputs ----------------------------------------------------------------------------------


def batches_for(model_type, random_batch, n: int = 4) -> list[dict]:
    return [random_batch(model_type, seed=seed) for seed in range(n)]


def token_positions(model_type: str, tower: str, batch: dict) -> torch.Tensor:
    """Mask of the positions that carry tokens of a tower, (batch, length)."""
    if model_type == "vit":
        return torch.ones(3, 1 + 4, dtype=torch.bool)  # the class token and 2 × 2 patches
    if (model_type, tower) == ("marian", "decoder"):
        return batch["labels"] != -100
    return batch["input_ids"] != 0


ADDED = {  # sublayer -> the module whose whole output is added to the residual stream
    "gpt2": {"feed_forward": "mlp", "attention": "attn"},
    "vit": {"feed_forward": "mlp", "attention": "attention"},
    "marian": {"feed_forward": "fc2", "attention": "self_attn"},
}


def seen(model, names: list[str], batch: dict) -> tuple[dict, dict]:
    """Inputs (first argument) and outputs (first of a tuple) of modules."""
    taken, put_out, hooks = {}, {}, []

    def record(name: str, args: tuple, kwargs: dict, output) -> None:
        taken[name] = args[0] if args else kwargs["hidden_states"]
        put_out[name] = output[0] if isinstance(output, tuple) else output

    for name in names:
        hooks.append(
            model.get_submodule(name).register_forward_hook(
                lambda _, args, kwargs, output, name=name: record(name, args, kwargs, output),
                with_kwargs=True,
            )
        )
    with torch.inference_mode():
        model(**batch)
    for hook in hooks:
        hook.remove()
    return taken, put_out


@pytest.mark.parametrize("n_tokens", [1, 16, 40])  # part of a batch, about a batch, several
def test_outputs_are_what_each_sublayer_hands_to_the_residual_connection(
    model_type, n_tokens, pico, random_batch, tmp_path
):
    model, batches = pico(model_type), batches_for(model_type, random_batch)
    collect_outputs(model, batches, SUBLAYERS, n_tokens, tmp_path / "f")
    for sublayer in SUBLAYERS:
        outputs = Features(tmp_path / "f", sublayer)
        assert outputs.towers() == dict.fromkeys(towers(model), 4)
        for tower, entry in towers(model).items():
            for layer in range(4):
                name = f"{entry.paths[layer]}.{ADDED[model_type][sublayer]}"
                expected = torch.cat(
                    [
                        seen(model, [name], batch)[1][name][
                            token_positions(model_type, tower, batch)
                        ]
                        for batch in batches
                    ]
                )
                found = outputs.layer(tower, layer)
                assert found.shape == (n_tokens, 8) and found.dtype == torch.float32
                assert torch.equal(found, expected[:n_tokens])


@pytest.mark.parametrize("model_type", ["gpt2", "vit"])
def test_two_outputs_are_all_that_a_layer_adds_to_its_input(
    model_type, pico, random_batch, tmp_path
):
    """Layer norm comes first here: the output is x + attention(x) + feed_forward(…)."""
    model, batch = pico(model_type), random_batch(model_type)
    tower, entry = next(iter(towers(model).items()))
    tokens = token_positions(model_type, tower, batch)
    n = int(tokens.sum())
    collect_outputs(model, [batch], SUBLAYERS, n, tmp_path / "f")
    for layer in range(4):
        name = entry.paths[layer]
        taken, put_out = seen(model, [name], batch)
        added = sum(Features(tmp_path / "f", which).layer(tower, layer) for which in SUBLAYERS)
        difference = (put_out[name] - taken[name])[tokens]
        torch.testing.assert_close(added, difference, rtol=1e-5, atol=1e-5)  # sums of a few tens


@pytest.mark.parametrize("tower", ["encoder", "decoder"])
def test_marians_outputs_are_those_before_the_residual_and_the_layer_norm(
    tower, pico, random_batch, tmp_path
):
    """Layer norm comes after each sublayer here: x -> norm(x + sublayer(x))."""
    model, batch = pico("marian"), random_batch("marian")
    tokens = token_positions("marian", tower, batch)
    collect_outputs(model, [batch], SUBLAYERS, 16, tmp_path / "f")
    for layer in range(4):
        name = f"model.{tower}.layers.{layer}"
        norms = {"attention": f"{name}.self_attn_layer_norm", "feed_forward": f"{name}.fc1"}
        taken, _ = seen(model, [name, *norms.values(), f"{name}.final_layer_norm"], batch)
        attention = Features(tmp_path / "f", "attention").layer(tower, layer)
        feed_forward = Features(tmp_path / "f", "feed_forward").layer(tower, layer)
        before_norm = taken[norms["attention"]] - taken[name]
        torch.testing.assert_close(attention, before_norm[tokens][:16], rtol=1e-5, atol=1e-5)
        before_norm = taken[f"{name}.final_layer_norm"] - taken[norms["feed_forward"]]
        torch.testing.assert_close(feed_forward, before_norm[tokens][:16], rtol=1e-5, atol=1e-5)


def test_padding_gives_no_outputs_and_each_side_has_its_own_tokens(pico, random_batch, tmp_path):
    model, batch = pico("marian"), random_batch("marian")
    n_source, n_target = 9 + 6 + 2, 3 + 8 + 5
    assert n_source < batch["attention_mask"].numel()
    collect_outputs(model, [batch], SUBLAYERS, n_target, tmp_path / "f")  # just enough
    with pytest.raises(
        ValueError, match=f"n_tokens = {n_source} .*'attention.decoder.3': {n_target}"
    ):
        collect_outputs(model, [batch], SUBLAYERS, n_source, tmp_path / "g")
    kept = {}
    for end, ids in (("shorter", batch), ("other", dict(batch))):
        ids["input_ids"] = ids["input_ids"].clone()
        if end == "other":  # the values of padding do not matter
            ids["input_ids"][batch["attention_mask"] == 0] = 7
        collect_outputs(model, [ids], SUBLAYERS, n_target, tmp_path / end)
        kept[end] = Features(tmp_path / end, "attention").layer("encoder", 3)
    torch.testing.assert_close(kept["shorter"], kept["other"], rtol=0, atol=1e-5)


def test_outputs_come_from_the_positions_that_features_come_from(
    model_type, pico, random_batch, tmp_path
):
    model, batches = pico(model_type), batches_for(model_type, random_batch)
    collect_features(model, batches, 20, tmp_path / "features")
    collect_outputs(model, batches, SUBLAYERS, 20, tmp_path / "outputs")
    activation = {"gpt2": "gelu_new", "vit": "gelu", "marian": "silu"}[model_type]
    from transformers.activations import ACT2FN

    for tower, entry in towers(model).items():
        w_out = model.get_submodule(entry.module(2, "down"))
        with torch.inference_mode():
            hidden = Features(tmp_path / "features").layer(tower, 2)
            expected = w_out(ACT2FN[activation](hidden))
        found = Features(tmp_path / "outputs", "feed_forward").layer(tower, 2)
        torch.testing.assert_close(found, expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize(
    ("model_type", "tower", "layer"), [("gpt2", "decoder", 2), ("marian", "decoder", 3)]
)
def test_a_sublayer_whose_outputs_are_not_finite_is_named(
    model_type, tower, layer, pico, random_batch, tmp_path
):
    model = pico(model_type)
    entry = towers(model)[tower]
    with torch.no_grad():
        model.get_submodule(entry.module(layer, "attention")).bias[5] = torch.nan
    with pytest.raises(
        ValueError, match=f"attention outputs of {tower}.{layer} .* are not all finite"
    ):
        collect_outputs(model, [random_batch(model_type)], SUBLAYERS, 10, tmp_path / "f")
    assert not any(module._forward_hooks for module in model.modules())


# --- the tables -----------------------------------------------------------------------------------


@pytest.mark.long
def test_the_script_writes_every_pair_and_the_means_over_pairs(pico, random_batch, tmp_path):
    model, batches = pico("marian"), batches_for("marian", random_batch)
    collect_outputs(model, batches, SUBLAYERS, 40, tmp_path / "outputs.safetensors")
    job = {"rule": "compute_cka", "wildcards": {"results": str(tmp_path)}, "params": {}}
    outputs = {name: str(tmp_path / name) for name in ("cka", "similarity", "record")}
    files = {"input": {"outputs": str(tmp_path / "outputs.safetensors")}, "output": outputs}
    script = REPOSITORY / "workflow/scripts/compute_cka.py"
    job |= {"reproduces": "bits", "imports": [], "code": code_digest(closure(script))}
    subprocess.run(
        [sys.executable, script, json.dumps(job), json.dumps(files)],
        check=True,
        cwd=REPOSITORY,
        env=os.environ | {"PYTHONPATH": "workflow"},
    )

    rows = list(csv.DictReader((tmp_path / "cka").open()))
    pairs = [(r["tower"], r["sublayer"], int(r["i"]), int(r["j"])) for r in rows]
    assert pairs == [
        (tower, sublayer, i, j)
        for tower in ("encoder", "decoder")
        for sublayer in ("feed_forward", "attention")
        for i in range(4)
        for j in range(4)
    ]
    for sublayer in SUBLAYERS:
        layer = partial(Features(tmp_path / "outputs.safetensors", sublayer).layer, "decoder")
        written = [
            float(r["cka"]) for r in rows if (r["tower"], r["sublayer"]) == ("decoder", sublayer)
        ]
        expected = cka_matrix(layer, 4).flatten()
        assert written == pytest.approx(expected.tolist(), abs=ROUNDING)

    means = {
        (r["tower"], r["distance"]): r for r in csv.DictReader((tmp_path / "similarity").open())
    }
    assert list(means) == [
        (tower, distance) for tower in ("encoder", "decoder") for distance in ("all", *"123")
    ]
    of_decoder = means["decoder", "all"]
    assert float(of_decoder["attention"]) == pytest.approx(mean_off_diagonal(cka_matrix(layer, 4)))
    for mean in means.values():
        difference = float(mean["feed_forward"]) - float(mean["attention"])
        assert float(mean["difference"]) == pytest.approx(difference, abs=2e-6)  # six decimals
