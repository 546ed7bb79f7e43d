"""Layers that candidates share with the base model: computed once, and no score changes a bit."""

from collections import Counter

import pytest
import torch

from families import FAMILIES, batch_of, in_short, output_of
from families import pico as family_model
from ffmerge.method.candidates import CandidateScorer
from ffmerge.method.groups import Group, group
from ffmerge.method.merge import merge_in_model
from ffmerge.method.permutation import Permutations
from ffmerge.method.tie import temporary_changes
from ffmerge.models.towers import towers


@pytest.fixture(autouse=True)
def one_thread():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def candidates_of(model) -> list[tuple[list[Group], dict[str, Permutations] | None]]:
    """Every pair of adjacent layers of equal width, as they are and in a random order."""
    candidates = []
    for name, tower in towers(model).items():
        widths = [
            tower.widths(i, lambda n: model.get_parameter(n).shape) for i in range(len(tower))
        ]
        for i in range(len(tower) - 1):
            if widths[i] == widths[i + 1]:
                solved = {(i, i + 1): torch.randperm(widths[i][1])}
                for permutations in (None, {name: Permutations(solved)}):
                    candidates.append(([group(name, (i, i + 1), "first")], permutations))
    return candidates


def one_by_one(model, candidates, batches, score):
    """The scores by whole passes."""
    found = []
    for candidate in candidates:
        with temporary_changes(model):
            merge_in_model(model, *candidate)
            with torch.inference_mode():
                found.append([score(batch) for batch in batches])
    return found


def are_equal(found, expected) -> bool:
    return all(
        len(a) == len(b) and all(map(torch.equal, a, b))
        for a, b in zip(found, expected, strict=True)
    )


def calls_counted(model) -> Counter:
    """Counts the calls of each layer's first map, which only a layer that is computed makes."""
    calls = Counter()
    for name, tower in towers(model).items():
        for i in range(len(tower)):
            module = model.get_submodule(tower.module(i, "up"))
            module.register_forward_hook(lambda *_, key=(name, i): calls.update([key]))
    return calls


@pytest.mark.parametrize("name", in_short())
def test_in_every_architecture_layers_before_a_window_are_computed_once(name):
    family = FAMILIES[name]
    model = family_model(family)
    candidates, batches = candidates_of(model), [batch_of(family), batch_of(family)]
    forward = {name: vars(module).get("forward") for name, module in model.named_modules()}

    def score(batch):
        return output_of(model, batch)

    expected = one_by_one(model, candidates, batches, score)
    calls = calls_counted(model)
    assert are_equal(CandidateScorer(model).scores(candidates, batches, score), expected)
    first = tower, layer = next(iter(calls))  # of two towers, the one that is computed before
    merging = [c for c in candidates if c[0][0].tower == tower and layer in c[0][0].layers]
    # otherwise once for each batch, and once more for the check
    assert calls[first] <= len(batches) * len(merging) + 3 < len(batches) * len(candidates)
    assert forward == {name: vars(m).get("forward") for name, m in model.named_modules()}


@pytest.fixture
def gpt2(pico):
    return pico("gpt2", n_layers=5)


def scored(model):
    return lambda ids: model(input_ids=ids).logits


def batches_of(n: int) -> list[torch.Tensor]:
    ids = torch.randint(2, 50, (n, 2, 8), generator=torch.Generator().manual_seed(0))
    return list(ids)


@pytest.mark.parametrize("n_bytes", [0, 20_000, 2**30])
def test_scores_are_the_same_however_many_batches_are_in_memory(n_bytes, gpt2, monkeypatch):
    monkeypatch.setattr("ffmerge.method.candidates.AT_A_TIME", n_bytes)
    candidates, batches, taken = candidates_of(gpt2), batches_of(7), []

    def read():
        for batch in batches:
            taken.append(len(found))
            yield batch

    found = []

    def score(batch):
        found.append(batch)
        return scored(gpt2)(batch)

    shared = CandidateScorer(gpt2).scores(candidates, read(), score)
    assert are_equal(shared, one_by_one(gpt2, candidates, batches, scored(gpt2)))
    if n_bytes == 0:  # a batch is read when all candidates are done with the one before
        assert taken == [n * len(candidates) + (n > 0) for n in range(7)]
    elif n_bytes == 2**30:
        assert taken == list(range(7))


def test_a_layer_that_writes_to_what_it_gets_changes_no_other_score(gpt2):
    for layer in gpt2.transformer.h:
        layer.register_forward_pre_hook(lambda _, inputs: (inputs[0].mul_(1.25),))
    candidates, batches = candidates_of(gpt2), batches_of(2)
    expected = one_by_one(gpt2, candidates, batches, scored(gpt2))
    shared = CandidateScorer(gpt2)
    assert are_equal(shared.scores(candidates, batches, scored(gpt2)), expected)


@pytest.mark.parametrize("fails", [False, True])
def test_where_layers_pass_values_on_aside_every_layer_is_computed(fails, gpt2):
    aside = {}

    def keep(_, inputs, output):
        aside["value"] = output.mean()

    def use(_, inputs):
        value = aside.pop("value") if fails else aside.get("value", 0.0)
        aside["value"] = torch.zeros(())  # what the next pass would find
        return (inputs[0] + value, *inputs[1:])

    gpt2.transformer.h[0].mlp.register_forward_hook(keep)
    gpt2.transformer.h[4].register_forward_pre_hook(use)
    candidates, batches, aside["value"] = candidates_of(gpt2), batches_of(2), torch.zeros(())
    expected = one_by_one(gpt2, candidates, batches, scored(gpt2))
    calls = calls_counted(gpt2)
    if fails:
        gpt2.transformer.h[4].register_forward_hook(lambda *_: aside.clear())
    assert are_equal(CandidateScorer(gpt2).scores(candidates, batches, scored(gpt2)), expected)
    assert calls["decoder", 0] >= len(batches) * len(candidates) - 1


def test_a_score_of_several_passes_computes_every_layer(gpt2):
    candidates, batches = candidates_of(gpt2), batches_of(2)
    calls = calls_counted(gpt2)
    CandidateScorer(gpt2, one_pass=False).scores(candidates, batches, scored(gpt2))
    assert set(calls.values()) == {len(batches) * len(candidates)}


def test_an_error_of_a_candidate_is_raised_and_the_model_is_as_before(gpt2):
    before, forward = dict(gpt2.named_parameters()), gpt2.transformer.h[0].forward

    def fails(ids):
        scored(gpt2)(ids)
        raise ArithmeticError("not finite")

    with pytest.raises(ArithmeticError, match="not finite"):
        CandidateScorer(gpt2).scores(candidates_of(gpt2), batches_of(2), fails)
    assert dict(gpt2.named_parameters()) == before
    assert gpt2.transformer.h[0].forward == forward
