"""Windows: which there are, which one is selected, and which layer the others align to."""

from itertools import combinations
from operator import gt, lt

import pytest

from ffmerge.method.groups import ANCHORS, Group, anchor_layer
from ffmerge.method.windows import (
    best_start,
    layers_of,
    pairs_in_windows,
    printed_starts,
    random_starts,
    select_windows,
    start_of_role,
    starts,
    window,
)

SIZES = [(n, k) for n in range(2, 13) for k in range(2, n + 1)]


@pytest.mark.parametrize(("n_layers", "k"), SIZES)
def test_windows_are_all_runs_of_k_layers(n_layers, k):
    runs = [list(range(i, i + k)) for i in range(n_layers) if i + k <= n_layers]
    assert [layers_of(start, k) for start in starts(n_layers, k)] == runs


def test_a_window_is_the_same_adjacent_layers_of_every_tower():
    assert window(["encoder", "decoder"], 1, 3, "middle") == [
        Group("encoder", (1, 2, 3), 2),
        Group("decoder", (1, 2, 3), 2),
    ]


@pytest.mark.parametrize(("n_layers", "k"), SIZES)
def test_printed_starts_end_at_n_minus_1_minus_k_inclusive(n_layers, k):
    assert printed_starts(n_layers, k) == [i for i in range(n_layers) if i <= (n_layers - 1) - k]


def test_the_printed_bound_leaves_no_window_of_all_layers():
    assert printed_starts(12, 12) == []
    assert starts(12, 12) == [0]


@pytest.mark.parametrize("k", [-1, 0, 13])
def test_a_window_of_no_or_of_too_many_layers_is_an_error(k):
    with pytest.raises(ValueError, match=f"k = {k}: a window has from 1 to all 12 layers"):
        starts(12, k)


def test_the_best_start_has_the_highest_or_the_lowest_score():
    scores = {0: 20.0, 1: 30.0, 2: 10.0}
    assert best_start(scores, [0, 1, 2], better=gt) == 1
    assert best_start(scores, [0, 1, 2], better=lt) == 2


@pytest.mark.parametrize("better", [gt, lt])
def test_of_equal_scores_the_earliest_start_wins(better):
    scores = {0: 5.0, 1: 5.0, 2: 5.0}
    assert best_start(scores, [0, 1, 2], better) == 0
    assert best_start(scores, [1, 2], better) == 1


def test_only_the_allowed_starts_can_win():
    scores = {0: 1.0, 1: 2.0, 2: 3.0}
    assert best_start(scores, [0, 1], better=gt) == 1
    assert best_start(scores, [], better=gt) is None


def test_random_starts_are_different_and_never_the_selected_one():
    for seed in range(50):
        drawn = random_starts(range(8), excluded=3, n=3, seed=seed)
        assert len(set(drawn)) == 3
        assert set(drawn) <= set(range(8)) - {3}


def test_random_starts_follow_their_seed_and_reach_every_other_start():
    draws = [random_starts(range(8), 3, n=3, seed=seed) for seed in range(50)]
    assert draws == [random_starts(range(8), 3, n=3, seed=seed) for seed in range(50)]
    assert {start for drawn in draws for start in drawn} == set(range(8)) - {3}
    assert len({drawn[0] for drawn in draws}) == 7


def test_fewer_random_starts_are_drawn_where_there_are_fewer():
    assert sorted(random_starts(range(3), excluded=1, n=3, seed=0)) == [0, 2]
    assert random_starts([0], excluded=0, n=3, seed=0) == []


# --- the pairs of layers that windows need --------------------------------------------------------


@pytest.mark.parametrize("n_layers", range(2, 8))
def test_the_pairs_to_solve_are_those_of_a_layer_and_its_anchor_in_some_window(n_layers):
    choices = [(k, anchor) for k in range(2, n_layers + 1) for anchor in ANCHORS]
    for merged in (chosen for n in (1, 2) for chosen in combinations(choices, n)):
        needed = {
            tuple(sorted((layer, anchor_layer(s, k, anchor))))
            for k, anchor in merged
            for s in starts(n_layers, k)
            for layer in layers_of(s, k)
        }
        assert pairs_in_windows(n_layers, merged) == sorted(p for p in needed if p[0] != p[1])


def test_with_all_layers_in_a_window_only_pairs_with_its_anchor_are_solved():
    assert pairs_in_windows(4, [(4, "middle")]) == [(0, 1), (1, 2), (1, 3)]


# --- the selection of each k ----------------------------------------------------------------------

PERMUTE = {0: 9.0, 1: 5.0, 2: 6.0, 3: 4.0}
VANILLA = {0: 3.0, 1: 8.0, 2: 7.0, 3: 9.0}
SCORES = {
    5: {"vanilla": {0: 2.0}, "permute": {0: 1.0}},
    2: {"vanilla": VANILLA, "permute": PERMUTE},
}


def test_aligned_merging_selects_one_window_for_both_methods():
    windows = select_windows(SCORES, 5, lt, "full", n_random=3, seed=0)["2"]
    assert (windows["best"], windows["selected_by"]) == (3, "permute")
    assert windows["winners"]["vanilla"]["full"] == 0
    assert sorted(windows["random"]) == [0, 1, 2]


def test_the_printed_range_leaves_the_last_window_out_and_both_winners_are_kept():
    windows = select_windows(SCORES, 5, lt, "printed", n_random=3, seed=0)["2"]
    assert windows["best"] == 1
    assert windows["winners"]["permute"] == {"full": 3, "printed": 1}
    assert sorted(windows["random"]) == [0, 2]


@pytest.mark.parametrize("range_of_starts", ["full", "printed"])
def test_merging_all_layers_has_its_only_window_under_either_range(range_of_starts):
    windows = select_windows(SCORES, 5, lt, range_of_starts, n_random=3, seed=0)["5"]
    assert (windows["best"], windows["random"]) == (0, [])
    assert windows["winners"]["permute"] == {"full": 0, "printed": None}


def test_without_aligned_merging_the_other_method_selects():
    windows = select_windows({2: {"vanilla": VANILLA}}, 5, gt, "full", n_random=3, seed=0)["2"]
    assert (windows["best"], windows["selected_by"]) == (3, "vanilla")


def test_a_role_leads_to_its_window():
    selection = {"2": {"best": 3, "random": [2, 0]}}
    roles = ("best", "random1", "random2")
    assert [start_of_role(selection, 2, role) for role in roles] == [3, 2, 0]
    with pytest.raises(ValueError, match="'random3': k = 2 leaves 2 random windows"):
        start_of_role(selection, 2, "random3")
