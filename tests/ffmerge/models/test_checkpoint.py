"""Models on disk: merged sublayers are stored once and load tied with the same values."""

import json
from itertools import combinations
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from ffmerge.method.groups import Group
from ffmerge.method.merge import merge_in_model
from ffmerge.method.merge_on_disk import merge_on_disk
from ffmerge.method.permutation import Permutations
from ffmerge.models import checkpoint
from ffmerge.models.architectures import ARCHITECTURES
from ffmerge.models.format import GROUPS, WEIGHTS
from ffmerge.models.size import count_parameters, count_sublayers
from ffmerge.models.towers import towers
from merged_windows import in_every_tower, merge_window

D_MODEL, D_FF = 8, 16
SUBLAYER = 2 * D_MODEL * D_FF + D_FF + D_MODEL
LAYERS = [1, 2, 3]


def random_permutations(model_type: str) -> dict[str, Permutations]:
    generator = torch.Generator().manual_seed(0)
    return {
        name: Permutations(
            {pair: torch.randperm(D_FF, generator=generator) for pair in combinations(range(4), 2)}
        )
        for name in ARCHITECTURES[model_type].towers
    }


def merged(model, permutations=None):
    """The model with LAYERS merged and noted in its configuration."""
    merge_window(model, LAYERS, 2, permutations)
    return model


def groups(model_type: str, anchor: int = 2) -> list[Group]:
    """LAYERS of every tower of an architecture."""
    return in_every_tower(ARCHITECTURES[model_type].towers, LAYERS, anchor)


def tensor_bytes(directory: Path) -> int:
    """Size of a file without its header."""
    content = (directory / WEIGHTS).read_bytes()
    return len(content) - 8 - int.from_bytes(content[:8], "little")


def storages(model) -> list[int]:
    """Addresses of the weights of each FF sublayer, two per layer."""
    return [
        model.get_submodule(tower.module(layer, which)).weight.data_ptr()
        for tower in towers(model).values()
        for layer in range(4)
        for which in ("up", "down")
    ]


def rewrite(directory: Path, change) -> None:
    """Change the tensors of a file."""
    tensors = load_file(directory / WEIGHTS)
    change(tensors)
    save_file(tensors, directory / WEIGHTS, metadata={"format": "pt"})


# --- there and back -------------------------------------------------------------------------------


def test_a_saved_model_gives_the_same_output_bit_for_bit(
    model_type, pico, random_batch, logits, tmp_path
):
    model, batch = pico(model_type), random_batch(model_type)
    checkpoint.save(model, tmp_path / "m")
    loaded = checkpoint.load(tmp_path / "m")
    assert not loaded.training
    assert type(loaded) is type(model)
    assert torch.equal(logits(loaded, batch), logits(model, batch))
    assert count_sublayers(loaded) == count_sublayers(model)


def test_a_saved_merged_model_gives_the_same_output_and_comes_back_tied(
    model_type, pico, random_batch, logits, tmp_path
):
    model, batch = (
        merged(pico(model_type), random_permutations(model_type)),
        random_batch(model_type),
    )
    checkpoint.save(model, tmp_path / "1")
    for n in (1, 2):  # a loaded model can be saved again
        loaded = checkpoint.load(tmp_path / f"{n}")
        assert torch.equal(logits(loaded, batch), logits(model, batch))
        assert count_parameters(loaded) == count_parameters(model)
        assert count_sublayers(loaded) == count_sublayers(model)
        # per tower: layer 0 and the merged one, W_in and W_out of each
        assert len(set(storages(loaded))) == 4 * len(towers(loaded))
        checkpoint.save(loaded, tmp_path / f"{n + 1}")


def test_the_file_of_a_merged_model_is_smaller_by_what_was_removed(model_type, pico, tmp_path):
    model = pico(model_type)
    buffers = sum(buffer.numel() for buffer in model.buffers())
    checkpoint.save(model, tmp_path / "whole")
    assert tensor_bytes(tmp_path / "whole") == 4 * (count_parameters(model) + buffers)
    checkpoint.save(merged(model), tmp_path / "merged")
    assert tensor_bytes(tmp_path / "merged") == 4 * (count_parameters(model) + buffers)
    removed = 4 * len(towers(model)) * (len(LAYERS) - 1) * SUBLAYER
    assert tensor_bytes(tmp_path / "whole") - tensor_bytes(tmp_path / "merged") == removed


def test_float16_weights_load_as_float32(model_type, pico, tmp_path):
    model = pico(model_type).half()
    checkpoint.save(model, tmp_path / "m")
    loaded = checkpoint.load(tmp_path / "m")
    assert {tensor.dtype for tensor in loaded.state_dict().values()} == {torch.float32}
    for name, tensor in model.named_parameters():
        assert torch.equal(loaded.get_parameter(name), tensor.float())


@pytest.mark.parametrize(
    ("model_type", "names"),
    [
        ("gpt2", ["transformer.wte", "lm_head"]),
        (
            "marian",
            ["model.shared", "model.encoder.embed_tokens", "model.decoder.embed_tokens", "lm_head"],
        ),
    ],
)
def test_embeddings_stay_tied(model_type, names, pico, tmp_path):
    checkpoint.save(merged(pico(model_type)), tmp_path / "m")
    loaded = checkpoint.load(tmp_path / "m")
    assert len({loaded.get_submodule(name).weight.data_ptr() for name in names}) == 1


