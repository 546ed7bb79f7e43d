"""A merged model is an ordinary transformers model: tied, small, and loaded by its Auto classes."""

import copy
import importlib
import json
import os
import pickle
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file

import ffmerge
import ffmerge.auto
from ffmerge.models import tied_model
from ffmerge.models.expanded import save_expanded, untie
from ffmerge.models.tied_model import CODE, GROUPS, become_tied, shared_modules, write_code
from provenance.digest import sha256_of
from provenance.sources import REPOSITORY

N_LAYERS, D_MODEL, D_FF, VOCABULARY = 4, 8, 16, 50
MERGED = [1, 2, 3]
HEADS = {"num_hidden_layers": N_LAYERS, "num_attention_heads": 2}
WIDTHS = {"hidden_size": D_MODEL, "intermediate_size": D_FF}
TEXT = {"vocab_size": VOCABULARY, "bos_token_id": 1, "eos_token_id": 1, "pad_token_id": 0}

# Auto class, model class, keys of its configuration, the tied linear maps, number of their biases
FAMILIES = {
    "gpt2": (
        "AutoModelForCausalLM",
        "GPT2LMHeadModel",
        TEXT | {"n_positions": 64, "n_layer": 4, "n_embd": D_MODEL, "n_inner": D_FF, "n_head": 2},
        ["transformer.h.{}.mlp.c_fc", "transformer.h.{}.mlp.c_proj"],
        D_FF + D_MODEL,
    ),
    "llama": (
        "AutoModelForCausalLM",
        "LlamaForCausalLM",
        TEXT | HEADS | WIDTHS | {"num_key_value_heads": 2},
        [f"model.layers.{{}}.mlp.{which}_proj" for which in ("gate", "up", "down")],
        0,
    ),
    "marian": (
        "AutoModelForSeq2SeqLM",
        "MarianMTModel",
        TEXT
        | {f"{tower}_layers": N_LAYERS for tower in ("encoder", "decoder")}
        | {f"{tower}_attention_heads": 2 for tower in ("encoder", "decoder")}
        | {f"{tower}_ffn_dim": D_FF for tower in ("encoder", "decoder")}
        | {"d_model": D_MODEL, "max_position_embeddings": 64, "decoder_start_token_id": 0}
        | {"forced_eos_token_id": 1},
        [f"model.{t}.layers.{{}}.{fc}" for t in ("encoder", "decoder") for fc in ("fc1", "fc2")],
        2 * (D_FF + D_MODEL),
    ),
    "t5": (
        "AutoModelForSeq2SeqLM",
        "T5ForConditionalGeneration",
        TEXT
        | {"d_model": D_MODEL, "d_ff": D_FF, "d_kv": 4, "num_heads": 2, "num_layers": N_LAYERS}
        | {"decoder_start_token_id": 0},
        [
            f"{tower}.block.{{}}.layer.{n}.DenseReluDense.{which}"
            for tower, n in (("encoder", 1), ("decoder", 2))
            for which in ("wi", "wo")
        ],
        0,
    ),
    "bert": (
        "AutoModelForMaskedLM",
        "BertForMaskedLM",
        TEXT | HEADS | WIDTHS | {"max_position_embeddings": 64},
        ["bert.encoder.layer.{}.intermediate.dense", "bert.encoder.layer.{}.output.dense"],
        D_FF + D_MODEL,
    ),
    "vit": (
        "AutoModelForImageClassification",
        "ViTForImageClassification",
        HEADS | WIDTHS | {"image_size": 8, "patch_size": 4},
        ["vit.layers.{}.mlp.fc1", "vit.layers.{}.mlp.fc2"],  # other names than on disk
        D_FF + D_MODEL,
    ),
}
SAVED_BYTES = {  # by family: (removed sublayers) x (weights and biases)
    family: 4 * (len(MERGED) - 1) * (len(maps) * D_MODEL * D_FF + biases)
    for family, (_, _, _, maps, biases) in FAMILIES.items()
}


@pytest.fixture(params=FAMILIES)
def family(request) -> str:
    return request.param


def stock(family: str, seed: int = 0):
    """A pico model in which every weight and bias matters, with nothing merged."""
    _, name, settings, _, _ = FAMILIES[family]
    model = getattr(transformers, name)
    model = model(model.config_class(**settings)).eval()
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "embed_positions" not in name:  # Marian's sinusoids
                parameter.copy_(0.4 * torch.randn(parameter.shape, generator=generator))
    return model


