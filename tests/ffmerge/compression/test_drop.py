"""Drop layers of a user's model, and compare the ways to make it smaller."""

import json
import math

import pytest
import torch
import transformers

import ffmerge
import own_models
from families import FAMILIES, batch_of, pico
from ffmerge.compression import compare, summary
from ffmerge.method.groups import Group
from ffmerge.method.layer_drop import block_influences, drop_feed_forwards, without_layers
from ffmerge.models.towers import towers
from own_models import run, strict_json
from provenance.digest import sha256_of
from provenance.record import read_record


@pytest.mark.parametrize(
    ("name", "options", "left"),
    [
        ("gpt2", {"remove": 1}, [2]),
        ("gpt2", {"layers": "0+2"}, [1]),
        ("llama", {"remove": "1/3", "strategy": "influence"}, [2]),
        ("marian", {"layers": "encoder:1,decoder:0-1"}, [2, 2]),
        ("marian", {"remove": 3}, [2, 2]),
    ],
)
def test_a_model_without_layers_is_one_that_transformers_loads(name, options, left, made, tmp_path):
    model, data, _ = made(name)
    asked = {"features": data, "out": tmp_path / "out", "method": "drop-layers", "n_tokens": 12}
    result = ffmerge.compress(model, **asked, **options)
    loaded = getattr(transformers, FAMILIES[name].model_class).from_pretrained(tmp_path / "out")
    assert [len(tower) for tower in towers(loaded).values()] == left
    layers = {group.tower: group.layers for group in result.groups}
    whole = ffmerge.load(model)
    for name_, value in without_layers(whole, layers).state_dict().items():
        assert torch.equal(value, loaded.state_dict()[name_])
    assert sum(p.numel() for p in loaded.parameters()) == result.parameters[1]
    assert result.form == "stock" and f"dropped: {result.groups[0].tower}" in str(result)
    assert "dropped layers: " in (tmp_path / "out/README.md").read_text()


def test_the_block_without_which_the_loss_is_lowest_is_dropped(made, tmp_path):
    model, data, _ = made("gpt2")
    result = ffmerge.compress(
        model, features=data, out=tmp_path / "out", method="drop-layers", remove=1, n_tokens=12
    )
    (chosen,) = result.groups
    losses = {trial.window[0].layers: trial.loss for trial in result.tried}
    assert losses.keys() == {(0,), (1,), (2,)} and min(losses, key=losses.get) == chosen.layers
    assert result.losses[1] == pytest.approx(losses[chosen.layers], rel=1e-5)  # order of sums


def test_a_layer_that_changes_nothing_has_no_influence():
    model = pico(FAMILIES["gpt2"])
    layer = model.transformer.h[1]
    with torch.no_grad():
        for module in (layer.attn.c_proj, layer.mlp.c_proj):
            module.weight.zero_(), module.bias.zero_()
    influences = block_influences(model, [batch_of(FAMILIES["gpt2"], 0)])["decoder"]
    assert influences[1] == pytest.approx(0, abs=1e-7) and min(influences[0], influences[2]) > 1e-3


def test_a_dropped_feed_forward_adds_nothing_and_is_not_trained():
    model = pico(FAMILIES["gpt2"])
    drop_feed_forwards(model, [Group("decoder", (1,), 1)])
    mlp = model.transformer.h[1].mlp
    assert torch.equal(mlp(torch.ones(1, 2, 8)), torch.zeros(1, 2, 8))
    assert not any(parameter.requires_grad for parameter in mlp.parameters())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--remove", "3"], "from 1 to 2 layers can be removed of 3"),
        (["--remove", "1", "--strategy", "cka"], "does not choose layers by cka"),
        (["--layers", "3"], "layer 3: the decoder has the layers 0 to 2"),
        (["--remove", "1", "--reconstruct", "5"], "merges nothing"),
    ],
)
def test_layers_that_cannot_be_dropped_are_refused_in_one_line(
    options, message, made, tmp_path, capsys
):
    model, data, _ = made("gpt2")
    capsys.readouterr()  # of making it
    request = ("compress", model, "--features", data, "--out", tmp_path / "out", *options)
    status, printed, error = run(capsys, *request, "--method", "drop-layers")
    assert (status, printed) == (2, "") and message in error and error.count("\n") == 1
    assert not list(tmp_path.iterdir())