def test_generation_settings_are_saved_and_loaded(pico, tmp_path):
    model = pico("marian")
    model.generation_config.num_beams = 6
    checkpoint.save(model, tmp_path / "m")
    loaded = checkpoint.load(tmp_path / "m").generation_config
    assert (loaded.num_beams, loaded.decoder_start_token_id, loaded.forced_eos_token_id) == (
        6,
        0,
        1,
    )


def test_a_directory_holds_nothing_but_json_and_safetensors(model_type, pico, tmp_path):
    checkpoint.save(pico(model_type), tmp_path / "m")
    assert {path.suffix for path in (tmp_path / "m").iterdir()} == {".json", ".safetensors"}


# --- merging from file to file --------------------------------------------------------------------


@pytest.mark.parametrize("method", ["permute", "vanilla"])
def test_merging_on_disk_gives_the_model_that_merging_in_memory_gives(
    model_type, method, pico, random_batch, logits, tmp_path
):
    permutations = random_permutations(model_type) if method == "permute" else None
    batch = random_batch(model_type)
    checkpoint.save(pico(model_type).half(), tmp_path / "base")  # as the embedded models are
    merge_on_disk(tmp_path / "base", groups(model_type), permutations, tmp_path / "merged")
    on_disk = checkpoint.load(tmp_path / "merged")
    in_memory = merged(checkpoint.load(tmp_path / "base"), permutations)
    assert torch.equal(logits(on_disk, batch), logits(in_memory, batch))
    assert count_parameters(on_disk) == count_parameters(in_memory)
    assert count_sublayers(on_disk) == count_sublayers(in_memory)
    checkpoint.save(in_memory, tmp_path / "saved")
    assert tensor_bytes(tmp_path / "merged") == tensor_bytes(tmp_path / "saved")
    assert on_disk.dtype == torch.float32
    assert json.loads((tmp_path / "merged" / "config.json").read_text())["dtype"] == "float32"


def test_several_groups_come_back_tied_from_memory_and_from_disk(
    model_type, pico, random_batch, logits, tmp_path
):
    permutations, batch = random_permutations(model_type), random_batch(model_type)
    *_, last = ARCHITECTURES[model_type].towers
    several = [Group(last, (0, 3), 3), Group(last, (1, 2), 1)]
    checkpoint.save(pico(model_type), tmp_path / "base")
    merge_on_disk(tmp_path / "base", several, permutations, tmp_path / "merged")
    in_memory = checkpoint.load(tmp_path / "base")
    merge_in_model(in_memory, several, permutations)
    checkpoint.save(in_memory, tmp_path / "saved")
    n_sublayers = 4 * len(towers(in_memory))
    for directory in (tmp_path / "merged", tmp_path / "saved"):
        loaded = checkpoint.load(directory)
        assert torch.equal(logits(loaded, batch), logits(in_memory, batch))
        assert count_sublayers(loaded) == (n_sublayers, n_sublayers - 2)
        up = [loaded.get_submodule(towers(loaded)[last].module(layer, "up")) for layer in range(4)]
        assert up[0].weight is up[3].weight and up[1].weight is up[2].weight
    assert tensor_bytes(tmp_path / "merged") == tensor_bytes(tmp_path / "saved")


def test_a_configuration_says_which_layers_are_merged_and_which_modules_share_weights(
    pico, tmp_path
):
    said = [
        {
            "tower": tower,
            "layers": LAYERS,
            "anchor": 2,
            "modules": [
                [f"model.{tower}.layers.{layer}.{linear}" for layer in LAYERS]
                for linear in ("fc1", "fc2")
            ],
        }
        for tower in ("encoder", "decoder")
    ]
    checkpoint.save(pico("marian"), tmp_path / "base")
    merge_on_disk(tmp_path / "base", groups("marian"), None, tmp_path / "merged")
    checkpoint.save(merged(pico("marian")), tmp_path / "saved")
    for directory in (tmp_path / "merged", tmp_path / "saved"):
        assert json.loads((directory / "config.json").read_text())[GROUPS] == said
    assert GROUPS not in json.loads((tmp_path / "base" / "config.json").read_text())


@pytest.mark.parametrize("vanilla", [False, True])
def test_a_gated_model_merged_on_disk_is_the_one_merged_in_memory(
    vanilla, pico, random_batch, logits, tmp_path
):
    permutations, batch = (None if vanilla else random_permutations("llama")), random_batch("llama")
    model = pico("llama")
    checkpoint.save(model, tmp_path / "base")
    merge_on_disk(tmp_path / "base", groups("llama"), permutations, tmp_path / "merged")
    before = count_parameters(model)
    merge_window(model, LAYERS, 2, permutations)
    on_disk = checkpoint.load(tmp_path / "merged")
    assert torch.equal(logits(on_disk, batch), logits(model, batch))
    assert before - count_parameters(on_disk) == (len(LAYERS) - 1) * 3 * D_MODEL * D_FF


