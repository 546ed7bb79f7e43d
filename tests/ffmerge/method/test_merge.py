"""Permuting and merging FF sublayers: Equations 3 and 4, and what they must leave unchanged."""

from itertools import combinations

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode

from ffmerge.method.groups import ANCHORS, Group, anchor_layer
from ffmerge.method.merge import Sublayer, merge, merge_in_model, merged_sublayer, permute
from ffmerge.method.permutation import Permutations, align_all_pairs
from ffmerge.method.windows import layers_of
from ffmerge.models.architectures import ARCHITECTURES, FeedForward, architecture_of
from ffmerge.models.format import GROUPS
from ffmerge.models.size import count_sublayers
from ffmerge.models.towers import Tower, towers
from merged_windows import merge_window

ROLES = ("up.weight", "up.bias", "down.weight", "down.bias")
MOVED = {"gpt2": ROLES[:3], "vit": ROLES[:3], "marian": ROLES[:3], "bert": ROLES[:3]}
MOVED |= {"llama": ("gate.weight", "up.weight", "down.weight")}  # roles that a permutation moves
TOWERS = [(model_type, name) for model_type in MOVED for name in ARCHITECTURES[model_type].towers]
TENSORS = [(*tower, role) for tower in TOWERS for role in MOVED[tower[0]]]
D_MODEL, D_FF = 8, 16

# A reordered sum of 16 float32 products differs by some 1e-7 of its terms, which are of order 1;
# four layers and their layer norms may enlarge that tenfold.
REORDERED = 1e-5


def form(layout: str = "out_in", **gate: str) -> FeedForward:
    return FeedForward(layers="h.*", up="up", down="down", layout=layout, **gate)


