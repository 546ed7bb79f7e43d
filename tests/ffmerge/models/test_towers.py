"""Towers are located by the names of a model's tensors."""

from types import SimpleNamespace

import pytest
from torch import nn

from ffmerge.method.groups import Group
from ffmerge.method.merge import merge_in_model
from ffmerge.method.merge_on_disk import towers_in
from ffmerge.models import checkpoint
from ffmerge.models.architectures import ARCHITECTURES, Architecture, FeedForward
from ffmerge.models.format import OWN_ENTRY
from ffmerge.models.size import count_sublayers
from ffmerge.models.towers import attribute, locate_towers, towers

GATED = {"layers": "layers.*", "gate": "mlp.gate", "up": "mlp.up", "down": "mlp.down"}
PLAIN = {"layers": "layers.*", "up": "mlp.up", "down": "mlp.down"}


def names(model: nn.Module) -> list[str]:
    return [name for name, _ in model.named_parameters(remove_duplicate=False)]


def linear_maps(prefix: str, *maps: str) -> list[str]:
    return [f"{prefix}.{name}.{kind}" for name in maps for kind in ("weight", "bias")]


# --- where the layers are -------------------------------------------------------------------------

LAYERS = {  # the name of a layer of each tower, in a model with a head
    "gpt2": {"decoder": "transformer.h.{}"},
    "llama": {"decoder": "model.layers.{}"},
    "bert": {"encoder": "bert.encoder.layer.{}"},
    "vit": {"encoder": "vit.layers.{}"},
    "marian": {"encoder": "model.encoder.layers.{}", "decoder": "model.decoder.layers.{}"},
}


@pytest.mark.parametrize("model_type", LAYERS)
def test_layers_are_found_with_and_without_a_head(model_type, pico):
    model = pico(model_type, n_layers=12)  # 10 comes after 9, not after 1
    prefix = ARCHITECTURES[model_type].prefix
    with_head, without = towers(model), towers(model.get_submodule(prefix))
    assert list(with_head) == list(without) == list(LAYERS[model_type])
    for name, path in LAYERS[model_type].items():
        paths = tuple(path.format(layer) for layer in range(12))
        assert with_head[name].paths == paths
        assert without[name].paths == tuple(path.removeprefix(f"{prefix}.") for path in paths)
        assert len(with_head[name]) == len(without[name]) == 12


@pytest.mark.parametrize("model_type", LAYERS)
def test_a_file_has_the_towers_of_its_model(model_type, pico, tmp_path):
    model = pico(model_type)
    checkpoint.save(model, tmp_path)
    found, expected = towers_in(tmp_path), towers(model)
    assert list(found) == list(expected)
    for name, tower in found.items():
        assert tower.paths == expected[name].paths
        assert tower.feed_forward is expected[name].feed_forward
        assert tower.tensors(2) == expected[name].tensors(2)


@pytest.mark.parametrize("side", ["encoder", "decoder"])
def test_half_an_encoder_decoder_has_one_tower(side, pico):
    there = [name for name in names(pico("marian")) if f".{side}." in name]
    found = locate_towers(ARCHITECTURES["marian"], there)
    assert list(found) == [side]
    assert found[side].paths == tuple(f"model.{side}.layers.{layer}" for layer in range(4))


def test_a_model_without_any_of_the_layers_is_an_error_that_names_the_modules_looked_for(pico):
    with pytest.raises(
        ValueError,
        match=r"modules encoder\.layers\.\*\.fc1 or decoder\.layers\.\*\.fc1$",
    ):
        locate_towers(ARCHITECTURES["marian"], names(pico("vit")))


# --- a sublayer's tensors -------------------------------------------------------------------------


def test_tensors_are_those_that_are_there(pico):
    at = "transformer.h.2.mlp"
    assert towers(pico("gpt2"))["decoder"].tensors(2) == {
        "up.weight": f"{at}.c_fc.weight",
        "up.bias": f"{at}.c_fc.bias",
        "down.weight": f"{at}.c_proj.weight",
        "down.bias": f"{at}.c_proj.bias",
    }
    at = "model.layers.1.mlp"
    assert towers(pico("llama"))["decoder"].tensors(1) == {
        "gate.weight": f"{at}.gate_proj.weight",
        "up.weight": f"{at}.up_proj.weight",
        "down.weight": f"{at}.down_proj.weight",
    }


def test_every_tensor_and_map_of_a_sublayer_is_in_the_model(pico):
    for model_type in LAYERS:
        model = pico(model_type)
        for tower in towers(model).values():
            for which in (*tower.feed_forward.maps, "attention"):
                assert hasattr(model.get_submodule(tower.module(3, which)), "weight")
            assert set(tower.tensors(3).values()) <= set(names(model))


def test_maps_that_may_share_weights_are_listed_for_each_map(pico):
    tower = towers(pico("llama"))["decoder"]
    assert tower.shared_modules((3, 1)) == [
        ["model.layers.3.mlp.gate_proj", "model.layers.1.mlp.gate_proj"],
        ["model.layers.3.mlp.up_proj", "model.layers.1.mlp.up_proj"],
        ["model.layers.3.mlp.down_proj", "model.layers.1.mlp.down_proj"],
    ]


def test_a_map_that_the_table_does_not_name_is_an_error_that_names_the_layer(pico):
    with pytest.raises(ValueError, match=r"^vit\.layers\.3 has no gate in the table"):
        towers(pico("vit"))["encoder"].module(3, "gate")


