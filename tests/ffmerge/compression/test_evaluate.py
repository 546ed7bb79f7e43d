"""Score a user's model beside its original."""

import json
import math
import shutil
from functools import partial

import pytest
import torch
from transformers import AutoTokenizer

import ffmerge
import own_models
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
    from transformers import AutoTokenizer

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
