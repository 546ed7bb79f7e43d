"""Checkpoints that are broken or unusual: each ends in one line, or in a model that is right.

A tiny checkpoint is copied and broken in one way; the command runs in this process.
"""

import json
import os
import re
import shutil
import struct
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

import ffmerge
import own_models
from families import FAMILIES, batch_of
from ffmerge.__main__ import main
from ffmerge.models.tensor_file import read_head
from own_models import run
from provenance.digest import sha256_of

WEIGHTS, PICKLE = "model.safetensors", "pytorch_model.bin"
INDEX, SHARD = f"{WEIGHTS}.index.json", "model-00001-of-00001.safetensors"
FC = "transformer.h.1.mlp.c_fc.weight"
IDS = torch.ones(2, 8, dtype=torch.long)  # of a batch
Break = Callable[[Path], object]


@pytest.fixture(scope="module")
def whole(tmp_path_factory) -> Callable[[str], tuple[Path, Path]]:
    """A family's model and data, made once."""
    folder, made = tmp_path_factory.mktemp("whole"), {}

    def of(name: str) -> tuple[Path, Path]:
        if name not in made:
            model = own_models.save(name, folder / name / "model")
            made[name] = model, own_models.data_for(FAMILIES[name], folder / name / "data")
        return made[name]

    return of


# --- ways to break a checkpoint -------------------------------------------------------------------


def all_of(*breaks: Break) -> Break:
    return lambda model: [each(model) for each in breaks]


def content(name: str, text: str | bytes) -> Break:
    """Replace a file's content."""
    return lambda model: (model / name).write_bytes(text if type(text) is bytes else text.encode())


def without_file(name: str) -> Break:
    return lambda model: (model / name).unlink()


def keys(name: str, **changes) -> Break:
    """Change keys of a JSON file; None removes one."""

    def apply(model: Path) -> None:
        values = json.loads((model / name).read_text()) | changes
        kept = {key: value for key, value in values.items() if value is not None}
        (model / name).write_text(json.dumps(kept))

    return apply


def config(**changes) -> Break:
    return keys("config.json", **changes)


def tokenizer(**changes) -> Break:
    return keys("tokenizer_config.json", **changes)


def tensors(change: Callable[[dict], dict]) -> Break:
    """Change the tensors in the file of weights."""
    return lambda model: save_file(
        change(load_file(model / WEIGHTS)), model / WEIGHTS, {"format": "pt"}
    )


def tensor(change: Callable[[torch.Tensor], torch.Tensor], name: str = FC) -> Break:
    return tensors(lambda stored: stored | {name: change(stored[name]).contiguous()})


def every(change: Callable[[torch.Tensor], torch.Tensor]) -> Break:
    return tensors(lambda stored: {name: change(value) for name, value in stored.items()})


def renamed(rename: Callable[[str], str]) -> Break:
    return tensors(lambda stored: {rename(name): value for name, value in stored.items()})


def without(part: str) -> Break:
    return tensors(lambda stored: {n: value for n, value in stored.items() if part not in n})


def rows(n: int, name: str) -> Break:
    """Cut an embedding."""
    return all_of(config(vocab_size=n), tensor(lambda values: values[:n], name))


def head(**entry) -> Break:
    """Change what the safetensors head says of FC, and nothing else."""

    def apply(model: Path) -> None:
        raw = (model / WEIGHTS).read_bytes()
        length = int.from_bytes(raw[:8], "little")
        values = json.loads(raw[8 : 8 + length])
        values[FC] |= entry
        text = json.dumps(values).encode()
        (model / WEIGHTS).write_bytes(struct.pack("<Q", len(text)) + text + raw[8 + length :])

    return apply


def pickled(wrap: Callable[[dict], object]) -> Break:
    """Store the weights as a pickle of what `wrap` makes of them."""

    def apply(model: Path) -> None:
        torch.save(wrap(load_file(model / WEIGHTS)), model / PICKLE)
        (model / WEIGHTS).unlink()

    return apply


def index(change: Callable[[dict], object], shard: str = SHARD) -> Break:
    """Put the weights into a shard, with an index that `change` changes."""

    def apply(model: Path) -> None:
        names = read_head(model / WEIGHTS)
        (model / WEIGHTS).rename(model / shard)
        text = change({"metadata": {}, "weight_map": dict.fromkeys(names, SHARD)})
        (model / INDEX).write_text(text if isinstance(text, str) else json.dumps(text))

    return apply


def nothing(model: Path) -> None:
    pass


