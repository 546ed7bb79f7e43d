"""Tune a user's model: ties hold, the best step is kept, and a kill changes nothing."""

import json
import os
import shutil
import signal
import subprocess
import sys
from functools import partial

import pytest
import torch
from torch import nn
from torch.utils.data import BatchSampler
from transformers.pytorch_utils import Conv1D

import ffmerge
import own_models
from families import FAMILIES, batch_of
from ffmerge.compression import pipeline
from ffmerge.compression.loss import CrossEntropy, Divergence
from ffmerge.compression.record import lineage_of
from ffmerge.compression.write import locked
from ffmerge.models.size import count_parameters, count_sublayers
from ffmerge.models.towers import towers
from ffmerge.training.processes import Interrupted
from ffmerge.training.trainer import ResumableTrainer, Shares
from own_models import run
from provenance.record import read_record
from provenance.sources import REPOSITORY

WEIGHTS, RECORD = "model.safetensors", "ffmerge_record.json"
long = partial(pytest.param, marks=pytest.mark.long)
QUICK = {"steps": 6, "evaluate_every": 2, "batch_size": 4, "learning_rate": 1e-2}
SHORT_LAST_BATCH = ["--no-pack", "--batch-size", "6", "--steps", "7", "--evaluate-every", "1"]


# --- what comes out -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "form", "rank"),
    [
        *[("gpt2", "tied", 0), ("bert", "tied", 0), ("vit", "code", 0), ("marian", "tied", 1)],
        *[long("llama", "code", 0), long("marian", "tied", 0)],
        *[long("gpt2", "code", 1), long("bert", "tied", 1)],
    ],
)
def test_a_merged_model_recovers_and_stays_tied(name, form, rank, made, tmp_path):
    _, data, small = made(name, form, rank)
    tuned = ffmerge.tune(small, data=data, out=tmp_path / "out", **QUICK)
    before, after = tuned.losses
    scores = {p["step"]: p["score"] for p in tuned.curve if "score" in p}
    assert after < before and [*scores] == [2, 4, 6]
    assert scores[tuned.kept] == min(scores.values())
    assert after == pytest.approx(scores[tuned.kept], rel=1e-5)  # in files of float32
    loaded, merged = ffmerge.load(tmp_path / "out"), ffmerge.load(small)
    assert count_parameters(loaded) == count_parameters(merged) == tuned.parameters
    assert count_sublayers(loaded) == count_sublayers(merged)
    learned, before = dict(loaded.named_parameters()), dict(merged.named_parameters())
    corrections = [name for name in learned if "correction" in name]
    assert bool(corrections) == bool(rank) == ("of rank 1" in str(tuned))
    assert not any(torch.equal(learned[name], before[name]) for name in corrections)
    assert {f.name for f in (tmp_path / "out").iterdir()} == {f.name for f in small.iterdir()}
    assert [path.name for path in tmp_path.iterdir()] == ["out"]  # no checkpoints stay


def test_a_model_that_is_not_merged_is_tuned_as_well(made, tmp_path):
    from transformers import GPT2LMHeadModel

    model, data, _ = made("gpt2")
    tuned = ffmerge.tune(model, data=data, out=tmp_path / "out", **QUICK)
    stock = GPT2LMHeadModel.from_pretrained(tmp_path / "out")
    assert tuned.form == "stock" and tuned.losses[1] < tuned.losses[0]
    assert count_parameters(stock) == tuned.parameters
    assert "fewer feed-forward" not in (tmp_path / "out/README.md").read_text()


def test_records_and_cards_lead_from_the_original_to_the_tuned_model(made, tmp_path, capsys):
    _, data, small = made("gpt2")
    quick = ("--steps", 4, "--learning-rate", "1e-2", "--n-held-out", 3)
    request = ("tune", small, "--data", data, "--out", tmp_path / "out", *quick)
    status, printed, error = run(capsys, *request)
    assert status == 0, error
    assert "kept: step 4" in printed
    content = read_record(tmp_path / "out" / RECORD)
    assert content["input"]["lineage"]["records"] == {
        "compress": read_record(small / RECORD)["digest"]
    }
    recipe = content["params"]["recipe"]  # Table 6, but for what was asked for
    assert (recipe["schedule"], recipe["batch_size"]) == ("inverse_sqrt", 2)
    assert (recipe["max_steps"], recipe["learning_rate"]) == (4, 1e-2)
    lineage = lineage_of(tmp_path / "out")
    assert lineage.tuned and lineage.records.keys() == {"compress", "tune"}
    assert [losses["step"] for losses in lineage.losses] == ["compress", "tune"]
    card = (tmp_path / "out/README.md").read_text()
    for losses in lineage.losses:  # original, merged, tuned
        assert f"{losses['before']:.4f} before, {losses['after']:.4f} after" in card
    assert (
        run(capsys, "export", tmp_path / "out", "--form", "expanded", "--out", tmp_path / "e")[0]
        == 0
    )
    assert lineage_of(tmp_path / "e").records.keys() == {"compress", "tune", "export"}
    assert "after `tune`" in (tmp_path / "e/README.md").read_text()


