"""Score a user's model beside its original."""

import json
import math
import shutil
import weakref
from functools import partial

import pytest
import torch
from transformers import AutoTokenizer

import ffmerge
import own_models
from ffmerge.compression.evaluate import Scorer
from ffmerge.evaluation.bleu import sentence_counts
from ffmerge.models import checkpoint
from own_models import run

long = partial(pytest.param, marks=pytest.mark.long)


def evaluated(capsys, *request) -> dict:
    status, printed, error = run(capsys, "evaluate", *request, "--json")
    assert status == 0, error
    return json.loads(printed)


@pytest.mark.parametrize(
    ("name", "metric"),
    [("gpt2", "perplexity"), long("bert", "perplexity"), ("vit", "accuracy"), ("marian", "bleu")],
)
def test_a_model_is_scored_beside_its_original(name, metric, made, capsys):
    original, data, small = made(name)
    result = evaluated(capsys, small, "--against", original, "--data", data, "--n-examples", 8)
    before, after = result["models"]
    assert [*before["scores"]] == [*after["scores"]] == ["loss", metric]
    assert result["n_examples"] == 8 and before["parameters"] > after["parameters"]
    assert before["bytes"] > after["bytes"] and min(before["seconds"], result["speed"]) > 0
    for score, (difference, interval) in result["differences"].items():
        values = [model["scores"][score][0] for model in (before, after)]
        assert difference == pytest.approx(values[1] - values[0])
        assert interval[0] <= difference <= interval[1] or metric == "bleu"  # biased on few pairs
    if metric == "perplexity":
        loss, _ = after["scores"]["loss"]
        assert after["scores"]["perplexity"][0] == pytest.approx(math.exp(loss))
    shown = run(capsys, "evaluate", small, "--against", original, "--data", data)[1]
    assert "difference" in shown and "times as fast" in shown and "bytes on disk" in shown


def test_a_model_does_not_differ_from_itself(made, capsys):
    original, data, _ = made("gpt2")
    result = evaluated(capsys, original, "--against", original, "--data", data)
    assert all(found == [0.0, [0.0, 0.0]] for found in result["differences"].values())


def test_the_loss_is_the_models_own(made, capsys):
    original, data, _ = made("gpt2")
    result = evaluated(capsys, original, "--data", data, "--batch-size", 1, "--n-examples", 1)
    words = " ".join(sorted(data.glob("*.txt"))[0].read_text().split())
    model, tokenizer = checkpoint.load(original), AutoTokenizer.from_pretrained(original)
    ids = torch.tensor([tokenizer(words, add_special_tokens=False)["input_ids"][:16]])
    with torch.inference_mode():
        loss = model(input_ids=ids, labels=ids).loss.item()
    assert result["models"][0]["scores"]["loss"][0] == pytest.approx(loss, rel=1e-5)


def test_a_model_without_a_loss_is_measured_by_its_distance(made, capsys):
    original, data, small = made("bert, no head")
    result = evaluated(capsys, small, "--against", original, "--data", data)
    assert "relative squared error" in result["loss"]
    assert result["models"][0]["scores"]["loss"][0] == 0 < result["differences"]["loss"][0]
    status, _, error = run(capsys, "evaluate", small, "--data", data)
    assert status == 2 and "--against" in error and error.count("error: ") == 1


@pytest.mark.parametrize(
    ("name", "pooling"),
    [
        *(("bert", "mean"), ("bert, no head", "cls")),
        *(long("bert", "cls"), long("bert, no head", "mean")),
    ],
)
def test_an_encoder_finds_the_text_that_belongs_to_another(name, pooling, made, tmp_path, capsys):
    original, _, small = made(name)
    for i, model in enumerate((original, small)):
        shutil.copytree(model, tmp_path / f"{i}")
        (tmp_path / f"{i}/1_Pooling").mkdir()
        settings = {f"pooling_mode_{pooling}_token": True} | {"word_embedding_dimension": 8}
        (tmp_path / f"{i}/1_Pooling/config.json").write_text(json.dumps(settings))
    texts = [own_models.text(i) for i in range(12)]
    targets = [*texts[:6], *(own_models.text(i + 50) for i in range(6))]
    rows = [{"a": text, "b": target} for text, target in zip(texts, targets, strict=True)]
    data = tmp_path / "pairs.jsonl"
    data.write_text("\n".join(map(json.dumps, rows)))
    columns = ("--data", data, "--source", "a", "--target", "b", "--batch-size", 5)
    result = evaluated(capsys, tmp_path / "1", "--against", tmp_path / "0", *columns)

    model = ffmerge.load(original).base_model
    tokenizer = AutoTokenizer.from_pretrained(original)
    with torch.inference_mode():
        states = [
            model(**tokenizer(t, return_tensors="pt")).last_hidden_state[0]
            for t in (*texts, *targets)
        ]
    pooled = [state.mean(dim=0) if pooling == "mean" else state[0] for state in states]
    queries, found = torch.nn.functional.normalize(torch.stack(pooled), dim=-1).chunk(2)
    correct = (queries @ found.T).argmax(dim=1) == torch.arange(12)
    expected = 100 * correct.double().mean().item()
    assert 50 <= expected < 100
    before, after = (model["scores"]["retrieval"][0] for model in result["models"])
    assert before == pytest.approx(expected)
    assert result["differences"]["retrieval"][0] == pytest.approx(after - before)
    assert result["n_examples"] == 12
    headless = name != "bert"
    assert ("loss" in result["models"][0]["scores"]) == bool(result["loss"]) == headless
    alone = evaluated(capsys, tmp_path / "0", *columns)
    assert alone["models"][0]["scores"] == {"retrieval": result["models"][0]["scores"]["retrieval"]}