def groups(family: str) -> list[dict]:
    maps = FAMILIES[family][3]
    modules = [[place.format(layer) for layer in MERGED] for place in maps]
    return [{"tower": "layers", "layers": MERGED, "anchor": 2, "modules": modules}]


def tied(family: str):
    model = stock(family)
    become_tied(model, groups(family))
    return model


def load(family: str, directory: Path, **options):
    return getattr(transformers, FAMILIES[family][0]).from_pretrained(directory, **options)


def output(model, **options) -> torch.Tensor:
    generator = torch.Generator().manual_seed(1)
    if model.config.model_type == "vit":
        batch = {"pixel_values": torch.randn(2, 3, 8, 8, generator=generator)}
    else:
        ids = torch.randint(2, VOCABULARY, (3, 9), generator=generator)
        batch = {"input_ids": ids}
        if model.config.is_encoder_decoder and "Encoder" not in type(model).__name__:
            batch["decoder_input_ids"] = ids
    with torch.inference_mode():
        return model(**batch, **options)[0]


def places(model) -> int:
    """Number of distinct weights in the sublayers that are to share them."""
    shared = shared_modules(model)
    names = {*shared, *shared.values()}
    return len({id(model.get_submodule(name).weight) for name in names})


def n_parameters(model) -> int:
    return sum(parameter.numel() for parameter in model.parameters())


def tensor_bytes(directory: Path) -> int:
    return sum(tensor.nbytes for tensor in load_file(directory / "model.safetensors").values())


def names_in(directory: Path) -> set[str]:
    return set(load_file(directory / "model.safetensors"))


def config_json(directory: Path) -> dict:
    return json.loads((directory / "config.json").read_text())


# --- there and back -------------------------------------------------------------------------------


def test_a_saved_model_is_smaller_by_what_was_removed_and_loads_filled_and_tied(family, tmp_path):
    model = tied(family)
    stock(family).save_pretrained(tmp_path / "stock")
    model.save_pretrained(tmp_path / "tied")
    saved = tensor_bytes(tmp_path / "stock") - tensor_bytes(tmp_path / "tied")
    assert saved == SAVED_BYTES[family]
    assert names_in(tmp_path / "tied") < names_in(tmp_path / "stock")
    loaded, report = load(family, tmp_path / "tied", output_loading_info=True)
    assert not any(report.values()), report
    assert type(loaded) is type(model)
    assert loaded.config.model_type == family
    assert places(loaded) == len(FAMILIES[family][3])
    assert n_parameters(loaded) == n_parameters(model)
    assert torch.equal(output(loaded), output(model))
    loaded.save_pretrained(tmp_path / "again")
    for file in (tmp_path / "tied").iterdir():
        assert (tmp_path / "again" / file.name).read_bytes() == file.read_bytes()


def test_on_disk_a_model_says_that_it_is_not_a_stock_one(tmp_path):
    tied("gpt2").save_pretrained(tmp_path)
    config = config_json(tmp_path)
    assert (config["model_type"], config["ffmerge_model_type"]) == ("ffmerge", "gpt2")
    assert config["architectures"] == ["GPT2LMHeadModel"]
    assert config[GROUPS] == groups("gpt2")


@pytest.mark.parametrize("auto_class", ["AutoModel", "AutoModelForSequenceClassification"])
def test_the_base_model_of_a_model_with_a_head_is_tied_too(auto_class, tmp_path):
    model = tied("bert")
    model.save_pretrained(tmp_path / "head")
    loaded, report = getattr(transformers, auto_class).from_pretrained(
        tmp_path / "head", output_loading_info=True
    )
    assert all("pooler" in key or "classifier" in key for key in report["missing_keys"])
    assert places(loaded) == 2
    assert torch.equal(output(loaded.base_model), output(model.bert))


def test_a_model_with_a_head_from_the_file_of_its_base_model_is_tied(tmp_path):
    tied("bert").save_pretrained(tmp_path / "head")
    base = transformers.AutoModel.from_pretrained(tmp_path / "head")
    base.save_pretrained(tmp_path / "base")
    loaded = load("bert", tmp_path / "base")
    assert places(loaded) == 2
    assert torch.equal(output(loaded.bert), output(base))