def generator(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def random_permutation(d: int = D_FF, seed: int = 0) -> torch.Tensor:
    return torch.randperm(d, generator=generator(seed))


def random_sublayer(seed: int, layout: str = "out_in", d_ff: int = D_FF) -> Sublayer:
    g = generator(seed)
    up, down = torch.randn(d_ff, D_MODEL, generator=g), torch.randn(D_MODEL, d_ff, generator=g)
    return {
        "up.weight": up if layout == "out_in" else up.T.contiguous(),
        "up.bias": torch.randn(d_ff, generator=g),
        "down.weight": down if layout == "out_in" else down.T.contiguous(),
        "down.bias": torch.randn(D_MODEL, generator=g),
    }


def random_permutations(n_layers: int, seed: int = 0) -> Permutations:
    pairs = combinations(range(n_layers), 2)
    return Permutations({pair: random_permutation(seed=seed + i) for i, pair in enumerate(pairs)})


def sublayer_of(model, tower: Tower, layer: int) -> Sublayer:
    names = tower.tensors(layer).items()
    return {role: model.get_parameter(name).detach().clone() for role, name in names}


@torch.no_grad()
def put(sublayer: Sublayer, model, tower: Tower, layer: int) -> None:
    for role, name in tower.tensors(layer).items():
        model.get_parameter(name).copy_(sublayer[role])


def matrix(permutation: torch.Tensor) -> torch.Tensor:
    """P with P[j, π(j)] = 1, so that row j of P W is row π(j) of W."""
    p = torch.zeros(len(permutation), len(permutation), dtype=torch.float64)
    for j, image in enumerate(permutation.tolist()):
        p[j, image] = 1
    return p


def equations_3_and_4(sublayers: list[Sublayer], p: list[torch.Tensor], layout: str) -> Sublayer:
    """The equations as printed, with permutation matrices P_i (P_0 = I for the anchor)."""
    k = len(sublayers)

    def weight(i: int, role: str) -> torch.Tensor:
        stored = sublayers[i][role].double()
        return stored if layout == "out_in" else stored.T

    up = sum(p[i] @ weight(i, "up.weight") for i in range(k)) / k
    down = sum(weight(i, "down.weight") @ p[i].T for i in range(k)) / k
    return {
        "up.weight": up if layout == "out_in" else up.T,
        "up.bias": sum(p[i] @ sublayers[i]["up.bias"].double() for i in range(k)) / k,
        "down.weight": down if layout == "out_in" else down.T,
        "down.bias": sum(sublayers[i]["down.bias"].double() for i in range(k)) / k,
    }


def assert_same(found: Sublayer, expected: Sublayer) -> None:
    """Assert equal bits once the expected float64 is rounded to float32."""
    assert found.keys() == expected.keys() == set(ROLES)
    for role in ROLES:
        assert found[role].dtype == torch.float32
        # the order of a float64 sum can move its rounding to float32 by one unit at most
        torch.testing.assert_close(found[role], expected[role].float(), rtol=1.2e-7, atol=1e-12)


# --- one sublayer permuted ------------------------------------------------------------------------


@pytest.mark.parametrize(("model_type", "name"), TOWERS)
def test_permuting_one_sublayer_leaves_the_output_unchanged(
    model_type, name, pico, random_batch, logits
):
    model, batch = pico(model_type), random_batch(model_type)
    tower = towers(model)[name]
    before = logits(model, batch)
    original = sublayer_of(model, tower, 1)
    put(permute(original, random_permutation(), tower.feed_forward), model, tower, 1)
    assert not torch.equal(sublayer_of(model, tower, 1)["up.weight"], original["up.weight"])
    torch.testing.assert_close(logits(model, batch), before, rtol=0, atol=REORDERED)


@pytest.mark.parametrize(("model_type", "name", "left_out"), TENSORS)
def test_permuting_all_but_one_of_its_tensors_does_change_the_output(
    model_type, name, left_out, pico, random_batch, logits
):
    model, batch = pico(model_type), random_batch(model_type)
    tower = towers(model)[name]
    before = logits(model, batch)
    original = sublayer_of(model, tower, 1)
    permuted = permute(original, random_permutation(), tower.feed_forward)
    put(permuted | {left_out: original[left_out]}, model, tower, 1)
    assert (logits(model, batch) - before).abs().max() > 1000 * REORDERED


@pytest.mark.parametrize("layout", ["out_in", "in_out"])
def test_new_neuron_j_is_old_neuron_permutation_of_j(layout):
    old, pi = random_sublayer(0, layout), random_permutation()
    new = permute(old, pi, form(layout))
    for j in range(D_FF):
        row = (slice(None), j) if layout == "in_out" else j
        old_row = (slice(None), pi[j]) if layout == "in_out" else pi[j]
        assert torch.equal(new["up.weight"][row], old["up.weight"][old_row])
        assert new["up.bias"][j] == old["up.bias"][pi[j]]


# --- k sublayers merged ---------------------------------------------------------------------------


@pytest.mark.parametrize("layout", ["out_in", "in_out"])
@pytest.mark.parametrize("k", [2, 3, 5])
def test_merging_is_equations_3_and_4(k, layout):
    sublayers = [random_sublayer(i, layout) for i in range(k)]
    orders = [torch.arange(D_FF), *(random_permutation(seed=i) for i in range(1, k))]
    expected = equations_3_and_4(sublayers, [matrix(pi) for pi in orders], layout)
    assert_same(merge(sublayers, orders, form(layout)), expected)


@pytest.mark.parametrize("layout", ["out_in", "in_out"])
def test_a_gate_is_merged_as_w_in_is_apart_or_in_one_map_with_it(layout):
    sublayers, gates = ([random_sublayer(seed + i, layout) for i in range(3)] for seed in (0, 10))
    orders = [torch.arange(D_FF), *(random_permutation(seed=i) for i in (1, 2))]
    p = [matrix(pi) for pi in orders]
    expected = equations_3_and_4(sublayers, p, layout)
    of_gate = equations_3_and_4(gates, p, layout)
    kinds = ("weight", "bias")

    gated = [
        s | {f"gate.{kind}": gate[f"up.{kind}"] for kind in kinds}
        for s, gate in zip(sublayers, gates, strict=True)
    ]
    merged = merge(gated, orders, form(layout, gate="gate"))
    for kind in kinds:
        found, wanted = merged.pop(f"gate.{kind}"), of_gate[f"up.{kind}"].float()
        torch.testing.assert_close(found, wanted, rtol=1.2e-7, atol=1e-12)  # as in assert_same
    assert_same(merged, expected)

    def fused(gate: Sublayer, sublayer: Sublayer) -> Sublayer:
        axes = {"weight": {"out_in": 0, "in_out": 1}[layout], "bias": 0}
        both = {
            f"up.{kind}": torch.cat([gate[f"up.{kind}"], sublayer[f"up.{kind}"]], axes[kind])
            for kind in kinds
        }
        return sublayer | both

    in_one = [fused(gate, sublayer) for gate, sublayer in zip(gates, sublayers, strict=True)]
    assert_same(merge(in_one, orders, form(layout, gate="up")), fused(of_gate, expected))


@pytest.mark.parametrize("k", [2, 3, 5, 7, 13, 36])
def test_k_copies_of_a_sublayer_merge_to_exactly_that_sublayer(k):
    sublayer = random_sublayer(0)
    merged = merge([sublayer] * k, [torch.arange(D_FF)] * k, form())
    for role in ROLES:
        assert torch.equal(merged[role], sublayer[role])


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_a_merged_sublayer_keeps_the_dtype(dtype):
    sublayers = [{r: t.to(dtype) for r, t in random_sublayer(i).items()} for i in range(2)]
    assert {t.dtype for t in merge(sublayers, [torch.arange(D_FF)] * 2, form()).values()} == {dtype}


def test_sublayers_of_different_shapes_do_not_merge():
    sublayers = [random_sublayer(0), random_sublayer(1, d_ff=D_FF + 2)]
    with pytest.raises(
        ValueError, match=r"different shapes cannot be merged.*\(16, 8\).*\(18, 8\)"
    ):
        merge(sublayers, [torch.arange(D_FF)] * 2, form())


def test_each_sublayer_needs_its_permutation():
    with pytest.raises(ValueError):
        merge([random_sublayer(0), random_sublayer(1)], [torch.arange(D_FF)], form())


# --- in a model -----------------------------------------------------------------------------------


@pytest.mark.parametrize("anchor", ANCHORS)
def test_a_window_merges_towards_its_first_middle_or_last_layer(model_type, anchor, pico):
    model, start, k = pico(model_type, n_layers=5), 1, 4
    layers, chosen = layers_of(start, k), anchor_layer(start, k, anchor)
    permutations = {name: random_permutations(5, seed=len(name)) for name in towers(model)}
    expected = {}
    for name, tower in towers(model).items():
        solved = {pair: matrix(pi) for pair, pi in permutations[name].solved.items()}
        p = [
            torch.eye(D_FF, dtype=torch.float64)
            if layer == chosen
            else solved[chosen, layer]
            if chosen < layer
            else solved[layer, chosen].T  # the inverse
            for layer in layers
        ]
        sublayers = [sublayer_of(model, tower, layer) for layer in layers]
        expected[name] = equations_3_and_4(sublayers, p, tower.feed_forward.layout)
    untouched = {name: sublayer_of(model, t, 0) for name, t in towers(model).items()}

    merge_window(model, layers, chosen, permutations)

    for name, tower in towers(model).items():
        for layer in layers:
            assert_same(sublayer_of(model, tower, layer), expected[name])
        for role, tensor in sublayer_of(model, tower, 0).items():
            assert torch.equal(tensor, untouched[name][role])


def test_several_groups_of_layers_that_need_not_be_adjacent_each_merge_by_the_equations(
    model_type, pico
):
    model = pico(model_type, n_layers=7)
    found = towers(model)
    permutations = {name: random_permutations(7, seed=len(name)) for name in found}
    *others, last = found
    groups = [Group(name, layers, 5) for name in others for layers in [(1, 3, 5)]]
    groups += [Group(last, (0, 2, 6), 2), Group(last, (1, 5), 5)]
    left = {last: [3, 4]} | {name: [0, 2, 4, 6] for name in others}
    before = {(n, i): sublayer_of(model, t, i) for n, t in found.items() for i in range(7)}
    expected = []
    for group in groups:
        solved = permutations[group.tower].solved
        p = [
            torch.eye(D_FF, dtype=torch.float64)
            if layer == group.anchor
            else matrix(solved[group.anchor, layer])
            if group.anchor < layer
            else matrix(solved[layer, group.anchor]).T
            for layer in group.layers
        ]
        layout = found[group.tower].feed_forward.layout
        sublayers = [before[group.tower, layer] for layer in group.layers]
        expected.append(equations_3_and_4(sublayers, p, layout))

    merge_in_model(model, groups, permutations)

    for group, sublayer in zip(groups, expected, strict=True):
        for layer in group.layers:
            assert_same(sublayer_of(model, found[group.tower], layer), sublayer)
    for name, layers in left.items():
        for layer in layers:
            for role, tensor in sublayer_of(model, found[name], layer).items():
                assert torch.equal(tensor, before[name, layer][role])
    removed = sum(len(group.layers) - 1 for group in groups)
    assert count_sublayers(model) == (7 * len(found), 7 * len(found) - removed)
    assert [(g["tower"], g["layers"], g["anchor"]) for g in getattr(model.config, GROUPS)] == [
        (group.tower, list(group.layers), group.anchor) for group in groups
    ]


def test_a_gated_model_without_biases_merges_by_the_equations_and_stays_tied(
    pico, random_batch, logits
):
    model, batch = pico("llama"), random_batch("llama")
    tower, permutations = towers(model)["decoder"], random_permutations(4)
    before = [sublayer_of(model, tower, layer) for layer in range(4)]
    assert set(before[0]) == {"gate.weight", "up.weight", "down.weight"}
    p = [torch.eye(D_FF, dtype=torch.float64), matrix(permutations.solved[0, 3])]
    expected = {
        "gate.weight": sum(p[n] @ before[i]["gate.weight"].double() for n, i in [(0, 0), (1, 3)]),
        "up.weight": sum(p[n] @ before[i]["up.weight"].double() for n, i in [(0, 0), (1, 3)]),
        "down.weight": sum(before[i]["down.weight"].double() @ p[n].T for n, i in [(0, 0), (1, 3)]),
    }
    output = logits(model, batch)
    merge_in_model(model, [Group("decoder", (0, 3), 0)], {"decoder": permutations})
    for layer in (0, 3):
        merged = sublayer_of(model, tower, layer)
        assert merged.keys() == expected.keys()
        for role, total in expected.items():
            found = merged[role]
            torch.testing.assert_close(found, (total / 2).float(), rtol=1.2e-7, atol=1e-12)
    assert not torch.equal(logits(model, batch), output)
    assert count_sublayers(model) == (4, 3)
    for role, name in tower.tensors(0).items():
        assert model.get_parameter(tower.tensors(3)[role]) is model.get_parameter(name)


def test_vanilla_is_the_plain_average(model_type, pico):
    model, layers = pico(model_type), [1, 2, 3]
    expected = {
        name: {
            role: torch.stack([sublayer_of(model, tower, layer)[role] for layer in layers])
            .double()
            .mean(dim=0)
            for role in ROLES
        }
        for name, tower in towers(model).items()
    }
    merge_window(model, layers, anchor=1)
    for name, tower in towers(model).items():
        assert_same(sublayer_of(model, tower, 2), expected[name])


@pytest.mark.parametrize("anchor", ANCHORS)
def test_permuted_copies_of_a_sublayer_merge_to_the_original_function(
    model_type, anchor, pico, random_batch, logits
):
    model, batch, layers = pico(model_type), random_batch(model_type), [0, 1, 2, 3]
    tokens = torch.randn(100, D_MODEL, generator=generator(1))
    permutations = {}
    for name, tower in towers(model).items():
        copies = [
            permute(
                sublayer_of(model, tower, 0), random_permutation(seed=layer), tower.feed_forward
            )
            for layer in layers
        ]
        for layer, sublayer in zip(layers, copies, strict=True):
            put(sublayer, model, tower, layer)
        features = [
            tokens @ (s["up.weight"].T if tower.feed_forward.layout == "out_in" else s["up.weight"])
            + s["up.bias"]
            for s in copies
        ]
        solved = dict(align_all_pairs(features.__getitem__, combinations(range(4), 2)))
        permutations[name] = Permutations({p: a.permutation for p, a in solved.items()})
    before = logits(model, batch)
    chosen = anchor_layer(0, 4, anchor)
    anchors = {name: sublayer_of(model, tower, chosen) for name, tower in towers(model).items()}

    merge_window(model, layers, chosen, permutations)

    for name, tower in towers(model).items():
        for role, tensor in sublayer_of(model, tower, 3).items():
            assert torch.equal(tensor, anchors[name][role])  # every copy is the anchor again
    torch.testing.assert_close(logits(model, batch), before, rtol=0, atol=REORDERED)


def test_permuted_copies_do_not_survive_a_vanilla_merge(pico, random_batch, logits):
    model, batch = pico("gpt2"), random_batch("gpt2")
    tower = towers(model)["decoder"]
    for layer in range(4):
        copy = permute(
            sublayer_of(model, tower, 0), random_permutation(seed=layer), tower.feed_forward
        )
        put(copy, model, tower, layer)
    before = logits(model, batch)
    merge_window(model, [0, 1, 2, 3], anchor=0)
    assert (logits(model, batch) - before).abs().max() > 1000 * REORDERED


def test_a_tower_without_permutations_is_an_error_and_not_a_vanilla_merge(pico):
    with pytest.raises(KeyError, match="decoder"):
        merge_window(pico("gpt2"), [0, 1], anchor=0, permutations={})


def test_weights_from_a_file_merge_as_those_in_a_model(pico):
    model = pico("gpt2")
    tower = towers(model)["decoder"]
    permutations = random_permutations(4)
    from_file = merged_sublayer(
        model.state_dict().__getitem__, tower, Group("decoder", (1, 2), 2), permutations
    )
    merge_window(model, [1, 2], anchor=2, permutations={"decoder": permutations})
    for role, tensor in sublayer_of(model, tower, 1).items():
        assert torch.equal(tensor, from_file[role])


@pytest.mark.parametrize("vanilla", [False, True])
def test_sublayers_of_different_widths_are_named_by_their_layers(vanilla, pico):
    model, wider = pico("gpt2"), pico("gpt2", d_ff=D_FF + 2)
    for layer in (1, 3):
        model.transformer.h[layer].mlp = wider.transformer.h[layer].mlp
    before = dict(model.named_parameters())
    permutations = None if vanilla else {"decoder": random_permutations(4)}
    with pytest.raises(ValueError) as error:
        merge_window(model, [0, 1, 2, 3], anchor=0, permutations=permutations)
    assert str(error.value) == (
        "FF sublayers of different widths cannot be merged: in the decoder, d_ff is "
        "16 in [0, 2]; 18 in [1, 3]. Choose layers of one width"
    )
    assert all(tensor is before[name] for name, tensor in model.named_parameters())
    merge_window(model, [1, 3], anchor=3)  # as the message says
    assert count_sublayers(model) == (4, 3)


@pytest.mark.parametrize("layout", ["out_in", "in_out"])
def test_weights_on_a_gpu_merge_by_permutations_that_are_not(layout):
    # A fake tensor has a device but no values, and operations refuse to mix devices as on a GPU.
    sublayers, orders = [random_sublayer(i, layout) for i in range(2)], [torch.arange(D_FF)] * 2
    with FakeTensorMode(allow_non_fake_inputs=True):
        on_gpu = [
            {role: torch.empty(tensor.shape, device="cuda") for role, tensor in sublayer.items()}
            for sublayer in sublayers
        ]
        merged = merge(on_gpu, orders, form(layout))
    assert {tensor.device.type for tensor in merged.values()} == {"cuda"}


def test_an_architecture_that_is_not_in_the_table_is_an_error_that_names_those_that_are():
    known = ", ".join(sorted(ARCHITECTURES))
    assert {"gpt2", "marian", "vit"} <= set(ARCHITECTURES)
    with pytest.raises(ValueError, match=rf"'resnet' has no entry .*known: {known}\)"):
        architecture_of({"model_type": "resnet"})


def test_a_merged_group_merges_again_as_a_whole_or_not_at_all(pico):
    model = pico("gpt2")
    merge_window(model, [1, 2], 1)
    weight = model.get_submodule("transformer.h.1.mlp.c_fc").weight
    with pytest.raises(ValueError, match=r"layers \[1, 2\] of the decoder share .* not \[0, 1\]"):
        merge_window(model, [0, 1], 0)
    assert model.get_submodule("transformer.h.1.mlp.c_fc").weight is weight
    merge_window(model, [0, 1, 2], 0)
    assert [entry["layers"] for entry in getattr(model.config, GROUPS)] == [[0, 1, 2]]
    assert (
        len({id(model.get_submodule(f"transformer.h.{i}.mlp.c_fc").weight) for i in range(3)}) == 1
    )
