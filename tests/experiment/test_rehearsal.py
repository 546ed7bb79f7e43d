"""The rehearsal: its configuration, and a run of a small copy of it to the end."""

import json
import shutil
import subprocess
import sys
from itertools import combinations
from operator import lt
from pathlib import Path

import pytest
import torch
import yaml
from safetensors.torch import load_file

from experiment.alignment_steps import sample, steps_alone
from experiment.config.run import validated
from experiment.plan import Rate, read_rates
from experiment.rehearsal import (
    MEMORY_BARS,
    Stage,
    alignment_row,
    rows,
)
from ffmerge.method.permutation import load_permutations
from ffmerge.method.windows import select_windows, start_of_role
from provenance.csv_files import read_csv
from provenance.record import read_record
from rehearsal_rates import SAME_WORK, broken, main, replaced
from workflow_copy import REPOSITORY, Copy

RAW = yaml.safe_load((REPOSITORY / "config/rehearsal.yaml").read_text())
RATES = REPOSITORY / "config/rates.yaml"
SHAPES = {
    row["repository"]: row for row in read_csv(REPOSITORY / "config/paper_reported/models.csv")
}
LARGE = {"gpt2": "openai-community/gpt2-large", "vit": "google/vit-base-patch16-224"}
LARGE["marian"] = "Helsinki-NLP/opus-mt-zh-en"
N_LAYERS = 4

SMALL = {  # key anywhere in the configuration -> its value in the small copy
    **dict.fromkeys(("n_layers", "n_layer", "num_hidden_layers"), N_LAYERS),
    **dict.fromkeys(("encoder_layers", "decoder_layers"), N_LAYERS),
    **dict.fromkeys(("n_embd", "hidden_size", "d_model"), 32),
    **dict.fromkeys(("intermediate_size", "encoder_ffn_dim", "decoder_ffn_dim"), 64),
    **dict.fromkeys(("n_head", "num_attention_heads"), 2),
    **dict.fromkeys(("encoder_attention_heads", "decoder_attention_heads"), 2),
    **dict.fromkeys(("vocabulary", "vocab_size", "decoder_vocab_size"), 3000),
    **dict.fromkeys(("n_positions", "context"), 64),
    "image_size": 32,
    "n_tokens": 400,
    "stride": 32,
    "max_tokens": 96,
    "max_examples": 8,
    "k": {"third": 2, "half": 3, "all": 4},
    "only": {"third": [0, 2]},
    "layer_drop": {"sixth": 1, "third": 2, "jobs": 1},
}


def shrunk(value):
    """Replace values of a configuration by small ones."""
    if not isinstance(value, dict):
        return value
    return {key: SMALL[key] if key in SMALL else shrunk(each) for key, each in value.items()}


@pytest.fixture(scope="module")
def rehearsed(tmp_path_factory) -> Copy:
    """A small rehearsal that has run to the end."""
    copy = Copy(tmp_path_factory.mktemp("rehearsal"), ["gpt2", "vit", "marian"])
    copy.config = {**shrunk(RAW), "results": "results/pico"}
    for task in copy.config["tasks"].values():
        del task["dataset"]["validation"]["n_tokens"]  # counted with another tokenizer
    copy.write_config()
    copy.run(target="results/pico/stages.csv")
    return copy


# --- the configuration ----------------------------------------------------------------------------


@pytest.mark.parametrize("task", LARGE)
def test_shapes_are_those_of_the_paper_s_models(task):
    from transformers import AutoConfig

    from ffmerge.models import checkpoint
    from ffmerge.models.size import count_parameters
    from ffmerge.models.towers import towers

    recipe = RAW["tasks"][task]["base_model"]["from_scratch"]
    with torch.device("meta"):  # shapes without memory
        model = checkpoint.from_scratch(recipe["architecture"])
    assert isinstance(
        model.config, type(AutoConfig.for_model(recipe["architecture"]["model_type"]))
    )
    shape, sides = SHAPES[LARGE[task]], towers(model)
    assert {len(tower) for tower in sides.values()} == {int(shape["n_layers"])}
    assert len(sides) == len(shape["layer_parameters"].split("/"))
    for tower in sides.values():
        up = model.get_parameter(tower.tensors(0)["up.weight"])
        assert sorted(up.shape) == [int(shape["d_model"]), int(shape["d_ff"])]
    # OPUS-MT has 512 positions a side, of which a constant table is counted in its 262,144 values
    assert count_parameters(model) == pytest.approx(int(shape["n_parameters"]), rel=1e-4)