def test_a_base_model_whose_tensors_have_other_names_on_disk_is_filled(tmp_path):
    model = tied("vit")
    model.save_pretrained(tmp_path / "head")
    base = transformers.AutoModel.from_pretrained(tmp_path / "head", add_pooling_layer=False)
    base.save_pretrained(tmp_path / "base")
    stock("vit").vit.save_pretrained(tmp_path / "stock")
    assert names_in(tmp_path / "base") < names_in(tmp_path / "stock")
    assert torch.equal(output(base), output(model.vit))


def test_a_tower_that_a_model_lacks_is_passed_over(tmp_path):
    model = tied("t5")
    model.save_pretrained(tmp_path)
    encoder = transformers.AutoModelForTextEncoding.from_pretrained(tmp_path)
    assert type(encoder).__name__ == "T5EncoderModel"
    assert places(encoder) == 2
    assert torch.equal(output(encoder), output(model.encoder))


# --- use ------------------------------------------------------------------------------------------


def test_training_keeps_the_ties(family):
    model = tied(family).train()
    weight = model.get_submodule(FAMILIES[family][3][0].format(2)).weight
    before = weight.detach().clone()
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.01)
    generator = torch.Generator().manual_seed(2)
    if family == "vit":
        images = torch.randn(2, 3, 8, 8, generator=generator)
        batch = {"pixel_values": images, "labels": torch.tensor([0, 1])}
    else:
        ids = torch.randint(2, VOCABULARY, (3, 9), generator=generator)
        batch = {"input_ids": ids, "labels": ids}
    for _ in range(2):
        model(**batch).loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    assert places(model) == len(FAMILIES[family][3])
    assert not torch.equal(weight, before)
    assert model.get_submodule(FAMILIES[family][3][0].format(3)).weight is weight


@pytest.mark.parametrize(
    "made",
    [
        copy.deepcopy,
        lambda model: pickle.loads(pickle.dumps(model)),
        lambda model: copy.deepcopy(model).to(torch.float64),
    ],
    ids=["copied", "pickled", "cast"],
)
def test_a_model_stays_tied_when(made, family):
    model = tied(family)
    other = made(model)
    assert type(other) is type(model)
    assert type(other.config) is type(model.config)
    assert places(other) == len(FAMILIES[family][3])
    assert n_parameters(other) == n_parameters(model)


def test_tied_classes_are_found_by_name():
    from ffmerge.models.tied_model import BertConfig, BertForMaskedLM

    assert issubclass(BertForMaskedLM, transformers.BertForMaskedLM)
    assert BertForMaskedLM.config_class is BertConfig
    assert type(tied("bert")) is BertForMaskedLM
    with pytest.raises(ImportError):
        from ffmerge.models.tied_model import BertForNothing  # noqa: F401
    with pytest.raises(AttributeError):
        tied_model.AutoTokenizer  # noqa: B018


def test_tokenizers_and_processors_are_those_of_the_stock_model(tmp_path):
    files = {
        "bert": ("vocab.txt", "[PAD]\n[UNK]\n[CLS]\n[SEP]\n[MASK]\na\nb\n", "AutoTokenizer"),
        "vit": ("preprocessor_config.json", "{}", "AutoImageProcessor"),
    }
    for family, (file, content, auto_class) in files.items():
        found = []
        for model, name in ((stock(family), "stock"), (tied(family), "tied")):
            directory = tmp_path / family / name
            model.save_pretrained(directory)
            (directory / file).write_text(content)
            found.append(type(getattr(transformers, auto_class).from_pretrained(directory)))
        assert found[0] is found[1]


def test_int8_covers_what_is_merged_and_keeps_the_ties(tmp_path):
    bitsandbytes = pytest.importorskip("bitsandbytes")
    model = tied("gpt2")
    model.save_pretrained(tmp_path / "float")
    int8 = transformers.BitsAndBytesConfig(load_in_8bit=True)
    quantized = load("gpt2", tmp_path / "float", quantization_config=int8)
    assert int8.llm_int8_skip_modules is None  # the caller's object is unchanged
    linear = [m for m in quantized.modules() if isinstance(m, bitsandbytes.nn.Linear8bitLt)]
    assert len(linear) == 4 * N_LAYERS  # two of attention and two of the FF sublayer in each layer
    before = output(quantized)  # the first forward sets the 8-bit state up
    assert torch.equal(output(quantized), before)
    error = (before - output(model)).norm() / output(model).norm()
    assert error < 0.05  # int8 keeps 2 to 3 digits; 0.5 % of wider models' logits
    assert places(quantized) == 2
    quantized.save_pretrained(tmp_path / "int8")
    names = load_file(tmp_path / "int8" / "model.safetensors")
    assert not [n for n in names if "h.2.mlp" in n or "h.3.mlp" in n]
    loaded, report = load("gpt2", tmp_path / "int8", output_loading_info=True)
    assert not any(report.values()), report
    assert places(loaded) == 2
    assert torch.equal(output(loaded), before)
    with pytest.raises(ValueError, match="quantized"):
        save_expanded(loaded, tmp_path / "expanded")


