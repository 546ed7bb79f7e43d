"""Pretrained models become the project's own checkpoints: equal weights, nothing lost unnoticed."""

import json
import os

import pytest

from provenance.digest import sha256_of

COMMIT = "0123456789abcdef0123456789abcdef01234567"


@pytest.fixture
def repository_of(pico, model_type, tmp_path):
    """repository_of(change): directory of a pico model as its repository has it, and the model.

    change: what happens to its tensors before they are written.
    """
    from safetensors.torch import load_file, save_file

    def written(change=lambda tensors: tensors):
        model, directory = pico(model_type), tmp_path / "repository"
        model.save_pretrained(directory)
        weights = directory / "model.safetensors"
        save_file(change(load_file(weights)), weights, metadata={"format": "pt"})
        return directory, model

    return written


def check_same(model, other, logits, batch) -> None:
    """Every tensor, and what comes out."""
    ours, theirs = model.state_dict(), other.state_dict()
    assert ours.keys() == theirs.keys()
    for name, tensor in ours.items():
        assert tensor.equal(theirs[name]), name
    assert logits(model, batch).equal(logits(other, batch))


def test_a_model_is_the_same_after_it_is_converted(
    repository_of, model_type, logits, random_batch, tmp_path
):
    import torch
    from safetensors import safe_open

    from ffmerge.models import checkpoint
    from ffmerge.models.pretrained import convert

    def as_on_the_hub(tensors):
        if model_type == "gpt2":  # without the head's prefix, and with masks that are no weights
            tensors = {k.removeprefix("transformer."): v for k, v in tensors.items()}
            tensors |= {f"h.{i}.attn.bias": torch.ones(1, 1, 64, 64) for i in range(4)}
        return tensors

    repository, model = repository_of(as_on_the_hub)
    with safe_open(repository / "model.safetensors", "pt") as stored:  # names before transformers 5
        old = "vit.encoder.layer.0.attention.attention.query.weight"
        assert (old in stored.keys()) == (model_type == "vit")  # noqa: SIM118 - not a mapping
    (repository / "vocab.json").write_text("{}")
    convert(repository, 4, tmp_path / "ours", tmp_path / "scratch", {"revision": COMMIT})
    converted = checkpoint.load(tmp_path / "ours")
    check_same(converted, model, logits, random_batch(model_type))
    assert {p.dtype for p in converted.parameters()} == {torch.float32}
    assert (tmp_path / "ours" / "vocab.json").exists()
    source = json.loads((tmp_path / "ours" / "source.json").read_text())
    assert source["revision"] == COMMIT
    assert source["files"] == {file.name: sha256_of(file) for file in repository.iterdir()}


def test_a_missing_tensor_is_named_and_not_invented(repository_of, model_type):
    from ffmerge.models.pretrained import load_whole

    lost, message = {
        "gpt2": ("transformer.h.2.mlp.c_fc.bias", "transformer.h.2.mlp.c_fc.bias"),
        "vit": ("vit.encoder.layer.1.intermediate.dense.weight", "vit.layers.1.mlp.fc1.weight"),
        "marian": ("model.decoder.layers.3.fc2.weight", "model.decoder.layers.3.fc2.weight"),
    }[model_type]
    repository, _ = repository_of(lambda tensors: {k: v for k, v in tensors.items() if k != lost})
    with pytest.raises(ValueError, match=f"missing {message}$"):
        load_whole(repository)


@pytest.mark.parametrize("model_type", ["vit"], indirect=True)
def test_tensors_without_a_place_in_the_model_are_reported(repository_of):
    import torch

    from ffmerge.models.pretrained import load_whole

    pooler = {"vit.pooler.dense.bias": torch.ones(8)}
    repository, _ = repository_of(lambda tensors: tensors | pooler)
    with pytest.warns(UserWarning, match=r"has no place for .*pooler.dense.bias"):
        load_whole(repository)


@pytest.mark.parametrize("model_type", ["marian"], indirect=True)
def test_a_pickled_model_is_converted_with_equal_weights(
    repository_of, logits, random_batch, tmp_path
):
    """Files like those of OPUS-MT: pickled weights, how to generate in the configuration."""
    import torch

    from ffmerge.models import checkpoint
    from ffmerge.models.pretrained import convert

    repository, model = repository_of()
    files = tmp_path / "files"
    files.mkdir()
    torch.save(dict(model.state_dict()), files / "pytorch_model.bin")
    old = json.loads((repository / "config.json").read_text())
    old |= {"num_beams": 6, "max_length": 512, "bad_words_ids": [[49]]}
    (files / "config.json").write_text(json.dumps(old))
    (files / "source.spm").write_bytes(b"spm")
    before = sha256_of(files)
    convert(files, 4, tmp_path / "ours", tmp_path / "scratch", {})
    assert sha256_of(files) == before
    converted = checkpoint.load(tmp_path / "ours")
    check_same(converted, model, logits, random_batch("marian"))
    assert converted.generation_config.num_beams == 6
    assert converted.generation_config.bad_words_ids == [[49]]
    ours = {file.name for file in (tmp_path / "ours").iterdir()} - {"generation_config.json"}
    assert ours == {"config.json", "model.safetensors", "source.json", "source.spm"}


