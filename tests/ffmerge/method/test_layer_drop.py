"""Dropping layers gives the same model with fewer layers, in memory and on disk."""

import copy
import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers.initialization import no_init_weights

from ffmerge.method import quantization
from ffmerge.method.layer_drop import drop_on_disk, dropped_entry, new_name, without_layers
from ffmerge.models import checkpoint
from ffmerge.models.format import DROPPED, WEIGHTS
from ffmerge.models.size import count_parameters, count_sublayers
from ffmerge.models.towers import Tower, towers
from paper_models import gpt2_large, opus_mt_zh_en, vit_base

N_LAYERS = 4
WINDOWS = [[0], [3], [1, 2], [0, 1], [0, 1, 2], [1, 2, 3]]
TIED = {
    "gpt2": ["transformer.wte", "lm_head"],
    "vit": [],
    "marian": [
        "model.shared",
        "model.encoder.embed_tokens",
        "model.decoder.embed_tokens",
        "lm_head",
    ],
}


@pytest.fixture(params=WINDOWS, ids=str)
def layers(request) -> list[int]:
    return request.param


def stack_of(model, tower: Tower):
    """The module that holds a tower's layers."""
    return model.get_submodule(tower.paths[0].removesuffix(".0"))


def by_hand(model, layers: list[int]):
    """A copy of the model without these layers in its lists, the rest renumbered."""
    shallower = copy.deepcopy(model)
    for tower in towers(model).values():
        stack = stack_of(shallower, tower)
        for layer in reversed(layers):
            del stack[layer]
        for place, layer in enumerate(stack):
            for module in layer.modules():  # places of keys and values in the cache
                if getattr(module, "layer_idx", None) is not None:
                    module.layer_idx = place
        setattr(shallower.config, tower.feed_forward.count, len(stack))
    return shallower


def dropped(model, layers: list[int], directory: Path):
    """The model after dropping layers on disk."""
    checkpoint.save(model, directory / "base")
    drop_on_disk(directory / "base", layers, directory / "dropped")
    return checkpoint.load(directory / "dropped")


def configuration(directory: Path) -> dict:
    return json.loads((directory / "config.json").read_text())


def reconfigure(directory: Path, changes: dict) -> None:
    """Change keys of a model's config.json only."""
    text = json.dumps(configuration(directory) | changes)
    (directory / "config.json").write_text(text)


# --- in memory ------------------------------------------------------------------------------------


def test_a_model_without_layers_is_one_whose_layers_are_taken_out_by_hand(
    model_type, layers, pico, random_batch, logits
):
    model, batch = pico(model_type), random_batch(model_type)
    expected, found = by_hand(model, layers), without_layers(model, layers)
    assert torch.equal(logits(found, batch), logits(expected, batch))
    assert not torch.equal(logits(found, batch), logits(model, batch))
    weights = expected.state_dict()
    assert found.state_dict().keys() == weights.keys()
    assert all(torch.equal(found.state_dict()[name], weights[name]) for name in weights)
    assert type(found) is type(model)
    for tower in towers(model).values():
        assert getattr(found.config, tower.feed_forward.count) == N_LAYERS - len(layers)


def test_layers_that_are_not_adjacent_can_be_dropped_too(model_type, pico, random_batch, logits):
    model, batch = pico(model_type), random_batch(model_type)
    found = without_layers(model, [0, 2])
    assert torch.equal(logits(found, batch), logits(by_hand(model, [0, 2]), batch))


def test_a_model_without_layers_shares_the_memory_of_the_whole_one(model_type, layers, pico):
    model = pico(model_type)
    own = {tensor.data_ptr() for tensor in model.state_dict().values()}
    found = without_layers(model, layers)
    assert {tensor.data_ptr() for tensor in found.state_dict().values()} <= own
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.zero_()
    assert not any(parameter.any() for parameter in found.parameters())