LFS = "version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 12345\n"
BROKEN: dict[str, tuple] = {  # family, how it is broken, the error as a pattern, more options
    # files
    "weights, a pointer": ("gpt2", content(WEIGHTS, LFS), f"{WEIGHTS} is a pointer of Git LFS"),
    "config, a pointer": ("gpt2", content("config.json", LFS), "config.json is a pointer of Git"),
    "tokenizer, a pointer": ("gpt2", content("tokenizer.json", LFS), "tokenizer.json is a pointer"),
    "pickle, a pointer": (
        "gpt2",
        all_of(without_file(WEIGHTS), content(PICKLE, LFS)),
        f"{PICKLE} is a pointer of Git LFS",
    ),
    "a page": ("gpt2", content(WEIGHTS, "<!doctype html>" * 9), f"{WEIGHTS} is no safetensors"),
    "empty": ("gpt2", content(WEIGHTS, ""), f"{WEIGHTS} is no safetensors"),
    "adapter": (
        "gpt2",
        all_of(
            content("adapter_config.json", "{}"),
            lambda model: (model / WEIGHTS).rename(model / "adapter_model.safetensors"),
        ),
        r"adapter \(adapter_config.json, as of LoRA\): merge it into",
    ),
    "adapter beside weights": (
        "gpt2",
        content("adapter_config.json", '{"peft_type": "LORA"}'),
        "remove adapter_config.json",
    ),
    # heads of safetensors files
    "head too long": (
        "gpt2",
        content(WEIGHTS, b"\xff" * 8 + b"{}"),
        f"{WEIGHTS} is no safetensors",
    ),
    "head no object": ("gpt2", content(WEIGHTS, struct.pack("<Q", 3) + b"[1]"), "its head has"),
    "offsets below 0": ("gpt2", head(data_offsets=[-64, 0]), f"{FC} has impossible sizes"),
    "offsets overlap": ("gpt2", head(data_offsets=[0, 512]), f"{FC} does not begin where"),
    "offsets swapped": ("gpt2", head(data_offsets=[512, 0]), f"{FC} has -512 bytes where 512"),
    "offsets too short": ("gpt2", head(data_offsets=[0, 5]), f"{FC} has 5 bytes where 512 belong"),
    "offsets of text": ("gpt2", head(data_offsets=["a", 5]), f"{FC} has no dtype that is read"),
    "shape below 0": ("gpt2", head(shape=[-8, -16]), f"{FC} has impossible sizes"),
    "shape no number": ("gpt2", head(shape=[8.0, 16]), f"{FC} has impossible sizes"),
    "shape past memory": ("gpt2", head(shape=[2**40, 2**40]), f"{FC} has 512 bytes where"),
    "shape turned": ("gpt2", head(shape=[16, 8]), rf"{FC} has the shape \(16, 8\), but config"),
    "unknown dtype": ("gpt2", head(dtype="F4"), f"{FC} has no dtype that is read here: 'F4'"),
    "of integers": (
        "gpt2",
        head(dtype="I32"),
        f"{FC} is stored as torch.int32: the model is quant",
    ),
    "bytes after the end": (
        "gpt2",
        lambda model: (model / WEIGHTS).open("ab").write(b"x" * 100),
        "100 bytes after its last tensor",
    ),
    # tensors
    "no values": ("gpt2", tensor(lambda _: torch.zeros(0, 16)), rf"{FC} has the shape \(0, 16\)"),
    "no tensors": ("gpt2", tensors(lambda _: {}), "hold none of the tensors of GPT2LMHeadModel"),
    "NaN": ("gpt2", tensor(lambda values: values * torch.nan), f"{FC} holds NaN"),
    "biases of integers": (
        "gpt2",
        tensor(torch.Tensor.bool, FC.replace("weight", "bias")),
        "c_fc.bias is stored as torch.bool",
    ),
    "a layer too few": ("gpt2", without(".h.2."), "n_layer is 3, but .* hold 2 layers of the dec"),
    "half a layer": ("gpt2", without("h.2.attn"), "missing transformer.h.2.attn.c_attn.bias"),
    "no embeddings": ("gpt2", without("wte"), "lack .*transformer.wte.weight, which it needs"),
    "double, in single": ("gpt2", every(torch.Tensor.double), "lose bits", "--dtype", "float32"),
    "wrapped": ("gpt2", renamed("module.{}".format), "have: module.transformer.*puts 'module.' in"),
    "compiled": ("gpt2", renamed("_orig_mod.{}".format), "puts '_orig_mod.' in front"),
    "of peft": ("gpt2", renamed("base_model.model.{}".format), "puts 'base_model.model.' in front"),
    "of another": (
        "gpt2",
        renamed("x.{}.y".format),
        "have: x.trans.* config.json may be of another",
    ),
    # pickles
    "pickled model": ("gpt2", pickled(lambda s: {"model": s}), "'model' is a value of type dict"),
    "pickled list": (
        "gpt2",
        pickled(lambda s: [*s.values()]),
        f"{PICKLE} holds a value of type list",
    ),
    "pickled nothing": ("gpt2", pickled(lambda _: None), "holds a value of type NoneType"),
    "pickled, empty": ("gpt2", pickled(lambda _: {}), "holds a value of type dict, not tensors"),
    "pickled step": ("gpt2", pickled(lambda s: s | {"step": 3}), "'step' is a value of type int"),
    "pickled numbers": (
        "gpt2",
        pickled(lambda s: dict(enumerate(s.values()))),
        "0 is a tensor with",
    ),
    "pickled, sparse": (
        "gpt2",
        pickled(lambda s: s | {FC: s[FC].to_sparse()}),
        f"'{FC}' is a tensor .* layout torch.sparse_coo",
    ),
    "pickled, complex": (
        "gpt2",
        pickled(lambda s: s | {FC: s[FC].to(torch.complex64)}),
        f"'{FC}' is a tensor with dtype torch.complex64",
    ),
    "pickled code": ("gpt2", pickled(lambda _: {"a": print}), "would run code that it brings"),
    "pickle of no bytes": (
        "gpt2",
        all_of(without_file(WEIGHTS), content(PICKLE, "")),
        f"{PICKLE} holds no plain tensors, or is damaged",
    ),
    "half a zip": (
        "gpt2",
        all_of(without_file(WEIGHTS), content(PICKLE, b"PK\x03\x04" + b"x" * 300)),
        f"{PICKLE} holds no plain tensors, or is damaged",
    ),
    "pickled, wrapped": (
        "gpt2",
        pickled(lambda s: {f"module.{name}": value for name, value in s.items()}),
        r"/model: the files hold none .* \(they have: module.transformer",
    ),
    "pickled, past memory": (
        "gpt2",
        all_of(pickled(dict), config(vocab_size=10**12)),
        r"config.json describes take [\d,]+ bytes of memory, and there are",
    ),
    # indices of several files
    "index no JSON": ("gpt2", index(lambda _: "{"), f"{INDEX} is no index of a model's files"),
    "index empty": ("gpt2", index(lambda i: i | {"weight_map": {}}), f"{INDEX} is no index"),
    "index a list": ("gpt2", index(lambda _: []), f"{INDEX} is no index"),
    "index of lists": (
        "gpt2",
        index(lambda i: i | {"weight_map": [SHARD]}),
        f"{INDEX} is no index",
    ),
    "index of numbers": (
        "gpt2",
        index(lambda i: i | {"weight_map": {FC: 3}}),
        f"{INDEX} is no ind",
    ),
    "index without more": ("gpt2", index(lambda i: i | {"metadata": None}), f"{INDEX} is no index"),
    "index outside": (
        "gpt2",
        index(lambda i: i | {"weight_map": {FC: "../data/a.txt"}}),
        f"{INDEX} is no index .*names no files beside it",
    ),
    "index of another": (
        "gpt2",
        index(lambda i: i | {"weight_map": {"bert.x": SHARD}}),
        f"{INDEX} is not of the files beside it: only the index has bert.x",
    ),
    "a shard missing": ("gpt2", index(dict, "other.safetensors"), f"model lacks {SHARD}, which"),
    # config.json
    "config, a list": ("gpt2", content("config.json", "[]"), "config.json is not a JSON object"),
    "config, cut off": ("gpt2", content("config.json", '{"model'), "config.json is not JSON"),
    "config, endless": ("gpt2", content("config.json", "[" * 99999), "config.json is not JSON"),
    "config, UTF-16": ("gpt2", content("config.json", "{}".encode("utf-16")), "json is not JSON"),
    "no type": ("gpt2", config(model_type=None), "config.json names no model_type"),
    "type a list": ("gpt2", config(model_type=["gpt2"]), "config.json names no model_type"),
    "type unknown": (
        "gpt2",
        config(model_type="gpt17"),
        "json: transformers cannot read it: .*gpt17",
    ),
    "type of another": ("gpt2", config(model_type="bert"), "for bert, .* such as BertModel"),
    "generation, a list": (
        "gpt2",
        content("generation_config.json", "[]"),
        "n_config.json is not a",
    ),
    "generation, cut off": (
        "gpt2",
        content("generation_config.json", "{"),
        "_config.json is not J",
    ),
    "no architectures": ("gpt2", config(architectures=None), "architectures is null: .* GPT2Model"),
    "two architectures": (
        "gpt2",
        config(architectures=["GPT2Model", "GPT2LMHeadModel"]),
        "has to be a list of one class",
    ),
    **{
        f"architectures {value}": (
            "gpt2",
            config(architectures=value),
            rf"json: architectures is {re.escape(json.dumps(value))}: has to be a list of one",
        )
        for value in (
            *(["Trainer"], ["GPT2Config"], ["PreTrainedModel"], ["AutoModelForCausalLM"], [3], []),
            *(
                ["set_seed"],
                ["models"],
                ["GPT2Tokenizer"],
                ["BertForMaskedLM"],
                ["MyGPT"],
                "GPT2Model",
            ),
        )
    },
    "layers, too many": ("gpt2", config(n_layer=5), "n_layer is 5, but .* hold 3 layers of the"),
    "layers, too few": ("gpt2", config(n_layer=2), "n_layer is 2, but .* hold 3 layers of the"),
    "layers, a million": (
        "gpt2",
        config(n_layer=10**6),
        "n_layer is 1000000, but .* only 40 tensors",
    ),
    "no layers": ("gpt2", config(n_layer=0), "by its config.json: no layer of the model"),
    "layers, a word": ("gpt2", config(n_layer="three"), "cannot read it: .*'n_layer'"),
    "wider": ("gpt2", config(n_embd=16), r"has the shape \(24,\), but config.json says \(48,\)"),
    "FF wider": ("gpt2", config(n_inner=32), r"c_fc.* but config.json says \(32,\)"),
    "more words": ("gpt2", config(vocab_size=10**12), "wte.weight .* says .1000000000000, 8"),
    "more positions": ("gpt2", config(n_positions=64), "wpe.weight has the shape"),
    "three heads": ("gpt2", config(n_head=3), "config.json describes no GPT2LMHeadModel"),
    "no heads": ("gpt2", config(n_head=0), "describes no GPT2LMHeadModel that can be built"),
    "words below 0": ("gpt2", config(vocab_size=-1), "describes no GPT2LMHeadModel"),
    "words past 64 bits": ("gpt2", config(vocab_size=2**70), "describes no GPT2LMHeadModel"),
    "no such function": ("gpt2", config(activation_function="f"), "describes no GPT2LMHeadModel"),
    "no such dtype": ("gpt2", config(dtype="float99"), "transformers cannot read it: .*float99"),
    "a key twice": (
        "gpt2",
        lambda model: content(
            "config.json",
            (model / "config.json").read_text().replace("{", '{"n_layer": 7,', 1),
        )(model),
        "config.json is not JSON: an object has 'n_layer' twice",
    ),
    "quantized, it says, by nothing": (
        "gpt2",
        config(quantization_config={}),
        r"is quantized; .* \(config.json has quantization_config\)",
    ),
    "dropout below 0": ("gpt2", config(attn_pdrop=-1), "describes no GPT2LMHeadModel that can"),
    "an attention of nobody": (
        "gpt2",
        config(_attn_implementation="x"),
        "describes no GPT2LMHeadModel that can be built",
    ),
    "padding past the words": ("bert", config(pad_token_id=99), "describes no BertForMaskedLM"),
    "chunks that do not fit": (
        "bert",
        config(chunk_size_feed_forward=3),
        r"BertForMaskedLM cannot compute a batch of .*chunk size 3|BertModel cannot compute",
    ),
    "classes that are no numbers": (
        "vit",
        config(id2label={"a": "b"}),
        "json: transformers cannot",
    ),
    "another number of classes": (
        "vit",
        config(id2label={"0": "a"}, label2id={"a": 0}),
        r"classifier.bias has the shape \(5,\), but config.json says \(1,\)",
    ),
    "epsilon NaN": ("gpt2", config(layer_norm_epsilon=float("nan")), "computes is not finite"),
    # what the data need
    "few embeddings": (
        "gpt2",
        rows(20, "transformer.wte.weight"),
        r"a token, 'w\d+' with the id \d+, but the model's embeddings have 20 rows: call .*resize",
    ),
    "no embedding of the mask": (
        "bert",
        all_of(
            rows(49, "bert.embeddings.word_embeddings.weight"),
            tensor(lambda values: values[:49], "cls.predictions.bias"),
        ),
        "a token, '<mask>' with the id 49, but the model's embeddings have 49 rows",
    ),
    "a longest length in words": (
        "gpt2",
        tokenizer(model_max_length="many"),
        "model has no tokenizer that transformers can load, which the data need",
    ),
    "tokenizer, cut off": (
        "gpt2",
        content("tokenizer.json", '{"version": "1.0", "trunc'),
        "model has no tokenizer that transformers can load",
    ),
    "tokenizer, a list": ("gpt2", content("tokenizer_config.json", "[]"), "has no tokenizer that"),
    "processor of nobody": (
        "vit",
        content("preprocessor_config.json", '{"image_processor_type": "X"}'),
        r"ViT\w+ cannot compute a batch of pixel_values \(\d, 3, 224, 224\)",
    ),
    "processor that divides by 0": (
        "vit",
        keys("preprocessor_config.json", image_mean=[0, 0, 0], image_std=[0, 0, 0]),
        "values of it that are not finite: look at image_std in preprocessor_config.json",
    ),
    "processor without a size": (
        "vit",
        keys("preprocessor_config.json", size={}),
        "preprocessor|processor",
    ),
    "RoBERTa too long": (
        "roberta",
        tokenizer(model_max_length=None),
        "2 to 31",
        "--max-length",
        "32",
    ),
    # options
    "layers backwards": (
        "gpt2",
        nothing,
        "--layers 2-1: 2-1 ends before it begins",
        "--layers",
        "2-1",
    ),
    "layers without end": ("gpt2", nothing, "write 3-7", "--layers", "0-99999999999"),
    "one layer": ("gpt2", nothing, "a group has at least two", "--layers", "1"),
    "endless share": (
        "gpt2",
        nothing,
        "--remove 1e999999999: has to be",
        "--remove",
        "1e999999999",
    ),
    "share of nothing": ("gpt2", nothing, "--remove 1/0", "--remove", "1/0"),
    "device gpu": ("gpt2", nothing, "device 'gpu': torch knows none such", "--device", "gpu"),
    "device meta": ("gpt2", nothing, "device 'meta'", "--device", "meta"),
    "a GPU that is not there": ("gpt2", nothing, "device 'cuda:99': this", "--device", "cuda:99"),
    "no examples at a time": ("gpt2", nothing, "batch_size 0: has to be", "--batch-size", "0"),
    "no tokens": ("gpt2", nothing, "takes sequences of 2 to", "--max-length", "1"),
}


