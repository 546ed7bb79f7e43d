"""The names of models, and the models that each table and figure shows."""

import copy
import re
from dataclasses import replace
from itertools import combinations, product
from operator import lt
from pathlib import Path

import pytest
import torch
import yaml

from experiment.config.run import Config
from experiment.config.tasks import LanguageModeling, TaskBase
from experiment.variants import (
    DROPPED_PATTERN,
    MERGED_PATTERN,
    MODEL_PATTERN,
    PROPOSED,
    UNCOMPRESSED,
    Candidate,
    Variant,
    aligned_pairs,
    candidates,
    drop_candidates,
    figure3_variants,
    main_variant,
    needs_other_pairs,
    other_pairs,
    reported_base,
    scored_starts,
    size_variants,
    table1_variants,
    table2_variants,
    table3_variants,
    table4_variants,
    table5_variants,
)
from ffmerge.method.groups import anchor_layer
from ffmerge.method.permutation import Permutations
from ffmerge.method.windows import (
    layers_of,
    select_windows,
    start_of_role,
    starts,
)

RATIOS = ("third", "half", "all")
CONFIGURATIONS = Path(__file__).parents[2] / "config"
PICO = yaml.safe_load((CONFIGURATIONS / "pico.yaml").read_text())["tasks"]["gpt2"]
SLICES = (
    table1_variants,
    table2_variants,
    table3_variants,
    table4_variants,
    table5_variants,
    figure3_variants,
)


def task(n_layers: int = 12, k: dict | tuple = (5, 7, 12), **changes) -> TaskBase:
    """A language model. changes: of the task where it has the key, or of `merge`."""
    raw = copy.deepcopy(PICO)
    raw["base_model"]["n_layers"] = n_layers
    raw["merge"]["k"] = k if isinstance(k, dict) else dict(zip(RATIOS, k, strict=True))
    for key, value in changes.items():
        place = raw if key in LanguageModeling.model_fields else raw["merge"]
        place[key] = value
    return LanguageModeling.model_validate(raw)


def configured() -> list:
    """The tasks of the configurations in the repository."""
    return [
        pytest.param(settings, id=f"{run}-{name}")
        for run in ("demo", "paper", "pico")
        for name, settings in Config.model_validate(
            yaml.safe_load((CONFIGURATIONS / f"{run}.yaml").read_text())
        ).tasks.items()
    ]


# --- names ----------------------------------------------------------------------------------------

NAMES = {
    "permute-k5-first-best": Variant("permute", 5, "first", "best"),
    "vanilla-k12-middle-best": Variant("vanilla", 12, "middle", "best"),
    "permute-k13-last-random3": Variant("permute", 13, "last", "random3"),
    "permute-k5-first-best-int8": Variant("permute", 5, "first", "best", int8=True),
    "vanilla-k7-first-best-seed20": Variant("vanilla", 7, "first", "best", seed=20),
    "drop-k2-best": Variant("drop", 2),
}
NOT_NAMES = [
    "",
    "base",
    "base-tuned",
    "permute",
    "permute-k5-first",
    "permute-k-first-best",
    "permute-5-first-best",
    "permute-k5-best",
    "permute-k5-centre-best",
    "permute-k5-first-worst",
    "permute-k5-first-random",
    "permute-k5-first-best-int4",
    "permute-k5-first-best-int8-int8",
    "permute-k5-first-best\n",
    " permute-k5-first-best",
    "average-k5-first-best",
    "drop-k2",
    "drop-k2-random1",
    "drop-k2-first-best",
    "drop-k2-best-int8",
    "drop-k2-best-seed2",
    "permute-k5-first-best-seed",
    "permute-k5-first-best-seed2-int8",
    "permute-k5-first-best-int8-seed2",
    "drop-kx-best",
]


@pytest.mark.parametrize(("name", "variant"), NAMES.items(), ids=NAMES)
def test_a_name_holds_all_of_a_variant(name, variant):
    assert str(variant) == name
    assert Variant.parse(name) == variant


@pytest.mark.parametrize("settings", configured())
def test_every_name_that_is_shown_parses_back(settings):
    for variants_of in SLICES:
        for variant in variants_of(settings):
            assert Variant.parse(str(variant)) == variant


@pytest.mark.parametrize("name", NOT_NAMES, ids=repr)
def test_a_wrong_name_is_an_error_that_quotes_it(name):
    with pytest.raises(ValueError, match=re.escape(repr(name))):
        Variant.parse(name)


