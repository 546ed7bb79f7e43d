"""The table of architectures is right about every family."""

import json
from dataclasses import replace
from itertools import count
from pathlib import Path

import pytest
import torch
import yaml
from safetensors.torch import load_file, save_file
from torch import nn

from families import (
    D_MODEL,
    FAMILIES,
    FF,
    VOCABULARY,
    Family,
    batch_of,
    in_short,
    output_of,
    pico,
)
from ffmerge.method.features import SUBLAYERS, Features, collect_features, collect_outputs
from ffmerge.method.groups import Group
from ffmerge.method.layer_drop import drop_on_disk, new_name, without_layers
from ffmerge.method.merge import Sublayer, merge_in_model, permute
from ffmerge.method.merge_on_disk import merge_on_disk
from ffmerge.method.permutation import Permutations, align_all_pairs, inverse
from ffmerge.models import checkpoint
from ffmerge.models.architectures import ARCHITECTURES, Architecture
from ffmerge.models.expanded import save_expanded
from ffmerge.models.format import OWN_ENTRY, WEIGHTS
from ffmerge.models.pretrained import load_whole
from ffmerge.models.size import count_parameters
from ffmerge.models.tied_model import become_tied, tied_model_class
from ffmerge.models.towers import Tower, towers

# A reordered sum of some 16 float32 products differs by 1e-7 of its terms; three or four layers,
# their norms and a head enlarge that, but not a hundredfold. Outputs are of order 1.
REORDERED = 1e-5
N_TOKENS = 12  # as many as three images of 4 patches have; texts have more


def those_with(what: str) -> list[str]:
    """Families whose towers all have this field in the table."""
    forms = {name: ARCHITECTURES[family.model_type].towers for name, family in FAMILIES.items()}
    return [
        name
        for name, of_towers in forms.items()
        if all(getattr(form, what) for alternatives in of_towers.values() for form in alternatives)
    ]