@pytest.mark.parametrize("name", BROKEN)
def test_a_broken_checkpoint_or_option_ends_in_one_line_and_changes_nothing(
    name, whole, tmp_path, capsys
):
    family, broken, message, *more = BROKEN[name]
    model, data = whole(family)
    shutil.copytree(model, tmp_path / "model")
    broken(tmp_path / "model")
    before, there = sha256_of(tmp_path / "model"), sorted(tmp_path.rglob("*"))
    request = [] if {"--layers", "--remove"} & set(more) else ["--remove", "1"]
    named = ["compress", tmp_path / "model", "--features", data, "--out", tmp_path / "out"]
    capsys.readouterr()
    status, printed, error = run(capsys, *named, "--n-tokens", 40, *request, *more)
    assert (status, printed) == (2, "")
    assert re.search(message, error), error
    assert error.startswith("error: ") and error.count("\n") == 1, error
    assert sha256_of(tmp_path / "model") == before and sorted(tmp_path.rglob("*")) == there


@pytest.mark.parametrize("name", ["config.json", WEIGHTS, "tokenizer.json", "anything"])
@pytest.mark.parametrize("make", [os.mkfifo, lambda file: file.symlink_to("/dev/zero")])
@pytest.mark.parametrize("command", ["compress", "tune", "evaluate"])
def test_a_pipe_or_device_among_the_files_of_a_model_is_named(
    name, make, command, whole, tmp_path, capsys
):
    model, data = whole("gpt2")
    shutil.copytree(model, tmp_path / "model")
    (tmp_path / "model" / name).unlink(missing_ok=True)
    make(tmp_path / "model" / name)
    there = sorted(tmp_path.rglob("*"))
    capsys.readouterr()
    named = [command, tmp_path / "model", "--data", data, "--out", tmp_path / "out"]
    if command == "compress":
        named = [*named[:2], "--features", data, *named[4:], "--remove", "1"]
    status, printed, error = run(capsys, *(named[:4] if command == "evaluate" else named))
    assert (status, printed) == (2, "")
    assert error == (
        f"error: {tmp_path / 'model' / name} is a pipe or a device, not a file of a model: take it "
        "away\n"
    )
    assert sorted(tmp_path.rglob("*")) == there


