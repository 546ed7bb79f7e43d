"""Equations 1 and 2 agree with a slow, literal transcription, for all pairs."""

from itertools import combinations, permutations

import numpy as np
import pytest
import torch

from ffmerge.method.correlation import cross_correlation
from ffmerge.method.features import Features, collect_features
from ffmerge.method.permutation import (
    Alignment,
    Permutations,
    align_all_pairs,
    auction_prices,
    best_permutation,
    inverse,
    load_permutations,
    save_permutations,
)

# Correlations are float32 dot products of unit vectors: rounding of about 1e-7, summed over tokens.
ROUNDING = 2e-6


def random(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def random_permutation(d: int, seed: int = 0) -> torch.Tensor:
    return torch.randperm(d, generator=torch.Generator().manual_seed(seed))


def equation_1(x_a: torch.Tensor, x_b: torch.Tensor) -> np.ndarray:
    """C = E[(X_α - μ(X_α))ᵀ (X_β - μ(X_β))] / σ(X_α) σ(X_β), entry by entry in float64."""
    x_a, x_b = x_a.double().numpy(), x_b.double().numpy()
    c = np.empty((x_a.shape[1], x_b.shape[1]))
    for j in range(c.shape[0]):
        for k in range(c.shape[1]):
            a, b = x_a[:, j] - x_a[:, j].mean(), x_b[:, k] - x_b[:, k].mean()
            c[j, k] = (a * b).mean() / (x_a[:, j].std() * x_b[:, k].std())
    return c


def equation_2(c: np.ndarray) -> list[int]:
    """The π of all in Π_d that maximises Σ_j C(j, π(j))."""
    d = len(c)
    return list(max(permutations(range(d)), key=lambda pi: sum(c[j, pi[j]] for j in range(d))))


# --- Equation 1 -----------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(3))
def test_cross_correlation_is_equation_1(seed):
    mixed = random(40, 12, seed=seed) @ random(12, 12, seed=seed + 10)  # so that columns correlate
    anchor, other = mixed[:, :7] * 3 + 1, mixed[:, 5:]
    c = cross_correlation(anchor, other).numpy()
    assert np.abs(c - equation_1(anchor, other)).max() < ROUNDING
    both = np.corrcoef(anchor.double().numpy(), other.double().numpy(), rowvar=False)
    assert np.abs(c - both[:7, 7:]).max() < ROUNDING


@pytest.mark.parametrize(
    ("mean", "deviation"),
    [(1e4, 1e-1), (-1e4, 1e-1), (1e3, 1e-2), (1.0, 1e3), (0.0, 1e-22), (0.0, 1e18)],
)
def test_features_far_from_zero_or_of_any_size_correlate_as_in_float64(mean, deviation):
    x, y = random(500, 6), random(500, 6, seed=1)
    anchor, other = x * deviation + mean, (x + y) * deviation + mean
    expected = np.corrcoef(anchor.double().numpy(), other.double().numpy(), rowvar=False)[:6, 6:]
    assert expected.max() > 0.5
    assert np.abs(cross_correlation(anchor, other).numpy() - expected).max() < ROUNDING


@pytest.mark.parametrize("constant", [0.0, 0.1, -3.3, 1e4, 1e30])
def test_a_constant_neuron_correlates_0_with_every_neuron(constant):
    anchor, other = random(300, 5), random(300, 5, seed=1)
    anchor[:, 2] = other[:, 3] = other[:, 4] = constant
    c = cross_correlation(anchor, other)
    assert (c[2] == 0).all() and (c[:, 3:] == 0).all()
    rest = c[[0, 1, 3, 4]][:, :3].numpy()
    assert np.abs(rest - equation_1(anchor[:, [0, 1, 3, 4]], other[:, :3])).max() < ROUNDING
    assert sorted(best_permutation(c).tolist()) == [0, 1, 2, 3, 4]


def test_a_neuron_that_varies_by_rounding_alone_counts_as_constant():
    anchor, other = random(300, 4), random(300, 4, seed=1)
    unit = 2.0**-10  # between neighbours of 1e4 in float32
    anchor[:, 1] = 1e4 + unit * (random(300, seed=2) > 0)
    assert anchor[:, 1].unique().numel() == 2
    c = cross_correlation(anchor, other)
    assert (c[1] == 0).all() and (c[[0, 2, 3]] != 0).all()


def test_correlations_stay_within_minus_1_and_1():
    for seed in range(30):
        x = random(50, 8, seed=seed)
        c = cross_correlation(x, torch.cat([x[:, :4], -x[:, 4:]], dim=1))
        assert c.abs().max() <= 1
        assert torch.allclose(c.diag().abs(), torch.ones(8), atol=ROUNDING)


def test_features_of_different_tokens_do_not_pair():
    with pytest.raises(ValueError, match="features of 10 and of 9 tokens do not pair"):
        cross_correlation(random(10, 3), random(9, 3))


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_a_feature_that_is_not_finite_is_an_error_that_names_the_neuron(value):
    anchor, other = random(10, 5), random(10, 5)
    other[7, 3] = value
    with pytest.raises(ValueError, match="neuron 3 are not all finite"):
        cross_correlation(anchor, other)


# --- Equation 2 -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("d", "seed"), [(d, seed) for d in range(1, 7) for seed in (0, 1)] + [(7, 0)]
)
def test_best_permutation_is_equation_2(d, seed):
    c = random(d, d, seed=seed)
    assert best_permutation(c).tolist() == equation_2(c.double().numpy())