WITH_ATTENTION = those_with("attention")


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    """Such small models only wait for a second thread."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(params=FAMILIES)
def each(request) -> Family:
    """Every family, in `make test`, too."""
    return FAMILIES[request.param]


@pytest.fixture(params=in_short())
def family(request) -> Family:
    """Some families in `make test`, every one in `make test-all`."""
    return FAMILIES[request.param]


@pytest.fixture(params=in_short(those_with("count")))
def droppable(request) -> Family:
    return FAMILIES[request.param]


def sublayer_of(model, tower: Tower, layer: int) -> Sublayer:
    names = tower.tensors(layer).items()
    return {role: model.get_parameter(name).detach().clone() for role, name in names}


@torch.no_grad()
def put(sublayer: Sublayer, model, tower: Tower, layer: int) -> None:
    for role, name in tower.tensors(layer).items():
        model.get_parameter(name).copy_(sublayer[role])


def random_permutation(ff: FF) -> torch.Tensor:
    permutation = torch.randperm(ff.width, generator=torch.Generator().manual_seed(1))
    assert not torch.equal(permutation, torch.arange(ff.width))
    return permutation


def groups_of(family: Family) -> list[Group]:
    """Layers 0 and 2 of each tower, which have the same width and are not adjacent."""
    return [Group(name, (0, 2), 0) for name in family.towers]


def merged(family: Family):
    model = pico(family)
    merge_in_model(model, groups_of(family), None)
    return model


def tensor_bytes(directory: Path) -> int:
    """Size of a file without its header."""
    content = (directory / WEIGHTS).read_bytes()
    return len(content) - 8 - int.from_bytes(content[:8], "little")


def features(model, family: Family, file: Path, aligned="pre_activation") -> Features:
    collect_features(model, [batch_of(family)], N_TOKENS, file, aligned=aligned)
    return Features(file)


# --- the table ------------------------------------------------------------------------------------


def test_every_architecture_has_its_pico_model():
    alone = {f"{pair}_{side}_model" for pair in ("clip", "siglip") for side in ("text", "vision")}
    assert {family.model_type for family in FAMILIES.values()} == set(ARCHITECTURES) - alone


def test_an_entry_is_the_same_from_plain_values():
    for architecture in ARCHITECTURES.values():
        plain = json.loads(json.dumps(architecture.entry()))
        assert Architecture.from_entry(plain) == architecture


def test_towers_have_the_layers_and_sublayers_that_were_configured(each):
    model = pico(each)
    assert model.config.model_type == each.model_type
    found = towers(model)
    assert {name: len(tower) for name, tower in found.items()} == {
        name: ff.n_layers for name, ff in each.towers.items()
    }
    for name, ff in each.towers.items():
        sublayer = sublayer_of(model, found[name], 0)
        assert sum(tensor.numel() for tensor in sublayer.values()) == ff.n_parameters


@pytest.mark.parametrize("pair", ["clip", "siglip"])
@pytest.mark.parametrize("side", ["text", "vision"])
def test_one_tower_of_a_pair_is_found_alone(pair, side):
    import transformers

    name = {"clip": "CLIP", "siglip": "Siglip"}[pair]
    model_class = getattr(transformers, f"{name}{side.title()}Model")
    config = model_class.config_class(**FAMILIES[pair].settings[f"{side}_config"])
    (tower,) = towers(model_class(config)).values()
    assert len(tower) == FAMILIES[pair].towers[side].n_layers


# --- permuting and merging ------------------------------------------------------------------------


def test_permuting_one_sublayer_leaves_the_output_unchanged(each):
    model, batch = pico(each), batch_of(each)
    before = output_of(model, batch)
    for name, tower in towers(model).items():
        own = sublayer_of(model, tower, 1)
        permuted = permute(own, random_permutation(each.towers[name]), tower.feed_forward)
        put(permuted, model, tower, 1)
        torch.testing.assert_close(output_of(model, batch), before, rtol=0, atol=REORDERED)
        # and not because nothing changes: moving W_in without W_out gives another function
        put(own | {r: t for r, t in permuted.items() if r[:4] != "down"}, model, tower, 1)
        assert (output_of(model, batch) - before).abs().max() > 100 * REORDERED
        put(own, model, tower, 1)


def test_copies_merge_to_themselves(family):
    model = pico(family)
    found = towers(model)
    own = {name: sublayer_of(model, tower, 0) for name, tower in found.items()}
    for name, tower in found.items():
        for layer in (1, 2):
            put(own[name], model, tower, layer)
    copies = output_of(model, batch_of(family))
    merge_in_model(model, [Group(name, (0, 1, 2), 1) for name in found], None)
    for name, tower in found.items():
        for layer in (0, 1, 2):
            for role, tensor in sublayer_of(model, tower, layer).items():
                assert torch.equal(tensor, own[name][role])
    assert torch.equal(output_of(model, batch_of(family)), copies)


def test_a_permuted_copy_is_aligned_by_its_features(family, tmp_path):
    model = pico(family)
    found = towers(model)
    own = {name: sublayer_of(model, tower, 1) for name, tower in found.items()}
    before = features(model, family, tmp_path / "before")
    for name, tower in found.items():
        permutation = random_permutation(family.towers[name])
        put(permute(own[name], permutation, tower.feed_forward), model, tower, 1)
    after = features(model, family, tmp_path / "after")  # the inputs are the same
    solved = {}
    for name, tower in found.items():
        pair = (before.layer(name, 1), after.layer(name, 1))
        ((_, alignment),) = align_all_pairs(lambda i, pair=pair: pair[i], [(0, 1)])
        assert alignment.aligned == pytest.approx(1, abs=1e-5)  # of float32 features
        expected = inverse(random_permutation(family.towers[name]))
        assert torch.equal(alignment.permutation, expected)
        solved[name] = Permutations({(0, 1): alignment.permutation})
        put(own[name], model, tower, 0)
    merge_in_model(model, [Group(name, (0, 1), 0) for name in found], solved)
    for name, tower in found.items():
        for role, tensor in sublayer_of(model, tower, 1).items():
            assert torch.equal(tensor, own[name][role])


def test_parameters_fall_by_the_sublayers_that_are_merged_away(each):
    model = pico(each)
    left = count_parameters(model)
    for group in groups_of(each):
        merge_in_model(model, [group], None)
        left -= each.towers[group.tower].n_parameters
        assert count_parameters(model) == left


# --- on disk --------------------------------------------------------------------------------------


def test_a_saved_merged_model_is_smaller_and_gives_the_same_output_bit_for_bit(family, tmp_path):
    model, batch = merged(family), batch_of(family)
    checkpoint.save(pico(family), tmp_path / "whole")
    checkpoint.save(model, tmp_path / "merged")
    removed = sum(4 * ff.n_parameters for ff in family.towers.values())
    assert tensor_bytes(tmp_path / "whole") - tensor_bytes(tmp_path / "merged") == removed
    loaded = checkpoint.load(tmp_path / "merged")
    assert isinstance(loaded, type(model))
    assert count_parameters(loaded) == count_parameters(model)
    assert torch.equal(output_of(loaded, batch), output_of(model, batch))


def test_merging_on_disk_gives_the_model_that_merging_in_memory_gives(each, tmp_path):
    checkpoint.save(pico(each), tmp_path / "base")
    merge_on_disk(tmp_path / "base", groups_of(each), None, tmp_path / "merged")
    loaded, batch = checkpoint.load(tmp_path / "merged"), batch_of(each)
    assert torch.equal(output_of(loaded, batch), output_of(merged(each), batch))


def test_a_checkpoint_of_transformers_becomes_one_of_ours(family, tmp_path):
    """Its file may have older names, by which a tower is not found."""
    model, batch = pico(family), batch_of(family)
    model.save_pretrained(tmp_path / "theirs")
    checkpoint.save(load_whole(tmp_path / "theirs"), tmp_path / "ours")
    assert torch.equal(
        output_of(checkpoint.load(tmp_path / "ours"), batch), output_of(model, batch)
    )


def test_a_merged_model_becomes_an_ordinary_checkpoint_tied_or_expanded(family, tmp_path):
    model, batch = merged(family), batch_of(family)
    before, stock = output_of(model, batch), type(model)
    pico(family).save_pretrained(tmp_path / "whole")
    become_tied(model, model.config.ffmerge_groups)
    model.save_pretrained(tmp_path / "tied")
    removed = sum(4 * ff.n_parameters for ff in family.towers.values())
    assert tensor_bytes(tmp_path / "whole") - tensor_bytes(tmp_path / "tied") == removed
    loaded = tied_model_class(stock).from_pretrained(tmp_path / "tied")
    assert torch.equal(output_of(loaded, batch), before)
    assert count_parameters(loaded) == count_parameters(model)
    save_expanded(model, tmp_path / "expanded")
    assert tensor_bytes(tmp_path / "expanded") == tensor_bytes(tmp_path / "whole")
    assert torch.equal(output_of(stock.from_pretrained(tmp_path / "expanded"), batch), before)


@pytest.mark.parametrize("name", ["t5, gated", "mt5"])
def test_a_head_that_is_stored_beside_the_embeddings_stays_untied(name, tmp_path):
    """As in T5 v1.1, Flan-T5 and mT5, whose configuration classes say that it is tied."""
    family = FAMILIES[name]
    pico(family).save_pretrained(tmp_path / "theirs")
    file, config = tmp_path / "theirs" / WEIGHTS, tmp_path / "theirs/config.json"
    head = torch.randn(VOCABULARY, D_MODEL, generator=torch.Generator().manual_seed(2))
    save_file(load_file(file) | {"lm_head.weight": head}, file, metadata={"format": "pt"})
    config.write_text(json.dumps(json.loads(config.read_text()) | {"tie_word_embeddings": False}))
    model, batch = load_whole(tmp_path / "theirs"), batch_of(family)
    assert torch.equal(model.lm_head.weight, head)
    checkpoint.save(model, tmp_path / "ours")
    assert torch.equal(
        output_of(checkpoint.load(tmp_path / "ours"), batch), output_of(model, batch)
    )
    merge_on_disk(tmp_path / "ours", groups_of(family), None, tmp_path / "merged")
    drop_on_disk(tmp_path / "ours", [1], tmp_path / "dropped")
    shallower = without_layers(model, [1])
    assert torch.equal(
        output_of(checkpoint.load(tmp_path / "dropped"), batch), output_of(shallower, batch)
    )
    merge_in_model(model, groups_of(family), None)
    merged, stock = output_of(model, batch), type(model)
    become_tied(model, model.config.ffmerge_groups)
    model.save_pretrained(tmp_path / "tied")
    save_expanded(model, tmp_path / "expanded")
    for found in (
        model,
        checkpoint.load(tmp_path / "merged"),
        tied_model_class(stock).from_pretrained(tmp_path / "tied"),
        stock.from_pretrained(tmp_path / "expanded"),
    ):
        assert torch.equal(output_of(found, batch), merged)
        assert torch.equal(found.lm_head.weight, head)
        assert not torch.equal(found.shared.weight, head)


# --- features -------------------------------------------------------------------------------------


@pytest.mark.parametrize("aligned", ["pre_activation", "up", "neuron"])
def test_features_are_what_the_maps_give_on_real_tokens(family, aligned, tmp_path):
    model, batch = pico(family), batch_of(family)
    found = towers(model)
    taken: dict[str, torch.Tensor] = {}
    for name, tower in found.items():
        for which in ("up", "down"):

            def keep(_module, inputs, key=f"{name}.{which}"):
                taken[key] = inputs[0]

            model.get_submodule(tower.module(1, which)).register_forward_pre_hook(keep)
    output_of(model, batch)
    collected = features(model, family, tmp_path / "f", aligned)
    for name, tower in found.items():
        form, ff = tower.feed_forward, family.towers[name]
        sublayer = sublayer_of(model, tower, 1)
        if aligned == "neuron":
            values = taken[f"{name}.down"]
        else:
            which = "gate" if aligned == "pre_activation" and form.gate and not form.fused else "up"
            weight = sublayer[f"{which}.weight"]
            weight = weight.T if form.layout == "in_out" else weight
            values = nn.functional.linear(
                taken[f"{name}.up"], weight, sublayer.get(f"{which}.bias")
            )
            if form.fused:
                values = values[..., : ff.width] if aligned != "up" else values[..., ff.width :]
        mask = {
            "decoder": batch.get("decoder_attention_mask", batch.get("attention_mask")),
            "vision": None,
        }.get(name, batch.get("attention_mask"))
        rows = values.reshape(-1, ff.width)
        rows = rows if mask is None else rows[mask.flatten().bool()]
        assert collected.layer(name, 1).shape == (N_TOKENS, ff.width)
        torch.testing.assert_close(collected.layer(name, 1), rows[:N_TOKENS], rtol=0, atol=1e-5)


@pytest.mark.parametrize("name", in_short(n for n, it in FAMILIES.items() if it.is_gated))
def test_the_gate_is_the_map_that_goes_through_the_nonlinearity(name, tmp_path):
    """A neuron, φ(gate)·up, changes its sign with W_in but not with the gate."""
    family = FAMILIES[name]
    for name, ff in family.towers.items():
        neuron = {}
        for negated in ("nothing", "up", "gate"):
            model = pico(family)
            tower = towers(model)[name]
            sublayer = sublayer_of(model, tower, 0)
            for role, tensor in sublayer.items():
                if tower.feed_forward.fused and role.startswith("up."):
                    gate, up = tensor.split(ff.width)
                    half = {"up": [gate, -up], "gate": [-gate, up], "nothing": [gate, up]}
                    sublayer[role] = torch.cat(half[negated])
                elif role.startswith(negated):
                    sublayer[role] = -tensor
            put(sublayer, model, tower, 0)
            neuron[negated] = features(model, family, tmp_path / f"{name}-{negated}", "neuron")
        before = neuron["nothing"].layer(name, 0)
        assert torch.equal(neuron["up"].layer(name, 0), -before)
        assert not torch.allclose(neuron["gate"].layer(name, 0), -before)


@pytest.mark.parametrize("name", in_short(WITH_ATTENTION))
def test_outputs_of_both_sublayers_can_be_collected_for_cka(name, tmp_path):
    family = FAMILIES[name]
    collect_outputs(pico(family), [batch_of(family)], SUBLAYERS, N_TOKENS, tmp_path / "o")
    for sublayer in SUBLAYERS:
        outputs = Features(tmp_path / "o", sublayer)
        assert outputs.towers() == {name: ff.n_layers for name, ff in family.towers.items()}
        for name in family.towers:
            assert outputs.layer(name, 1).shape == (N_TOKENS, D_MODEL)


def test_attention_in_windows_is_not_collected(tmp_path):
    family = FAMILIES["swin"]
    with pytest.raises(ValueError, match="has no attention in the table of architectures"):
        collect_outputs(pico(family), [batch_of(family)], SUBLAYERS, N_TOKENS, tmp_path / "o")


@pytest.mark.parametrize("name", in_short(WITH_ATTENTION))
def test_the_attention_of_a_tower_is_self_attention(name, tmp_path):
    """In the first layer it reads other positions, but not the FF sublayer or an encoder."""
    family = FAMILIES[name]
    numbers = count()

    def attention(model, batch: dict) -> dict[str, torch.Tensor]:
        file = tmp_path / f"{next(numbers)}"  # tensors that were read stay mapped to their file
        collect_outputs(model, [batch], {None: "attention"}, N_TOKENS, file)
        return {name: Features(file).layer(name, 0) for name in family.towers}

    model, batch = pico(family), batch_of(family)
    before = attention(model, batch)
    for name in family.towers:
        inputs, elsewhere = read_by(family, name)
        changed = batch[inputs].clone()
        changed[0].view(-1)[0] += 1
        after = attention(model, batch | {inputs: changed})
        assert (after[name][elsewhere] - before[name][elsewhere]).abs().max() > 1e-4  # of order 1
        for other in set(family.towers) - {name}:
            if (name, other) == ("encoder", "decoder") or "decoder" not in family.towers:
                assert torch.equal(after[other], before[other])
        tower = towers(model)[name]
        put({r: 2 * t for r, t in sublayer_of(model, tower, 0).items()}, model, tower, 0)
        assert torch.equal(attention(model, batch)[name], before[name])


def read_by(family: Family, tower: str) -> tuple[str, int]:
    """The batch's key that a tower reads, and a position that its first number does not affect.

    Whisper's convolutions spread that number over two positions of six. In an image it is in the
    first patch, which may follow a class token.
    """
    if tower == "decoder" and "encoder" in family.towers:
        return "decoder_input_ids", 1
    if family.batch.startswith("sound"):
        return "input_features", 5
    return (
        ("pixel_values", 2) if tower == "vision" or family.batch == "images" else ("input_ids", 1)
    )


# --- layer drop -----------------------------------------------------------------------------------


def with_layers_passed_over(model, layers: list[int]):
    """The model with these layers replaced by the identity."""

    def hook(_module, inputs, keywords, output):
        given = inputs[0] if inputs else keywords["hidden_states"]
        return (given, *output[1:]) if isinstance(output, tuple) else given

    for tower in towers(model).values():
        for layer in layers:
            model.get_submodule(tower.paths[layer]).register_forward_hook(hook, with_kwargs=True)
    return model


@pytest.mark.parametrize("layers", [[0], [1]], ids=str)
def test_a_model_without_layers_is_another_one_and_comes_back_from_disk(
    droppable, layers, tmp_path
):
    model, batch = pico(droppable), batch_of(droppable)
    shallower, found = without_layers(model, layers), towers(model)
    names = [new for name in model.state_dict() if (new := new_name(name, found, layers))]
    assert sorted(names) == sorted(shallower.state_dict())  # no name twice
    assert {name: len(tower) for name, tower in towers(shallower).items()} == {
        name: ff.n_layers - 1 for name, ff in droppable.towers.items()
    }
    expected = output_of(shallower, batch)
    assert (expected - output_of(model, batch)).abs().max() > 1e-3  # of order 1
    checkpoint.save(model, tmp_path / "base")
    drop_on_disk(tmp_path / "base", layers, tmp_path / "dropped")
    assert torch.equal(output_of(checkpoint.load(tmp_path / "dropped"), batch), expected)
    checkpoint.save(shallower, tmp_path / "saved")
    assert torch.equal(output_of(checkpoint.load(tmp_path / "saved"), batch), expected)
    assert torch.equal(output_of(with_layers_passed_over(model, layers), batch), expected)


# --- layers of different widths -------------------------------------------------------------------


def test_swin_s_layers_merge_within_a_stage_only():
    model = pico(FAMILIES["swin"])
    with pytest.raises(ValueError, match=r"in the encoder, d_ff is 16 in \[0, 2\]; 32 in \[3\]"):
        merge_in_model(model, [Group("encoder", (0, 2, 3), 0)], None)
    merge_in_model(model, [Group("encoder", (0, 1, 2), 0)], None)


def test_a_layer_of_another_width_is_named(tmp_path):
    model = pico(FAMILIES["llama"])
    wider = pico(replace(FAMILIES["llama"], settings=_of_width(24)))
    model.model.layers[1].mlp = wider.model.layers[1].mlp
    checkpoint.save(model, tmp_path / "base")
    found = r"in the decoder, d_ff is 16 in \[0\]; 24 in \[1\]\. Choose layers of one width"
    with pytest.raises(ValueError, match=found):
        merge_in_model(model, [Group("decoder", (0, 1), 0)], None)
    with pytest.raises(ValueError, match=found):
        merge_on_disk(tmp_path / "base", [Group("decoder", (0, 1), 0)], None, tmp_path / "merged")
    assert not (tmp_path / "merged").exists()
    merge_in_model(model, [Group("decoder", (0, 2), 0)], None)


def _of_width(d_ff: int) -> dict:
    return FAMILIES["llama"].settings | {"intermediate_size": d_ff}


# --- an architecture of one's own -----------------------------------------------------------------

STARCODER2 = """
prefix: model
towers:
  decoder:
    layers: layers.*
    up: mlp.c_fc
    down: mlp.c_proj
    attention: self_attn.o_proj