ENTRIES: dict[str, tuple[str, str]] = {  # an architecture's entry, the error as a pattern
    "a layer in two towers": (
        "{a: {layers: h.*, up: mlp.c_fc, down: mlp.c_proj, layout: in_out}, "
        "b: {layers: h.*, up: mlp.c_fc, down: mlp.c_proj, layout: in_out}}",
        r"transformer\.h\.\d is in two towers of the architecture's entry, a and b",
    ),
    "another layout": (
        "{decoder: {layers: h.*, up: mlp.c_fc, down: mlp.c_proj, count: n_layer}}",
        "names no feed-forward sublayer in transformer.h.0",
    ),
    "one map twice": (
        "{decoder: {layers: h.*, up: mlp.c_fc, down: mlp.c_fc, layout: in_out, count: n_layer}}",
        "names no feed-forward sublayer in transformer.h.0 .*changes the output by",
    ),
    "no layers": ("{decoder: {layers: h, up: mlp.c_fc, down: mlp.c_proj}}", "no layer of the"),
    "a count of nobody": (
        "{decoder: {layers: h.*, up: mlp.c_fc, down: mlp.c_proj, layout: in_out, count: n_x}}",
        "config.json has no key n_x, which the architecture's entry names as count of the decoder",
    ),
    "a mask of nobody": (
        "{decoder: {layers: h.*, up: mlp.c_fc, down: mlp.c_proj, layout: in_out, mask: x}}",
        "towers.decoder.mask: has to be attention_mask or decoder_attention_mask or null",
    ),
}


@pytest.mark.parametrize("name", ENTRIES)
def test_an_entry_that_does_not_fit_the_model_is_refused_in_one_line(name, whole, tmp_path, capsys):
    towers, message = ENTRIES[name]
    model, data = whole("gpt2")
    (tmp_path / "entry.yaml").write_text(f"prefix: transformer\ntowers: {towers}\n")
    named = ["compress", model, "--features", data, "--out", tmp_path / "out", "--remove", "2"]
    before = sha256_of(model)
    status, printed, error = run(
        capsys, *named, "--n-tokens", 40, "--architecture", tmp_path / "entry.yaml"
    )
    assert (status, printed) == (2, "")
    assert re.search(message, error), error
    assert error.startswith("error: ") and error.count("\n") == 1, error
    assert sha256_of(model) == before and os.listdir(tmp_path) == ["entry.yaml"]


OPTIONS = [  # options of a tuning, the error as a pattern
    ({"seed": -1}, "seed -1: has to be at least 0"),
    ({"seed": 2**32}, "seed 4294967296: has to be at most 4294967295"),
    ({"steps": 2**64}, "steps 18446744073709551616: has to be at most"),
    ({"batch_size": 10**30}, "batch_size 1000000000000000000000000000000: has to be at most"),
    ({"learning_rate": 0.0}, "learning_rate 0.0: has to be a number above 0"),
    ({"learning_rate": float("inf")}, "learning_rate inf: has to be a number above 0"),
    ({"learning_rate": float("nan")}, "learning_rate nan: has to be a number above 0"),
    ({"devices": 10**6}, r"devices: 1000000, but there are \d+ processor cores"),
    ({"device": "cpu:1"}, "device 'cpu:1': take cpu or cuda"),
    ({"precision": "fp16"}, "precision fp16 needs a GPU"),
    ({"teacher": ""}, "teacher is empty: name one, or leave the option out"),  # as of "$UNSET"
    ({"text": ""}, "text is empty: name one, or leave the option out"),
    ({"held_out": ""}, "the name of a file or directory of data is empty"),
    ({"architecture": "/dev/zero"}, "/dev/zero is a folder, a pipe or a device, not a file"),
    ({"architecture": "/"}, "/ is a folder, a pipe or a device, not a file"),
]