def test_dropping_layers_leaves_the_whole_model_unchanged(
    model_type, layers, pico, random_batch, logits
):
    model, batch = pico(model_type), random_batch(model_type)
    before, config = logits(model, batch), model.config.to_dict()
    tensors = dict(model.named_parameters(remove_duplicate=False))
    values = {name: tensor.detach().clone() for name, tensor in tensors.items()}
    found = without_layers(model, layers)
    logits(found, batch)
    assert model.config.to_dict() == config
    after = dict(model.named_parameters(remove_duplicate=False))
    assert after.keys() == tensors.keys()
    for name, tensor in tensors.items():
        assert after[name] is tensor
        assert torch.equal(tensor, values[name])
    assert count_sublayers(model)[0] == N_LAYERS * len(towers(model))
    assert torch.equal(logits(model, batch), before)


@pytest.mark.parametrize("training", [False, True])
def test_a_model_without_layers_keeps_the_mode_of_the_whole_one(training, pico):
    model = without_layers(pico("gpt2").train(training), [1])
    assert {module.training for module in model.modules()} == {training}


def test_one_window_after_another_can_be_left_out(model_type, pico, random_batch, logits):
    model, batch = pico(model_type), random_batch(model_type)
    for start in range(3):
        layers = [start, start + 1]
        expected = logits(by_hand(model, layers), batch)
        assert torch.equal(logits(without_layers(model, layers), batch), expected)


# --- on disk --------------------------------------------------------------------------------------


def test_dropping_on_disk_gives_the_model_that_dropping_in_memory_gives(
    model_type, layers, pico, random_batch, logits, tmp_path
):
    model, batch = pico(model_type), random_batch(model_type)
    on_disk, in_memory = dropped(model, layers, tmp_path), without_layers(model, layers)
    assert torch.equal(logits(on_disk, batch), logits(in_memory, batch))
    assert count_parameters(on_disk) == count_parameters(in_memory)
    assert on_disk.config.to_diff_dict().keys() >= {DROPPED}
    assert getattr(on_disk.config, DROPPED) == getattr(in_memory.config, DROPPED)


def test_the_configuration_says_how_many_layers_are_left_and_which_ones_went(
    model_type, layers, pico, tmp_path
):
    model = dropped(pico(model_type), layers, tmp_path)
    said = configuration(tmp_path / "dropped")
    for tower in towers(model).values():
        assert said[tower.feed_forward.count] == N_LAYERS - len(layers)
        assert len(stack_of(model, tower)) == N_LAYERS - len(layers)
    assert said[DROPPED] == [{"tower": name, "layers": layers} for name in towers(model)]


def test_both_sides_of_an_encoder_decoder_lose_the_same_layers(pico, tmp_path):
    model = pico("marian")
    for found in (without_layers(model, [1, 2]), dropped(model, [1, 2], tmp_path)):
        assert [group["tower"] for group in getattr(found.config, DROPPED)] == [
            "encoder",
            "decoder",
        ]
        for side in ("encoder", "decoder"):
            kept = [layer.fc1.weight for layer in model.get_submodule(f"model.{side}.layers")[0::3]]
            left = [layer.fc1.weight for layer in found.get_submodule(f"model.{side}.layers")]
            assert [w.tolist() for w in left] == [w.tolist() for w in kept]


def test_a_dropped_model_can_be_saved_and_dropped_from_again(pico, random_batch, logits, tmp_path):
    model, batch = pico("marian"), random_batch("marian")
    once = dropped(model, [1], tmp_path)
    checkpoint.save(once, tmp_path / "saved")
    assert torch.equal(logits(checkpoint.load(tmp_path / "saved"), batch), logits(once, batch))
    drop_on_disk(tmp_path / "saved", [1], tmp_path / "twice")
    expected = logits(without_layers(model, [1, 2]), batch)
    assert torch.equal(logits(checkpoint.load(tmp_path / "twice"), batch), expected)


def test_float16_weights_are_written_as_float32(pico, tmp_path):
    model = dropped(pico("vit").half(), [1], tmp_path)
    assert {t.dtype for t in load_file(tmp_path / "dropped" / WEIGHTS).values()} == {torch.float32}
    assert model.dtype == torch.float32
    assert configuration(tmp_path / "dropped")["dtype"] == "float32"


