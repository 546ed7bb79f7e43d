"""Benchmarks at toy size: both sides do the same, and the table says what was measured.

Each benchmark itself asserts that its two sides give the same results.
"""

import json

import pytest
import torch
from safetensors.torch import load_file

import alignment
import compress_llama
import fine_tuning
import loading
import naive_selection
import resolving
import selection
import start_up
import translation
from timing import BEGIN, END, Measured, Sample, Table, compared, in_turns


def test_the_library_selects_and_aligns_as_the_paper_reads():
    against_naive, against_floor = selection.measure(selection.TOY)
    assert against_naive.goal == ("at least", 12) and against_floor.goal == ("at most", 1.4)
    assert against_naive.ratio > 0 and against_floor.ratio > 0


def test_a_naive_selection_that_aligns_otherwise_is_noticed(monkeypatch):
    def backwards(self, start: int, k: int) -> list[torch.Tensor]:
        return [order.flip(0) for order in right(self, start, k)]

    right = naive_selection.NaiveSelection.permutations
    monkeypatch.setattr(naive_selection.NaiveSelection, "permutations", backwards)
    with pytest.raises(AssertionError):
        selection.measure(selection.TOY)


def test_a_sample_of_windows_stands_for_all_of_them():
    toy = selection.TOY[0]
    sampled = selection.replace(toy, sampled=((0, toy.sizes[-1]),))
    assert len(selection.measure((sampled,))) == 2


def test_pairs_are_aligned_as_by_products_and_assignments_alone():
    (line,) = alignment.measure(alignment.TOY)
    assert line.ratio > 0


def test_the_bare_loop_takes_the_same_steps_as_fine_tuning():
    (line,) = fine_tuning.measure(fine_tuning.TOY)
    assert line.ratio > 0


@pytest.mark.long
def test_translations_one_by_one_are_the_library_s():
    (line,) = translation.measure(translation.TOY)
    assert line.ratio > 0


@pytest.mark.long
def test_examples_are_loaded_at_a_rate_beside_what_a_model_computes():
    images, pairs = loading.measure(loading.TOY)
    assert images.what.startswith("loading 4 images") and pairs.what.startswith("loading 8 pairs")
    for line in (images, pairs):
        assert line.ratio > 0 and float(line.detail.split()[0]) > 0


@pytest.mark.long
def test_a_small_llama_is_compressed_within_the_limits_of_the_large_one(tmp_path, monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "1")  # such a small model only waits for a second one
    size, model = compress_llama.TOY, tmp_path / "model"
    n_parameters = compress_llama.make(size, model)
    stored = {tensor.dtype for tensor in load_file(model / "model.safetensors").values()}
    assert stored == {torch.bfloat16}
    summary = compress_llama.compress(size, model, tmp_path / "out")
    lines, within = compress_llama.report(size, n_parameters, summary)
    assert within and lines[-1] == "Both limits are kept."
    assert "3 windows of 3 layers, 800 positions" in lines[0]
    assert {"features", "alignment", "search", "writing"} <= {line.split()[0] for line in lines}
    lines, within = compress_llama.report(size, n_parameters, summary | {"memory_gb": 16.5})
    assert not within and lines[-1].startswith("broken: ")


@pytest.mark.long
def test_starts_of_jobs_are_timed():
    assert all(line.ratio > 0 for line in start_up.measure(start_up.TOY))


@pytest.mark.long
def test_many_tasks_are_resolved_and_nothing_is_to_be_done_after_a_run():
    assert all(line.ratio > 0 for line in resolving.measure(resolving.TOY))


def test_computation_is_what_is_neither_start_up_nor_keeping_the_record():
    def record(**time: float) -> dict:
        return {"rule": "score_test", "time": time}

    line = start_up.computation(
        [
            record(start_up_seconds=2, record_seconds=1, cpu_seconds=8),
            record(start_up_seconds=2, record_seconds=1, cpu_seconds=2),
        ]
    )
    assert line.ratio == pytest.approx(1 - (3 + 2) / 10)


def test_two_ways_are_timed_in_turns():
    order = []
    in_turns(2, a=lambda: order.append("a"), b=lambda: order.append("b"))
    assert order == ["a", "b", "b", "a"]


def test_a_ratio_is_the_median_of_its_rounds_and_meets_its_goal_or_not():
    above, below = [[Sample(None, s, s) for s in seconds] for seconds in ([2, 9, 3], [1, 1, 1])]
    assert compared("", above, below, ("at least", 3)).ratio == 3
    assert compared("", above, below, ("at least", 3)).met
    assert compared("", above, below, ("at most", 2.9)).met is False
    assert compared("", above, below, None).met is None


def test_running_a_benchmark_again_replaces_its_part_of_the_table_alone(tmp_path):
    file = tmp_path / "performance.md"
    file.write_text(f"before\n{BEGIN}\n{END}\nafter\n")
    written = Table(file)
    written.replace("one", [Measured("a", [1.0], None)], "here")
    written.replace("two", [Measured("b", [2.0, 4.0, 3.0], ("at least", 2))], "here")
    written.replace("one", [Measured("c", [5.0], ("at most", 2))], "there")
    assert written.rows("one") == ["| c | 5 | once |  | at most 2 | no |  |"]
    assert written.rows("two") == ["| b | 3 | 2–4, n = 3 |  | at least 2 | yes |  |"]
    text = file.read_text()
    assert text.startswith("before\n") and text.endswith("\nafter\n") and "| a |" not in text


def test_a_run_that_is_not_finished_has_no_share_of_computation(tmp_path):
    size = start_up.Size((), 1, tmp_path)
    assert start_up.measure(size) == []
    spent = {"start_up_seconds": 1, "record_seconds": 0, "cpu_seconds": 10}
    (tmp_path / "a.record.json").write_text(json.dumps({"rule": "a", "time": spent}))
    assert [line.ratio for line in start_up.measure(size)] == [0.9]