def test_a_form_is_chosen_by_the_maps_that_are_there():
    forms = [GATED | {"up": "mlp.up_of_gated"}, PLAIN]
    architecture = Architecture.from_entry({"towers": {"decoder": forms}})
    plain = linear_maps("layers.0", "mlp.up", "mlp.down")
    gated = linear_maps("layers.0", "mlp.gate", "mlp.up_of_gated", "mlp.down")
    assert locate_towers(architecture, plain)["decoder"].feed_forward.maps == ("up", "down")
    assert locate_towers(architecture, gated)["decoder"].feed_forward.maps == ("gate", "up", "down")


def test_of_two_forms_that_fit_the_first_is_taken():
    forms = [PLAIN, GATED]
    both = linear_maps("layers.0", "mlp.gate", "mlp.up", "mlp.down")
    for first, second in (forms, forms[::-1]):
        architecture = Architecture.from_entry({"towers": {"decoder": [first, second]}})
        assert locate_towers(architecture, both)["decoder"].feed_forward == FeedForward(**first)


def test_stages_of_layers_are_one_tower_in_the_order_of_their_numbers():
    entry = {"towers": {"encoder": PLAIN | {"layers": "stages.*.blocks.*", "count": None}}}
    there = [(0, 0), (0, 1), (1, 0), (1, 9), (1, 10), (10, 0)]
    paths = [f"stages.{stage}.blocks.{block}" for stage, block in there]
    unordered = [name for path in paths[::-1] for name in linear_maps(path, "mlp.up", "mlp.down")]
    found = locate_towers(Architecture.from_entry(entry), unordered)
    assert found["encoder"].paths == tuple(paths)


def test_a_value_of_a_nested_configuration_is_found_by_its_path():
    config = SimpleNamespace(text_config=SimpleNamespace(num_hidden_layers=7), n_layer=3)
    assert attribute(config, "text_config.num_hidden_layers") == 7
    assert attribute(config, "n_layer") == 3


# --- an entry of one's own ------------------------------------------------------------------------


@pytest.mark.parametrize("model_type", ARCHITECTURES)
def test_an_entry_is_read_back_as_its_architecture(model_type):
    architecture = ARCHITECTURES[model_type]
    assert Architecture.from_entry(architecture.entry()) == architecture


def test_an_entry_holds_what_is_not_a_default():
    assert ARCHITECTURES["vit"].entry() == {
        "prefix": "vit",
        "towers": {
            "encoder": [
                {
                    "layers": "layers.*",
                    "up": "mlp.fc1",
                    "down": "mlp.fc2",
                    "attention": "attention.o_proj",
                    "mask": None,
                }
            ]
        },
    }


def test_a_tower_of_an_entry_is_one_form_or_several():
    entry = {"prefix": "model", "towers": {"encoder": PLAIN, "decoder": [GATED, PLAIN]}}
    gated, plain = FeedForward(**GATED), FeedForward(**PLAIN)
    assert Architecture.from_entry(entry) == Architecture(
        "model", {"encoder": (plain,), "decoder": (gated, plain)}
    )
    assert gated.maps == ("gate", "up", "down") and not gated.fused
    fused = FeedForward(**GATED | {"gate": "mlp.up"})
    assert fused.maps == ("up", "down") and fused.fused


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        ({}, r"has the keys prefix and towers \(found: \)"),
        ({"towers": {}}, r"has the keys prefix and towers \(found: towers\)"),
        ({"towers": {"t": PLAIN}, "heads": 2}, r"prefix and towers \(found: towers, heads\)"),
        ({"towers": {"t": PLAIN | {"wup": "x"}}}, r"^towers\.t: unknown wup \(known: .*'up'"),
        ({"towers": {"t": {"layers": "h.*"}}}, r"^towers\.t: up, down missing$"),
        ({"towers": {"t": [PLAIN, GATED | {"down": ""}]}}, r"^towers\.t: down missing$"),
        ({"towers": {"t": PLAIN | {"layout": "io"}}}, r"^towers\.t\.layout: .* out_in or in_out$"),
    ],
)
def test_an_entry_with_a_fault_is_an_error_that_names_it(entry, message):
    with pytest.raises(ValueError, match=message):
        Architecture.from_entry(entry)


class OwnModel(nn.Module):
    """An architecture outside the table, with an entry in its configuration."""

    def __init__(self) -> None:
        super().__init__()
        self.config = SimpleNamespace(model_type="my_own")
        self.blocks = nn.ModuleList(
            nn.ModuleDict({"widen": nn.Linear(4, 6), "narrow": nn.Linear(6, 4)}) for _ in range(3)
        )


def test_a_model_s_own_entry_takes_the_place_of_one_in_the_table():
    model = OwnModel()
    with pytest.raises(ValueError, match=r"'my_own' has no entry"):
        towers(model)
    form = {"layers": "blocks.*", "up": "widen", "down": "narrow"}
    setattr(model.config, OWN_ENTRY, {"towers": {"stack": form}})
    assert towers(model)["stack"].paths == ("blocks.0", "blocks.1", "blocks.2")
    merge_in_model(model, [Group("stack", (0, 2), 0)], None)
    assert count_sublayers(model) == (3, 2)
    assert model.blocks[2]["narrow"].bias is model.blocks[0]["narrow"].bias


def test_a_plain_sublayer_is_not_taken_for_a_gated_one_whose_up_has_the_same_name():
    gated = FeedForward(layers="h.*", up="up", down="down", gate="gate")
    plain = FeedForward(layers="h.*", up="up", down="down")
    found = locate_towers(
        Architecture("", {"decoder": (gated, plain)}), ["h.0.up.weight", "h.0.down.weight"]
    )
    assert found["decoder"].feed_forward is plain
