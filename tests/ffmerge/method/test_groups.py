"""Groups of FF sublayers, and which ones a model can have."""

import re

import pytest

from ffmerge.method.groups import Group, anchor_layer, check_groups, group
from ffmerge.method.merge import merge_in_model

N_LAYERS = {"encoder": 6, "decoder": 4}


@pytest.mark.parametrize(
    ("k", "anchor", "layer"),
    [
        (2, "first", 3),
        (2, "middle", 3),  # the earlier of two
        (2, "last", 4),
        (5, "first", 3),
        (5, "middle", 5),
        (5, "last", 7),
        (6, "middle", 5),
    ],
)
def test_an_anchor_is_the_first_the_middle_or_the_last_layer_of_its_window(k, anchor, layer):
    assert anchor_layer(3, k, anchor) == layer


def test_an_unknown_anchor_is_an_error_that_names_the_allowed_ones():
    with pytest.raises(ValueError, match="anchor 'centre': allowed are first, middle, last"):
        anchor_layer(0, 3, "centre")


@pytest.mark.parametrize(
    ("anchor", "layer"), [("first", 1), ("middle", 4), ("last", 9)], ids=lambda value: str(value)
)
def test_a_group_of_any_layers_is_in_their_order_and_its_anchor_one_of_them(anchor, layer):
    assert group("decoder", [9, 1, 4, 7], anchor) == Group("decoder", (1, 4, 7, 9), layer)


def test_an_anchor_outside_the_group_is_an_error():
    with pytest.raises(ValueError, match=r"anchor 3 is not among the layers \[1, 2, 4\]"):
        Group("decoder", (1, 2, 4), 3)


def test_the_same_layer_twice_in_a_group_is_an_error():
    with pytest.raises(ValueError, match=r"layers \[1, 2, 1\] name one twice"):
        Group("decoder", (1, 2, 1), 2)


def test_groups_of_different_layers_or_towers_can_be_merged_together():
    groups = [Group("encoder", (0, 5), 0), Group("encoder", (1, 3), 3), Group("decoder", (0, 3), 0)]
    check_groups(groups, N_LAYERS)


FAULTS = {
    "a layer past the end": (
        [Group("encoder", (0, 5), 0), Group("decoder", (2, 4), 2)],
        "layer 4: the decoder has the layers 0 to 3",
    ),
    "a layer before the first": (
        [Group("encoder", (-1, 0), 0)],
        "layer -1: the encoder has the layers 0 to 5",
    ),
    "a layer in two groups": (
        [Group("encoder", (0, 1), 0), Group("decoder", (0, 1), 0), Group("decoder", (1, 3), 3)],
        "layer 1 of the decoder is in two groups",
    ),
    "a tower that the model does not have": (
        [Group("vision", (0, 1), 0)],
        "the model has no tower 'vision' (it has: encoder, decoder)",
    ),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_group_that_a_model_cannot_have_is_an_error_naming_it(fault):
    groups, message = FAULTS[fault]
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        check_groups(groups, N_LAYERS)


@pytest.mark.parametrize(
    ("groups", "message"),
    [
        ([Group("decoder", (2, 4), 2)], "layer 4: the decoder has"),
        ([Group("decoder", (0, 1), 0), Group("decoder", (1, 2), 2)], "layer 1 of the decoder"),
        ([Group("encoder", (0, 1), 0)], "no tower 'encoder'"),
    ],
)
def test_a_model_is_left_alone_where_one_of_its_groups_is_refused(groups, message, pico):
    model = pico("gpt2")
    before = dict(model.named_parameters())
    with pytest.raises(ValueError, match=message):
        merge_in_model(model, [Group("decoder", (3,), 3), *groups], None)
    assert model.config.to_dict() == pico("gpt2").config.to_dict()
    after = dict(model.named_parameters())
    assert after.keys() == before.keys()
    assert all(after[name] is before[name] for name in before)