@pytest.fixture(scope="module")
def peft() -> Iterator[ModuleType]:
    """Install the library once per lock. Skips if it cannot be installed, except in CI."""
    lock = Path(__file__).with_name("peft.txt")
    folder = REPOSITORY / ".cache/peft" / sha256_of(lock)[:12]
    if not folder.exists():
        partial = folder.with_name("partial")
        options = ["--no-deps", "--require-hashes", "--target", partial, "--requirements", lock]
        command = [sys.executable, "-m", "uv", "pip", "install", *options]
        done = subprocess.run(command, capture_output=True, text=True)
        if done.returncode:
            said = f"peft cannot be installed: {done.stderr.strip()}"
            (pytest.fail if os.environ.get("CI") else pytest.skip)(said)
        partial.rename(folder)
    sys.path.append(str(folder))
    yield importlib.import_module("peft")
    sys.path.remove(str(folder))


def test_lora_keeps_the_ties_and_merges_after_untying(peft):
    model = tied("gpt2")
    lora = peft.LoraConfig(
        r=2, target_modules=["c_fc"], fan_in_fan_out=True, init_lora_weights=False
    )
    adapted = peft.get_peft_model(model, lora).eval()
    expected = output(adapted)
    shared = {id(model.transformer.h[n].mlp.c_fc.base_layer.weight) for n in MERGED}
    assert len(shared) == 1
    wrong = output(copy.deepcopy(adapted).merge_and_unload())
    assert not torch.allclose(wrong, expected, atol=1e-3)  # all deltas in the shared weight
    untie(adapted.get_base_model())
    merged = adapted.merge_and_unload()
    assert type(merged) is transformers.GPT2LMHeadModel
    assert torch.allclose(output(merged), expected, atol=1e-4)  # W x + B A x against (W + B A) x


# --- expanded -------------------------------------------------------------------------------------


def test_an_expanded_model_is_a_stock_one_of_full_size_with_the_same_output(family, tmp_path):
    model = tied(family)
    stock(family).save_pretrained(tmp_path / "stock")
    save_expanded(model, tmp_path / "expanded")
    assert tensor_bytes(tmp_path / "expanded") == tensor_bytes(tmp_path / "stock")
    assert names_in(tmp_path / "expanded") == names_in(tmp_path / "stock")
    assert set(config_json(tmp_path / "expanded")) == set(config_json(tmp_path / "stock"))
    assert not [key for key in config_json(tmp_path / "expanded") if "ffmerge" in key]
    loaded, report = load(family, tmp_path / "expanded", output_loading_info=True)
    assert not any(report.values()), report
    assert type(loaded) is type(stock(family))
    assert torch.equal(output(loaded), output(model))
    assert places(model) == len(FAMILIES[family][3])  # the model is unchanged


def test_an_untied_model_is_a_stock_one_with_the_same_output(family):
    model = tied(family)
    expected, n_stock = output(model), n_parameters(stock(family))
    assert n_parameters(model) < n_stock
    untie(model)
    assert type(model) is type(stock(family))
    assert type(model.config) is type(stock(family).config)
    assert n_parameters(model) == n_stock
    assert torch.equal(output(model), expected)


# --- what does not fit ----------------------------------------------------------------------------


def test_a_file_that_is_not_tied_as_its_configuration_says_is_an_error(family, tmp_path):
    tied(family).save_pretrained(tmp_path)
    stock(family).save_pretrained(tmp_path / "stock")
    (tmp_path / "stock" / "model.safetensors").replace(tmp_path / "model.safetensors")
    with pytest.raises(ValueError, match=r"the file holds both, with different values"):
        load(family, tmp_path)


