"""The greedy search of small groups."""

import pytest

from ffmerge.extensions.greedy import groups_between, joined, n_trials

BOUNDARIES = [("encoder", layer) for layer in range(5)] + [("decoder", layer) for layer in range(3)]


def test_the_boundaries_that_cost_least_are_removed():
    costs = dict(zip(BOUNDARIES, [5, 1, 4, 2, 8, 3, 9, 7], strict=True))
    tried = []

    def losses(of):
        tried.extend(of)
        return [10 + sum(costs[boundary] for boundary in removed) for removed in of]

    steps = joined(BOUNDARIES, 4, losses)
    assert [value for _, value in steps] == [11, 13, 16, 20]
    assert steps[-1][0] == {("encoder", 1), ("encoder", 3), ("decoder", 0), ("encoder", 2)}
    assert len(tried) == n_trials(len(BOUNDARIES), 4) == 1 + 8 + 3 * 4


def test_a_boundary_that_costs_more_once_its_neighbour_is_removed_is_tried_again():
    def loss(removed):
        both = {("encoder", 0), ("encoder", 1)} <= removed
        return sum(layer for _, layer in removed) + 100 * both

    steps = joined(BOUNDARIES[:5], 2, lambda of: [*map(loss, of)])
    assert steps[-1] == ({("encoder", 0), ("encoder", 2)}, 2)


def test_runs_without_a_boundary_are_groups():
    removed = {("encoder", 0), ("encoder", 1), ("encoder", 3), ("decoder", 2)}
    layers = [
        (group.tower, group.layers, group.anchor) for group in groups_between(removed, "last")
    ]
    assert layers == [("decoder", (2, 3), 3), ("encoder", (0, 1, 2), 2), ("encoder", (3, 4), 4)]


def test_more_than_there_are_cannot_be_removed():
    with pytest.raises(ValueError, match="9 boundaries cannot be removed of 8"):
        joined(BOUNDARIES, 9, lambda of: [0] * len(of))