@pytest.mark.parametrize(("options", "message"), OPTIONS)
def test_a_number_that_no_tuning_can_have_is_refused(options, message, whole, tmp_path, capsys):
    model, data = whole("gpt2")
    named = ["tune", model, "--data", data, "--out", tmp_path / "out", "--steps", 1]
    more = [w for k, v in options.items() for w in (f"--{k.replace('_', '-')}", v)]
    try:
        told = run(capsys, *named, *more)[2]
    except SystemExit as ended:
        told = str(ended)
    assert re.search(message, told), told
    assert os.listdir(tmp_path) == []


UNUSUAL: dict[str, tuple] = {  # family, how it is unusual, what the summary says as a pattern
    "double": ("gpt2", every(torch.Tensor.double), ""),
    "8 bits": ("gpt2", every(lambda values: values.to(torch.float8_e4m3fn)), ""),
    "8 bits in one": (
        "gpt2",
        tensor(lambda values: values.to(torch.float8_e5m2), FC.replace("h.1", "h.2")),
        "",
    ),
    "half, one single": (
        "gpt2",
        tensors(lambda s: {n: v if "ln_f" in n else v.half() for n, v in s.items()}),
        "",
    ),
    "half, one single, no prefix": (
        "gpt2",
        tensors(
            lambda s: {n[12:]: v if "ln_f" in n else v.half() for n, v in s.items()},
        ),
        "",
    ),
    "one tensor more, without values": (
        "gpt2",
        tensors(lambda s: s | {"extra": torch.zeros(0)}),
        "note: GPT2LMHeadModel has no place for extra",
    ),
    "a buffer of earlier versions": (
        "gpt2",
        tensors(lambda s: s | {"transformer.h.0.attn.bias": torch.ones(1, 1, 4, 4)}),
        "",
    ),
    "a training checkpoint": ("gpt2", pickled(lambda s: {"epoch": 1, "state_dict": s}), ""),
    "an index": ("gpt2", index(dict), ""),
    "no pooler": ("bert, no head", without("pooler"), "note: the model has no pooler.dense.bias"),
    "no head": ("vit", without("classifier"), "the loss leaves out the head of ViTForImageClass"),
    "another head": (
        "bert",
        config(architectures=["BertForQuestionAnswering"]),
        "original's outputs before its head.*leaves out the head of BertForQuestionAnswering",
    ),
    "a classifier without a token for padding": (
        "gpt2",
        all_of(
            config(architectures=["GPT2ForSequenceClassification"], pad_token_id=None),
            tensors(lambda s: s | {"score.weight": torch.ones(2, 8)}),
        ),
        "head of GPT2ForSequenceClassification: .*padding token",
    ),
    "BART that classifies": (
        "bart",
        config(architectures=["BartForSequenceClassification"]),
        "head of BartForSequenceClassification",
    ),
    "no mask token": ("bert", tokenizer(mask_token=None), "KL divergence"),
    "RoBERTa, no longest length": ("roberta", tokenizer(model_max_length=None), "masked tokens"),
}


@pytest.mark.parametrize("form", ["tied", pytest.param("expanded", marks=pytest.mark.long)])
@pytest.mark.parametrize("name", UNUSUAL)
def test_an_unusual_checkpoint_is_compressed_and_keeps_its_tensors_and_dtypes(
    name, form, whole, tmp_path, capsys
):
    family, unusual, says = UNUSUAL[name]
    model, data = whole(family)
    shutil.copytree(model, tmp_path / "model")
    unusual(tmp_path / "model")
    before = sha256_of(tmp_path / "model")
    named = ["compress", tmp_path / "model", "--features", data, "--out", tmp_path / "out"]
    options = ["--n-tokens", 40, "--layers", "0-1", "--form", form]
    status, printed, error = run(capsys, *named, *options)
    assert status == 0, error
    assert re.search(says, printed, re.DOTALL), printed
    assert sha256_of(tmp_path / "model") == before
    stored = (read_head(file) for file in (tmp_path / "model").glob("*.safetensors"))
    dtypes = {_core(n): entry.dtype for files in stored for n, entry in files.items()}
    written = read_head(tmp_path / "out" / WEIGHTS)
    assert all(dtypes.get(_core(n), torch.float32) == entry.dtype for n, entry in written.items())
    assert not dtypes or {_core(n) for n in written} <= dtypes.keys()
    ffmerge.load(tmp_path / "out", dtype="auto")


# --- tune, evaluate, compare: tensors that the files lack ----------------------------------------

BACKBONES = {
    "bert": ("bert, no head", without("pooler")),
    "roberta": (
        "roberta",
        all_of(config(architectures=["RobertaModel"]), without("lm_head")),
    ),
}


def requests(model: Path, data: Path, folder: Path) -> dict[str, list]:
    """The commands beside compress that load a model, each with `out` for what it writes."""
    place, few = ["--out", folder / "out"], ["--max-length", 8]
    return {
        "tune": ["tune", model, "--data", data, "--teacher", model, "--steps", 2, *few, *place],
        "evaluate": ["evaluate", model, "--against", model, "--data", data, *few],
        "compare": [
            *("compare", model, "--features", data, "--tune", data, "--steps", 1, *few),
            *("--remove", "1", "--n-tokens", 40, *place),
        ],
        "inspect": [
            *("inspect", model, "--features", data, "--n-tokens", 40, *few),
            *("--out", folder / "out.png"),
        ],
    }


@pytest.mark.parametrize(
    ("name", "command"),
    [
        *(("bert", command) for command in ("tune", "evaluate", "compare", "inspect")),
        *(("roberta", command) for command in ("tune", "evaluate")),
    ],
)
def test_a_backbone_saved_without_its_pooler_goes_through_every_command(
    name, command, whole, tmp_path, capsys
):
    family, saved = BACKBONES[name]
    model, data = whole(family)
    shutil.copytree(model, tmp_path / "model")
    saved(tmp_path / "model")
    before = sha256_of(tmp_path / "model")
    request = requests(tmp_path / "model", data, tmp_path)[command]
    status, printed, error = run(capsys, *request)
    assert status == 0, error
    assert "nan" not in printed
    assert sha256_of(tmp_path / "model") == before
    if command == "tune":
        written = read_head(tmp_path / "out" / WEIGHTS)
        assert {_core(n) for n in written} == {
            _core(n) for n in read_head(tmp_path / "model" / WEIGHTS)
        }
        request = requests(tmp_path / "out", data, tmp_path)["evaluate"]
        assert run(capsys, *request)[0] == 0


