"""Compress a user's model, from the command line and from Python."""

import json
import math
import os
import re
import signal
import subprocess
import sys
from dataclasses import replace
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
import yaml
from safetensors.torch import load_file, save_file

import ffmerge
import own_models
from families import FAMILIES, FF, batch_of, output_of, pico
from ffmerge.compression import source, write
from ffmerge.compression.batches import from_examples
from ffmerge.compression.encodings import encoding_for
from ffmerge.compression.loss import Divergence, Loss, check_finite, loss_for
from ffmerge.compression.propose import proposed
from ffmerge.compression.record import finite
from ffmerge.compression.select import (
    Aligner,
    Trial,
    by_loss,
    n_to_remove,
    pairs_of,
    parse_groups,
    searches,
)
from ffmerge.compression.settings import Settings
from ffmerge.compression.summary import Compressed, windows_table
from ffmerge.extensions.massive import measured
from ffmerge.method.groups import Group
from ffmerge.method.merge import merge_in_model
from ffmerge.method.tie import temporary_changes
from ffmerge.models import checkpoint
from ffmerge.models.architectures import ARCHITECTURES
from ffmerge.models.tensor_file import read_head
from ffmerge.models.towers import towers
from own_models import run, strict_json
from provenance.digest import sha256_of
from provenance.record import read_record

WEIGHTS = "model.safetensors"
# Loaded weights are the same bits; sums of them in another order differ by 1e-7 of their terms.
SAME = {"rtol": 1e-5, "atol": 1e-5}
QWEN2 = "qwen2"  # its tokenizer's class makes another one of these files: from Python alone
SOUND = "whisper"
FROM_FILES = [name for name in FAMILIES if name not in (QWEN2, SOUND)]
long = partial(pytest.param, marks=pytest.mark.long)


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    """Use one thread: for so small a model a second one costs more than it gains."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture
def gpt2(tmp_path) -> Path:
    return own_models.save("gpt2", tmp_path / "model")


@pytest.fixture
def texts(tmp_path) -> Path:
    return own_models.data_for(FAMILIES["gpt2"], tmp_path / "texts")


def compress_gpt2(capsys, model, data, out, *more):
    return run(capsys, "compress", model, "--features", data, "--out", out, "--n-tokens", 40, *more)


def refused(capsys, tmp_path, model, data, *more, remove=("--remove", "1/3")) -> str:
    """The error of a request that is refused and leaves nothing behind."""
    before = sorted(tmp_path.rglob("*"))
    status, printed, error = compress_gpt2(capsys, model, data, tmp_path / "out", *remove, *more)
    assert (status, printed) == (2, ""), error
    assert error.startswith("error: ") and error.count("\n") == 1
    assert sorted(tmp_path.rglob("*")) == before
    return error


# --- what comes out -------------------------------------------------------------------------------


@pytest.mark.parametrize("name", FROM_FILES)
def test_a_model_of_every_family_is_compressed_from_files(name, tmp_path):
    family = FAMILIES[name]
    model = own_models.save(family, tmp_path / "model")
    data = own_models.data_for(family, tmp_path / "data")
    result = ffmerge.compress(model, features=data, out=tmp_path / "out", remove="1/3", n_tokens=12)
    removed = sum(
        (len(group.layers) - 1) * family.towers[group.tower].n_parameters for group in result.groups
    )
    loaded = ffmerge.load(tmp_path / "out")
    assert removed > 0
    assert result.parameters[0] - result.parameters[1] == removed
    assert sum(p.numel() for p in loaded.parameters()) == result.parameters[1]
    kept = sum(stored.n_bytes for stored in read_head(tmp_path / "out" / WEIGHTS).values())
    before = sum(stored.n_bytes for stored in read_head(model / WEIGHTS).values())
    assert before - kept == 4 * removed


@pytest.mark.parametrize("name", [SOUND, QWEN2])
def test_python_takes_batches_that_the_user_made(name, tmp_path):
    family = FAMILIES[name]
    model = own_models.save(family, tmp_path / "model")
    batches = [batch_of(family, seed) for seed in range(5)]
    result = ffmerge.compress(model, features=batches, out=tmp_path / "out", remove=1, n_tokens=12)
    assert result.sublayers[0] - result.sublayers[1] == 1
    assert read_record(tmp_path / "out/ffmerge_record.json")["input"]["data"].keys() == {"batches"}


def test_what_is_not_merged_stays_bit_for_bit_and_the_tokenizer_byte_for_byte(
    gpt2, texts, tmp_path, capsys
):
    status, *_ = compress_gpt2(capsys, gpt2, texts, tmp_path / "out", "--layers", "0-1")
    before, after = load_file(gpt2 / WEIGHTS), load_file(tmp_path / "out" / WEIGHTS)
    merged = {name for name in before if re.search(r"h\.[01]\.mlp", name)}
    assert status == 0 and len(merged) == 8
    for name in before.keys() - merged:
        assert torch.equal(before[name], after[name])
    assert len(after.keys() & merged) == 4
    for name in ("tokenizer.json", "tokenizer_config.json", "generation_config.json"):
        if name != "generation_config.json":
            assert (gpt2 / name).read_bytes() == (tmp_path / "out" / name).read_bytes()


@pytest.mark.parametrize("form", ["tied", "code", "expanded"])
def test_positions_that_a_file_has_rounded_stay_as_they_are(form, tmp_path):
    model = own_models.save("marian", tmp_path / "model")
    checkpoint.save(pico(FAMILIES["marian"]).half().float(), model)  # positions too, which
    positions = "model.encoder.embed_positions.weight"  # save_pretrained leaves out
    data = own_models.data_for(FAMILIES["marian"], tmp_path / "data")
    out = tmp_path / "out"
    ffmerge.compress(model, features=data, out=out, remove="1/3", n_tokens=40, form=form)
    exact = pico(FAMILIES["marian"]).state_dict()[positions]
    new = (data / "pairs.jsonl").stat().st_mode  # others may read what is written, as any new file
    assert {file.stat().st_mode for file in out.iterdir()} == {new}
    for directory in (model, out):
        loaded = ffmerge.load(directory).state_dict()[positions]
        assert torch.equal(loaded, load_file(directory / WEIGHTS)[positions])
        assert torch.equal(loaded, exact.half().float()) and not torch.equal(loaded, exact)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_a_model_is_stored_in_the_dtype_that_it_was_stored_in(dtype, texts, tmp_path, capsys):
    model = own_models.save("gpt2", tmp_path / "model")
    half = {name: tensor.to(dtype) for name, tensor in load_file(model / WEIGHTS).items()}
    save_file(half, model / WEIGHTS, {"format": "pt"})
    status, *_ = compress_gpt2(capsys, model, texts, tmp_path / "out", "--layers", "1-2")
    after = load_file(tmp_path / "out" / WEIGHTS)
    assert status == 0
    assert {tensor.dtype for tensor in after.values()} == {dtype}
    assert all(torch.equal(after[n], half[n]) for n in after if not re.search(r"h\.1\.mlp", n))
    assert ffmerge.load(tmp_path / "out").dtype == dtype


def test_weights_in_several_files_or_pickled_give_the_same(gpt2, texts, tmp_path, capsys):
    own_models.save("gpt2", tmp_path / "sharded", max_shard_size=4000)
    assert len(list((tmp_path / "sharded").glob("*.safetensors"))) > 1
    pickled = own_models.save("gpt2", tmp_path / "pickled")
    torch.save(load_file(pickled / WEIGHTS), pickled / "pytorch_model.bin")
    (pickled / WEIGHTS).unlink()
    for name, model in {"a": gpt2, "b": tmp_path / "sharded", "c": pickled}.items():
        status, *_ = compress_gpt2(capsys, model, texts, tmp_path / name, "--remove", "1/3")
        assert status == 0
    digests = {sha256_of(tmp_path / name / WEIGHTS) for name in "abc"}
    assert len(digests) == 1


NEW_PROCESS = """
import sys, torch
{imports}
batch = torch.load(sys.argv[2], weights_only=True)
model = {load}.eval()
with torch.inference_mode():
    torch.save(model(**batch).logits, sys.argv[3])
