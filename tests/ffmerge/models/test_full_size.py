"""Shapes, names and memory of the paper's three architectures at full size, with random weights.

GPT-2 large takes about 7 GB of memory.
"""

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from safetensors import safe_open

from ffmerge.method.features import Features, collect_features
from ffmerge.method.layer_drop import drop_on_disk
from ffmerge.method.merge_on_disk import merge_on_disk
from ffmerge.method.permutation import Permutations, align_all_pairs
from ffmerge.models import checkpoint
from ffmerge.models.format import WEIGHTS
from ffmerge.models.size import count_parameters, count_sublayers
from ffmerge.models.towers import towers
from merged_windows import in_every_tower
from paper_models import gpt2_large, opus_mt_zh_en, vit_base

pytestmark = pytest.mark.long

N_TOKENS = 48
D_FF = {"gpt2": 5120, "vit": 3072, "marian": 2048}


def batch_for(model) -> dict[str, torch.Tensor]:
    """A few sequences, or one image: at least N_TOKENS positions."""
    generator = torch.Generator().manual_seed(0)
    if model.config.model_type == "vit":
        return {"pixel_values": torch.randn(1, 3, 224, 224, generator=generator)}
    ids = torch.randint(10, 1000, (2, N_TOKENS // 2), generator=generator)
    batch = {"input_ids": ids, "attention_mask": torch.ones_like(ids), "labels": ids}
    if model.config.model_type == "marian":
        batch["decoder_attention_mask"] = torch.ones_like(ids)
    return batch


@pytest.fixture(
    scope="module",
    params=[(gpt2_large, range(22, 24)), (vit_base, range(3, 5)), (opus_mt_zh_en, range(2, 4))],
    ids=["gpt2-large", "vit-base", "opus-mt-zh-en"],
)
def saved(request, tmp_path_factory) -> Iterator[tuple[Path, list[int]]]:
    """A model with random weights on disk, and a window of two layers."""
    build, window = request.param
    torch.manual_seed(0)
    directory = tmp_path_factory.mktemp("full_size")
    checkpoint.save(build(), directory / "base")
    yield directory / "base", list(window)
    shutil.rmtree(directory)  # pytest would keep three runs' gigabytes


@pytest.fixture
def scratch(tmp_path) -> Iterator[Path]:
    """A directory that is emptied after the test."""
    yield tmp_path
    shutil.rmtree(tmp_path)


def test_a_model_of_full_size_is_aligned_merged_saved_loaded_and_trained(saved, scratch):
    base, window = saved
    model = checkpoint.load(base)
    table, n_original = towers(model), count_parameters(model)
    batch = batch_for(model)
    inputs = {name: value for name, value in batch.items() if name != "labels"}
    if model.config.model_type == "marian":
        inputs["labels"] = batch["labels"]
    collect_features(model, [inputs], N_TOKENS, scratch / "features.safetensors")
    model_type = model.config.model_type
    del model

    features = Features(scratch / "features.safetensors")
    permutations = {}
    for tower in table:
        d_ff = features.layer(tower, window[0]).shape[1]
        solved = align_all_pairs(lambda i, tower=tower: features.layer(tower, i), [tuple(window)])
        permutations[tower] = Permutations({pair: found.permutation for pair, found in solved})
        order = permutations[tower].towards(*window)
        assert d_ff == D_FF[model_type] and sorted(order.tolist()) == list(range(d_ff))

    groups = in_every_tower(table, window, anchor=window[0])
    merge_on_disk(base, groups, permutations, scratch / "merged")
    smaller = checkpoint.load(scratch / "merged")
    computed, stored = count_sublayers(smaller)
    assert computed - stored == len(table)
    removed = n_original - count_parameters(smaller)
    sizes = [(d / WEIGHTS).stat().st_size for d in (base, scratch / "merged")]
    assert 4 * removed == pytest.approx(sizes[0] - sizes[1], abs=4096)  # headers differ

    smaller.train()
    optimizer = torch.optim.SGD(smaller.parameters(), lr=1e-4)  # AdamW's moments are 2 x weights
    labelled = {"labels": torch.tensor([3]), **batch}
    losses = []
    for _ in range(2):
        loss = smaller(**labelled).loss
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        losses.append(loss.item())
    assert all(torch.isfinite(torch.tensor(losses)))
    assert count_sublayers(smaller) == (computed, stored)


def test_layers_of_a_model_of_full_size_are_dropped_and_it_reloads(saved, scratch):
    base, window = saved
    drop_on_disk(base, window, scratch / "dropped")
    with safe_open(str(scratch / "dropped" / WEIGHTS), "pt") as file:
        assert all(file.get_slice(name).get_dtype() in {"F32", "I64"} for name in file.keys())  # noqa: SIM118
    model = checkpoint.load(scratch / "dropped")
    for tower in towers(model).values():
        n_layers = len(model.get_submodule(tower.paths[0].rpartition(".")[0]))
        assert n_layers == getattr(model.config, tower.feed_forward.count)
        assert n_layers in {34, 10, 4}
    with torch.inference_mode():
        assert torch.isfinite(model(**batch_for(model)).logits).all()