@pytest.mark.parametrize("form", ["tied", "code", "expanded"])
def test_compress_can_tune_its_result(form, made, tmp_path, capsys):
    from transformers import GPT2LMHeadModel

    model, data, _ = made("gpt2")
    request = ("compress", model, "--remove", "1/3", "--features", data, "--n-tokens", 12)
    request += ("--tune", data, "--steps", 4, "--learning-rate", "1e-2", "--out", tmp_path / "out")
    status, printed, error = run(capsys, *request, "--form", form, "--json")
    assert status == 0, error
    result = json.loads(printed)
    loss = result["tuned"]["loss"]
    assert loss["after"] < loss["before"] and not result["tuned"]["teacher"]
    assert result["compressed"]["form"] == result["tuned"]["form"] == form
    lineage = lineage_of(tmp_path / "out")
    compressing = read_record(tmp_path / "out/compress_record.json")
    assert lineage.records["compress"] == compressing["digest"] and lineage.tuned
    loaded = ffmerge.load(tmp_path / "out")
    assert count_sublayers(loaded) == ((3, 3) if form == "expanded" else (3, 2))
    assert (tmp_path / "out/modeling_ffmerge.py").exists() == (form == "code")
    size = (tmp_path / "out" / WEIGHTS).stat().st_size
    assert result["compressed"]["bytes"]["after"] == result["tuned"]["bytes"] == size
    if form == "expanded":  # a stock model, in which merged sublayers were tuned as one
        stock = GPT2LMHeadModel.from_pretrained(tmp_path / "out")
        (group,) = result["tuned"]["groups"]
        first, second = (stock.transformer.h[layer].mlp.c_fc.weight for layer in group["layers"])
        assert torch.equal(first, second)
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


@pytest.mark.parametrize("name", ["bert, no head", long("clip")])
def test_compress_tunes_a_model_without_a_loss_on_the_originals_outputs(
    name, made, tmp_path, capsys
):
    model, data, _ = made(name)
    columns = ["--image", "image"] if name == "clip" else []
    request = ("compress", model, "--remove", "1/3", "--features", data, "--n-tokens", 12)
    request += ("--tune", data, "--steps", 2, "--out", tmp_path / "out", *columns)
    status, printed, error = run(capsys, *request)
    assert status == 0, error
    line = f"teacher, whose outputs it learned: {model}"
    assert line in printed
    assert line.split(":")[0] in (tmp_path / "out/README.md").read_text()


def test_what_a_tuning_cannot_read_is_said_before_the_compression(
    made, tmp_path, capsys, monkeypatch
):
    model, data, _ = made("gpt2")
    monkeypatch.setattr("ffmerge.compression.source.load_original", None)  # reads the weights
    (tmp_path / "data").mkdir()
    (tmp_path / "data/a.csv").write_text("a,b\n1,2\n")
    for tuned_on, out, message in (
        ("typo.txt", tmp_path / "out", "no file or directory typo.txt"),
        (tmp_path / "data/a.csv", tmp_path / "new/out", "a.csv"),
        (tmp_path / "data", tmp_path / "data/out", "which is an input"),
    ):
        request = ("compress", model, "--remove", "1/3", "--features", data, "--tune", tuned_on)
        status, printed, error = run(capsys, *request, "--out", out)
        assert (status, printed) == (2, "") and message in error and error.count("\n") == 1
        assert sorted(tmp_path.rglob("*")) == [tmp_path / "data", tmp_path / "data/a.csv"]