def test_what_is_the_paper_s_is_as_in_its_configuration():
    paper = yaml.safe_load((REPOSITORY / "config/paper.yaml").read_text())["tasks"]
    for name, task in RAW["tasks"].items():
        assert task["merge"]["k"] == paper[name]["merge"]["k"]
        assert task["features"]["n_tokens"] == paper[name]["features"]["n_tokens"] == 10_000
        assert task["base_model"]["n_layers"] == paper[name]["base_model"]["n_layers"]
    assert RAW["tasks"]["gpt2"]["context"] == paper["gpt2"]["context"]


# --- a small one, to its end ----------------------------------------------------------------------


@pytest.mark.long
def test_a_base_model_that_is_not_trained_has_random_weights_in_float32(rehearsed):
    for task in RAW["tasks"]:
        weights = load_file(rehearsed.results / task / "trained_base_model/model.safetensors")
        assert {tensor.dtype for tensor in weights.values()} == {torch.float32}
        assert read_csv(rehearsed.results / task / "trained_base_model.learning_curve.csv") == []
        assert len({tensor.std().item() for tensor in weights.values() if tensor.ndim == 2}) > 8


@pytest.mark.long
def test_features_of_random_weights_are_finite_and_not_constant(rehearsed):
    for task in RAW["tasks"]:
        for features in load_file(rehearsed.results / task / "features.safetensors").values():
            assert torch.isfinite(features).all() and (features.std(dim=0) > 1e-3).all()