@pytest.mark.long
def test_every_way_is_compared_and_a_kill_costs_one_row(made, tmp_path, capsys, monkeypatch):
    model, data, _ = made("gpt2")
    request = ("compare", model, "--remove", 1, "--features", data, "--n-tokens", 12)
    request += ("--tune", data, "--steps", 2, "--learning-rate", "1e-2", "--json")
    request += ("--greedy", "--reconstruct", 2, "--reconstruct-search", 1, "--rank", 1)
    measured, selected = compare.Ways.row, compare.Ways._selected

    anew = []

    def killed(self, method, strategy):
        if method == "vanilla":
            raise KeyboardInterrupt
        return measured(self, method, strategy)

    def counted(self, method, strategy, done):
        anew.append(f"{method} {strategy}.json")
        return selected(self, method, strategy, done)

    with monkeypatch.context() as patch:
        patch.setattr(compare.Ways, "row", killed)
        assert run(capsys, *request, "--out", tmp_path / "out")[0] == 130
    kept = sorted(tmp_path.glob(".out.comparing-*/*.json"))
    assert len(kept) == 8 and not (tmp_path / "out").exists()
    monkeypatch.setattr(compare.Ways, "_selected", counted)
    status, printed, error = run(capsys, *request, "--out", tmp_path / "out")
    assert status == 0, error
    assert len(anew) == 5 and not {*anew} & {file.name for file in kept}
    result = json.loads(printed)
    rows = {(row["method"], row["strategy"]): row for row in result["rows"]}
    assert rows.keys() == {(compare.ORIGINAL, ""), *compare.WAYS}
    assert len(rows) == 13
    assert rows["permute", compare.RELAXED]["layers"] == "decoder 0-2, rank 1"
    assert rows["permute", "window"]["parameters"] < rows["original", ""]["parameters"]
    for row in rows.values():
        assert row["losses"].keys() == {"untuned", "tuned"}
    untuned = {row["way"]: row["losses"]["untuned"]["loss"] for row in result["rows"][1:]}
    assert result["best"]["untuned"][0] == min(untuned, key=untuned.get)
    written = {path.name for path in (tmp_path / "out").iterdir()}
    assert written >= {"compared.csv", "compared.png", "compared.svg", "ffmerge_record.json"}
    record = read_record(tmp_path / "out/ffmerge_record.json")
    assert record["step"] == "compare"
    assert record["input"]["data"] == record["input"]["tune"] == {str(data): sha256_of(data)}
    assert [path.name for path in tmp_path.iterdir()] == ["out"]
    whole = json.loads(run(capsys, *request, "--out", tmp_path / "whole")[1])
    assert whole["rows"] == result["rows"]


def test_a_comparison_goes_on_only_with_the_same_data(made, tmp_path, monkeypatch):
    model, data, _ = made("gpt2")
    other = tmp_path / "other.txt"
    other.write_text("\n\n".join(own_models.text(seed) for seed in range(50, 80)))
    batches = [batch_of(FAMILIES["gpt2"], seed) for seed in range(8)]
    kept = []

    def stopped(self, *way):
        kept.append(self._kept.name)
        raise KeyboardInterrupt

    monkeypatch.setattr(compare.Ways, "row", stopped)
    given = [
        {"features": data, "tune": batches[:2]},
        {"features": data, "tune": batches[2:4]},
        {"features": data, "tune": data},
        {"features": data, "tune": other},
        {"features": data, "held_out": other, "tune": data},
        {"features": [data, other], "tune": data},
        {"features": [other, data], "tune": data},
        {"features": batches[:6], "tune": batches[6:]},
        {"features": batches[:6], "tune": batches[5:]},
        {"features": batches[:6], "tune": data},
        {"features": batches[:6], "tune": other},
        {"features": batches[:4], "held_out": batches[4:6], "tune": other},
        {"features": batches[:3], "held_out": batches[3:6], "tune": other},
    ]
    for of in [*given, given[0]]:
        with pytest.raises(KeyboardInterrupt):
            ffmerge.compare(model, out=tmp_path / "new/out", remove=1, n_tokens=12, **of)
    assert len(set(kept)) == len(given) and kept[0] == kept[-1]
    assert [path.name for path in tmp_path.iterdir()] == ["other.txt"]  # and no empty folder