def test_a_file_that_holds_the_shared_tensors_of_each_layer_is_tied(tmp_path):
    model = tied("gpt2")
    model.save_pretrained(tmp_path)
    whole = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    save_file(whole, tmp_path / "model.safetensors", metadata={"format": "pt"})
    assert places(load("gpt2", tmp_path)) == 2


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda c: c.pop("ffmerge_model_type"), "no ffmerge_model_type"),
        (lambda c: c.update(ffmerge_model_type="gpt99"), "gpt99"),
        (
            lambda c: c[GROUPS][0]["modules"][0].append("transformer.h.9.mlp.c_fc"),
            r"not there: \['transformer\.h\.9\.mlp\.c_fc'\]",
        ),
    ],
)
def test_a_configuration_that_makes_no_sense_is_an_error(change, message, tmp_path):
    tied("gpt2").save_pretrained(tmp_path)
    config = config_json(tmp_path)
    change(config)
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(ValueError, match=message):
        load("gpt2", tmp_path)


# --- in a new process -----------------------------------------------------------------------------


@pytest.fixture(scope="module")
def saved(tmp_path_factory) -> Path:
    """Directories of the same models in three forms: tied, with code, and expanded."""
    folder = tmp_path_factory.mktemp("saved")
    for family in ("gpt2", "bert"):
        model = tied(family)
        model.save_pretrained(folder / family / "tied")
        model.save_pretrained(folder / family / "code")
        write_code(folder / family / "code")
        save_expanded(model, folder / family / "expanded")
        save_file({"output": output(model)}, folder / family / "expected.safetensors")
    return folder


WITHOUT_FFMERGE = """
    import importlib.util, sys
    from pathlib import Path
    sys.path[:] = [p for p in sys.path if not (Path(p) / "ffmerge").is_dir()]
    sys.meta_path[:] = [f for f in sys.meta_path if "editable" not in repr(f).lower()]
    assert importlib.util.find_spec("ffmerge") is None
"""
TESTING = """
    import json, torch
    from safetensors.torch import load_file
    from transformers import AutoConfig, AutoModel, AutoModelForCausalLM, AutoModelForMaskedLM

    def holds(model, family, sublayers):
        ids = torch.randint(2, 50, (3, 9), generator=torch.Generator().manual_seed(1))
        with torch.inference_mode():
            found = model(input_ids=ids).logits
        expected = load_file(f"{family}/expected.safetensors")["output"]
        assert torch.equal(found, expected)
        stack = model.bert.encoder.layer if family == "bert" else model.transformer.h
        which = "intermediate.dense" if family == "bert" else "mlp.c_fc"
        weights = {id(layer.get_submodule(which).weight) for layer in stack}
        assert len(weights) == sublayers, len(weights)
"""


def run(code: str, folder: Path, *options: str) -> str:
    """Output of a new Python process, which must succeed and report no missing tensors."""
    environment = os.environ | {
        "HF_MODULES_CACHE": str(folder / "modules"),
        "HF_HUB_OFFLINE": "1",
        "OMP_NUM_THREADS": "1",
    }
    ran = subprocess.run(
        [sys.executable, *options, "-c", code],
        capture_output=True,
        text=True,
        cwd=folder,
        env=environment,
        check=False,
    )
    assert ran.returncode == 0, ran.stderr
    assert "MISSING" not in ran.stderr
    return ran.stdout


def script(*parts: str) -> str:
    return "\n".join(textwrap.dedent(part) for part in parts)


def test_importing_ffmerge_imports_neither_transformers_nor_torch(tmp_path):
    code = "import sys, ffmerge; print({'torch', 'transformers'} & {*sys.modules})"
    assert run(code, tmp_path).strip() == "set()"


@pytest.mark.parametrize("first", [pytest.param("ffmerge", marks=pytest.mark.long), "transformers"])
def test_after_importing_ffmerge_auto_the_auto_classes_load_a_merged_model(first, saved):
    imports = {
        "ffmerge": "import ffmerge.auto",
        "transformers": "from transformers import AutoModelForCausalLM\nimport ffmerge.auto",
    }
    use = """
        import sys
        assert AutoConfig.from_pretrained("gpt2/tied").model_type == "gpt2"
        loaded = {name for name in sys.modules if ".modeling_" in name}
        assert "transformers.models.gpt2.modeling_gpt2" not in loaded, loaded  # not used
        for directory in ("tied", "code"):
            model = AutoModelForCausalLM.from_pretrained(f"gpt2/{directory}")
            assert type(model).__module__ == "ffmerge.models.tied_model"
            holds(model, "gpt2", 2)
        AutoModelForCausalLM.from_pretrained("gpt2/code").save_pretrained("gpt2/again")
        config = json.load(open("gpt2/again/config.json"))
        assert config["auto_map"] == json.load(open("gpt2/code/config.json"))["auto_map"]
        assert open("gpt2/again/modeling_ffmerge.py").read()
        holds(AutoModelForCausalLM.from_pretrained("gpt2/expanded"), "gpt2", 4)
        made = AutoModelForCausalLM.from_config(AutoConfig.from_pretrained("gpt2/tied"))
        assert made.transformer.h[1].mlp.c_fc.bias is made.transformer.h[3].mlp.c_fc.bias
    """
    run(script(imports[first], TESTING, use), saved)