def is_optimal(c: torch.Tensor, pi: torch.Tensor) -> bool:
    """Whether dual prices prove that no permutation has a larger sum than π, to rounding.

    Wanted are prices v with c(j, k) - v(k) <= c(j, π(j)) - v(π(j)) for all j and k. Raising them
    where that is broken ends within n rounds if π is optimal, and never otherwise.
    """
    c = c.double()
    matched, prices = c[torch.arange(len(c)), pi], torch.zeros(len(c), dtype=torch.float64)
    for _ in range(len(c) + 1):
        needed = (c + (prices[pi] - matched)[:, None]).amax(dim=0)
        if (needed <= prices + 1e-12).all():
            return True
        prices = torch.maximum(prices, needed)
    return False


def low_rank(d: int, seed: int) -> torch.Tensor:
    """Correlations of features that share a few directions, as those of trained models do."""
    shared = random(500, 30, seed=seed)
    x, y = (shared @ random(30, d, seed=seed + n) + random(500, d, seed=seed - n) for n in (1, 2))
    return cross_correlation(x, y)


ALIKE = low_rank(300, seed=40)
ALIKE[:, 5:] = ALIKE[:, :1]  # all neurons but five of one kind
CORRELATIONS = {
    "noise": random(400, 400).clamp(-1, 1),
    "low rank": low_rank(600, seed=10),
    "constant neurons": torch.nn.functional.pad(low_rank(300, seed=20), (0, 60, 0, 60)),
    "neurons alike": ALIKE,
    "copies": low_rank(150, seed=30).repeat(2, 2),
    "all the same": torch.full((300, 300), 0.5),
    "far from zero": 0.999 + 1e-5 * random(300, 300),
    "one large": torch.zeros(300, 300).index_put_(
        (torch.tensor(3), torch.tensor(7)), torch.tensor(1.0)
    ),
}


@pytest.mark.parametrize("name", CORRELATIONS)
def test_dual_prices_prove_that_a_permutation_of_many_neurons_is_best(name, one_thread):
    c = CORRELATIONS[name]
    pi = best_permutation(c)
    assert pi.sort().values.tolist() == list(range(len(c)))
    assert is_optimal(c, pi)
    worse = pi.clone()
    worse[[0, 1]] = pi[[1, 0]]
    loses = c[[0, 1], pi[:2]].double().sum() - c[[0, 1], worse[:2]].double().sum()
    assert is_optimal(c, worse) == bool(loses < 1e-12)


def test_the_auction_leaves_little_to_the_exact_solver():
    c = low_rank(600, seed=10)
    gain = c - auction_prices(c, (c.max() - c.min()).item())
    wanted = gain.argmax(dim=1).unique()
    assert len(wanted) > 0.75 * len(c)  # columns that some row prefers after their prices
    assert len(c.argmax(dim=1).unique()) < 0.65 * len(c)  # and before


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_a_correlation_that_is_not_finite_is_an_error(value):
    c = random(4, 4)
    c[1, 2] = value
    with pytest.raises(ValueError):
        best_permutation(c)


def test_shuffled_and_disturbed_neurons_are_put_back_in_order():
    anchor, shuffle = random(200, 30), random_permutation(30)
    other = 5 * anchor[:, shuffle] - 2 + 0.5 * random(200, 30, seed=1)
    pi = best_permutation(cross_correlation(anchor, other))
    assert torch.equal(shuffle[pi], torch.arange(30))


def test_an_inverse_undoes_its_permutation_on_either_side():
    pi = random_permutation(20)
    assert torch.equal(inverse(pi)[pi], torch.arange(20))
    assert torch.equal(pi[inverse(pi)], torch.arange(20))


@pytest.mark.parametrize("seed", range(5))
def test_a_swapped_pair_has_the_inverse_permutation(seed):
    a, b = random(60, 20, seed=seed), random(60, 20, seed=seed + 100)
    there, back = (best_permutation(cross_correlation(*pair)) for pair in ((a, b), (b, a)))
    assert torch.equal(back, inverse(there))


# --- all pairs ------------------------------------------------------------------------------------


@pytest.fixture
def one_thread():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # for matrices this small a second one only waits
    yield
    torch.set_num_threads(threads)


@pytest.fixture
def two_threads():
    """Use two threads of torch in the test, and as many as before afterwards."""
    threads = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(threads)