@pytest.mark.long
def test_all_pairs_are_aligned_and_only_the_named_windows_scored_and_selected(rehearsed):
    for task, settings in RAW["tasks"].items():
        permutations = load_permutations(rehearsed.results / task / "permutations.safetensors")
        assert {len(tower.solved) for tower in permutations.values()} == {N_LAYERS * 3 // 2}
        scored = read_csv(rehearsed.results / task / "windows.csv")
        windows = {(row["method"], row["k"], row["start"]) for row in scored}
        assert windows == {(m, "2", s) for m in ("permute", "vanilla") for s in ("0", "2")}
        selection = json.loads((rehearsed.results / task / "selection.json").read_text())
        assert list(selection) == ["2"] and selection["2"]["best"] in (0, 2)
        assert settings["merge"]["k"]["third"] != 2  # the configuration itself is not small


@pytest.mark.long
def test_every_stage_has_a_row_with_time_memory_and_disk(rehearsed):
    table = read_csv(rehearsed.results / "stages.csv")
    stages = {row["stage"] for row in table}
    for stage in ("train_base_model", "collect_features", "align_feed_forwards", "compute_cka"):
        assert stage in stages
    for stage in ("score_windows", "compress", "fine_tune", "quantize", "score_test"):
        assert stage in stages
    assert {row["task"] for row in table} == set(RAW["tasks"])
    for row in table:
        assert float(row["seconds"]) >= 0 and float(row["memory_gb"]) > 0.02
        assert bool(row["memory_bar_gb"]) == bool(row["within"]) == (row["stage"] in MEMORY_BARS)
    features = next(row for row in table if row["stage"] == "collect_features")
    file = rehearsed.results / features["task"] / "features.safetensors"
    assert float(features["disk_gb"]) == pytest.approx(file.stat().st_size / 1e9, abs=5e-4)
    assert "bars are kept" in (rehearsed.results / "stages.txt").read_text()


@pytest.mark.long
def test_a_finished_rehearsal_has_nothing_to_do(rehearsed):
    assert "Nothing to be done" in rehearsed.run(target="results/pico/stages.csv")


@pytest.mark.long
def test_measured_rates_replace_those_of_the_plan_and_no_others(rehearsed, tmp_path):
    shutil.copy(RATES, tmp_path / "rates.yaml")
    command = [sys.executable, REPOSITORY / "benchmarks/rehearsal_rates.py", "results/pico"]
    done = subprocess.run(
        [*command, "--rates", str(tmp_path / "rates.yaml"), "--write"],
        cwd=rehearsed.root,
        capture_output=True,
        text=True,
        env={"PYTHONPATH": "workflow", "PATH": ""},
    )
    # The models are so small that the process itself exceeds the memory limit of merging.
    assert done.returncode == 1 and "broken: gpt2 compress" in done.stdout, done.stderr
    before, after = read_rates(RATES, "paper"), read_rates(tmp_path / "rates.yaml", "paper")
    changed = {key for key in before if before[key] != after[key]}
    assert changed == {(rule, task) for rule in SAME_WORK for task in RAW["tasks"]}
    for key in changed:
        assert after[key].source.startswith("measured; ")
        assert 0.1 < after[key].seconds < before[key].seconds  # small models
    assert "centring + product + assignment" in after["align_feed_forwards", "vit"].source
    assert read_rates(RATES, "demo") == read_rates(tmp_path / "rates.yaml", "demo")
    lines = [RATES.read_text().splitlines(), (tmp_path / "rates.yaml").read_text().splitlines()]
    assert len(lines[0]) == len(lines[1])
    n_changed = sum(a != b for a, b in zip(*lines, strict=True))
    assert n_changed == len(changed) + len(SAME_WORK)  # every row, and the source of every rule


# --- the steps of alignment alone -----------------------------------------------------------------


def test_pairs_to_measure_are_spread_over_all():
    pairs = list(combinations(range(36), 2))
    assert sample(pairs, 3) == [pairs[0], pairs[210], pairs[420]]
    assert sample(pairs[:2], 8) == pairs[:2]


def test_steps_alone_are_those_of_an_alignment():
    generator = torch.Generator().manual_seed(0)
    features = torch.randn(6, 2000, 500, generator=generator)
    alone = steps_alone(features.__getitem__, list(combinations(range(6), 2)), threads=1)
    assert set(alone) == {"centring", "product", "assignment"}
    assert min(alone.values()) > 0


# --- bars and rates from records ------------------------------------------------------------------


@pytest.mark.long
def test_a_bar_is_judged_by_the_peak_of_the_job(rehearsed):
    record = read_record(rehearsed.results / "gpt2/features.record.json")
    for peak, kept in ((2.9e9, "yes"), (3.1e9, "no")):
        record["time"]["peak_memory_bytes"] = peak
        (row,) = rows([Stage.of(record)], {"gpt2": 1e9})
        assert (row["memory_bar_gb"], row["within"]) == ("3.00", kept)


def test_alignment_is_held_against_products_and_assignments_alone(tmp_path):
    alone = {"n_pairs": 10, "seconds_a_pair": {"centring": 9.0, "product": 2.0, "assignment": 1.0}}
    row = alignment_row("gpt2", 41.9, alone)
    assert (row["alone"], row["ratio"], row["within"]) == ("30.0", "1.40", "yes")
    row = alignment_row("gpt2", 42.3, alone)
    assert row["within"] == "no"
    (tmp_path / "t.csv").write_text(",".join(row) + "\n" + ",".join(row.values()) + "\n")
    assert broken([tmp_path / "t.csv"]) == ["gpt2 10 42.3 30.0 1.41 1.4 no"]


def test_a_rate_that_the_file_does_not_have_is_named():
    with pytest.raises(ValueError, match="no rate sunshine"):
        replaced(RATES.read_text(), {("sunshine", "gpt2"): Rate(1.0, 0.0, "measured; by eye")})


def test_a_run_without_measured_alignment_is_an_error_that_says_what_makes_it(tmp_path, capsys):
    assert main([str(tmp_path), "--rates", str(RATES)]) == 2
    assert "make rehearsal" in capsys.readouterr().err


# --- a few windows --------------------------------------------------------------------------------


@pytest.mark.parametrize("starts", [[37 - 13], [0, 24]])
def test_a_window_that_does_not_fit_the_model_is_refused(starts, monkeypatch):
    monkeypatch.chdir(REPOSITORY)
    raw = json.loads(json.dumps(RAW))
    raw["tasks"]["gpt2"]["windows"]["only"]["third"] = starts
    with pytest.raises(
        ValueError, match=r"windows\.only\.third: each has to be from 0 to 23, .*24"
    ):
        validated(raw)


def test_the_best_of_a_few_windows_is_selected_in_either_range():
    scores = {13: {"permute": {0: 5.0, 12: 4.0, 23: 3.0}}}
    for rule, best, random in (("full", 23, {0, 12}), ("printed", 12, {0})):
        selection = select_windows(scores, 36, lt, rule, 3, 0, {"13": [0, 12, 23]})
        assert selection["13"]["best"] == best and set(selection["13"]["random"]) == random
    with pytest.raises(ValueError, match=r"no window of k = 19 was scored"):
        start_of_role(selection, 19, "best")
    with pytest.raises(KeyError):  # all windows, unless some are named
        select_windows(scores, 36, lt, "full", 3, 0)


def test_roles_are_as_many_as_the_windows_that_are_scored(monkeypatch):
    from experiment.variants import candidates, table2_variants

    monkeypatch.chdir(REPOSITORY)
    task = validated(RAW).tasks["gpt2"]
    assert [tuple(c) for c in candidates(task)] == [
        (method, 13, start) for method in ("permute", "vanilla") for start in (0, 12, 23)
    ]
    assert [variant.role for variant in table2_variants(task)] == ["best", "random1", "random2"]


def test_the_small_copy_has_the_keys_of_the_rehearsal():
    def keys(value, at=""):
        if isinstance(value, dict):
            for key, each in value.items():
                yield from [f"{at}.{key}", *keys(each, f"{at}.{key}")]

    assert set(keys(shrunk(RAW))) == set(keys(RAW))
    assert Path(RAW["results"]).name == "rehearsal"