@pytest.mark.parametrize(
    ("command", "name"),
    [
        *[(("compress", "--form", form), "gpt2") for form in ("tied", "code", "expanded")],
        (("compress", "--method", "drop-layers"), "gpt2"),
        (("tune",), "gpt2"),
        (("tune",), "vit"),
    ],
)
def test_the_configuration_has_the_cache_of_the_original(command, name, made, tmp_path, capsys):
    model, data, small = made(name)
    request = {
        "compress": (model, "--remove", "1/3", "--features", data, "--n-tokens", 12),
        "tune": (small, "--data", data, "--steps", 1, "--batch-size", 2),
    }[command[0]]
    status, _, error = run(capsys, *command, *request, "--out", tmp_path / "out")
    assert status == 0, error
    original, written = (
        json.loads((path / "config.json").read_text()).get("use_cache")
        for path in (model, tmp_path / "out")
    )
    assert written is original is ({"gpt2": True}.get(name))


# --- names in cards -------------------------------------------------------------------------------


def test_cards_name_the_original_as_the_user_did(made, tmp_path, capsys, monkeypatch):
    model, data, small = made("gpt2")
    quick = ("--steps", 1, "--n-held-out", 3)

    def card(*request) -> str:
        out = tmp_path / f"out{len([*tmp_path.iterdir()])}"
        status, _, error = run(capsys, *request, "--out", out)
        assert status == 0, error
        return (out / "README.md").read_text()

    compressing = ("compress", model, "--remove", "1/3", "--features", data, "--n-tokens", 12)
    text = card(*compressing, "--tune", data, "--steps", 1)
    assert "# model, with fewer" in text and f"original: `{model}`, by the records below" in text
    assert f"- tuned from: `{model}, merged`" in text
    text = card("tune", small, "--data", data, *quick)
    assert "# model, with fewer" in text and f"original: `{model}`, by the records below" in text
    text = card("tune", model, "--data", data, *quick)
    assert "# model, tuned" in text and f"original: `{model}` (GPT2" in text
    commit = "0123456789abcdef0123456789abcdef01234567"
    snapshot = tmp_path / f"hub/snapshots/{commit}"
    shutil.copytree(model, snapshot)
    monkeypatch.setattr("huggingface_hub.snapshot_download", lambda *_, **__: str(snapshot))
    text = card("tune", "org/name", "--data", data, *quick)
    assert "# org/name, tuned" in text and "base_model: org/name" in text
    assert f"original: `org/name`, revision `{commit}` (GPT2" in text


def test_python_takes_batches_that_the_user_made(made, tmp_path):
    model = own_models.save("whisper", tmp_path / "model")
    batches = [batch_of(FAMILIES["whisper"], seed) for seed in range(5)]
    batches = [{**batch, "labels": batch["decoder_input_ids"]} for batch in batches]
    quick = QUICK | {"batch_size": 2}
    tuned = ffmerge.tune(model, data=batches, out=tmp_path / "out", **quick)
    assert tuned.losses[1] < tuned.losses[0] and tuned.n_examples == 4
    assert read_record(tmp_path / "out" / RECORD)["input"]["data"].keys() == {"batches"}


@pytest.mark.parametrize("name", ["bert, no head", "clip"])
def test_a_model_without_a_loss_learns_from_the_original(name, made, tmp_path, capsys):
    original, data, small = made(name)
    columns = ["--image", "image"] if name == "clip" else []
    request = ("tune", small, "--data", data, "--out", tmp_path / "out", "--steps", 8, *columns)
    status, _, error = run(capsys, *request)
    assert status == 2 and "--teacher" in error and error.count("\n") == 1
    rate = ("--learning-rate", "1e-3", "--batch-size", 4)
    assert run(capsys, *request, "--teacher", original, *rate)[0] == 0
    result = read_record(tmp_path / "out" / RECORD)["result"]
    assert result["loss"]["after"] < result["loss"]["before"]


def test_a_teacher_is_learned_from_beside_the_data(made, tmp_path):
    original, data, small = made("marian")
    with_it = ffmerge.tune(small, data=data, out=tmp_path / "a", teacher=original, **QUICK)
    without = ffmerge.tune(small, data=data, out=tmp_path / "b", **QUICK)
    assert with_it.loss == without.loss and with_it.losses[0] == without.losses[0]
    assert with_it.losses[1] != without.losses[1] < without.losses[0]