def test_a_pickle_that_runs_code_is_refused(tmp_path):
    import torch

    from ffmerge.models.pretrained import unpickle

    class Mischief:
        def __reduce__(self):
            return os.mkdir, (str(tmp_path / "was here"),)

    torch.save({"weight": Mischief()}, tmp_path / "pytorch_model.bin")
    with pytest.raises(ValueError, match=r"pytorch_model.bin holds no plain tensors"):
        unpickle([tmp_path / "pytorch_model.bin"], tmp_path)
    assert not (tmp_path / "was here").exists()


@pytest.mark.parametrize("model_type", ["gpt2"], indirect=True)
def test_another_architecture_or_number_of_layers_is_refused(repository_of, tmp_path):
    from ffmerge.models.pretrained import convert, load_whole

    repository, _ = repository_of()
    with pytest.raises(ValueError, match="n_layers: 5 in the configuration, but the decoder has 4"):
        convert(repository, 5, tmp_path / "ours", tmp_path / "scratch", {})
    convolutions = '{"model_type": "resnet", "architectures": ["ResNetModel"]}'
    (repository / "config.json").write_text(convolutions)
    with pytest.raises(ValueError, match=r"'resnet' has no entry in ffmerge.models.architectures"):
        load_whole(repository)


# --- the sizes of the paper's models --------------------------------------------------------------

SIZES = {  # parameters, of one feed-forward sublayer, of one layer of each tower
    "gpt2": (774_030_080, 13_113_600, [19_677_440]),
    "vit": (86_567_656, 4_722_432, [7_087_872]),
    "marian": (77_943_296, 2_099_712, [3_152_384, 4_204_032]),
}
ARCHITECTURE = {
    "gpt2": {"n_layer": 36, "n_embd": 1280, "n_head": 20},
    "vit": {"num_labels": 1000},
    "marian": {
        "vocab_size": 65001, "d_model": 512, "encoder_layers": 6, "decoder_layers": 6,
        "encoder_ffn_dim": 2048, "decoder_ffn_dim": 2048, "encoder_attention_heads": 8,
        "decoder_attention_heads": 8, "max_position_embeddings": 512, "pad_token_id": 65000,
        "decoder_start_token_id": 65000,
    },
}  # fmt: skip
CLASSES = {
    "gpt2": "GPT2LMHeadModel", "vit": "ViTForImageClassification", "marian": "MarianMTModel",
}  # fmt: skip


def test_the_papers_models_have_the_sizes_behind_its_ratios(model_type):
    import torch

    from ffmerge.models import checkpoint
    from ffmerge.models.towers import towers

    settings = {"model_type": model_type, "architectures": [CLASSES[model_type]]}
    with torch.device("meta"):
        model = checkpoint.from_scratch(settings | ARCHITECTURE[model_type])

    def size(*modules):
        return sum(p.numel() for module in modules for p in module.parameters())

    parameters, feed_forward, layers = SIZES[model_type]
    assert size(model) == parameters
    sizes = []
    for tower in towers(model).values():
        both = [model.get_submodule(tower.module(0, which)) for which in ("up", "down")]
        assert size(*both) == feed_forward
        sizes.append(size(model.get_submodule(tower.paths[0])))
    assert sizes == layers


def test_a_model_that_the_table_lacks_is_converted_with_its_own_entry(tmp_path):
    """`base_model.architecture` of a configuration; it stays with the model in its config.json."""
    import torch
    from transformers import StableLmConfig, StableLmForCausalLM

    from ffmerge.method.merge_on_disk import merge_on_disk
    from ffmerge.method.windows import window
    from ffmerge.models import checkpoint
    from ffmerge.models.pretrained import convert

    sizes = {"vocab_size": 50, "hidden_size": 8, "intermediate_size": 16, "num_hidden_layers": 4}
    heads = {"num_attention_heads": 2, "num_key_value_heads": 2}
    model = StableLmForCausalLM(StableLmConfig(**sizes, **heads)).eval()
    model.save_pretrained(tmp_path / "stock")
    entry = {
        "prefix": "model",
        "towers": {
            "decoder": {
                "layers": "layers.*",
                "gate": "mlp.gate_proj",
                "up": "mlp.up_proj",
                "down": "mlp.down_proj",
            }
        },
    }
    with pytest.raises(ValueError, match="'stablelm' has no entry"):
        convert(tmp_path / "stock", 4, tmp_path / "no", tmp_path / "scratch", {})
    convert(tmp_path / "stock", 4, tmp_path / "base", tmp_path / "scratch", {}, entry)
    merged_groups = window(["decoder"], 1, 3, "first")
    merge_on_disk(tmp_path / "base", merged_groups, None, tmp_path / "merged")
    merged = checkpoint.load(tmp_path / "merged")
    before, after = (sum(p.numel() for p in m.parameters()) for m in (model, merged))
    assert before - after == 2 * 3 * 8 * 16
    assert torch.isfinite(merged(input_ids=torch.tensor([[1, 2, 3]])).logits).all()