LACKING = {  # family, what its files lack, the error as a pattern
    "no embeddings": ("gpt2", without("wte"), r"transformer\.wte\.weight.*, which it"),
    "no norm": ("bert, no head", without("embeddings.Lay"), r"LayerNorm\.weight.*, which it"),
    "no head": (
        "vit",
        without("classifier"),
        r"missing classifier\.weight, classifier\.bias, which",
    ),
}


@pytest.mark.parametrize("command", ["tune", "evaluate", "compare"])
@pytest.mark.parametrize("name", LACKING)
def test_a_model_whose_outputs_need_what_its_files_lack_is_refused_in_one_line(
    name, command, whole, tmp_path, capsys
):
    family, broken, message = LACKING[name]
    model, data = whole(family)
    shutil.copytree(model, tmp_path / "model")
    broken(tmp_path / "model")
    before, there = sha256_of(tmp_path / "model"), sorted(tmp_path.rglob("*"))
    request = requests(tmp_path / "model", data, tmp_path)[command]
    if family == "vit":
        del request[(at := request.index("--max-length")) : at + 2]
    status, printed, error = run(capsys, *request)
    assert (status, printed) == (2, "")
    assert re.search(message, error), error
    assert error.splitlines()[-1].startswith("error: ") and error.count("error: ") == 1, error
    assert sha256_of(tmp_path / "model") == before and sorted(tmp_path.rglob("*")) == there


def _core(name: str) -> str:
    """A tensor's name without the prefix that a model with a head has."""
    return re.sub(r"^(transformer|bert|vit|model|roberta)\.", "", name)


def test_a_model_stored_in_16_bits_comes_out_smaller_whatever_its_tensors_are_called(
    whole, tmp_path
):
    model, data = whole("gpt2")
    sizes = {}
    for prefix in ("transformer.", ""):
        files = shutil.copytree(model, tmp_path / f"model {prefix}")
        halved = tensors(
            lambda s, prefix=prefix: {
                n.replace("transformer.", prefix): v if "ln_f" in n else v.half()
                for n, v in s.items()
            }
        )
        halved(files)
        result = ffmerge.compress(
            files, features=data, out=tmp_path / f"out {prefix}", layers="0-1"
        )
        sizes[prefix] = result.bytes[1]
        assert result.bytes[1] < result.bytes[0]
    assert abs(sizes[""] - sizes["transformer."]) < 500  # the names are shorter


# --- export: a merged model that is broken -------------------------------------------------------

MERGED: dict[str, tuple[Break, str]] = {  # how it is broken, the error as a pattern
    "config, cut off": (content("config.json", '{"model'), "config.json is not JSON"),
    "weights, cut off": (content(WEIGHTS, "{}"), f"{WEIGHTS} is no safetensors file"),
    "nothing merged": (config(ffmerge_groups=[]), "nothing is merged in"),
    "groups, a word": (config(ffmerge_groups="0-1"), "config.json: ffmerge_groups is not as"),
    "groups of numbers": (config(ffmerge_groups=[3]), "config.json: ffmerge_groups is not as"),
    "groups without layers": (
        config(ffmerge_groups=[{"tower": "decoder"}]),
        "config.json: ffmerge_groups is not as",
    ),
    "groups of other modules": (
        config(
            ffmerge_groups=[
                {
                    "tower": "decoder",
                    "layers": [0, 1],
                    "anchor": 0,
                    "modules": [["x", "h.0.mlp.c_fc"]],
                }
            ]
        ),
        "what is not there",
    ),
    "no stock type": (config(ffmerge_model_type=None), "config.json: .*no ffmerge_model_type"),
    "stock type unknown": (config(ffmerge_model_type="gpt17"), "config.json: .*gpt17"),
    "no architectures": (config(architectures=None), "config.json: architectures is null"),
    "a tensor missing": (without("h.0.mlp.c_fc.weight"), "missing .*h.0.mlp.c_fc.weight"),
    "another shape": (
        tensor(lambda v: v[:4], "transformer.wte.weight"),
        "wte.weight has the shape",
    ),
    "layers, too many": (config(n_layer=5), "n_layer is 5, but"),
}


@pytest.fixture(scope="module")
def merged(whole, tmp_path_factory) -> Path:
    model, data = whole("gpt2")
    out = tmp_path_factory.mktemp("merged") / "model"
    ffmerge.compress(model, features=data, out=out, layers="0-1", n_tokens=40)
    (out / "ffmerge_record.json").unlink()  # by which any change would be seen
    return out


@pytest.mark.parametrize("name", MERGED)
def test_a_broken_merged_model_is_not_exported(name, merged, tmp_path, capsys):
    broken, message = MERGED[name]
    shutil.copytree(merged, tmp_path / "model")
    broken(tmp_path / "model")
    before, there = sha256_of(tmp_path / "model"), sorted(tmp_path.rglob("*"))
    capsys.readouterr()
    status, printed, error = run(capsys, "export", tmp_path / "model", "--out", tmp_path / "out")
    assert (status, printed) == (2, "")
    assert re.search(message, error), error
    assert error.startswith("error: ") and error.count("\n") == 1, error
    assert sha256_of(tmp_path / "model") == before and sorted(tmp_path.rglob("*")) == there


# --- the place of the output ----------------------------------------------------------------------


@pytest.mark.parametrize("out", ["model/out", "data/out", "model/new/out", "data/../model/out"])
def test_an_output_inside_an_input_is_refused(out, whole, tmp_path, capsys):
    for name, source in zip(("model", "data"), whole("gpt2"), strict=True):
        shutil.copytree(source, tmp_path / name)
    before = sha256_of(tmp_path / "model"), sha256_of(tmp_path / "data")
    named = ["compress", tmp_path / "model", "--features", tmp_path / "data"]
    status, _, error = run(capsys, *named, "--out", tmp_path / out, "--remove", "1")
    assert status == 2 and "which is an input" in error
    named = ["tune", tmp_path / "model", "--data", tmp_path / "data"]
    status, _, error = run(capsys, *named, "--out", tmp_path / out)
    assert status == 2 and "which is an input" in error
    named = ["inspect", tmp_path / "model", "--features", tmp_path / "data"]
    status, _, error = run(capsys, *named, "--out", tmp_path / out)
    assert status == 2 and "which is an input" in error
    assert (sha256_of(tmp_path / "model"), sha256_of(tmp_path / "data")) == before