def test_a_way_whose_loss_is_not_finite_is_the_last_one_and_said_in_words(made, tmp_path):
    _, data, _ = made("gpt2")
    own_models.overflowing().save_pretrained(tmp_path / "model")
    own_models.tokenizer(tmp_path / "model")
    asked = {"features": data, "remove": 2, "n_tokens": 12}
    compared = ffmerge.compare(tmp_path / "model", out=tmp_path / "out", **asked)
    file = tmp_path / "out/ffmerge_record.json"
    result = strict_json(file.read_text())["result"]
    losses = {row["way"]: row["losses"]["untuned"] for row in result["rows"]}
    way = "merged unaligned, best window"
    assert losses[way]["loss"] is losses[way]["difference"] is losses[way]["interval"] is None
    finite = {other: loss["loss"] for other, loss in losses.items() if loss["loss"] is not None}
    del finite["original"]
    assert result["best"]["untuned"][0] == min(finite, key=finite.get)
    assert way not in result["best"]["untuned"]
    text = str(compared)
    assert f"({way}, untuned): its loss is not finite" in text and "  not finite*" in text


FITTED = [("permute", s) for s in ("greedy", "window reconstructed", "greedy reconstructed")]


@pytest.mark.parametrize("fitted", [False, True])
def test_a_comparison_chooses_by_one_half_and_scores_on_the_other(fitted, made, tmp_path):
    """`compress` finds the same layers on the first half, and the same losses on the second."""
    model, data, _ = made("gpt2")
    halves = [tmp_path / "choosing.txt", tmp_path / "scoring.txt"]
    for i, half in enumerate(halves):
        half.write_text("\n\n".join(own_models.text(seed) for seed in range(100 * i, 100 * i + 5)))
    asked = {"features": data, "remove": 1, "n_tokens": 12, "pack": False}
    more = {"reconstruct": 3} if fitted else {}
    compared = ffmerge.compare(
        model, out=tmp_path / "out", held_out=halves, n_held_out=5, greedy=fitted, **asked, **more
    )
    assert len(compared.rows) == (12 if fitted else 9) and compared.n_held_out == 5
    rows = {(row.method, row.strategy): row for row in compared.rows}
    ways = [
        ("permute", "window"),
        ("permute", "cka"),
        ("vanilla", "window"),
        ("low-rank", "window"),
    ]
    for method, strategy in FITTED if fitted else ways:
        row = rows[method, strategy]
        options = {"method": method, "strategy": strategy.split()[0]}
        options |= more if strategy.endswith("reconstructed") else {}
        on_first = compressed_with(halves[0], tmp_path / f"{row.way} 0", model, asked | options)
        if method != "low-rank":  # which is for all layers
            del asked["remove"]
            assert row.layers == summary.layers_text(on_first.groups)
            options |= {"layers": row.layers.removeprefix("decoder ").replace(", ", ",")}
            del options["strategy"]
        on_second = compressed_with(halves[1], tmp_path / f"{row.way} 1", model, asked | options)
        asked["remove"] = 1
        losses = row.losses["untuned"]
        assert losses.loss == pytest.approx(on_second.losses[1], rel=1e-5)
        assert losses.loss != pytest.approx(on_first.losses[1], rel=1e-5)


def compressed_with(held_out, out, model, options):
    return ffmerge.compress(model, held_out=held_out, out=out, **options)


@pytest.mark.parametrize("half", [[None, None, 77, None], [None, 1, 2, 77]])
def test_a_comparison_takes_images_of_which_some_have_no_label(half, made, tmp_path):
    model, *_ = made("vit")
    data = own_models.labelled(tmp_path / "a.parquet", [*half, 0, None, 1, None, *range(3)] * 2)
    asked = {"features": data, "remove": 1, "n_tokens": 12, "n_held_out": 4}
    if 1 not in half:
        with pytest.raises(ValueError, match="only one half of the held-out data has labels"):
            ffmerge.compare(model, out=tmp_path / "out", **asked)
        return
    compared = ffmerge.compare(model, out=tmp_path / "out", **asked)
    assert compared.loss == "cross-entropy of the labels (nats)"
    for row in compared.rows[1:]:
        loss = row.losses["untuned"]
        assert all(map(math.isfinite, (loss.loss, *loss.interval)))
