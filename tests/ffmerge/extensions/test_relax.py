"""Relaxed tying: merged layers that keep their own biases and low-rank corrections."""

import copy
import pickle
from functools import partial

import pytest
import torch
import transformers

from families import FAMILIES, batch_of, in_short, output_of, pico
from ffmerge.extensions.reconstruct import MAPS, OUTPUT, Reconstruction
from ffmerge.extensions.relax import (
    GIVEN,
    INPUT,
    approximate,
    check_rank,
    low_rank,
    merge_relaxed,
    more_removed,
    second_moment,
)
from ffmerge.method import quantization
from ffmerge.method.features import Features, FeatureWriter, collect_outputs
from ffmerge.method.groups import group
from ffmerge.method.permutation import Permutations
from ffmerge.models import checkpoint
from ffmerge.models.expanded import save_expanded, untie
from ffmerge.models.size import count_parameters
from ffmerge.models.tied_model import become_tied, tied_model_class
from ffmerge.models.towers import towers

N_TOKENS = 12
# Float32 rounds each of some 16 products to 1e-7 of its size; layers, norms and a head enlarge it.
REORDERED = {"rtol": 1e-4, "atol": 1e-4}


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    """Such small models only wait for a second thread."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def relaxed(family: str, rank: int, file, maps=GIVEN):
    """A pico model with layers 0 and 2 of each tower merged, its neurons in another order."""
    model = pico(FAMILIES[family])
    collect_outputs(model, [batch_of(FAMILIES[family])], maps, N_TOKENS, file)
    groups = [group(name, (0, 2), "first") for name in towers(model)]
    orders = {
        name: Permutations({(0, 2): torch.arange(ff.width).roll(3)})
        for name, ff in FAMILIES[family].towers.items()
    }
    merge_relaxed(model, groups, orders, rank, {of: Features(file, of) for of in GIVEN})
    return model


def tied(model):
    become_tied(model, model.config.ffmerge_groups)
    return model


def random(*shape: int, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(shape, generator=generator, dtype=torch.float64)


# --- the approximation ----------------------------------------------------------------------------


@pytest.mark.parametrize(("n_out", "n_in"), [(6, 10), (10, 6)])
def test_the_correction_is_the_svd_weighted_by_the_inputs(n_out, n_in):
    residual, x = random(n_out, n_in), random(50, n_in, seed=1) * torch.arange(1, n_in + 1)
    moment = x.T @ x / len(x)
    b, a = low_rank(residual, moment, 2)
    values, vectors = torch.linalg.eigh(moment)
    root, inverse = ((vectors * values**power) @ vectors.T for power in (0.5, -0.5))
    u, s, v = torch.linalg.svd(residual @ root)
    textbook = (u[:, :2] * s[:2]) @ v[:2] @ inverse
    torch.testing.assert_close(b @ a, textbook, rtol=1e-3, atol=1e-4)  # by the ridge of 1e-6
    torch.testing.assert_close(b.norm(dim=0), a.norm(dim=1))
    u, s, v = torch.linalg.svd(residual)
    plain = (u[:, :2] * s[:2]) @ v[:2]
    error, of_plain = (((residual - c) @ x.T).norm() for c in (b @ a, plain))
    assert error < 0.99 * of_plain


@pytest.mark.parametrize(("n_out", "n_in"), [(6, 10), (10, 6)])
@pytest.mark.parametrize("n_tokens", [0, 3, 50])
def test_the_full_rank_gives_the_residual_whatever_the_inputs_were(n_out, n_in, n_tokens):
    x, residual = random(n_tokens, n_in, seed=1), random(n_out, n_in)
    b, a = low_rank(residual, x.T @ x / max(1, n_tokens), 99)
    torch.testing.assert_close(b @ a, residual)


def test_positions_that_outweigh_all_others_leave_a_root(tmp_path):
    """As massive activations do, with fewer positions than values."""
    x = random(5, 400).float()
    x[0] *= 1e5
    with FeatureWriter(tmp_path / "x", {"decoder.0": x.shape}) as writer:
        writer.append("decoder.0", x)
    residual = random(6, 400)
    b, a = low_rank(residual, second_moment(Features(tmp_path / "x"), "decoder", 0), 1)
    kept, whole = (matrix @ x[0].double() for matrix in (b @ a, residual))
    torch.testing.assert_close(kept, whole)


def test_copies_need_no_correction():
    b, a = low_rank(torch.zeros(6, 10).double(), torch.eye(10).double(), 2)
    assert not (b @ a).any() and b.isfinite().all()


# --- models ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("family", in_short())
def test_with_corrections_of_full_rank_the_model_is_the_original(family, tmp_path):
    before = output_of(pico(FAMILIES[family]), batch_of(FAMILIES[family]))
    model = relaxed(family, 99, tmp_path / "given")
    torch.testing.assert_close(output_of(model, batch_of(FAMILIES[family])), before, **REORDERED)


@pytest.mark.parametrize("family", in_short())
def test_it_saves_and_loads_in_all_forms_with_the_parameters_that_were_counted(family, tmp_path):
    plain, batch = pico(FAMILIES[family]), batch_of(FAMILIES[family])
    model = relaxed(family, 1, tmp_path / "given")
    output, stock, left = output_of(model, batch), type(model), count_parameters(plain)
    for name, tower in towers(plain).items():
        for which in tower.feed_forward.maps:
            weight = plain.get_submodule(tower.module(0, which)).weight
            left += 2 * sum(weight.shape) - weight.numel()
        assert model.get_submodule(towers(model)[name].module(0, "up")).weight is (
            model.get_submodule(towers(model)[name].module(2, "up")).weight
        )
    assert count_parameters(model) == left
    checkpoint.save(model, tmp_path / "ours")
    loaded = checkpoint.load(tmp_path / "ours")
    assert torch.equal(output_of(loaded, batch), output) and count_parameters(loaded) == left
    tied(model).save_pretrained(tmp_path / "tied")
    loaded = tied_model_class(stock).from_pretrained(tmp_path / "tied").eval()
    assert torch.equal(output_of(loaded, batch), output) and count_parameters(loaded) == left
    assert torch.equal(output_of(copy.deepcopy(loaded), batch), output)
    save_expanded(model, tmp_path / "expanded")
    expanded = stock.from_pretrained(tmp_path / "expanded").eval()
    torch.testing.assert_close(output_of(expanded, batch), output, **REORDERED)
    assert count_parameters(expanded) == count_parameters(plain)
    untie(loaded)
    assert type(loaded) is stock and loaded.state_dict().keys() == expanded.state_dict().keys()
    assert torch.equal(output_of(loaded, batch), output_of(expanded, batch))


def test_a_model_is_pickled_with_its_corrections(tmp_path):
    model, batch = tied(relaxed("gpt2", 1, tmp_path / "given")), batch_of(FAMILIES["gpt2"])
    again = pickle.loads(pickle.dumps(model))
    assert torch.equal(output_of(again, batch), output_of(model, batch))


def test_a_base_model_without_its_head_has_the_same_corrections(tmp_path):
    model, batch = tied(relaxed("gpt2", 1, tmp_path / "given")), batch_of(FAMILIES["gpt2"])
    model.save_pretrained(tmp_path / "tied")
    headless = tied_model_class(transformers.GPT2Model).from_pretrained(tmp_path / "tied").eval()
    with torch.inference_mode():
        given = {key: value for key, value in batch.items() if key != "labels"}
        states = (headless(**given)[0], model.base_model(**given)[0])
    assert torch.equal(*states)


@pytest.mark.parametrize("family", ["gpt2", "llama", "phi3", "marian"])
def test_shared_weights_and_corrections_are_fitted_together(family, tmp_path):
    maps = GIVEN | MAPS
    model = relaxed(family, 1, tmp_path / "given", maps)
    inputs, outputs = (Features(tmp_path / "given", of) for of in (INPUT, OUTPUT))
    run = partial(model, **batch_of(FAMILIES[family]))
    fitting = Reconstruction(model, run, inputs, outputs)  # which are of the original
    before = {name: value.clone() for name, value in model.named_parameters()}
    groups = [group(name, (0, 2), "first") for name in towers(model)]
    for error_before, error_after in fitting.fit(model, groups, 30):
        assert error_after < error_before
    for tower in towers(model).values():
        shared, other = (model.get_submodule(tower.module(i, "down")) for i in (0, 2))
        assert shared.weight is other.weight
        for kind in ("weight", "correction_in", "correction_out"):
            name = f"{tower.module(2 if kind != 'weight' else 0, 'down')}.{kind}"
            assert not torch.equal(model.get_parameter(name), before[name])


def test_a_rank_that_saves_nothing_is_refused_with_the_highest_that_does():
    model = pico(FAMILIES["gpt2"])
    groups, shape = (
        [group("decoder", (0, 1), "first")],
        lambda name: model.get_parameter(name).shape,
    )
    with pytest.raises(ValueError, match=r"--rank 3: .* take at most rank 2$"):
        check_rank(groups, towers(model), shape, 3)
    check_rank(groups, towers(model), shape, 2)


def test_quantization_is_refused(tmp_path):
    model = tied(relaxed("gpt2", 1, tmp_path / "given"))
    with pytest.raises(ValueError, match="quantize an export in the form `expanded`"):
        quantization.quantize(model)
    model.save_pretrained(tmp_path / "tied")
    with pytest.raises(ValueError, match="corrections, which quantization would lose"):
        type(model).from_pretrained(tmp_path / "tied", quantization_config={"load_in_8bit": True})


def low_rank_model(family: str, file):
    """A pico model whose FF maps are low-rank, at the size of one sublayer less in each tower."""
    model = pico(FAMILIES[family])
    collect_outputs(model, [batch_of(FAMILIES[family])], GIVEN, N_TOKENS, file)
    n_removed = dict.fromkeys(towers(model), 1)
    groups = [group(name, range(len(tower)), "first") for name, tower in towers(model).items()]
    approximate(model, groups, n_removed, {of: Features(file, of) for of in GIVEN})
    return model


@pytest.mark.parametrize("family", in_short())
def test_low_rank_maps_take_at_most_what_merging_leaves_and_load_in_all_forms(family, tmp_path):
    plain, batch = pico(FAMILIES[family]), batch_of(FAMILIES[family])
    model = low_rank_model(family, tmp_path / "given")
    output, stock, left = output_of(model, batch), type(model), count_parameters(plain)
    most = left
    for tower in towers(plain).values():
        shapes = [
            plain.get_submodule(tower.module(layer, which)).weight.shape
            for layer in range(len(tower))
            for which in tower.feed_forward.maps
        ]
        most -= sum(shape.numel() for shape in shapes) / len(tower)
        left -= sum(shape.numel() for shape in shapes) / len(tower) + sum(map(sum, shapes))
    assert left < count_parameters(model) <= most
    tied(model).save_pretrained(tmp_path / "tied")
    loaded = tied_model_class(stock).from_pretrained(tmp_path / "tied").eval()
    assert torch.equal(output_of(loaded, batch), output)
    assert count_parameters(loaded) == count_parameters(model)
    save_expanded(model, tmp_path / "expanded")
    expanded = stock.from_pretrained(tmp_path / "expanded").eval()
    torch.testing.assert_close(output_of(expanded, batch), output, **REORDERED)
    untie(loaded)
    assert type(loaded) is stock and loaded.state_dict().keys() == expanded.state_dict().keys()
    assert torch.equal(output_of(loaded, batch), output_of(expanded, batch))


def test_a_window_is_as_much_larger_as_its_corrections_take():
    """Of pico GPT-2: 256 weights in a sublayer, 48 parameters of a rank, three layers."""
    model = pico(FAMILIES["gpt2"])
    assert more_removed(model, {"decoder": 1}, 1) == {"decoder": 2}
    assert more_removed(model, {"decoder": 0}, 9) == {"decoder": 0}
    for n_removed, rank in ((1, 2), (2, 1), (1, 6)):
        with pytest.raises(ValueError, match=f"--rank {rank}: .* no window of the decoder"):
            more_removed(model, {"decoder": n_removed}, rank)