print(sum(p.numel() for p in model.parameters()), type(model).__name__, "ffmerge" in sys.modules)
"""
AUTO = "from transformers import AutoModelForCausalLM as Auto"


@pytest.mark.parametrize(
    "form, imports, load, uses_ffmerge, rank",
    [
        long("tied", "import ffmerge", "ffmerge.load(sys.argv[1])", True, 0),
        ("tied", f"import ffmerge.auto; {AUTO}", "Auto.from_pretrained(sys.argv[1])", True, 0),
        long("code", AUTO, "Auto.from_pretrained(sys.argv[1], trust_remote_code=True)", False, 0),
        long("code", AUTO, "Auto.from_pretrained(sys.argv[1], trust_remote_code=True)", False, 2),
        long("expanded", AUTO, "Auto.from_pretrained(sys.argv[1])", False, 0),
    ],
)
def test_each_form_loads_in_a_new_process_with_the_same_output(
    form, imports, load, uses_ffmerge, rank, gpt2, texts, tmp_path, capsys
):
    options = ("--layers", "0-2", "--form", form, "--rank", rank)
    status, *_ = compress_gpt2(capsys, gpt2, texts, tmp_path / "out", *options)
    assert status == 0
    batch = batch_of(FAMILIES["gpt2"])
    torch.save(batch, tmp_path / "batch")
    program = NEW_PROCESS.format(imports=imports, load=load)
    files = [str(tmp_path / name) for name in ("out", "batch", "logits")]
    environment = os.environ if uses_ffmerge else {**os.environ, "PYTHONPATH": ""}
    environment = {**environment, "HF_HOME": str(tmp_path / "hf")}
    ended = subprocess.run(
        [sys.executable, "-c", program, *files], capture_output=True, text=True, env=environment
    )
    assert ended.returncode == 0, ended.stderr
    printed = ended.stdout.split()
    with torch.inference_mode():
        expected = ffmerge.load(tmp_path / "out")(**batch).logits
    logits = torch.load(tmp_path / "logits", weights_only=True)
    torch.testing.assert_close(logits, expected, **SAME)
    original = sum(p.numel() for p in pico(FAMILIES["gpt2"]).parameters())
    removed = 0 if form == "expanded" else 2 * FAMILIES["gpt2"].towers["decoder"].n_parameters
    if rank:  # of three layers' biases and corrections, two and three were not there
        removed -= 2 * (8 + 16) + 3 * rank * 2 * (8 + 16)
    assert printed == [str(original - removed), "GPT2LMHeadModel", str(uses_ffmerge)]


def test_the_reported_loss_is_that_of_the_model_on_disk(gpt2, texts, tmp_path, capsys):
    status, printed, _ = compress_gpt2(
        capsys, gpt2, texts, tmp_path / "out", "--remove", "1/3", "--json"
    )
    summary = json.loads(printed)
    tried = {tuple(item["groups"][0]["layers"]): item["loss"] for item in summary["tried"]}
    chosen = tuple(summary["groups"][0]["layers"])
    assert status == 0 and set(tried) == {(0, 1), (1, 2)}
    assert tried[chosen] == min(tried.values())
    assert summary["loss"]["after"] == pytest.approx(tried[chosen], rel=1e-6)
    again = compress_gpt2(
        capsys, gpt2, texts, tmp_path / "again", "--layers", f"{chosen[0]}-{chosen[-1]}", "--json"
    )
    assert json.loads(again[1])["loss"] == summary["loss"]
    assert sha256_of(tmp_path / "again" / WEIGHTS) == sha256_of(tmp_path / "out" / WEIGHTS)


@pytest.mark.parametrize("strategy", ["correlation", "cka"])
@pytest.mark.parametrize("method", ["permute", "vanilla"])
def test_layers_are_chosen_by_similarity_without_trying_any(
    strategy, method, gpt2, texts, tmp_path, capsys
):
    more = ["--remove", "1", "--strategy", strategy, "--method", method, "--json"]
    status, printed, error = compress_gpt2(capsys, gpt2, texts, tmp_path / "out", *more)
    assert status == 0, error
    summary = json.loads(printed)
    assert summary["tried"] == [] and summary["sublayers"] == {"before": 3, "after": 2}
    card = (tmp_path / "out" / "README.md").read_text()
    assert ("aligned to layer" in card) == ("were aligned" in card) == (method == "permute")
    assert ("averaged without aligning" in card) == (method == "vanilla")


def test_merged_sublayers_are_fitted_to_what_each_layer_gave(gpt2, texts, tmp_path, capsys):
    fitting = ["--reconstruct", 30, "--reconstruct-search", 3]
    status, printed, error = compress_gpt2(
        capsys, gpt2, texts, tmp_path / "out", "--remove", "1/3", *fitting, "--json"
    )
    assert status == 0, error
    summary = json.loads(printed)
    ((before, after),) = summary["reconstruction"]
    assert after < before and len(summary["tried"]) == 2
    layers = summary["groups"][0]["layers"]
    card = (tmp_path / "out" / "README.md").read_text()
    assert f"fitted decoder {layers[0]}-{layers[1]}: " in card
    averaged = json.loads(
        compress_gpt2(capsys, gpt2, texts, tmp_path / "a", "--remove", "1/3", "--json")[1]
    )
    assert averaged["parameters"] == summary["parameters"] and averaged["reconstruction"] == []
    assert averaged["tried"][0]["loss"] != summary["tried"][0]["loss"]  # by fitted windows
    error = refused(capsys, tmp_path, gpt2, texts, "--reconstruct-search", 3)
    assert "add --reconstruct" in error


@pytest.mark.parametrize("strategy", ["window", "greedy"])
def test_a_search_takes_the_loss_of_fitted_groups(strategy, gpt2, texts, tmp_path):
    asked = {"features": texts, "n_tokens": 12, "reconstruct": 3, "reconstruct_search": 3}
    out = tmp_path / "searched"
    result = ffmerge.compress(gpt2, out=out, remove="1/3", strategy=strategy, **asked)
    plain = ffmerge.compress(
        gpt2, out=tmp_path / "plain", remove="1/3", strategy=strategy, n_tokens=12, features=texts
    )
    tried = [trial for trial in result.tried if trial.window and not trial.stopped]
    assert tried
    for i, trial in enumerate(tried):
        (group,) = trial.window
        layers = "+".join(map(str, group.layers))
        asked["reconstruct_search"] = None
        named = ffmerge.compress(gpt2, out=tmp_path / f"{i}", layers=layers, **asked)
        assert trial.loss == pytest.approx(named.losses[1], rel=1e-5)  # order of sums
        assert trial.loss not in [other.loss for other in plain.tried]


@pytest.mark.parametrize("more", [["--strategy", "greedy"], ["--reconstruct", 4]])
def test_parameters_and_bytes_are_counted_net_of_corrections(more, gpt2, texts, tmp_path, capsys):
    given = ["--remove", "1/3", "--rank", 1, *more, "--json"]
    status, printed, error = compress_gpt2(capsys, gpt2, texts, tmp_path / "out", *given)
    assert status == 0, error
    assert "memory for second moments: 8,192 bytes" in error
    summary = json.loads(printed)
    removed = 2 * 8 * 16 - 2 * 1 * 2 * (8 + 16)  # of two maps; corrections of two layers
    stored = read_head(tmp_path / "out" / WEIGHTS).values()
    assert sum(each.n_values for each in stored) == summary["parameters"]["after"]
    assert summary["parameters"]["before"] - summary["parameters"]["after"] == removed
    assert summary["bytes"]["after"] == (tmp_path / "out" / WEIGHTS).stat().st_size
    line = "each merged layer keeps its biases and corrections of rank 1: 96 parameters in 4 maps"
    assert summary["corrections"] == line and line in (tmp_path / "out/README.md").read_text()
    _, printed, _ = run(capsys, "evaluate", tmp_path / "out", "--data", texts, "--json")
    assert json.loads(printed)["models"][0]["parameters"] == summary["parameters"]["after"]


def test_a_rank_that_would_save_nothing_is_refused(gpt2, texts, tmp_path, capsys):
    error = refused(capsys, tmp_path, gpt2, texts, "--rank", 3)
    assert "--rank 3: " in error and "take at most rank 2" in error
    dropping = ["--method", "drop-layers", "--rank", 1]
    assert "--rank is for what is merged" in refused(capsys, tmp_path, gpt2, texts, *dropping)


def test_low_rank_maps_are_tuned_and_exported_like_merged_ones(gpt2, texts, tmp_path, capsys):
    given = ("--remove", "1/3", "--method", "low-rank", "--form", "code")
    status, printed, error = compress_gpt2(capsys, gpt2, texts, tmp_path / "out", *given)
    assert status == 0 and "memory for second moments" in error, error
    assert "low-rank: decoder 0-2\n" in printed and "6 maps are products of two" in printed
    assert "were replaced by products" in (tmp_path / "out/README.md").read_text()
    stored = read_head(tmp_path / "out" / WEIGHTS)
    n_values = sum(each.n_values for each in stored.values())
    assert f"{n_values:,}" in printed and "transformer.h.0.mlp.c_fc.factor_in" in stored
    tuning = {"data": texts, "steps": 4, "learning_rate": 1e-2, "batch_size": 4}
    tuned = ffmerge.tune(tmp_path / "out", out=tmp_path / "tuned", **tuning)
    assert tuned.form == "code" and tuned.parameters == n_values
    assert tuned.losses[1] < tuned.losses[0]
    exported = ffmerge.export(tmp_path / "tuned", out=tmp_path / "stock", form="expanded")
    assert "low-rank: decoder 0-2" in str(exported)
    logits = []
    for name in ("tuned", "stock"):
        with torch.inference_mode():
            logits.append(ffmerge.load(tmp_path / name)(**batch_of(FAMILIES["gpt2"])).logits)
    torch.testing.assert_close(*logits, **SAME)
    capsys.readouterr()
    for more in (["--layers", "0-1"], ["--strategy", "greedy"], ["--rank", 1]):
        remove = () if "--layers" in more else ("--remove", 1)
        error = refused(capsys, tmp_path, gpt2, texts, *given[2:4], *more, remove=remove)
        assert "low-rank" in error


def test_groups_grow_by_the_loss_until_so_many_sublayers_are_removed(gpt2, texts, tmp_path, capsys):
    greedily = ["--strategy", "greedy", "--json"]
    for n, more in enumerate(([], ["--reconstruct", 4, "--reconstruct-search", 2])):
        status, printed, error = compress_gpt2(
            capsys, gpt2, texts, tmp_path / str(n), "--remove", 2, *greedily, *more
        )
        assert status == 0, error
        summary = json.loads(printed)
        first, last = summary["tried"]  # after each step
        assert first["groups"][0]["layers"] in ([0, 1], [1, 2])
        assert [group["layers"] for group in last["groups"]] == [[0, 1, 2]]
        assert summary["groups"] == last["groups"] and summary["sublayers"]["after"] == 1
        if not more:
            assert summary["loss"]["after"] == pytest.approx(last["loss"], rel=1e-6)
    by_window = json.loads(
        compress_gpt2(capsys, gpt2, texts, tmp_path / "w", "--remove", 1, "--json")[1]
    )
    assert first_step(tmp_path / "0") == min(item["loss"] for item in by_window["tried"])


def first_step(out: Path) -> float:
    return read_record(out / "ffmerge_record.json")["result"]["tried"][0]["loss"]


def test_layers_that_make_massive_activations_are_named_and_left_out(texts, tmp_path, capsys):
    model = pico(FAMILIES["gpt2"])
    with torch.no_grad():  # a neuron that only one token excites, and that only layer 1 has
        model.transformer.h[1].mlp.c_proj.weight[0] *= 1e5
        model.transformer.h[1].mlp.c_fc.weight[:, 0] *= 10
        model.transformer.h[1].mlp.c_fc.bias[0] = -15
    model.save_pretrained(tmp_path / "model")
    own_models.tokenizer(tmp_path / "model")
    arguments = capsys, tmp_path / "model", texts
    status, printed, error = compress_gpt2(*arguments, tmp_path / "out", "--layers", "0-1")
    assert status == 0, error
    assert "made or removed by the FF of decoder 1: --skip-massive" in printed
    skipping = ["--remove", 1, "--skip-massive", "--strategy"]
    status, printed, error = compress_gpt2(*arguments, tmp_path / "b", *skipping, "cka", "--json")
    assert status == 0 and json.loads(printed)["groups"][0]["layers"] == [0, 2], error
    for strategy in ("window", "greedy"):  # of adjacent layers
        error = compress_gpt2(*arguments, tmp_path / "no", *skipping, strategy)[2]
        assert "decoder [1]: left out" in error and error.count("error: ") == 1, error
        assert not (tmp_path / "no").exists()
    status, printed, _ = run(
        capsys, "inspect", tmp_path / "model", "--features", texts, "--out", tmp_path / "a.png"
    )
    assert status == 0 and "FF of decoder 1" in printed


@pytest.mark.parametrize("name", ["gpt2", "bart"])
def test_padding_makes_no_massive_activations(name):
    model = pico(FAMILIES[name]).base_model
    tokens = torch.tensor([[5, 6, 7, 8], [9, 10, 11, 12]])
    padded = torch.cat([tokens, torch.full((2, 12), own_models.PAD)], dim=1)
    found = []
    for ids in (tokens, padded):
        batch = {
            "input_ids": ids,
            "attention_mask": (torch.arange(ids.shape[1]) < 4).expand_as(ids),
        }
        if name == "bart":
            batch |= {f"decoder_{key}": value for key, value in batch.items()}
        with torch.no_grad(), measured(model) as ratios:
            model(**batch)
        found.append([ratio for of_tower in ratios.values() for ratio in of_tower])
    assert found[1] == pytest.approx(found[0], rel=1e-4)


def test_the_record_has_the_digest_of_every_file_and_the_card_names_the_record(
    gpt2, texts, tmp_path, capsys
):
    (gpt2 / "README.md").write_text("---\nlicense: apache-2.0\n---\n# A model\n")
    out = tmp_path / "out"
    status, *_ = compress_gpt2(capsys, gpt2, texts, out, "--remove", "1/3")
    record = read_record(out / "ffmerge_record.json")
    card = (out / "README.md").read_text()
    assert status == 0 and record["digest"] in card
    assert yaml.safe_load(card.split("---")[1])["license"] == "apache-2.0"
    for name, digest in record["output"].items():
        assert sha256_of(out / name) == digest
    kept = {file.name for file in out.iterdir()}
    assert kept == {*record["output"], "ffmerge_record.json", "README.md"}
    assert record["input"]["model"][WEIGHTS] == sha256_of(gpt2 / WEIGHTS)
    assert record["input"]["model"][WEIGHTS] in card
    assert record["input"]["data"] == {str(texts): sha256_of(texts)}


# --- what is asked for ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    "asked, layers, removed",
    [
        ("1/3", {"decoder": 12}, {"decoder": 4}),
        (0.33, {"decoder": 12}, {"decoder": 4}),
        ("5", {"decoder": 12}, {"decoder": 5}),
        ("1/3", {"encoder": 6, "decoder": 6}, {"encoder": 2, "decoder": 2}),
        (3, {"encoder": 6, "decoder": 6}, {"encoder": 2, "decoder": 1}),
        ("1/3", {"encoder": 12, "decoder": 6}, {"encoder": 4, "decoder": 2}),
        ("1/3", {"encoder": 12, "decoder": 2}, {"encoder": 4, "decoder": 1}),
        ("10", {"encoder": 6, "decoder": 6}, {"encoder": 5, "decoder": 5}),
    ],
)
def test_every_tower_loses_the_same_share(asked, layers, removed):
    assert n_to_remove(asked, layers) == removed


@pytest.mark.parametrize("asked", ["0", "12", "1.5", "a third", "1/0", "-1", "0.01"])
def test_a_share_that_a_model_does_not_have_is_refused(asked):
    with pytest.raises(ValueError, match="--remove"):
        n_to_remove(asked, {"decoder": 12})


@pytest.mark.parametrize(
    "more", [{"layers": "0-1"}, *({"remove": 1, "method": m} for m in ("drop-layers", "low-rank"))]
)
def test_massive_layers_are_left_out_of_nothing_but_a_search_for_groups(more):
    with pytest.raises(ValueError, match="--skip-massive is for a search"):
        Settings(skip_massive=True, **more)


def test_the_layers_option_is_parsed():
    names = ["encoder", "decoder"]
    read = [(g.tower, g.layers, g.anchor) for g in parse_groups("1-3", names, "first")]
    assert read == [("encoder", (1, 2, 3), 1), ("decoder", (1, 2, 3), 1)]
    asked = "encoder:0-1, 3-5, decoder:0+2"
    read = [(g.tower, g.layers, g.anchor) for g in parse_groups(asked, names, "last")]
    assert read == [("encoder", (0, 1), 1), ("encoder", (3, 4, 5), 5), ("decoder", (0, 2), 2)]


def test_towers_of_different_depth_are_searched_one_by_one(tmp_path):
    family = FAMILIES["bart"]  # 3 + 4 layers
    model = own_models.save(family, tmp_path / "model")
    data = own_models.data_for(family, tmp_path / "data")
    result = ffmerge.compress(model, features=data, out=tmp_path / "out", remove=2, n_tokens=20)
    assert {group.tower: len(group.layers) for group in result.groups} == {
        "encoder": 2,
        "decoder": 2,
    }
    assert {len(trial.window) for trial in result.tried} == {1}
    assert len(result.tried) == 2 + 3


def test_layers_merge_only_within_equal_widths_and_the_error_says_so(tmp_path, capsys):
    family = FAMILIES["swin"]
    model = own_models.save(family, tmp_path / "model")
    data = own_models.data_for(family, tmp_path / "data")
    all_but_one = str(len(towers(pico(family))["encoder"]) - 1)
    error = refused(capsys, tmp_path, model, data, "--remove", all_but_one, remove=())
    assert "equal widths" in error
    error = refused(capsys, tmp_path, model, data, "--layers", "0-3", remove=())
    assert "different widths cannot be merged: in the encoder, d_ff is 16 in [0, 1, 2]" in error
    result = ffmerge.compress(model, features=data, out=tmp_path / "out", remove=1, n_tokens=20)
    assert result.sublayers[0] - result.sublayers[1] == 1


@pytest.mark.parametrize(("asked", "left"), [({"remove": 1}, 4), ({"layers": "0-1,2-4"}, 2)])
def test_layers_of_a_later_stage_merge_too(asked, left, tmp_path):
    swin = FAMILIES["swin"]
    stages = replace(swin, settings=swin.settings | {"depths": [2, 3]}, towers={"encoder": FF(16)})
    model = own_models.save(stages, tmp_path / "model")
    data = own_models.data_for(stages, tmp_path / "data")
    options = {"features": data, "n_tokens": 20, "out": tmp_path / "out"}
    assert ffmerge.compress(model, **asked, **options).sublayers == (5, left)


# --- the search -----------------------------------------------------------------------------------


@pytest.mark.parametrize("as_divergence", [False, True])
def test_a_search_finds_what_all_losses_say_and_stops_those_that_are_worse(as_divergence, tmp_path):
    from transformers import GPT2Config, GPT2LMHeadModel

    torch.manual_seed(0)
    sizes = {"n_embd": 16, "n_layer": 6, "n_head": 2, "vocab_size": 40, "n_positions": 16}
    special = {"bos_token_id": 0, "eos_token_id": 0}
    model = GPT2LMHeadModel(GPT2Config(**sizes, **special)).eval()
    with torch.no_grad():  # so that the first layers do much, and merging them is much worse
        for i, layer in enumerate(model.transformer.h):
            layer.mlp.c_proj.weight.mul_(20 / (1 + i) ** 3)
        model.lm_head.weight = torch.nn.Parameter(40 * model.lm_head.weight)
        ids = torch.arange(16)[:, None]
        for _ in range(12):  # text that the model itself finds likely
            ids = torch.cat([ids, model(ids).logits[:, -1:].argmax(-1)], dim=1)
    batches = [{"input_ids": part} for part in ids.split(2)]
    loss = (
        Divergence(model, batches, tmp_path)
        if as_divergence
        else loss_for(model, batches, tmp_path)
    )
    assert isinstance(loss, Divergence) == as_divergence and len(loss.parts(model)) == 8
    (windows,) = searches(model, {"decoder": 1}, "first")
    whole = []
    for window in windows:
        with temporary_changes(model):
            merge_in_model(model, window, None)
            whole.append(loss.of(model))
    merge = partial(merge_in_model, model, permutations=None)
    selected, tried = by_loss(model, [windows], merge, loss)
    assert selected == windows[min(range(5), key=whole.__getitem__)]
    assert [trial.window for trial in tried] == windows
    assert 0 < sum(trial.stopped for trial in tried) < 5
    for trial, expected in zip(tried, whole, strict=True):
        if trial.stopped:
            assert min(whole) < trial.loss < expected
        else:
            assert trial.loss == expected


def test_a_window_without_a_finite_loss_is_not_chosen(tmp_path):
    model, family = own_models.overflowing(), FAMILIES["gpt2"]
    loss = loss_for(model, [batch_of(family, seed) for seed in range(3)], tmp_path)
    assert math.isfinite(loss.of(model))
    merge = partial(merge_in_model, model, permutations=None)
    candidates = searches(model, {"decoder": 1}, "first")
    selected, (bad, good) = by_loss(model, candidates, merge, loss)
    assert (bad.loss, bad.stopped) == (math.inf, False)
    assert selected == good.window and math.isfinite(good.loss)


def test_a_loss_that_is_not_finite_is_told_in_words_and_in_the_record(texts, tmp_path, capsys):
    model = tmp_path / "model"
    own_models.overflowing().save_pretrained(model)
    own_models.tokenizer(model)
    given = ["--method", "vanilla", "--remove", 1]
    status, printed, error = compress_gpt2(capsys, model, texts, tmp_path / "a", *given)
    assert status == 0, error
    for text in (printed, (tmp_path / "a/README.md").read_text()):
        assert re.search(r"^decoder 0-1 +not finite$", text, re.MULTILINE)
    tried = strict_json((tmp_path / "a/ffmerge_record.json").read_text())["result"]["tried"]
    assert (tried[0]["loss"], tried[0]["fault"]) == (None, "not finite")
    assert tried[1]["loss"] > 0 and "fault" not in tried[1]

    given[2:] = ["--layers", "0-1"]
    status, printed, error = compress_gpt2(capsys, model, texts, tmp_path / "b", *given)
    assert status == 0, error
    export = ["export", tmp_path / "b", "--out", tmp_path / "c"]
    assert run(capsys, *export)[0] == 0
    cards = [(tmp_path / name / "README.md").read_text() for name in "bc"]
    for text in (printed, cards[0]):
        assert "NOT USABLE AS IT IS: its loss is not finite" in " ".join(text.split())
    assert all(" before, not finite after `compress`" in card for card in cards)
    status, printed, _ = compress_gpt2(capsys, model, texts, tmp_path / "d", *given, "--json")
    written = strict_json((tmp_path / "d/ffmerge_record.json").read_text())["result"]
    for name in "ad":
        content = read_record(tmp_path / name / "ffmerge_record.json")
        again = Compressed.from_record(content).as_json()
        assert finite(again)["loss"] == content["result"]["loss"]
        assert finite(again)["tried"] == content["result"]["tried"]
    for result in (strict_json(printed), written):
        assert result["loss"]["after"] is None and result["loss"]["before"] > 0
    status, printed, error = run(capsys, "evaluate", tmp_path / "b", "--data", texts, "--json")
    assert status == 0 and strict_json(printed)["models"][0]["scores"]["loss"][0] is None, error
    printed = run(capsys, "evaluate", tmp_path / "b", "--data", texts)[1]
    assert re.search(r"^loss +not finite$", printed, re.MULTILINE)


class Told(Loss):
    """A loss whose terms are given: table[first layer of the window][part]."""

    def __init__(self, table: dict[int, list[float]]) -> None:
        self.table, self.asked, self.window = table, [], None

    def parts(self, model):
        return range(len(self.table[0]))

    def term(self, model, part):
        self.asked.append((self.window, part))
        return self.table[self.window][part], 1


def test_a_window_is_given_up_as_soon_as_it_is_worse_than_any_that_is_done(pico):
    model = pico("gpt2", n_layers=4)
    (windows,) = searches(model, {"decoder": 1}, "first")
    # The first part is best for 0-1, which is then worse than 2-3, so that 2-3 ends 1-2.
    loss = Told({0: [1.0, 6.0, 6.0], 1: [3.0, 4.0, 9.0], 2: [2.0, 2.0, 2.0]})

    def change(window):
        loss.window = window[0].layers[0]

    selected, tried = by_loss(model, [windows], change, loss)
    assert selected == windows[2]
    assert [trial.loss for trial in tried] == [13 / 3, 7 / 3, 2.0]
    assert [trial.stopped for trial in tried] == [False, True, False]
    assert (1, 2) not in loss.asked


def test_what_a_stopped_windows_loss_exceeds_is_told():
    windows = [[Group("decoder", (i, i + 1), i)] for i in range(2)]
    table = windows_table([Trial(windows[0], 2.5, True), Trial(windows[1], 1.25)], windows[1])
    assert [line.split() for line in table[1:3]] == [
        ["decoder", "0-1", ">", "2.5000"],
        ["decoder", "1-2", "1.2500", "chosen"],
    ]
    assert table[3:] == ["> x: given up; its loss is at least x, and that of another one is lower"]
    assert len(windows_table([Trial(windows[1], 1.25)], windows[1])) == 2


# --- the loss -------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["bert, no head", "clip", "vit", "electra", SOUND])
def test_a_divergence_is_zero_for_the_original_and_positive_for_another_model(name, tmp_path):
    family = FAMILIES[name]
    model, batches = pico(family), [batch_of(family, seed) for seed in range(2)]
    loss = loss_for(model, batches, tmp_path)
    assert isinstance(loss, Divergence)
    assert loss.of(model) == pytest.approx(0, abs=1e-9)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += 0.1 * torch.randn(parameter.shape)
    assert loss.of(model) > 1e-4


@pytest.mark.parametrize("name", ["gpt2", "gemma", "marian", "t5"])
def test_the_cross_entropy_is_the_models_own(name, tmp_path):
    family = FAMILIES[name]
    model, batch = pico(family), batch_of(family)
    if "decoder_input_ids" in batch:
        mask = batch.pop("decoder_attention_mask")
        batch["labels"] = batch.pop("decoder_input_ids").masked_fill(mask == 0, -100)
        own = model(**batch).loss.item()
    else:
        labels = batch["input_ids"].masked_fill(batch["attention_mask"] == 0, -100)
        own = model(**batch, labels=labels).loss.item()
    assert loss_for(model, [batch], tmp_path).of(model) == pytest.approx(own, rel=1e-5)


def test_labels_of_images_give_their_cross_entropy(tmp_path):
    model = own_models.save("vit", tmp_path / "model")
    own_models.with_text(tmp_path / "images.parquet", tmp_path)
    result = ffmerge.compress(
        model, features=tmp_path / "images.parquet", out=tmp_path / "out", remove=1, n_tokens=20
    )
    assert result.loss.startswith("cross-entropy of the labels") and result.losses[0] > 0


def test_folders_that_are_named_after_the_models_labels_are_labels(tmp_path):
    model = own_models.save("vit", tmp_path / "model")
    for i in range(20):
        own_models.image(tmp_path / f"images/LABEL_{i % 5}/{i}.png", i)
    arguments = {"features": tmp_path / "images", "remove": 1, "n_tokens": 20}
    result = ffmerge.compress(model, out=tmp_path / "a", **arguments)
    assert result.loss.startswith("cross-entropy of the labels")
    for folders, loss in ([0], "cross-entropy of the labels"), ([1, 2, 3, 4], "KL divergence"):
        for i in folders:  # the model has none of these names
            (tmp_path / f"images/LABEL_{i}").rename(tmp_path / f"images/cat{i}")
        out = tmp_path / loss
        result = ffmerge.compress(model, out=out, n_held_out=10, **arguments)
        assert result.loss.startswith(loss) and "has no label 'cat" in str(result)


@pytest.mark.parametrize("name", ["gpt2", "marian", "bert"])
def test_a_batch_is_never_computed_whole_if_its_logits_are_too_many(name, tmp_path, monkeypatch):
    """Neither for the loss, nor to see beforehand whether it can be computed."""
    model, batch = pico(FAMILIES[name]), batch_of(FAMILIES[name])
    monkeypatch.setattr("ffmerge.compression.loss.N_LOGITS", 1)
    if "decoder_input_ids" in batch:
        batch["labels"] = batch["decoder_input_ids"]
    sizes = set()
    model.register_forward_pre_hook(
        lambda _, unnamed, named: sizes.add(len(named["input_ids"])), with_kwargs=True
    )
    tokenizer = SimpleNamespace(mask_token_id=3, all_special_ids=[])
    loss = loss_for(model, [batch], tmp_path, tokenizer)
    assert loss.name.startswith("cross-entropy") and math.isfinite(loss.of(model))
    assert sizes == {1} and len(batch["input_ids"]) > 1


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
def test_the_loss_is_that_of_the_rounded_weights_on_disk(dtype, tmp_path):
    family = FAMILIES["gpt2"]
    model = own_models.save(family, tmp_path / "model")
    stored = {name: tensor.to(dtype) for name, tensor in load_file(model / WEIGHTS).items()}
    save_file(stored, model / WEIGHTS, {"format": "pt"})
    batches = [batch_of(family, seed) for seed in range(5)]
    result = ffmerge.compress(
        model, features=batches[1:], held_out=batches[:1], out=tmp_path / "out", layers="0-2"
    )
    loaded = ffmerge.load(tmp_path / "out", dtype=torch.float32)
    value = loss_for(loaded, batches[:1], tmp_path).of(loaded)
    assert value == pytest.approx(result.losses[1], rel=1e-7)


def test_held_out_examples_give_no_features_and_no_more_is_read_than_is_needed(gpt2):
    model, read = pico(FAMILIES["gpt2"]), []

    def examples(n):
        for i in range(n):
            read.append(i)
            yield {"text": own_models.text(i)}

    encoding = encoding_for(model, gpt2, None)
    for n, n_tokens in ((10**6, 40), (12, 40), (12, None)):
        read.clear()
        data = from_examples(model, encoding, examples(n), n_tokens, 3, 2)
        used, held_out = (
            {tuple(row.tolist()) for batch in part for row in batch["input_ids"]}
            for part in (data.features, data.held_out)
        )
        assert used and held_out and not used & held_out
        assert data.n_held_out == 3 if n > 12 else data.n_held_out >= 1
        assert len(read) < 40
        assert sum(int(batch["attention_mask"].sum()) for batch in data.features) >= data.n_tokens


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf")])
def test_outputs_that_are_not_finite_are_named(bad):
    largest = torch.finfo(torch.float32).max
    finite = {"none": torch.empty(0, 3), "extremes": torch.tensor([[largest, -largest]])}
    check_finite(finite)
    with pytest.raises(ValueError, match=r"is not finite: logits$"):
        check_finite(finite | {"logits": torch.tensor([[0.0, bad], [1.0, 2.0]])})


# --- what is refused ------------------------------------------------------------------------------


@pytest.mark.parametrize("value, message", [(torch.nan, "NaN"), (torch.inf, "an infinity")])
def test_weights_that_are_not_finite_are_refused_by_name(
    value, message, gpt2, texts, tmp_path, capsys
):
    tensors = load_file(gpt2 / WEIGHTS)
    tensors["transformer.h.1.attn.c_attn.weight"][2, 3] = value
    save_file(tensors, gpt2 / WEIGHTS, {"format": "pt"})
    error = refused(capsys, tmp_path, gpt2, texts)
    assert "transformer.h.1.attn.c_attn.weight" in error and message in error


def _change_config(model: Path, **changes) -> None:
    file = model / "config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | changes))


def test_a_quantized_model_is_refused(gpt2, texts, tmp_path, capsys):
    tensors = load_file(gpt2 / WEIGHTS)
    tensors["transformer.h.0.mlp.c_fc.weight"] = torch.ones(8, 16, dtype=torch.int8)
    save_file(tensors, gpt2 / WEIGHTS, {"format": "pt"})
    assert "quantized" in refused(capsys, tmp_path, gpt2, texts)
    _change_config(gpt2, quantization_config={"load_in_8bit": True, "quant_method": "bitsandbytes"})
    assert "quantization_config" in refused(capsys, tmp_path, gpt2, texts)


def test_a_model_that_is_merged_already_is_refused(gpt2, texts, tmp_path, capsys):
    compress_gpt2(capsys, gpt2, texts, tmp_path / "once", "--remove", "1/3")
    assert "merged already" in refused(capsys, tmp_path, tmp_path / "once", texts)


def test_missing_and_damaged_files_are_named(gpt2, texts, tmp_path, capsys):
    assert "there is no directory" in refused(capsys, tmp_path, tmp_path / "nothing", texts)
    content = (gpt2 / WEIGHTS).read_bytes()
    (gpt2 / WEIGHTS).write_bytes(content[:-1])
    assert "cut off" in refused(capsys, tmp_path, gpt2, texts)
    (gpt2 / WEIGHTS).unlink()
    assert WEIGHTS in refused(capsys, tmp_path, gpt2, texts)
    sharded = own_models.save("gpt2", tmp_path / "sharded", max_shard_size=4000)
    first = min(sharded.glob("*.safetensors"))
    first.unlink()
    assert first.name in refused(capsys, tmp_path, sharded, texts)
    (gpt2 / "config.json").unlink()
    (gpt2 / "adapter_config.json").write_text("{}")
    error = refused(capsys, tmp_path, gpt2, texts)
    assert "config.json" in error and "LoRA" in error


def test_a_file_that_lacks_a_tensor_is_refused(gpt2, texts, tmp_path, capsys):
    tensors = load_file(gpt2 / WEIGHTS)
    del tensors["transformer.h.1.mlp.c_fc.weight"]
    save_file(tensors, gpt2 / WEIGHTS, {"format": "pt"})
    assert "h.1.mlp.c_fc.weight" in refused(capsys, tmp_path, gpt2, texts)


def test_a_pickle_that_would_run_code_is_refused(gpt2, texts, tmp_path, capsys):
    import pickle

    (gpt2 / WEIGHTS).unlink()
    (gpt2 / "pytorch_model.bin").write_bytes(pickle.dumps({"a": print}))
    assert "holds no plain tensors" in refused(capsys, tmp_path, gpt2, texts)


def test_nothing_is_ever_overwritten(gpt2, texts, tmp_path, capsys):
    (tmp_path / "out").mkdir()
    assert "exists already" in refused(capsys, tmp_path, gpt2, texts)


def test_a_run_that_fails_says_why_though_another_one_writes_beside_it(tmp_path):
    runs = tmp_path / "new/runs"
    with pytest.raises(ValueError, match=r"^the cause$"), write.new_directory(runs / "a", 0):
        (runs / "b").mkdir()
        raise ValueError("the cause")
    assert [path.name for path in runs.iterdir()] == ["b"]
    with pytest.raises(ValueError, match=r"^the cause$"), write.new_directory(runs / "c/d", 0):
        raise ValueError("the cause")
    assert [path.name for path in runs.iterdir()] == ["b"]


@pytest.mark.parametrize(
    "name, content, message",
    [
        ("missing.txt", None, "there is no file"),
        ("a.txt", "", "0 examples"),
        ("a.txt", b"\xff\xfe\x00\xd8", "UTF-8"),
        ("a.docx", "x", ".parquet"),
        ("a.jsonl", '{"text": "w2"}\n{"text', "line 2"),
        ("a.jsonl", '{"words": "w2"}\n', "it has: words"),
        ("a.csv", "words,label\nw2,1\n", "name one with --text"),
        ("a.parquet", "no parquet", "not a Parquet file"),
    ],
)
def test_unsuitable_data_are_named_with_what_would_be_suitable(
    name, content, message, gpt2, tmp_path, capsys
):
    file = tmp_path / name
    if isinstance(content, bytes):
        file.write_bytes(content)
    elif content is not None:
        file.write_text(content)
    error = refused(capsys, tmp_path, gpt2, file)
    assert message in error and (name in error or "examples" in error)


def test_data_of_another_kind_than_the_model_takes_are_refused(gpt2, texts, tmp_path, capsys):
    own_models.image(tmp_path / "images/a.png", 0)
    assert "this model takes text" in refused(capsys, tmp_path, gpt2, tmp_path / "images")
    marian = own_models.save("marian", tmp_path / "marian")
    assert "a column of sources" in refused(capsys, tmp_path, marian, texts / "a.txt")
    whisper = own_models.save(SOUND, tmp_path / "whisper")
    assert "from Python" in refused(capsys, tmp_path, whisper, texts)
    (gpt2 / "tokenizer.json").unlink()
    (gpt2 / "tokenizer_config.json").unlink()
    assert "tokenizer" in refused(capsys, tmp_path, gpt2, texts)


def test_too_few_data_for_the_positions_asked_for_are_refused(gpt2, texts, tmp_path, capsys):
    error = refused(capsys, tmp_path, gpt2, texts, "--n-tokens", "100000")
    assert re.search(r"the data hold \d+ positions", error)


def test_a_table_has_columns_by_name_or_by_guess(tmp_path):
    family = FAMILIES["marian"]
    model = own_models.save(family, tmp_path / "model")
    rows = [
        {"translation": {"en": own_models.text(i), "de": own_models.text(-i)}} for i in range(30)
    ]
    (tmp_path / "a.jsonl").write_text("\n".join(map(json.dumps, rows)))
    arguments = {"features": tmp_path / "a.jsonl", "remove": 2, "n_tokens": 20}
    names = {"source": "translation.en", "target": "translation.de"}
    ffmerge.compress(model, out=tmp_path / "a", **arguments, **names)
    with pytest.raises(ValueError, match=r"it has: translation, translation\.en"):
        ffmerge.compress(model, out=tmp_path / "b", **arguments)


SIGNALLED = """
import os, signal, sys
from experiment.cli import main