def test_dropping_leaves_the_base_model_alone_and_takes_no_tokenizer_along(pico, tmp_path):
    base = tmp_path / "base"
    checkpoint.save(pico("marian"), base)
    (base / "tokenizer.json").write_text("{}")
    before = {path.name: path.read_bytes() for path in base.iterdir()}
    drop_on_disk(base, [1], tmp_path / "dropped")
    assert {path.name: path.read_bytes() for path in base.iterdir()} == before
    files = {path.name for path in (tmp_path / "dropped").iterdir()}
    assert files == {"config.json", "generation_config.json", WEIGHTS}


@pytest.mark.parametrize("model_type", ["gpt2", "marian"])
def test_a_count_under_a_second_name_changes_too(model_type, pico, tmp_path):
    checkpoint.save(pico(model_type), tmp_path / "base")
    reconfigure(tmp_path / "base", {"num_hidden_layers": N_LAYERS})  # as OPUS-MT is published
    drop_on_disk(tmp_path / "base", [1, 2], tmp_path / "dropped")
    model = checkpoint.load(tmp_path / "dropped")
    assert model.config.num_hidden_layers == 2
    assert count_sublayers(model)[0] == 2 * len(towers(model))


# --- what has to go along -------------------------------------------------------------------------


@pytest.mark.parametrize("where", ["memory", "disk"])
def test_embeddings_stay_tied(model_type, where, pico, tmp_path):
    model, layers = pico(model_type), [0, 2]
    if where == "memory":
        found = without_layers(model, layers)
    else:
        found = dropped(model, layers, tmp_path)
    names = TIED[model_type]
    assert len({found.get_submodule(name).weight.data_ptr() for name in names}) == bool(names)
    of_layers = sum(
        count_parameters(model.get_submodule(tower.paths[layer]))
        for tower in towers(model).values()
        for layer in layers
    )
    assert count_parameters(found) == count_parameters(model) - of_layers


@pytest.mark.parametrize("num_beams", [1, 3])
@pytest.mark.parametrize("layers", [[0], [0, 1], [1, 2]], ids=str)
def test_a_translator_generates_without_its_first_layers(
    layers, num_beams, pico, random_batch, tmp_path
):
    model = pico("marian")
    model.generation_config.num_beams = 2
    batch = {key: random_batch("marian")[key] for key in ("input_ids", "attention_mask")}
    how = {"num_beams": num_beams, "max_new_tokens": 12, "do_sample": False}
    in_memory, on_disk = without_layers(model, layers), dropped(model, layers, tmp_path)
    expected = in_memory.generate(**batch, **how, use_cache=False)
    assert expected.shape[1] > 2
    for found in (in_memory, on_disk, by_hand(model, layers)):
        assert torch.equal(found.generate(**batch, **how), expected)
        assert found.generation_config.num_beams == 2


def test_a_language_model_continues_text_without_its_first_layer(pico, random_batch):
    model = without_layers(pico("gpt2"), [0])
    ids = random_batch("gpt2")["input_ids"][:1]
    texts = [
        model.generate(ids, max_new_tokens=12, do_sample=False, use_cache=use_cache)
        for use_cache in (True, False)
    ]
    assert torch.equal(*texts)
    assert texts[0].shape[1] > ids.shape[1] + 1


def test_tensors_get_the_numbers_of_their_new_places(pico):
    table = towers(pico("marian", n_layers=13))
    name = "model.{}.layers.{}.fc1.weight".format
    for side in ("encoder", "decoder"):
        places = [new_name(name(side, layer), table, [1, 2]) for layer in (0, 1, 2, 3, 12)]
        assert places == [name(side, 0), None, None, name(side, 1), name(side, 10)]
    for other in ("model.shared.weight", "final_logits_bias", "model.decoder.layersnorm.1.weight"):
        assert new_name(other, table, [1, 2]) == other


# --- how much smaller it gets ---------------------------------------------------------------------