@pytest.mark.parametrize("accumulate", [1, 2])
def test_images_without_a_label_change_no_weight(accumulate, made, tmp_path):
    model, *_ = made("vit")
    names = ("none", "held out")
    labels = ([None, 77, None, None, 99, None, None, None], [2, None, 0, None, None, 1])
    files = [tmp_path / f"{name}.parquet" for name in names]
    for file, of in zip(files, labels, strict=True):
        own_models.labelled(file, of)
    none, held_out = files
    options = {"held_out": held_out, **QUICK, "accumulate": accumulate}
    idle = ffmerge.tune(model, data=none, out=tmp_path / "a", **options)
    assert idle.loss == "cross-entropy of the labels (nats)"
    assert idle.losses[0] == idle.losses[1]
    tuned = ffmerge.tune(model, data=[none, held_out], out=tmp_path / "b", **options)
    assert tuned.losses[0] == idle.losses[0] > tuned.losses[1]


@pytest.mark.parametrize(
    ("name", "option"),
    # parts draw other dropouts than the whole, and LLaMA has none
    [("llama", {"accumulate": 2}), ("gpt2", {"checkpointing": True})],
)
def test_saving_memory_changes_no_step(name, option, made, tmp_path):
    _, data, small = made(name)
    plain, saving = (
        ffmerge.tune(small, data=data, out=tmp_path / f"{i}", **QUICK, **more)
        for i, more in enumerate(({}, option))
    )
    for one, other in zip(plain.curve, saving.curve, strict=True):
        assert one == pytest.approx(other, rel=1e-4)  # float32 sums in another order


def test_a_step_without_any_masked_token_is_no_end(made, tmp_path):
    *_, small = made("bert")
    (tmp_path / "short.txt").write_text("\n\n".join(f"w{i}" for i in range(2, 42)))
    (tmp_path / "long.txt").write_text("\n\n".join(own_models.text(i) for i in range(4)))
    quick = QUICK | {"batch_size": 2, "accumulate": 2, "evaluate_every": 1}
    given = {"data": tmp_path / "short.txt", "held_out": tmp_path / "long.txt"}
    tuned = ffmerge.tune(small, out=tmp_path / "out", **given, **quick)
    assert 0.0 in [point["loss"] for point in tuned.curve if "loss" in point]


@pytest.mark.long
@pytest.mark.parametrize("name", ["bert, no head", "clip"])
def test_two_processes_train_a_model_that_its_loss_does_not_use_whole(name, made, tmp_path):
    original, data, small = made(name)
    request = ("--data", data, "--teacher", original, "--out", tmp_path / "out", "--steps", 3)
    request += ("--batch-size", 4, "--devices", 2, *(["--image", "image"] * (name == "clip")))
    command = [sys.executable, REPOSITORY / "workflow/experiment/cli.py", "tune", small, *request]
    ended = subprocess.run([*map(str, command)], capture_output=True, text=True)
    assert ended.returncode == 0, ended.stderr


def test_processes_share_every_batch_of_an_epoch():
    batches = BatchSampler(range(11), batch_size=4, drop_last=False)
    shares = [[*Shares(batches, 2, process, split_batches=True)] for process in range(2)]
    assert shares == [[[0, 1], [4, 5], [8]], [[2, 3], [6, 7], [9, 10]]]
    one = BatchSampler(range(5), batch_size=4, drop_last=False)  # both have to take a step
    assert [[*Shares(one, 2, process, split_batches=True)][-1] for process in range(2)] == [[4]] * 2


@pytest.mark.long
@pytest.mark.parametrize("more", [[], ["--lora", "2"], SHORT_LAST_BATCH])
def test_two_processes_take_the_same_steps_as_one(more, made, tmp_path):
    _, data, small = made("llama")
    results = []
    for devices in ("1", "2"):
        request = ("tune", small, "--data", data, "--out", tmp_path / devices, "--steps", "4")
        request += ("--batch-size", "4", "--learning-rate", "1e-2", "--devices", devices)
        request += ("--json", *more)
        command = [sys.executable, REPOSITORY / "workflow/experiment/cli.py", *map(str, request)]
        ended = subprocess.run(command, capture_output=True, text=True)
        assert ended.returncode == 0, ended.stderr
        results.append(json.loads(ended.stdout))
    one, two = results
    for mine, other in zip(one["curve"], two["curve"], strict=True):
        assert mine == pytest.approx(other, rel=1e-4)  # float32 sums in another order


# --- adapters -------------------------------------------------------------------------------------

ADAPTED = QUICK | {"lora": 2, "steps": 12, "evaluate_every": 4}