def send_once(event, arguments):
    global number
    if number and event == "open" and "/.scratch/" in str(arguments[0]):
        sent, number = number, None
        os.kill(os.getpid(), sent)

number = int(sys.argv[1])
signal.signal(signal.SIGINT, signal.default_int_handler)  # which a job in the background ignores
sys.addaudithook(send_once)
sys.exit(main(sys.argv[2:]))
"""


@pytest.mark.parametrize("number", [signal.SIGTERM, long(signal.SIGINT), long(signal.SIGKILL)])
def test_a_signal_leaves_nothing(number, gpt2, texts, tmp_path, capsys):
    """The signal comes when the first temporary file is opened."""
    folder = tmp_path / "outputs"
    folder.mkdir()
    arguments = ["compress", gpt2, "--features", texts, "--out", folder / "out", "--remove", "1/3"]
    signalled = [sys.executable, "-c", SIGNALLED, str(int(number)), *map(str, arguments)]
    ended = subprocess.run(signalled, capture_output=True, text=True)
    assert ended.returncode == (-number if number == signal.SIGKILL else 128 + number), ended.stderr
    if number == signal.SIGKILL:  # nobody can tidy up then: the next run does
        assert list(folder.iterdir()) != []
        assert compress_gpt2(capsys, gpt2, texts, folder / "out", "--remove", "1/3")[0] == 0
        assert [file.name for file in folder.iterdir()] == ["out"]
    else:
        assert list(folder.iterdir()) == []


@pytest.mark.parametrize(
    ("n_tokens", "most"),
    [
        (40, 9_000),  # no room for weights
        long(100, 2_000),  # none for features
    ],
)
def test_a_full_disk_leaves_nothing_and_says_how_much_is_needed(
    n_tokens, most, gpt2, texts, tmp_path
):
    folder = tmp_path / "outputs"
    folder.mkdir()
    limited = (
        "import resource, sys; from experiment.cli import main; "
        "resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[1]),) * 2); "
        "sys.exit(main(sys.argv[2:]))"
    )
    asked = ["compress", gpt2, "--features", texts, "--out", folder / "out", "--remove", "1/3"]
    arguments = [str(most), *map(str, asked), "--n-tokens", str(n_tokens)]
    ended = subprocess.run(
        [sys.executable, "-c", limited, *arguments], capture_output=True, text=True
    )
    assert ended.returncode == 2, ended.stderr
    assert "the disk is full" in ended.stderr and "bytes are needed" in ended.stderr
    assert list(folder.iterdir()) == []


def test_a_disk_with_too_little_room_is_an_error_before_anything_is_written(
    gpt2, texts, tmp_path, capsys, monkeypatch
):
    usage = type("Usage", (), {"free": 1000})
    monkeypatch.setattr(write.shutil, "disk_usage", lambda _: usage)
    error = refused(capsys, tmp_path, gpt2, texts)
    assert "1,000 bytes free" in error and "weights" in error


# --- architectures, and what a model has ----------------------------------------------------------


@pytest.mark.parametrize("name", FAMILIES)
def test_the_proposal_for_a_known_model_is_its_entry(name):
    family = FAMILIES[name]
    model, entry = pico(family), ARCHITECTURES[family.model_type].entry()
    proposal = proposed(model)
    # where no module has that name (T5, CLIP), it does not matter
    assert proposal["prefix"] == entry["prefix"] or not hasattr(model, proposal["prefix"])
    assert proposal["towers"].keys() == entry["towers"].keys()
    for tower, forms in entry["towers"].items():
        [form] = proposal["towers"][tower]
        if family.model_type == "swin":  # no comparison of its attention is defined in the table
            del form["attention"]
        assert form in forms


def test_a_model_that_is_not_in_the_table_is_compressed_with_its_proposed_entry(
    gpt2, texts, tmp_path, capsys, monkeypatch
):
    status, proposal, _ = run(capsys, "inspect", gpt2, "--propose")
    assert status == 0
    (tmp_path / "entry.yaml").write_text(proposal)
    monkeypatch.delitem(ARCHITECTURES, "gpt2")
    assert "--propose" in refused(capsys, tmp_path, gpt2, texts)
    status, *_ = compress_gpt2(
        capsys,
        gpt2,
        texts,
        tmp_path / "out",
        *("--remove", "1/3"),
        *("--architecture", tmp_path / "entry.yaml"),
    )
    assert status == 0
    assert len(towers(ffmerge.load(tmp_path / "out"))["decoder"]) == 3


def test_an_entry_that_does_not_fit_is_refused(gpt2, texts, tmp_path, capsys):
    file = tmp_path / "entry.yaml"
    for content in (
        "prefix: transformer",
        "towers: {decoder: {layers: h.*, up: x}}",
        "- a",
        "a: [",
    ):
        file.write_text(content)
        assert str(file) in refused(capsys, tmp_path, gpt2, texts, "--architecture", file)
    file.write_text("towers: {decoder: {layers: blocks.*, up: a, down: b}}")
    assert "blocks.*.a" in refused(capsys, tmp_path, gpt2, texts, "--architecture", file)


@pytest.mark.parametrize("name", ["gpt2", "bart", "clip", "llama, biases"])
def test_compressing_removes_as_much_as_inspecting_says(name, tmp_path, capsys):
    family = FAMILIES[name]
    model = own_models.save(family, tmp_path / "model")
    status, printed, _ = run(capsys, "inspect", model, "--json")
    summary = json.loads(printed)
    for tower in summary["towers"]:
        expected = family.towers[tower["tower"]]
        assert tower["parameters"] == [expected.n_parameters] * expected.n_layers
        assert tower["gated"] == family.is_gated
    third = next(removal for removal in summary["removals"] if removal["share"] == "1/3")
    data = own_models.data_for(family, tmp_path / "data")
    result = ffmerge.compress(model, features=data, out=tmp_path / "out", remove="1/3", n_tokens=12)
    assert status == 0 and summary["parameters"] == result.parameters[0]
    assert third["parameters"] == [result.parameters[0] - result.parameters[1]] * 2
    kept = sum(stored.n_bytes for stored in read_head(tmp_path / "out" / WEIGHTS).values())
    before = sum(stored.n_bytes for stored in read_head(model / WEIGHTS).values())
    assert third["bytes"] == [before - kept] * 2
    assert run(capsys, "inspect", model)[0] == 0


def test_a_picture_shows_how_similar_sublayers_are(gpt2, texts, tmp_path, capsys):
    picture = tmp_path / "similar.png"
    status, printed, error = run(
        capsys, "inspect", gpt2, "--features", texts, "--out", picture, "--n-tokens", 40, "--json"
    )
    assert status == 0, error
    matrix = torch.tensor(json.loads(printed)["cka"]["decoder"])
    assert matrix.shape == (3, 3) and torch.equal(matrix, matrix.T)
    assert picture.read_bytes()[:4] == b"\x89PNG"
    status, *_ = run(capsys, "inspect", gpt2, "--features", texts, "--out", picture)
    assert status == 2  # it is there already


@pytest.mark.parametrize(
    ("picture", "message"),
    [
        ("plots/a.png", "there is no folder"),
        ("a.doc", "name a .png, .pdf or .svg"),
        ("a", "name a .png, .pdf or .svg"),
    ],
)
def test_a_picture_that_cannot_be_written_is_refused_before_any_work(
    picture, message, gpt2, texts, tmp_path, capsys
):
    inspect = ("inspect", gpt2, "--features", texts, "--out", tmp_path / picture)
    status, printed, error = run(capsys, *inspect)
    assert (status, printed) == (2, "") and message in error and error.count("\n") == 1, error


# --- bars -----------------------------------------------------------------------------------------

MEMORY = """
import sys
from pathlib import Path
from types import SimpleNamespace
import torch
from scipy.optimize import linear_sum_assignment
from transformers import GPT2LMHeadModel
from ffmerge.compression.pipeline import compress