# Parameters removed (%) by dropping 1/6 and 1/3 of the layers, counted from the published
# configurations.
PAPER = {
    gpt2_large: {6: 15.25, 12: 30.51},
    vit_base: {2: 16.38, 4: 32.75},
    opus_mt_zh_en: {1: 9.44, 2: 18.88},
}


@pytest.mark.parametrize("build", PAPER, ids=lambda build: build.__name__)
def test_the_paper_s_models_lose_what_arithmetic_says(build):
    with torch.device("meta"), no_init_weights():
        model = build()
        model.tie_weights()
        total, table = count_parameters(model), towers(model)
        of_one = [count_parameters(model.get_submodule(t.paths[0])) for t in table.values()]
        for n, percent in PAPER[build].items():
            left = without_layers(model, range(1, 1 + n))
            removed = total - count_parameters(left)
            assert removed == n * sum(of_one)
            assert round(100 * removed / total, 2) == percent


# --- what is refused ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("layers", "message"),
    [
        ([0, 1, 2, 3], "4 layers dropped of 4 leave none"),
        ([3, 4], r"layers \[4\] cannot be dropped: the model has 0 to 3"),
        ([-1], r"layers \[-1\] cannot be dropped"),
    ],
    ids=str,
)
def test_all_layers_or_ones_that_are_not_there_cannot_be_dropped(
    model_type, layers, message, pico, tmp_path
):
    model = pico(model_type)
    with pytest.raises(ValueError, match=message):
        without_layers(model, layers)
    checkpoint.save(model, tmp_path / "base")
    with pytest.raises(ValueError, match=message):
        drop_on_disk(tmp_path / "base", layers, tmp_path / "dropped")
    assert not (tmp_path / "dropped").exists()


@pytest.mark.parametrize("said", [4, 1])
def test_a_count_of_layers_that_the_file_does_not_have_is_an_error(
    model_type, said, pico, tmp_path
):
    model = dropped(pico(model_type), [1, 2], tmp_path)
    for name, tower in towers(model).items():
        count = tower.feed_forward.count
        reconfigure(tmp_path / "dropped", {count: said})
        with pytest.raises(ValueError) as error:
            checkpoint.load(tmp_path / "dropped")
        assert str(error.value) == (
            f"{tmp_path / 'dropped'}: {count} is {said} in config.json, but {WEIGHTS} holds "
            f"2 layers of the {name}; put the number of layers it holds there"
        )
        reconfigure(tmp_path / "dropped", {count: 2})  # as the message says
    checkpoint.load(tmp_path / "dropped")


def test_layers_with_a_gap_in_their_numbers_are_named_by_their_tensors(pico, tmp_path):
    checkpoint.save(pico("gpt2"), tmp_path)
    tensors = load_file(tmp_path / WEIGHTS)
    save_file(
        {name: tensor for name, tensor in tensors.items() if ".h.1." not in name},
        tmp_path / WEIGHTS,
        metadata={"format": "pt"},
    )
    reconfigure(tmp_path, {"n_layer": 3})  # as many as the file has: they are 0, 2 and 3
    with pytest.raises(ValueError, match=r"(?s)Missing.*\.h\.1\..*Unexpected.*\.h\.3\."):
        checkpoint.load(tmp_path)


def test_a_count_of_layers_that_an_int8_file_does_not_have_is_an_error(pico, tmp_path):
    model = without_layers(pico("vit"), [1, 2])
    quantization.save(quantization.quantize(model), tmp_path)
    quantization.load(tmp_path)
    reconfigure(tmp_path, {"num_hidden_layers": 4})
    with pytest.raises(ValueError, match=r"num_hidden_layers is 4 .* holds 2 layers"):
        quantization.load(tmp_path)


def test_dropped_layers_are_noted_for_every_tower(pico):
    assert dropped_entry(towers(pico("marian")), range(2, 4)) == [
        {"tower": "encoder", "layers": [2, 3]},
        {"tower": "decoder", "layers": [2, 3]},
    ]