@pytest.mark.parametrize(
    ("name", "rank"),
    [("gpt2", 0), long("llama", 0), ("marian", 0), long("vit", 0), ("gpt2", 1)],
)
def test_adapters_are_trained_alone_and_merged_into_tied_weights(name, rank, made, tmp_path):
    _, data, small = made(name, "tied", rank)
    tuned = ffmerge.tune(small, data=data, held_out=data, out=tmp_path / "out", **ADAPTED)
    assert tuned.losses[1] < tuned.losses[0]
    scores = {p["step"]: p["score"] for p in tuned.curve if "score" in p}
    assert tuned.losses[1] == pytest.approx(scores[tuned.kept], rel=1e-4)  # float32, merged
    loaded, merged = ffmerge.load(tmp_path / "out"), ffmerge.load(small)
    assert count_sublayers(loaded) == count_sublayers(merged)
    before = dict(merged.named_parameters())
    assert before.keys() == dict(loaded.named_parameters()).keys()
    maps = set()
    for tower in towers(merged).values():
        for path in tower.paths:
            linear = merged.get_submodule(path).named_modules()
            maps |= {f"{path}.{n}.weight" for n, m in linear if isinstance(m, nn.Linear | Conv1D)}
    for parameter, tensor in loaded.named_parameters():
        change = tensor - before[parameter]
        if parameter not in maps:
            assert not change.any(), parameter
        elif tuned.kept:
            assert torch.linalg.matrix_rank(change.double(), rtol=1e-3) <= 2, parameter
    distinct = {id(merged.get_parameter(n)): merged.get_parameter(n) for n in maps}
    assert tuned.trained == sum(2 * sum(weight.shape) for weight in distinct.values())
    assert f"adapters of {tuned.trained:,} parameters" in str(tuned)
    assert f"adapters of {tuned.trained:,} parameters" in (tmp_path / "out/README.md").read_text()


@pytest.mark.parametrize("more", [{"checkpointing": True}, {"accumulate": 2}])
def test_saving_memory_changes_no_step_of_adapters(more, made, tmp_path):
    _, data, small = made("llama")
    plain, saving = (
        ffmerge.tune(small, data=data, out=tmp_path / f"{i}", **ADAPTED, **options)
        for i, options in enumerate(({}, more))
    )
    for one, other in zip(plain.curve, saving.curve, strict=True):
        assert one == pytest.approx(other, rel=1e-4)  # float32 sums in another order


# --- kills ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "options"),
    [long("gpt2", QUICK), ("bert", QUICK), ("llama", QUICK | {"lora": 2})],  # bert draws masks
)
def test_a_tuning_that_is_stopped_ends_with_the_same_bits(
    name, options, made, tmp_path, monkeypatch
):
    _, data, small = made(name)
    tune = partial(ffmerge.tune, small, data=data, **options)
    whole = tune(out=tmp_path / "whole")
    original = ResumableTrainer.training_step
    for step, number in ((1, signal.SIGINT), (3, signal.SIGTERM), (6, signal.SIGUSR1)):

        def stopped(self, *inputs, step=step, number=number):
            if self.state.global_step == step - 1:
                os.kill(os.getpid(), number)
            return original(self, *inputs)

        monkeypatch.setattr(ResumableTrainer, "training_step", stopped)
        with pytest.raises(Interrupted, match=f"at step {step}; the next run goes on from there"):
            tune(out=tmp_path / "cut")
        assert not (tmp_path / "cut").exists()
    monkeypatch.setattr(ResumableTrainer, "training_step", original)
    cut = tune(out=tmp_path / "cut")
    assert (tmp_path / "cut" / WEIGHTS).read_bytes() == (tmp_path / "whole" / WEIGHTS).read_bytes()
    assert cut.curve == whole.curve and cut.losses == whole.losses
    assert {path.name for path in tmp_path.iterdir()} == {"whole", "cut"}