def memory(what):
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(what))

small = [{"input_ids": torch.ones(2, 8, dtype=torch.long)}] * 2
compress(sys.argv[3], features=small, out=sys.argv[4], remove=1)  # imports all that there is
before = memory("VmRSS")
random = torch.Generator().manual_seed(0)
batches = [
    {"input_ids": torch.randint(0, 50257, (2, 512), generator=random)} for _ in range(11)
]
Path("/proc/self/clear_refs").write_text("5")  # the peak is counted from here
compress(sys.argv[1], features=batches[:10], held_out=batches[10:], out=sys.argv[2], remove=2)
print(memory("VmHWM") - before)
"""


@pytest.mark.long
@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="Linux counts it there")
def test_compressing_holds_its_weights_and_two_layers_of_features_in_memory(tmp_path):
    from transformers import GPT2Config, GPT2LMHeadModel

    model = GPT2LMHeadModel(GPT2Config())  # GPT-2's own size, 12 layers
    model.save_pretrained(tmp_path / "model")
    small = own_models.save("gpt2", tmp_path / "small")
    files = [tmp_path / "model", tmp_path / "out", small, tmp_path / "small out"]
    arguments = [sys.executable, "-c", MEMORY, *map(str, files)]
    ended = subprocess.run(arguments, capture_output=True, text=True)
    assert ended.returncode == 0, ended.stderr
    weights = 4 * sum(parameter.numel() for parameter in model.parameters())
    two_layers = 2 * 10_000 * 3072 * 4
    print(f"{int(ended.stdout):,} bytes above the imports")
    assert int(ended.stdout) < 1.3 * weights + two_layers


def test_a_search_aligns_the_pairs_that_its_windows_merge_each_once(tmp_path):
    from transformers import ViTConfig, ViTForImageClassification

    from ffmerge.method.features import Features, FeatureWriter

    sizes = {"hidden_size": 8, "intermediate_size": 16, "num_attention_heads": 2, "image_size": 32}
    model = ViTForImageClassification(ViTConfig(**sizes))
    shapes = {f"encoder.{layer}": (20, 16) for layer in range(12)}
    with FeatureWriter(tmp_path / "features", shapes) as writer:
        for name in shapes:
            writer.append(name, torch.randn(20, 16))
    aligner = Aligner(Features(tmp_path / "features"))
    (windows,) = searches(model, {"encoder": 4}, "first")  # a third
    needed = pairs_of(group for window in windows for group in window)
    aligner.align(needed)
    first = dict(aligner.solved["encoder"])
    assert set(first) == {(s, s + i) for s in range(8) for i in range(1, 5)}  # 32 of 66 pairs
    aligner.align(needed)
    assert all(aligner.solved["encoder"][pair] is first[pair] for pair in first)


def test_an_outline_holds_no_values_and_has_the_models_towers(gpt2):
    model = source.outline(source.find(gpt2), None)
    assert all(parameter.is_meta for parameter in model.parameters())
    assert {name: len(tower) for name, tower in towers(model).items()} == {"decoder": 3}
    assert output_of(pico(FAMILIES["gpt2"]), batch_of(FAMILIES["gpt2"])).isfinite().all()