def test_each_expression_matches_its_own_names_and_no_others():
    merged = {name for name, v in NAMES.items() if v.method != "drop" and not v.int8 and not v.seed}
    every = [*NAMES, *NOT_NAMES]

    def matched(expression: str) -> set[str]:
        return {name for name in every if re.fullmatch(expression, name)}

    assert matched(MERGED_PATTERN) == merged
    assert matched(DROPPED_PATTERN) == {"drop-k2-best"}
    assert matched(MODEL_PATTERN) == {*NAMES, "base", "base-tuned"}


def test_the_expressions_can_be_part_of_a_longer_one():
    """Snakemake inserts a wildcard's expression between other text."""
    models = {
        MERGED_PATTERN: ["permute-k5-first-best"],
        DROPPED_PATTERN: ["drop-k2-best"],
        MODEL_PATTERN: ["base", "drop-k2-best", "permute-k5-first-best-int8"],
    }
    for expression, own in models.items():
        path = re.compile(rf"results/{expression}/tuned")
        assert [name for name in own if path.fullmatch(f"results/{name}/tuned")] == own
        for part in ("results/base", "base", "drop-k2-best/tuned", "vanilla-k5-first-best"):
            assert not path.fullmatch(part)


# --- what each table shows ------------------------------------------------------------------------


def names(variants) -> list[str]:
    return [str(variant) for variant in variants]


def test_the_table_of_sizes_has_every_method_at_every_ratio_that_is_configured():
    k = {"sixth": 3, "quarter": 4, "third": 5}
    settings = task(k=k, layer_drop={"sixth": 2, "quarter": 3, "third": 4})
    merged = [[f"{method}-k{n}-first-best" for method in ("permute", "vanilla")] for n in (3, 4, 5)]
    dropped = [f"drop-k{n}-best" for n in (2, 3, 4)]
    assert names(size_variants(settings)) == [
        *(*merged[0], dropped[0], *merged[1], dropped[1], *merged[2], dropped[2])
    ]
    assert scored_starts(settings, 4) == list(range(9))
    only = task(k=k, windows={"only": {"quarter": [2, 0], "third": [1]}})
    assert [scored_starts(only, n) for n in (3, 4, 5)] == [[], [0, 2], [1]]
    plain = task(layer_drop=None)
    assert names(size_variants(plain)) == names(table5_variants(plain))


def test_every_table_and_figure_shows_its_models():
    settings = task(anchor="middle", layer_drop={"sixth": 2, "third": 4})
    main = "permute-k5-middle-best"
    assert str(main_variant(settings)) == main
    assert names(table1_variants(settings)) == [main, f"{main}-int8", "drop-k4-best"]
    assert names(table2_variants(settings)) == [
        main,
        *(f"permute-k5-middle-random{i}" for i in (1, 2, 3)),
    ]
    assert names(table3_variants(settings)) == [
        f"permute-k5-{anchor}-best" for anchor in ("first", "middle", "last")
    ]
    assert names(table4_variants(settings)) == [main, f"{main}-int8"]
    assert names(table5_variants(settings)) == [
        f"{method}-k{k}-middle-best" for k in (5, 7, 12) for method in ("permute", "vanilla")
    ]
    assert names(figure3_variants(settings)) == [
        main,
        "permute-k7-middle-best",
        "drop-k2-best",
        "drop-k4-best",
    ]


def test_averaging_is_the_main_method_if_only_that_is_configured():
    settings = task(methods=["vanilla"])
    shown = {name for variants_of in SLICES for name in names(variants_of(settings))}
    assert {name.split("-")[0] for name in shown} == {"vanilla", "drop"}


def test_alignment_is_the_main_method_whatever_the_order_of_the_methods():
    assert main_variant(task(methods=["vanilla", "permute"])).method == "permute"


@pytest.mark.parametrize("tuned", [False, True])
def test_the_uncompressed_model_is_the_tuned_one_if_it_is_tuned(tuned):
    assert reported_base(task(fine_tune_base=tuned)) == ("base-tuned" if tuned else "base")


@pytest.mark.parametrize(
    ("n_layers", "range_of_starts", "n_random"),
    [(4, "full", 2), (4, "printed", 1), (5, "full", 3), (5, "printed", 2), (6, "printed", 3)],
)
def test_a_model_of_few_layers_has_fewer_random_windows(n_layers, range_of_starts, n_random):
    settings = task(n_layers, (2, 3, 4), windows={"starts": range_of_starts})
    roles = [variant.role for variant in table2_variants(settings)]
    assert roles == ["best", "random1", "random2", "random3"][: 1 + n_random]