def test_groups_that_a_file_cannot_have_are_refused_before_anything_is_written(pico, tmp_path):
    checkpoint.save(pico("gpt2"), tmp_path / "base")
    with pytest.raises(ValueError, match="layer 4: the decoder has the layers 0 to 3"):
        merge_on_disk(tmp_path / "base", [Group("decoder", (3, 4), 3)], None, tmp_path / "merged")
    assert not (tmp_path / "merged").exists()


def test_a_sublayer_merged_on_disk_has_the_names_of_its_first_layer(pico, tmp_path):
    model = pico("marian")
    checkpoint.save(model, tmp_path / "base")
    merge_on_disk(tmp_path / "base", groups("marian"), None, tmp_path / "merged")
    whole, kept = (set(load_file(tmp_path / d / WEIGHTS)) for d in ("base", "merged"))
    assert kept < whole
    assert whole - kept == {
        name
        for tower in towers(model).values()
        for layer in LAYERS[1:]
        for name in tower.tensors(layer).values()
    }


def test_merging_on_disk_takes_no_tokenizer_along_and_leaves_the_base_model_alone(pico, tmp_path):
    base = tmp_path / "base"
    checkpoint.save(pico("marian"), base)
    (base / "tokenizer.json").write_text("{}")
    before = {path.name: path.read_bytes() for path in base.iterdir()}
    merge_on_disk(base, groups("marian", anchor=1), None, tmp_path / "merged")
    assert {path.name: path.read_bytes() for path in base.iterdir()} == before
    files = {path.name for path in (tmp_path / "merged").iterdir()}
    assert files == {"config.json", "generation_config.json", WEIGHTS}


# --- files that do not fit ------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["transformer.h.2.mlp.c_fc.bias", "transformer.ln_f.weight"])
def test_a_missing_tensor_is_named(name, pico, tmp_path):
    checkpoint.save(pico("gpt2"), tmp_path)
    rewrite(tmp_path, lambda tensors: tensors.pop(name))
    with pytest.raises(ValueError, match=rf"(?s)Missing.*{name}"):
        checkpoint.load(tmp_path)


def test_an_extra_tensor_is_named(pico, tmp_path):
    checkpoint.save(pico("gpt2"), tmp_path)
    rewrite(tmp_path, lambda tensors: tensors.update({"transformer.h.3.x": torch.ones(1)}))
    with pytest.raises(ValueError, match=r"(?s)Unexpected.*transformer\.h\.3\.x"):
        checkpoint.load(tmp_path)


def test_a_tensor_of_another_shape_is_named(pico, tmp_path):
    checkpoint.save(pico("vit"), tmp_path)
    rewrite(tmp_path, lambda tensors: tensors.update({"classifier.bias": torch.ones(6)}))
    with pytest.raises(ValueError, match=r"classifier\.bias"):
        checkpoint.load(tmp_path)


def test_a_missing_tensor_of_a_merged_sublayer_is_named(pico, tmp_path):
    checkpoint.save(merged(pico("vit")), tmp_path)
    (kept,) = (
        n for n in load_file(tmp_path / WEIGHTS) if n.endswith("fc2.bias") and ".0." not in n
    )
    rewrite(tmp_path, lambda tensors: tensors.pop(kept))
    with pytest.raises(ValueError, match=r"(?s)Missing.*fc2\.bias"):
        checkpoint.load(tmp_path)


@pytest.mark.parametrize("says", ["merged", "whole"])
def test_a_file_that_is_not_tied_as_its_configuration_says_is_an_error(says, pico, tmp_path):
    checkpoint.save(pico("gpt2"), tmp_path / "whole")
    checkpoint.save(merged(pico("gpt2")), tmp_path / "merged")
    other = {"merged": "whole", "whole": "merged"}[says]
    (tmp_path / other / WEIGHTS).replace(tmp_path / says / WEIGHTS)
    with pytest.raises(ValueError, match=r"transformer\.h\.[123]\.mlp\.c_fc\.weight"):
        checkpoint.load(tmp_path / says)


def test_another_number_of_layers_than_configured_is_an_error(pico):
    checkpoint.check_layers(pico("marian"), 4)
    with pytest.raises(ValueError, match=r"base_model\.n_layers: 6 .* the encoder has 4"):
        checkpoint.check_layers(pico("marian"), 6)


# --- from scratch ---------------------------------------------------------------------------------


def test_a_model_from_scratch_follows_its_configuration():
    architecture = {
        "model_type": "gpt2",
        "architectures": ["GPT2LMHeadModel"],
        "vocab_size": 50,
        "n_layer": 3,
        "n_embd": 8,
        "n_head": 2,
        "bos_token_id": 1,
        "eos_token_id": 1,
    }
    model = checkpoint.from_scratch(architecture)
    assert type(model).__name__ == "GPT2LMHeadModel"
    assert count_sublayers(model) == (3, 3)
    assert model.transformer.wte.weight.shape == (50, 8)
    assert architecture["model_type"] == "gpt2"  # the recipe is unchanged