def no_thread() -> None:
    raise RuntimeError("can't start new thread")


TOO_MUCH = {
    "torch": lambda: torch.empty(2**58),
    "python": lambda: bytearray(2**60),
    "thread": no_thread,
}


class Memory:
    """A command that asks torch, Python or the system for more memory than there is."""

    @staticmethod
    def add_arguments(parser) -> None:
        parser.add_argument("by", choices=TOO_MUCH)

    @staticmethod
    def run(options) -> int:
        TOO_MUCH[options.by]()
        return 0


@pytest.mark.parametrize("by", TOO_MUCH)
def test_memory_that_is_not_there_is_one_line(by, capsys):
    place = f"{__name__}:{Memory.__name__}"
    assert main(["memory", by], {"memory": (place, "")}) == 2
    assert re.fullmatch("error: there is not enough memory: .*\n", capsys.readouterr().err)


def test_a_library_for_which_there_is_no_memory_is_one_line(tmp_path, monkeypatch, capsys):
    (tmp_path / "heavy.py").write_text(
        "raise ImportError('libgomp.so.1: failed to map segment from shared object')"
    )
    monkeypatch.syspath_prepend(tmp_path)
    assert main(["heavy"], {"heavy": ("heavy:Command", "")}) == 2
    assert re.fullmatch("error: there is not enough memory: .*\n", capsys.readouterr().err)


@pytest.mark.parametrize("command", ["compress x --features y --out z --remove 1", "inspect x"])
def test_a_limit_of_addresses_that_torch_exceeds_is_one_line(command):
    program = (
        "import resource, sys; from ffmerge.__main__ import main; "
        "resource.setrlimit(resource.RLIMIT_AS, (2**30, 2**30)); sys.exit(main(sys.argv[1:]))"
    )
    arguments = [sys.executable, "-c", program, *command.split()]
    ended = subprocess.run(arguments, capture_output=True, text=True)
    assert ended.returncode == 2
    assert re.fullmatch(r"error: a process may have only .*ulimit -v.*\n", ended.stderr)


def test_without_a_terminal_it_says_what_there_is_to_do_and_when_a_stage_has_ended(
    whole, tmp_path, capsys
):
    model, data = whole("gpt2")
    named = ["compress", model, "--features", data, "--out", tmp_path / "out"]
    status, printed, error = run(capsys, *named, "--remove", "1", "--n-tokens", 40, "--json")
    assert status == 0 and json.loads(printed)
    plan, *stages = error.splitlines()
    assert re.fullmatch(
        "pairs of layers to align: 2, about .*; windows to try: 2, at most .*", plan
    )
    assert [line.split(":")[0] for line in stages] == [
        *("features", "alignment", "search", "merging", "loss after", "writing"),
    ]


# --- what travels to the output -------------------------------------------------------------------


def test_modules_travel_with_their_list_and_what_cannot_hold_is_left_out_by_name(
    whole, tmp_path, capsys
):
    model, data = whole("bert, no head")
    shutil.copytree(model, tmp_path / "model")
    modules = [{"path": "", "type": "Transformer"}, {"path": "1_Pooling", "type": "Pooling"}]
    (tmp_path / "model/1_Pooling").mkdir()
    content("1_Pooling/config.json", '{"word_embedding_dimension": 8}')(tmp_path / "model")
    content("modules.json", json.dumps(modules))(tmp_path / "model")
    content("trainer_state.json", "{}")(tmp_path / "model")
    config(auto_map={"AutoModel": "modeling_x.X"})(tmp_path / "model")
    tokenizer(auto_map={"AutoTokenizer": ["tokenization_x.X", None]})(tmp_path / "model")
    named = ["compress", tmp_path / "model", "--features", data, "--out", tmp_path / "out"]
    status, printed, error = run(capsys, *named, "--remove", "1", "--n-tokens", 40)
    assert status == 0, error
    for name in ("modules.json", "1_Pooling/config.json"):
        assert (tmp_path / "out" / name).read_bytes() == (tmp_path / "model" / name).read_bytes()
    assert not (tmp_path / "out/trainer_state.json").exists()
    for name in ("config.json", "tokenizer_config.json"):
        assert "auto_map" not in json.loads((tmp_path / "out" / name).read_text())
        assert f"auto_map of {name}" in printed
    assert "trainer_state.json" in printed
    (tmp_path / "model/1_Pooling/config.json").unlink()
    (tmp_path / "model/1_Pooling").rmdir()
    named[-1] = tmp_path / "second"
    status, printed, error = run(capsys, *named, "--remove", "1", "--n-tokens", 40)
    assert status == 0 and not (tmp_path / "second/modules.json").exists()
    assert "modules.json (a module that it names is not there)" in printed


# --- architectures that are not in the table ------------------------------------------------------

PICO = {"vocab_size": 50, "hidden_size": 8, "num_hidden_layers": 2, "intermediate_size": 16}
TEXT = {**PICO, "num_attention_heads": 2, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 1}


def compressed_as_proposed(capsys, model, data, out) -> tuple[int, str, str]:
    status, entry, error = run(capsys, "inspect", model, "--propose")
    assert status == 0, error
    file = out.with_name("entry.yaml")
    file.write_text(entry)
    named = ["compress", model, "--features", data, "--out", out, "--architecture", file]
    return run(capsys, *named, "--remove", "1", "--n-tokens", 40)


def test_a_proposal_that_is_no_sublayer_is_refused(whole, tmp_path, capsys):
    from transformers import MambaConfig, MambaForCausalLM

    MambaForCausalLM(MambaConfig(**PICO, state_size=4)).save_pretrained(tmp_path / "model")
    own_models.tokenizer(tmp_path / "model")
    data = whole("gpt2")[1]
    status, _, error = compressed_as_proposed(capsys, tmp_path / "model", data, tmp_path / "out")
    assert status == 2 and not (tmp_path / "out").exists()
    assert "names no feed-forward sublayer in backbone.layers.0" in error
    assert error.count("\n") == 1
    request = requests(tmp_path / "model", data, tmp_path)["compare"]
    status, _, error = run(capsys, *request, "--architecture", tmp_path / "entry.yaml")
    assert status == 2 and not (tmp_path / "out").exists()
    assert "names no feed-forward sublayer in backbone.layers.0" in error


