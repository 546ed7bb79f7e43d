"""Which layers can be merged: the candidates of a window search, and clusters of layers."""

import itertools

import pytest
import torch

from ffmerge.extensions.clustering import (
    ALIGNED,
    COMPARED,
    clusters,
    matrix_of,
    most_similar,
    propose,
)
from ffmerge.method.groups import Group, from_layers
from ffmerge.method.windows import candidate_windows, of_role


def similarity(n_layers: int, seed: int = 0) -> torch.Tensor:
    drawn = torch.rand(n_layers, n_layers, generator=torch.Generator().manual_seed(seed))
    return (drawn + drawn.T).double() / 2


def removed(groups) -> int:
    return sum(len(layers) - 1 for layers in groups)


# --- clusters -------------------------------------------------------------------------------------


@pytest.mark.parametrize("n_removed", range(8))
def test_clusters_remove_exactly_as_many_as_asked_for(n_removed):
    for seed in range(20):
        found = clusters(similarity(8, seed), n_removed)
        assert removed(found) == n_removed
        members = list(itertools.chain(*found))
        assert len(members) == len(set(members))
        assert all(len(layers) > 1 and layers == sorted(layers) for layers in found)


def test_one_removal_merges_the_most_similar_pair():
    for seed in range(20):
        matrix = similarity(7, seed)
        pairs = itertools.combinations(range(7), 2)
        assert clusters(matrix, 1) == [list(max(pairs, key=lambda pair: matrix[pair].item()))]


def test_clusters_find_blocks_of_layers_that_are_not_adjacent():
    blocks = [[0, 3, 6], [1, 4], [2, 5, 7]]
    matrix = torch.full((8, 8), 0.1)
    for block in blocks:
        for i, j in itertools.product(block, block):
            matrix[i, j] = 0.9
    assert clusters(matrix, 5) == blocks


def test_the_least_similar_pair_of_a_group_counts():
    """A chain 0-1-2-3 of similar neighbours, whose ends differ, is no group: 4-5 is closer."""
    matrix = torch.zeros(6, 6)
    for i, j, value in [(0, 1, 0.9), (1, 2, 0.8), (2, 3, 0.9), (4, 5, 0.3)]:
        matrix[i, j] = matrix[j, i] = value
    assert clusters(matrix, 3) == [[0, 1], [2, 3], [4, 5]]


@pytest.mark.parametrize("n_removed", [-1, 4, 5])
def test_at_least_one_sublayer_has_to_stay(n_removed):
    with pytest.raises(ValueError, match=rf"{n_removed} sublayers cannot be removed of 4"):
        clusters(similarity(4), n_removed)


def test_a_similarity_that_is_not_finite_is_an_error():
    matrix = similarity(4)
    matrix[1, 2] = torch.nan
    with pytest.raises(ValueError, match="not finite"):
        clusters(matrix, 1)


def test_each_tower_is_clustered_by_itself_towards_the_anchor():
    towers = {"encoder": similarity(6, 1), "decoder": similarity(6, 2)}
    found = most_similar(towers, {"encoder": 2, "decoder": 3}, "last")
    for tower, n_removed in (("encoder", 2), ("decoder", 3)):
        own = [group for group in found if group.tower == tower]
        assert [list(group.layers) for group in own] == clusters(towers[tower], n_removed)
        assert all(group.anchor == max(group.layers) for group in own)


# --- the similarities -----------------------------------------------------------------------------


def test_similarities_are_read_from_the_results_of_alignment_and_cka():
    of_pair = {(0, 1): 0.5, (0, 2): 0.25, (1, 2): 0.75}
    expected = torch.eye(3, dtype=torch.float64)
    for (i, j), value in of_pair.items():
        expected[i, j] = expected[j, i] = value
    aligned = [
        {"anchor": f"{i}", "layer": f"{j}", "correlation": f"{v}"} for (i, j), v in of_pair.items()
    ]
    compared = [{"i": f"{i}", "j": f"{j}", "cka": f"{v}"} for (i, j), v in of_pair.items()]
    assert torch.equal(matrix_of(aligned, ALIGNED, 3), expected)
    assert torch.equal(matrix_of(compared, COMPARED, 3), expected)
    with pytest.raises(ValueError, match="layers 1 and 2"):
        matrix_of(aligned[:2], ALIGNED, 3)