KILLED = """
import json, os, signal, sys
import ffmerge
from ffmerge.training import resumption
from ffmerge.training.trainer import ResumableTrainer

moments, tuning = json.loads(sys.argv[1])


def kill_at(owner, name, step_of):
    original = getattr(owner, name)

    def killing(*inputs, **options):
        if [name, step_of(*inputs)] == moment:
            os.kill(os.getpid(), signal.SIGKILL)
        return original(*inputs, **options)

    setattr(owner, name, killing)


kill_at(ResumableTrainer, "training_step", lambda self, *_: self.state.global_step)
kill_at(ResumableTrainer, "evaluate", lambda self, *_: self.state.global_step)
kill_at(resumption, "complete", lambda path: int(path.name.split("-")[1]))
for moment in moments:
    child = os.fork()  # without the seconds that imports take
    if not child:
        ffmerge.tune(**tuning)
        os._exit(0)
    ended = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    assert ended == (-signal.SIGKILL if moment else 0), (moment, ended)
"""


@pytest.mark.long
@pytest.mark.parametrize("more", [{}, {"lora": 2}])
def test_twenty_kills_change_no_weight(more, made, tmp_path):
    _, data, small = made("gpt2")
    steps = {"steps": 12, "evaluate_every": 2, "batch_size": 4, "learning_rate": 1e-2} | more
    moments = [["training_step", 0], ["evaluate", 2], ["complete", 2], ["complete", 2]]
    for step in (2, 4, 6, 8, 10):  # after a checkpoint: before, in and after the next one
        moments += [["training_step", step + 1], ["evaluate", step + 2], ["complete", step + 2]]
    moments += [["evaluate", 12]]
    assert len(moments) == 20
    kept = []
    for name, killed in (("whole", []), ("cut", moments)):
        tuning = {"model": str(small), "data": str(data), "out": str(tmp_path / name), **steps}
        request = json.dumps([[*killed, None], tuning])
        environment = os.environ | {"PYTHONPATH": str(REPOSITORY / "workflow")}
        ended = subprocess.run(
            [sys.executable, "-c", KILLED, request],
            capture_output=True,
            text=True,
            env=environment | {"OMP_NUM_THREADS": "1"},  # threads do not survive a fork
        )
        assert ended.returncode == 0, ended.stderr
        kept.append((tmp_path / name / WEIGHTS).read_bytes())
    assert kept[0] == kept[1]
    assert {path.name for path in tmp_path.iterdir()} == {"whole", "cut"}


def test_a_compression_with_tuning_that_is_stopped_is_not_done_again(
    made, tmp_path, capsys, monkeypatch
):
    model, data, _ = made("gpt2")
    request = ("compress", model, "--remove", "1/3", "--features", data, "--n-tokens", 12)
    request += ("--tune", data, "--steps", 6, "--learning-rate", "1e-2", "--json", "--out")
    status, whole, error = run(capsys, *request, tmp_path / "whole")
    assert status == 0, error
    before, compress = ResumableTrainer.training_step, pipeline.compress

    def stopped(self, *inputs):
        if self.state.global_step == 2:
            os.kill(os.getpid(), signal.SIGINT)
        return before(self, *inputs)

    with monkeypatch.context() as patch, pytest.raises(Interrupted, match="at step 3; the next"):
        patch.setattr(ResumableTrainer, "training_step", stopped)
        run(capsys, *request, tmp_path / "cut")
    compressed = []
    monkeypatch.setattr(
        pipeline, "compress", lambda *i, **o: (compressed.append(o["out"]), compress(*i, **o))[1]
    )
    capsys.readouterr()
    status, cut, error = run(capsys, *request, tmp_path / "cut")
    assert status == 0 and not compressed and "going on from step 3" in error, error
    assert (tmp_path / "cut" / WEIGHTS).read_bytes() == (tmp_path / "whole" / WEIGHTS).read_bytes()
    assert {path.name for path in tmp_path.iterdir()} == {"whole", "cut"}
    results = [json.loads(printed) for printed in (whole, cut)]
    assert results[0]["tuned"]["curve"] == results[1]["tuned"]["curve"]
    for result in results:
        for key in ("out", "seconds", "record"):
            del result["compressed"][key]
    assert results[0]["compressed"] == results[1]["compressed"]