"""
XGLM = {
    "prefix": "model",
    "towers": {
        "decoder": {
            "layers": "layers.*",
            "up": "fc1",
            "down": "fc2",
            "attention": "self_attn.out_proj",
            "count": "num_layers",
        }
    },
}
OWN = {
    "starcoder2": (
        FAMILIES["bert"].settings | {"num_key_value_heads": 1},
        "Starcoder2ForCausalLM",
        yaml.safe_load(STARCODER2),
    ),
    "xglm": (
        {
            "vocab_size": 50,
            "d_model": D_MODEL,
            "ffn_dim": 16,
            "num_layers": 3,
            "attention_heads": 2,
            "max_position_embeddings": 32,
            "pad_token_id": 0,
            "bos_token_id": 1,
            "eos_token_id": 1,
            "decoder_start_token_id": 1,
        },
        "XGLMForCausalLM",
        XGLM,
    ),
}


@pytest.fixture(params=OWN)
def own(request) -> tuple[Family, dict]:
    """A family outside the table, and its entry."""
    settings, model_class, entry = OWN[request.param]
    assert request.param not in ARCHITECTURES
    return Family(request.param, model_class, settings, {"decoder": FF(16)}), entry


def test_the_error_for_an_architecture_outside_the_table_says_what_to_add(own, tmp_path):
    family, _ = own
    model = pico(family)
    checkpoint.save(model, tmp_path / "base")
    told = (
        rf"'{family.model_type}' has no entry .*known: .*llama.*; add one to the model's "
        r"config\.json under ffmerge_architecture: prefix and towers, .* its layers, up and down"
    )
    for attempt in (
        lambda: towers(model),
        lambda: merge_on_disk(tmp_path / "base", [], None, tmp_path / "merged"),
        lambda: checkpoint.load(tmp_path / "base"),
    ):
        with pytest.raises(ValueError, match=told):
            attempt()


def test_an_entry_in_the_configuration_is_enough(own, tmp_path):
    family, entry = own
    model, batch, group = pico(family), batch_of(family), Group("decoder", (0, 2), 0)
    checkpoint.save(model, tmp_path / "base")
    config = tmp_path / "base/config.json"
    config.write_text(json.dumps(json.loads(config.read_text()) | {OWN_ENTRY: entry}))
    base = checkpoint.load(tmp_path / "base")
    assert torch.equal(output_of(base, batch), output_of(model, batch))
    collected = features(base, family, tmp_path / "features")
    pairs = align_all_pairs(lambda layer: collected.layer("decoder", layer), [(0, 2)])
    permutations = {"decoder": Permutations({pair: found.permutation for pair, found in pairs})}
    merge_on_disk(tmp_path / "base", [group], permutations, tmp_path / "merged")
    loaded = checkpoint.load(tmp_path / "merged")
    assert count_parameters(model) - count_parameters(loaded) == FF(16).n_parameters
    merge_in_model(base, [group], permutations)
    assert torch.equal(output_of(loaded, batch), output_of(base, batch))
    drop_on_disk(tmp_path / "base", [1], tmp_path / "dropped")
    expected = output_of(with_layers_passed_over(checkpoint.load(tmp_path / "base"), [1]), batch)
    assert torch.equal(output_of(checkpoint.load(tmp_path / "dropped"), batch), expected)


def test_an_entry_that_does_not_fit_names_what_it_looked_for():
    model = pico(FAMILIES["llama"])
    setattr(model.config, OWN_ENTRY, XGLM)
    with pytest.raises(ValueError, match=r"no layer of the model has the modules layers\.\*\.fc1"):
        towers(model)


# --- LLM.int8() -----------------------------------------------------------------------------------


def test_an_int8_model_keeps_its_ties_and_comes_back(family, tmp_path):
    from ffmerge.method import quantization  # bitsandbytes: seconds, once

    model, batch = merged(family), batch_of(family)
    before = output_of(model, batch)
    quantized = quantization.quantize(model)
    found = output_of(quantized, batch)
    # between 0.002 and 0.12 here; unrelated outputs give about √2
    assert (found - before).norm() / before.norm() < 0.25
    quantization.save(quantized, tmp_path / "m")
    loaded = quantization.load(tmp_path / "m")
    assert torch.equal(output_of(loaded, batch), found)
    for tower in towers(loaded).values():
        for places in tower.shared_modules((0, 2)):
            first, second = map(loaded.get_submodule, places)
            assert first is second
            assert first.weight.dtype == torch.int8