def test_without_ffmerge_a_model_loads_with_its_code_or_expanded_and_is_refused_otherwise(saved):
    use = """
        trusted = {"trust_remote_code": True}
        for family, auto_class in (("gpt2", AutoModelForCausalLM), ("bert", AutoModelForMaskedLM)):
            model = auto_class.from_pretrained(f"{family}/code", **trusted)
            holds(model, family, 2)
            model.save_pretrained(f"{family}/remote")
            holds(auto_class.from_pretrained(f"{family}/remote", **trusted), family, 2)
            holds(auto_class.from_pretrained(f"{family}/expanded"), family, 4)
            for directory, error in (("tied", "does not recognize this architecture"),
                                     ("code", "trust_remote_code=True")):
                try:
                    auto_class.from_pretrained(f"{family}/{directory}", trust_remote_code=False)
                except ValueError as refused:
                    assert error in str(refused), refused
                else:
                    raise AssertionError("it was loaded")
        assert "ffmerge" not in sys.modules
        base = AutoModel.from_pretrained("gpt2/code", **trusted)
        assert base.h[1].mlp.c_fc.weight is base.h[3].mlp.c_fc.weight
        config = AutoConfig.from_pretrained("gpt2/code", **trusted)  # trusting once covers both
        holds(AutoModelForCausalLM.from_pretrained("gpt2/code", config=config), "gpt2", 2)
    """
    run(script(WITHOUT_FFMERGE, TESTING, use), saved, "-I")


def test_the_code_beside_a_model_is_that_of_the_library(saved):
    assert (saved / "gpt2/code" / CODE).read_text() == Path(tied_model.__file__).read_text()
    auto_map = config_json(saved / "gpt2/code")["auto_map"]
    assert auto_map["AutoConfig"] == "modeling_ffmerge.MergedConfig"
    assert auto_map["AutoModelForCausalLM"] == "modeling_ffmerge.GPT2LMHeadModel"
    assert auto_map["AutoModel"] == "modeling_ffmerge.GPT2Model"


def test_the_keys_of_a_configuration_have_the_same_names_throughout():
    """The code beside the weights does not import ffmerge, so it repeats the names."""
    from ffmerge.models import format

    assert tied_model.GROUPS == format.GROUPS
    assert tied_model.MODEL_TYPE == format.MERGED_TYPE
    assert tied_model.STOCK_TYPE == format.STOCK_TYPE
    assert tied_model.INT8 == format.INT8


def test_a_quantized_model_of_ours_is_not_taken_for_one_of_floats(tmp_path):
    from ffmerge.method import quantization
    from ffmerge.models import checkpoint

    model = tied("gpt2")
    checkpoint.save(model, tmp_path / "merged")
    quantized = quantization.quantize(checkpoint.load(tmp_path / "merged"))
    quantization.save(quantized, tmp_path / "int8")
    with pytest.raises(ValueError, match=r"ffmerge\.load"):
        transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "int8")


def test_ffmerge_load_takes_merged_expanded_and_int8_models(tmp_path):
    from ffmerge.method import quantization
    from ffmerge.models import checkpoint

    model = tied("gpt2")
    model.save_pretrained(tmp_path / "tied")
    save_expanded(model, tmp_path / "expanded")
    for form in ("tied", "expanded"):
        assert torch.equal(output(ffmerge.load(tmp_path / form)), output(model))
    checkpoint.save(model, tmp_path / "saved")
    quantized = quantization.quantize(checkpoint.load(tmp_path / "saved"))
    quantization.save(quantized, tmp_path / "int8")
    assert torch.equal(output(ffmerge.load(tmp_path / "int8")), output(quantized))