def test_what_was_compressed_survives_an_interrupt_but_not_a_refusal(
    made, tmp_path, capsys, monkeypatch
):
    model, data, _ = made("gpt2")
    request = ("compress", model, "--remove", "1/3", "--features", data, "--n-tokens", 12)
    request += ("--steps", 1, "--out", tmp_path / "new/out", "--tune")
    (tmp_path / "a.txt").write_text("w3 w4")
    status, _, error = run(capsys, *request, tmp_path / "a.txt")
    assert status == 2 and "the data hold 1 examples" in error
    assert [path.name for path in tmp_path.iterdir()] == ["a.txt"]

    def interrupted(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("ffmerge.compression.loss.check_filled", interrupted)  # before the training
        assert run(capsys, *request, data)[0] == 130
    status, _, error = run(capsys, *request, data)
    assert status == 0 and "going on with the compressed model" in error
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["out"]


def test_another_merged_model_of_the_same_weights_goes_on_from_the_checkpoint(
    made, tmp_path, monkeypatch
):
    model, data, _ = made("gpt2")
    for again in (False, True):
        shutil.rmtree(tmp_path / "small", ignore_errors=True)
        ffmerge.compress(model, features=data, out=tmp_path / "small", layers="0-1", n_tokens=12)
        tune = partial(ffmerge.tune, tmp_path / "small", data=data, out=tmp_path / "out", **QUICK)
        if not again:
            with monkeypatch.context() as patch, pytest.raises(OSError, match="no space"):
                failing = _full_at_step_4(ResumableTrainer.evaluate)
                patch.setattr(ResumableTrainer, "evaluate", failing)
                tune()
    (left,) = tmp_path.glob(".out.tuning-*/checkpoint-*")
    steps, step = [], ResumableTrainer.training_step

    def noting(self, *inputs):
        steps.append(self.state.global_step)
        return step(self, *inputs)

    monkeypatch.setattr(ResumableTrainer, "training_step", noting)
    tune()
    assert steps[0] == int(left.name.rpartition("-")[2]) > 0


def test_nothing_of_another_live_process_is_removed(made, tmp_path):
    *_, data, small = made("gpt2")
    live = tmp_path / ".out.tuning-0123"
    live.mkdir()
    with locked(live), pytest.raises(ValueError, match="another process is tuning into"):
        ffmerge.tune(small, data=data, out=tmp_path / "out", **QUICK)
    assert [path.name for path in tmp_path.iterdir()] == [live.name]
    ffmerge.tune(small, data=data, out=tmp_path / "out", **QUICK)
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_a_name_that_is_a_pattern_leaves_no_checkpoints(made, tmp_path):
    *_, data, small = made("gpt2")
    out = tmp_path / "m[2]"
    (tmp_path / f".partial.1.{out.name}").mkdir()  # left by a process that was killed
    ffmerge.tune(small, data=data, out=out, **QUICK)
    assert [path.name for path in tmp_path.iterdir()] == [out.name]


def test_checkpoints_of_other_parameters_are_not_resumed_and_are_removed(
    made, tmp_path, monkeypatch
):
    _, data, small = made("gpt2")
    with monkeypatch.context() as patch, pytest.raises(OSError, match="no space"):
        patch.setattr(ResumableTrainer, "evaluate", _full_at_step_4(ResumableTrainer.evaluate))
        ffmerge.tune(small, data=data, out=tmp_path / "out", **QUICK)
    assert len([*tmp_path.glob(".out.tuning-*/checkpoint-*")]) == 1
    other = QUICK | {"learning_rate": 1e-3}
    changed = ffmerge.tune(small, data=data, out=tmp_path / "out", **other)
    assert changed.curve == ffmerge.tune(small, data=data, out=tmp_path / "again", **other).curve
    assert {path.name for path in tmp_path.iterdir()} == {"out", "again"}


def _full_at_step_4(evaluate):
    def failing(self, *inputs, **options):
        if self.state.global_step == 4:
            raise OSError("no space left")
        return evaluate(self, *inputs, **options)

    return failing


# --- requests that are refused --------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--batch-size", "3", "--accumulate", "2"], "need a multiple of 2"),
        (["--precision", "fp16"], "fp16 needs a GPU"),
        (["--device", "cuda:1"], "device 'cuda:1'"),
        (["--steps", "0"], "steps 0: has to be at least 1"),
        (["--lora", "0"], "lora 0: has to be at least 1"),
        (["--learning-rate", "0"], "learning_rate 0.0: has to be a number above 0"),
        (["--teacher", "nowhere/at/all"], "no directory nowhere/at/all"),
        (["--max-length", "1"], "--max-length 1"),
    ],
)
def test_a_request_that_cannot_be_met_is_refused_in_one_line(
    options, message, made, tmp_path, capsys
):
    _, data, small = made("gpt2")
    request = ("tune", small, "--data", data, "--out", tmp_path / "out", *options)
    status, printed, error = run(capsys, *request)
    assert (status, printed) == (2, "") and message in error
    assert error.startswith("error: ") and error.count("\n") == 1
    assert not list(tmp_path.iterdir())