def test_two_stacks_get_names_of_their_own(whole, tmp_path, capsys):
    from transformers import BertConfig, EncoderDecoderConfig, EncoderDecoderModel

    halves = BertConfig(**TEXT), BertConfig(**TEXT)
    both = EncoderDecoderConfig.from_encoder_decoder_configs(
        *halves, pad_token_id=0, decoder_start_token_id=1
    )
    EncoderDecoderModel(both).save_pretrained(tmp_path / "model")
    own_models.tokenizer(tmp_path / "model")
    data = whole("bart")[1]
    status, entry, _ = run(capsys, "inspect", tmp_path / "model", "--propose")
    assert status == 0 and {"encoder:", "decoder:"} <= set(entry.split())
    file = tmp_path / "entry.yaml"
    file.write_text(entry)
    named = ["compress", tmp_path / "model", "--features", data, "--out", tmp_path / "out"]
    options = ["--architecture", file, "--remove", "2", "--n-tokens", 40]
    status, printed, error = run(capsys, *named, *options)
    assert status == 0, error
    assert "merged: encoder 0-1; decoder 0-1" in printed


def test_a_model_that_pads_inside_is_compressed(whole, tmp_path, capsys):
    from transformers import LongformerConfig, LongformerForMaskedLM

    settings = LongformerConfig(**TEXT, attention_window=4, max_position_embeddings=40)
    LongformerForMaskedLM(settings).save_pretrained(tmp_path / "model")
    own_models.tokenizer(tmp_path / "model")
    data = whole("bert")[1]
    status, printed, error = compressed_as_proposed(
        capsys, tmp_path / "model", data, tmp_path / "out"
    )
    assert status == 0, error
    assert "cross-entropy of masked tokens" in printed


# --- batches of one's own -------------------------------------------------------------------------


def test_positions_of_batches_without_a_mask_are_counted_by_their_own_length(whole, tmp_path):
    model, _ = whole("gpt2")
    ids = torch.ones(2, 30, dtype=torch.long)
    batches = [{"input_ids": ids[:, :n]} for n in (4, 30, 30, 30, 30)]
    result = ffmerge.compress(model, features=batches, out=tmp_path / "out", remove=1, n_tokens=180)
    assert result.n_tokens == 180  # 8 + 3 · 60, of which the first example's length would make 32
    batches = [{"input_ids": ids[:, :n]} for n in (30, 4, 4, 4, 4)]
    with pytest.raises(ValueError, match="the data hold 84 positions"):
        ffmerge.compress(model, features=batches, out=tmp_path / "b", remove=1, n_tokens=180)


@pytest.mark.parametrize(
    "batch, message",
    [
        ({"input_ids": torch.full((2, 8), 50)}, "the id 50, but the model's embeddings have 50"),
        ({"input_ids": torch.ones(2, 40, dtype=torch.long)}, r"input_ids \([12], 40\).*its tables"),
        ({"pixel_values": torch.ones(2, 3, 8, 8)}, "takes none of a batch's pixel_values"),
        ({"input_ids": [[1, 2]]}, "dict of tensors"),
        ([1, 2], "dict of tensors"),
        ({}, "dict of tensors"),
        ({1: IDS}, "dict of tensors"),
        ({"input_ids": torch.tensor(3)}, "dict of tensors"),
        ({"input_ids": IDS[:0]}, r"a batch has no rows: input_ids has the shape \(0, 8\)"),
        ({"input_ids": IDS - 9}, "its tables"),
        ({"input_ids": IDS.float()}, "cannot compute a batch"),
        ({"input_ids": IDS[0]}, "cannot compute a batch"),
        ({"labels": IDS}, "takes none of a batch's labels"),
        (
            {"input_ids": IDS, "attention_mask": IDS[:, :5]},
            r"attention_mask of the shape \(2, 5\), but ids of the shape \(2, 8\)",
        ),
        ({"input_ids": IDS, "attention_mask": torch.ones(2, 1, 8, 8)}, "give a mask with a 1 or"),
        ({"input_ids": IDS, "attention_mask": IDS * 0}, "the data hold 0 positions|nothing to"),
        ({"input_ids": IDS, "labels": IDS[:, :5]}, r"the labels have the shape \(2, 5\)"),
        ({"input_ids": IDS, "labels": IDS * 0 - 100}, "nothing to compute the cross-entropy"),
        ({"input_ids": IDS, "labels": IDS + 49}, "the label 50, but the model's classes are 0 to"),
        ({"input_ids": IDS, "labels": IDS - 3}, "the label -2, but the model's classes are 0 to"),
    ],
)
def test_a_batch_that_the_model_does_not_take_is_named(batch, message, whole, tmp_path):
    model, _ = whole("gpt2")
    with pytest.raises(ValueError, match=message):
        ffmerge.compress(model, features=[batch] * 3, out=tmp_path / "out", remove=1)
    with pytest.raises(ValueError, match=message):
        ffmerge.tune(model, data=[batch] * 3, out=tmp_path / "out", steps=1)
    assert list(tmp_path.iterdir()) == []
    assert batch_of(FAMILIES["gpt2"]).keys() == {"input_ids", "attention_mask"}


def test_a_stack_in_which_only_some_layers_have_a_sublayer_is_refused(whole, tmp_path, capsys):
    model, data = whole("gpt2")
    entry = tmp_path / "entry.yaml"
    entry.write_text("prefix: ''\ntowers: {decoder: {layers: '*.h.*', up: mlp.c_fc, down: mlp.x}}")
    named = ["compress", model, "--features", data, "--out", tmp_path / "out", "--remove", "1"]
    status, _, error = run(capsys, *named, "--architecture", entry)
    assert status == 2 and "no layer of the model has the modules" in error
    from transformers import Qwen3MoeConfig, Qwen3MoeForCausalLM

    more = {"head_dim": 4, "num_key_value_heads": 1, "num_experts": 2, "num_hidden_layers": 3}
    mixed = Qwen3MoeConfig(**{**TEXT, **more}, mlp_only_layers=[0, 2])
    Qwen3MoeForCausalLM(mixed).save_pretrained(tmp_path / "model")
    own_models.tokenizer(tmp_path / "model")
    status, _, error = run(capsys, "inspect", tmp_path / "model", "--propose")
    assert status == 2 and "only some have one (beside experts)" in error
    entry.write_text(
        "prefix: model\ntowers: {decoder: {layers: layers.*, gate: mlp.gate_proj, "
        "up: mlp.up_proj, down: mlp.down_proj}}"
    )
    named[1] = tmp_path / "model"
    status, _, error = run(capsys, *named, "--architecture", entry)
    assert status == 2 and "layers 1 of the decoder have no feed-forward" in error