@pytest.mark.parametrize(
    ("n_layers", "range_of_starts"), [*product(range(4, 9), ["full", "printed"])]
)
def test_every_role_of_table_2_has_its_window_and_no_window_is_left_over(n_layers, range_of_starts):
    for k in range(2, n_layers - 1):
        settings = task(n_layers, (k, k + 1, k + 2), windows={"starts": range_of_starts})
        among = starts(n_layers, k)
        scores = {k: {"permute": {start: float(start) for start in among}}}
        selection = select_windows(scores, n_layers, lt, range_of_starts, 3, seed=0)
        windows = [start_of_role(selection, k, v.role) for v in table2_variants(settings)]
        assert len(set(windows)) == len(windows)
        assert len(windows) == 1 + len(selection[str(k)]["random"])


@pytest.mark.parametrize("settings", configured())
def test_no_table_lists_a_model_twice_and_no_two_models_share_a_name(settings):
    shown = [variants_of(settings) for variants_of in SLICES]
    for variants in shown:
        assert len(set(names(variants))) == len(variants)
    every = {variant for variants in shown for variant in variants}
    assert len({str(variant) for variant in every}) == len(every)


@pytest.mark.parametrize("settings", configured())
def test_the_models_of_a_task_are_those_of_the_paper_s_experiments(settings):
    every = {variant for variants_of in SLICES for variant in variants_of(settings)}
    n_random = len(table2_variants(settings)) - 1
    # Table 5; random windows; two more anchors; one int8; two ratios of layer drop
    assert len(every) == 3 * len(settings.merge.methods) + n_random + 2 + 1 + 2


# --- windows to score -----------------------------------------------------------------------------


@pytest.mark.parametrize("methods", [["permute", "vanilla"], ["permute"]])
def test_every_window_of_every_ratio_is_scored_with_every_method(methods):
    found = candidates(task(n_layers=12, k=(5, 7, 12), methods=methods))
    assert len(found) == len(set(found)) == len(methods) * (8 + 6 + 1)
    assert set(found) == {
        Candidate(method, k, start)
        for method in methods
        for k in (5, 7, 12)
        for start in range(12 - k + 1)
    }


def test_the_uncompressed_model_and_every_window_of_layers_are_scored():
    found = drop_candidates(task(n_layers=12, layer_drop={"sixth": 2, "third": 4}))
    assert found[0] == UNCOMPRESSED == ("base", 0, 0)
    assert len(found) == len(set(found)) == 1 + 11 + 9
    assert set(found[1:]) == {Candidate("drop", k, s) for k in (2, 4) for s in range(12 - k + 1)}


# --- the pairs of layers to align -----------------------------------------------------------------


@pytest.mark.parametrize(
    ("layers", "k", "merge", "n_aligned"),
    [
        (12, (5, 7, 12), {}, 55),  # of 66
        (36, (13, 19, 36), {}, 479),  # of 630
        (6, (3, 4, 6), {}, 14),  # of 15
        (4, (2, 3, 4), {"anchor": "middle"}, 4),  # of 6
        (4, (2, 3, 4), {"anchor": "last"}, 6),  # of 6
    ],
)
def test_only_pairs_that_some_window_needs_are_aligned(layers, k, merge, n_aligned):
    settings = task(layers, k, **merge)
    aligned, others = aligned_pairs(settings), other_pairs(settings)
    assert len(aligned) == n_aligned
    assert sorted([*aligned, *others]) == list(combinations(range(layers), 2))


@pytest.mark.parametrize("settings", configured())
def test_every_window_that_is_scored_or_shown_finds_its_pairs(settings):
    solved = Permutations(dict.fromkeys(aligned_pairs(settings), torch.arange(3)))
    merged = [Variant(c.method, c.k, settings.merge.anchor) for c in candidates(settings)]
    shown = [variant for shown_by in SLICES for variant in shown_by(settings) if variant.anchor]
    for variant in {*merged, *shown}:
        assert not needs_other_pairs(settings, variant)
        for start in starts(settings.base_model.n_layers, variant.k):
            anchor = anchor_layer(start, variant.k, variant.anchor)
            for layer in layers_of(start, variant.k):
                solved.towards(anchor, layer)


def test_groups_and_windows_with_another_anchor_need_the_other_pairs():
    settings = task()
    for role in PROPOSED:
        assert needs_other_pairs(settings, replace(main_variant(settings), role=role))
    assert needs_other_pairs(settings, Variant("permute", 7, "last"))
    assert not needs_other_pairs(settings, Variant("permute", 5, "last"))