def test_a_tuned_model_is_evaluated_as_its_tuning_says(made, tmp_path):
    _, data, small = made("gpt2")
    held_out = tmp_path / "held out.txt"
    texts = (data / "a.txt").read_text().split("\n\n")
    held_out.write_text("\n\n".join(texts[-8:]))
    options = {"steps": 4, "learning_rate": 1e-2}
    ffmerge.tune(small, data=data, out=tmp_path / "tuned", **options)
    result = ffmerge.evaluate(tmp_path / "tuned", against=small, data=held_out)
    difference, (_, high) = result.differences["loss"]
    assert difference < 0 and high < 0  # better, beyond chance


def test_images_without_a_label_count_in_no_score(made, tmp_path, capsys):
    original, _, small = made("vit")
    none, labels = [None, 77, None], [0, 1, None, 2, 0, 1, 99, 2]
    request = (small, "--against", original, "--batch-size", 2, "--data")
    result = evaluated(
        capsys, *request, own_models.labelled(tmp_path / "a.parquet", [*none, *labels])
    )
    alone = []
    for i, label in enumerate(labels):
        if label in range(3):
            alone.append(own_models.labelled(tmp_path / f"{i}.parquet", [label], len(none) + i))
    expected = evaluated(capsys, *request, *alone)
    assert result["n_examples"] == expected["n_examples"] == 6
    assert result["loss"] == expected["loss"] == "cross-entropy of the labels (nats)"
    for one, other in zip(result["models"], expected["models"], strict=True):
        for score, (value, _) in one["scores"].items():
            assert value == pytest.approx(other["scores"][score][0], rel=1e-5)  # other batches


def test_bleu_is_that_of_the_targets_as_they_are_written(made, tmp_path, capsys, monkeypatch):
    model, *_ = made("marian")
    targets = [own_models.text(0), "w3 {~} w4", own_models.text(1, 40), "", "w5"]
    rows = [{"source": own_models.text(i), "target": of} for i, of in enumerate(targets)]
    data = tmp_path / "pairs.jsonl"
    data.write_text("\n".join(map(json.dumps, rows)))
    compared = []

    def counts(hypotheses, references):
        compared.extend(references)
        return sentence_counts(hypotheses, references)

    monkeypatch.setattr("ffmerge.evaluation.bleu.sentence_counts", counts)
    evaluated(capsys, model, "--data", data, "--n-examples", 4, "--batch-size", 4)
    assert compared[-4:] == [targets[i] for i in (0, 1, 2, 4)]


@pytest.mark.parametrize(
    ("name", "key"), [("gpt2", "text"), ("marian", "source"), ("marian", "target")]
)
@pytest.mark.parametrize("command", ["evaluate", "tune"])
def test_a_token_that_the_model_has_no_embedding_for_is_named(
    command, name, key, made, tmp_path, capsys
):
    original, *_ = made(name)
    model = shutil.copytree(original, tmp_path / "model")
    tokenizer = AutoTokenizer.from_pretrained(model)
    tokenizer.add_tokens(["new"])
    tokenizer.save_pretrained(model)
    keys = ["text"] if key == "text" else ["source", "target"]
    rows = [{each: own_models.text(i) for each in keys} for i in range(10)]
    rows[-1][key] = "w3 new w4"
    data = tmp_path / "data.jsonl"
    data.write_text("\n".join(map(json.dumps, rows)))
    request = [model, "--data", data]
    if command == "tune":
        request += ["--out", tmp_path / "out", "--steps", 2, "--batch-size", 4, "--no-pack"]
    status, _, error = run(capsys, command, *request)
    assert status == 2 and "a token, 'new' with the id 50, but the model's" in error
    assert error.count("error: ") == 1 and "Traceback" not in error


def test_a_source_finds_its_target_although_others_have_the_same_text(made, tmp_path, capsys):
    model, *_ = made("bert, no head")
    texts = [own_models.text(i, 3 + i) for i in range(4)]
    data = tmp_path / "pairs.jsonl"
    data.write_text("\n".join(json.dumps({"a": text, "b": text}) for text in [*texts, *texts]))
    columns = ("--data", data, "--source", "a", "--target", "b", "--batch-size", 3)
    assert evaluated(capsys, model, *columns)["models"][0]["scores"]["retrieval"][0] == 100


def test_a_distance_is_computed_with_one_batch_in_memory(made, capsys, monkeypatch):
    original, data, small = made("bert, no head")
    kept, alive, batches = [], [], Scorer.batches

    def watched(scorer):
        for batch in batches(scorer):
            kept.append(weakref.ref(batch["input_ids"]))
            yield batch
            alive.append(sum(each() is not None for each in kept))

    monkeypatch.setattr(Scorer, "batches", watched)
    result = evaluated(capsys, small, "--against", original, "--data", data)
    assert result["n_examples"] == 40 and len(alive) >= 20
    assert max(alive) < 8  # of each model the first, and what a loop holds


def test_a_revision_is_of_one_model(made, capsys, monkeypatch):
    original, data, small = made("gpt2")
    folders, asked = {"a/small": small, "a/original": original}, set()

    def downloaded(name, revision, allow_patterns):
        asked.add((name, revision))
        return folders[name]

    monkeypatch.setattr("huggingface_hub.snapshot_download", downloaded)
    request = ("a/small", "--against", "a/original", "--data", data, "--n-examples", 2)
    evaluated(capsys, *request, "--revision", "v2")
    assert asked == {("a/small", "v2"), ("a/original", None)}
    asked.clear()
    evaluated(capsys, *request, "--against-revision", "v1")
    assert asked == {("a/small", None), ("a/original", "v1")}
    request = ("evaluate", small, "--data", data, "--against-revision", "v1")
    assert "name the model that it is of" in run(capsys, *request)[2]