@pytest.mark.parametrize(("model_type", "tower"), [("gpt2", "decoder"), ("marian", "encoder")])
def test_all_pairs_of_a_model_are_those_of_the_transcription(
    model_type, tower, pico, random_batch, tmp_path
):
    model = pico(model_type, d_ff=6)
    collect_features(
        model, [random_batch(model_type, seed=s) for s in range(4)], 50, tmp_path / "f"
    )
    features = Features(tmp_path / "f")
    pairs = combinations(range(4), 2)
    solved = dict(align_all_pairs(lambda layer: features.layer(tower, layer), pairs))
    assert list(solved) == [(0, 1), (0, 2), (0, 3), (1, 2), (1, 3), (2, 3)]
    for (i, j), alignment in solved.items():
        c = equation_1(features.layer(tower, i), features.layer(tower, j))
        pi = equation_2(c)
        assert alignment.permutation.tolist() == pi
        assert alignment.aligned == pytest.approx(c[range(6), pi].mean(), abs=ROUNDING)
        assert alignment.unaligned == pytest.approx(c.diagonal().mean(), abs=ROUNDING)
        assert alignment.aligned >= alignment.unaligned


def test_two_workers_give_the_same_alignments_in_the_same_order_as_one(two_threads):
    layers = [random(80, 24, seed=layer) for layer in range(6)]
    pairs = [(4, 5), *combinations(range(4), 2), (0, 5)]
    one, two = (list(align_all_pairs(layers.__getitem__, pairs, workers)) for workers in (1, 2))
    assert [pair for pair, _ in one] == [pair for pair, _ in two] == pairs
    for (_, a), (_, b) in zip(one, two, strict=True):
        assert torch.equal(a.permutation, b.permutation)
        # 1 thread or 2 may sum in another order
        assert (a.aligned, a.unaligned) == pytest.approx((b.aligned, b.unaligned), abs=ROUNDING)
    assert torch.get_num_threads() == 2


@pytest.mark.skipif(torch.cuda.is_available(), reason="the device is there")
def test_products_are_made_on_the_device_or_not_at_all():
    layers = [random(20, 5, seed=layer) for layer in range(2)]
    with pytest.raises((AssertionError, RuntimeError), match="CUDA"):  # torch's error
        list(align_all_pairs(layers.__getitem__, [(0, 1)], device="cuda"))


@pytest.mark.parametrize("workers", [1, 2])
def test_a_layer_that_is_not_finite_is_named_with_its_pair_and_neuron(workers, two_threads):
    layers = [random(20, 5, seed=layer) for layer in range(4)]
    layers[2][11, 4] = float("nan")
    with pytest.raises(ValueError, match=r"layers 0 and 2: .* neuron 4 "):
        list(align_all_pairs(layers.__getitem__, combinations(range(4), 2), workers))
    assert torch.get_num_threads() == 2


# --- on disk --------------------------------------------------------------------------------------


def test_permutations_come_back_from_disk_for_either_direction(tmp_path):
    features = {
        name: [random(60, 9, seed=s + i) for i in range(3)] for name, s in (("e", 0), ("d", 9))
    }
    solved = {
        tower: dict(align_all_pairs(layers.__getitem__, [(0, 1), (1, 2), (0, 2)]))
        for tower, layers in features.items()
    }
    files = [str(tmp_path / f"{n}.safetensors") for n in range(2)]
    for n, file in enumerate(files):  # each with its part of the pairs
        save_permutations({t: dict([*pairs.items()][n::2]) for t, pairs in solved.items()}, file)
    loaded = load_permutations(*files)
    assert loaded.keys() == features.keys()
    for tower, layers in features.items():
        for anchor in range(3):
            for layer in range(3):
                expected = best_permutation(cross_correlation(layers[anchor], layers[layer]))
                found = loaded[tower].towards(anchor, layer)
                assert found.dtype == torch.int64
                assert torch.equal(found, expected)


def test_the_anchor_is_aligned_to_itself_by_the_identity():
    permutations = Permutations({(0, 1): random_permutation(8)})
    assert torch.equal(permutations.towards(1, 1), torch.arange(8))


def test_the_identity_is_as_wide_as_the_anchors_own_layer():
    permutations = Permutations({(0, 1): torch.arange(8), (2, 3): torch.arange(16)})
    for layer, d_ff in ((1, 8), (2, 16), (3, 16)):
        assert torch.equal(permutations.towards(layer, layer), torch.arange(d_ff))
    with pytest.raises(KeyError, match="layer 4"):
        permutations.towards(4, 4)


def test_a_pair_that_was_not_solved_is_an_error_that_names_it():
    permutations = Permutations({(0, 1): torch.arange(8)})
    for anchor, layer in ((0, 2), (2, 0)):
        with pytest.raises(KeyError, match="layers 0 and 2"):
            permutations.towards(anchor, layer)


def test_d_ff_fits_the_integers_on_disk(tmp_path):
    reversed_order = torch.arange(70_000).flip(0)
    save_permutations({"t": {(0, 1): Alignment(reversed_order, 1.0, 0.0)}}, str(tmp_path / "p"))
    assert torch.equal(load_permutations(str(tmp_path / "p"))["t"].towards(0, 1), reversed_order)