def test_a_call_from_python_says_that_it_trains_in_one_process(made, tmp_path):
    *_, data, small = made("gpt2")
    with pytest.raises(ValueError, match=r"trains in one process; .* --devices 2"):
        ffmerge.tune(small, data=data, out=tmp_path / "out", devices=2, **QUICK)
    assert not list(tmp_path.iterdir())


def test_no_output_goes_into_the_teachers_folder(made, tmp_path, capsys):
    model, data, small = made("gpt2")
    teacher = shutil.copytree(model, tmp_path / "teacher")
    request = ("tune", small, "--data", data, "--teacher", teacher, "--out", teacher / "out")
    status, printed, error = run(capsys, *request, "--steps", 1)
    assert (status, printed) == (2, "") and f"inside {teacher}, which is an input" in error
    assert error.count("\n") == 1 and not (teacher / "out").exists()


def test_data_that_do_not_suffice_are_refused(made, tmp_path, capsys):
    *_, small = made("gpt2")
    (tmp_path / "a.txt").write_text("w3 w4")
    request = ("tune", small, "--data", tmp_path / "a.txt", "--out", tmp_path / "out")
    status, _, error = run(capsys, *request)
    assert status == 2 and "the data hold 1 examples" in error
    assert [path.name for path in tmp_path.iterdir()] == ["a.txt"]


def test_a_tuning_goes_on_only_with_the_same_files_in_the_same_parts(made, tmp_path, monkeypatch):
    small = made("gpt2")[2]
    files = [tmp_path / f"{i}.txt" for i in range(3)]
    for i, file in enumerate(files):
        file.write_text("\n\n".join(own_models.text(seed) for seed in range(10 * i, 10 * i + 8)))
    kept = []

    def stopped(model, task, training, directory, **options):
        kept.append(directory.name)
        raise KeyboardInterrupt

    monkeypatch.setattr("ffmerge.compression.tune.train", stopped)
    parts = [(files, None), (files[::-1], None), (files[:2], files[2:]), (files[:1], files[1:])]
    for given, held_out in [*parts, parts[0]]:
        with pytest.raises(KeyboardInterrupt):
            ffmerge.tune(small, data=given, held_out=held_out, out=tmp_path / "out", **QUICK)
    assert len(set(kept)) == len(parts) and kept[0] == kept[-1]


# --- warnings -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("before", "after", "words"),
    [
        (2.0, 2.9, None),
        (2.0, 3.1, "rose by 1.10 nats"),
        (3.5, 4.0, "no better than that of a guess among 50 classes"),
        *((2.0, after, "is not finite") for after in (float("nan"), float("inf"))),
    ],
)
def test_a_loss_that_nobody_can_use_is_said_in_words(before, after, words):
    loss = CrossEntropy("of words", [({}, torch.zeros(1, 2, dtype=torch.long))])
    loss.n_classes = 50
    fault = loss.fault(before, after)
    assert (fault is None) == (words is None) and (words or "") in (fault or "")


@pytest.mark.parametrize(
    ("is_kl", "after", "words"),
    [
        (True, 0.5, None),
        (True, 2.0, "7.4 times less probability"),
        (False, 0.4, None),
        (False, 0.6, "60 % of the original's outputs are lost"),
        (False, 1.2, "nothing is left"),
        *((is_kl, float("nan"), "is not finite") for is_kl in (True, False)),
    ],
)
def test_outputs_that_are_mostly_gone_are_said_in_words(is_kl, after, words):
    loss = Divergence.__new__(Divergence)
    loss._is_kl = is_kl
    fault = loss.fault(0.0, after)
    assert (fault is None) == (words is None) and (words or "") in (fault or "")


def test_compress_warns_of_a_model_that_cannot_be_used(made, tmp_path, capsys):
    model, data, _ = made("gpt2")  # of random weights: no better than a guess
    request = ("--remove", "1/3", "--features", data, "--n-tokens", 12, "--out", tmp_path / "out")
    status, printed, _ = run(capsys, "compress", model, *request)
    assert status == 0
    card = (tmp_path / "out/README.md").read_text()
    for text in (" ".join(printed.split()), card):
        assert "NOT USABLE AS IT IS: its loss, " in text
        assert f"`ffmerge tune {tmp_path / 'out'} --data DATA" in text