def test_all_strategies_propose_to_remove_as_many_sublayers_of_each_tower():
    towers, n_layers, alike = ("encoder", "decoder"), 4, {"correlation": (0, 2), "cka": (1, 3)}
    pairs = list(itertools.combinations(range(n_layers), 2))
    alignment, cka = [], []
    for tower, (i, j) in itertools.product(towers, pairs):
        high = {name: 0.9 if (i, j) == pair else 0.1 for name, pair in alike.items()}
        of_pair = {"tower": tower, "anchor": f"{i}", "layer": f"{j}"}
        alignment.append(of_pair | {"correlation": f"{high['correlation']}"})
        of_pair = {"tower": tower, "sublayer": "feed_forward", "i": f"{i}", "j": f"{j}"}
        cka += [
            of_pair | {"cka": f"{high['cka']}"},
            of_pair | {"sublayer": "attention", "cka": "2"},
        ]
    selection = {"2": {"best": 1}, "3": {"best": 0}}
    proposals = propose(alignment, cka, selection, [2, 3], n_layers, "first")
    assert proposals["2"] == {
        "window": {tower: [[1, 2]] for tower in towers},
        "correlation": {tower: [[0, 2]] for tower in towers},
        "cka": {tower: [[1, 3]] for tower in towers},
    }
    for of_tower in proposals["3"].values():
        assert [removed(of_tower[tower]) for tower in towers] == [2, 2]


# --- the window search ----------------------------------------------------------------------------


def layers_of_candidates(n_layers, n_removed) -> list[list[list[tuple[str, tuple[int, ...]]]]]:
    """Tower and layers of every group of each candidate, by search."""
    return [
        [[(group.tower, group.layers) for group in window] for window in windows]
        for windows in candidate_windows(n_layers, n_removed, "first")
    ]


def test_every_window_is_a_candidate():
    (windows,) = layers_of_candidates({"decoder": 6}, {"decoder": 2})
    assert windows == [[("decoder", (start, start + 1, start + 2))] for start in range(4)]


def test_a_candidate_s_layers_are_aligned_to_the_anchor():
    ((window,),) = candidate_windows({"decoder": 3}, {"decoder": 2}, "last")
    assert window == [Group("decoder", (0, 1, 2), 2)]


def test_towers_of_one_depth_have_the_same_window():
    depths = {"encoder": 4, "decoder": 4}
    (windows,) = layers_of_candidates(depths, {"encoder": 1, "decoder": 1})
    assert windows == [
        [("encoder", (start, start + 1)), ("decoder", (start, start + 1))] for start in range(3)
    ]


def test_towers_of_different_depth_or_loss_are_searched_one_by_one():
    searches = layers_of_candidates({"encoder": 6, "decoder": 3}, {"encoder": 2, "decoder": 1})
    assert searches == [
        [[("encoder", (start, start + 1, start + 2))] for start in range(4)],
        [[("decoder", (start, start + 1))] for start in range(2)],
    ]
    depths = {"encoder": 4, "decoder": 4}
    searches = layers_of_candidates(depths, {"encoder": 1, "decoder": 2})
    assert [len(windows) for windows in searches] == [3, 2]


def test_a_tower_that_loses_nothing_is_not_searched():
    depths = {"encoder": 4, "decoder": 4}
    (windows,) = layers_of_candidates(depths, {"encoder": 0, "decoder": 3})
    assert windows == [[("decoder", (0, 1, 2, 3))]]
    assert candidate_windows(depths, {"encoder": 0, "decoder": 0}, "first") == []


# --- what results hold ----------------------------------------------------------------------------


def test_a_role_names_a_window_or_groups_that_were_proposed():
    selection = {"3": {"best": 2, "random": [0], "cka": {"decoder": [[0, 4], [2, 3]]}}}
    assert of_role(selection, 3, "best", ["decoder"], "first") == [Group("decoder", (2, 3, 4), 2)]
    assert of_role(selection, 3, "random1", ["decoder"], "last") == [Group("decoder", (0, 1, 2), 2)]
    proposed = [Group("decoder", (0, 4), 4), Group("decoder", (2, 3), 3)]
    assert of_role(selection, 3, "cka", ["decoder"], "last") == proposed
    assert from_layers({"decoder": [[4, 0], [2, 3]]}, "last") == proposed
