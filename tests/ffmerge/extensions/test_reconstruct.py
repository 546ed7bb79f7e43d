"""Fitting merged sublayers to the outputs that each layer gave before."""

import pytest
import torch

from families import FAMILIES, batch_of, in_short, pico
from ffmerge.extensions.reconstruct import INPUT, MAPS, OUTPUT, Reconstruction, feed_forward
from ffmerge.method.features import Features, collect_outputs
from ffmerge.method.groups import group
from ffmerge.method.merge import merge_in_model
from ffmerge.method.tie import temporary_changes
from ffmerge.models.towers import towers

N_TOKENS = 12


def reconstruction(model, family, file) -> Reconstruction:
    batches = [batch_of(FAMILIES[family], seed) for seed in range(4)]
    collect_outputs(model, batches, MAPS, N_TOKENS, file)
    inputs, outputs = Features(file, INPUT), Features(file, OUTPUT)
    return Reconstruction(model, lambda: model(**batches[0]), inputs, outputs)


def sublayer_of(model, tower, layer):
    return {role: model.get_parameter(name) for role, name in tower.tensors(layer).items()}


@pytest.mark.parametrize("family", in_short())
def test_outputs_are_computed_from_inputs_as_the_model_does(family, tmp_path):
    model = pico(FAMILIES[family])
    fitting = reconstruction(model, family, tmp_path / "collected")
    for name, tower in towers(model).items():
        x, y = (Features(tmp_path / "collected", of).layer(name, 1) for of in (INPUT, OUTPUT))
        activation = fitting.activations[name]
        computed = feed_forward(sublayer_of(model, tower, 1), tower.feed_forward, activation, x)
        torch.testing.assert_close(computed, y, rtol=1e-4, atol=1e-4)  # other order of sums


@pytest.mark.parametrize("family", ["gpt2", "llama", "phi3", "marian"])
def test_fitting_brings_each_layer_nearer_to_its_outputs_and_gives_the_same_bits(family, tmp_path):
    fitted = []
    for n in range(2):
        model = pico(FAMILIES[family])
        fitting = reconstruction(model, family, tmp_path / str(n))
        groups = [group(name, [0, 1], "first") for name in towers(model)]
        merge_in_model(model, groups, None)
        averaged = {name: value.clone() for name, value in model.named_parameters()}
        for before, after in fitting.fit(model, groups, 40):
            assert after < 0.9 * before
        for tower in towers(model).values():
            for role, parameter in sublayer_of(model, tower, 1).items():
                assert parameter is sublayer_of(model, tower, 0)[role]
                assert not torch.equal(parameter, averaged[tower.tensors(0)[role]])
        fitted.append(model.state_dict())
    assert all(torch.equal(value, fitted[1][name]) for name, value in fitted[0].items())


def test_copies_of_a_sublayer_are_left_as_they_are(tmp_path):
    model = pico(FAMILIES["gpt2"])
    tower = towers(model)["decoder"]
    for role, parameter in sublayer_of(model, tower, 1).items():
        parameter.data.copy_(sublayer_of(model, tower, 0)[role])
    fitting = reconstruction(model, "gpt2", tmp_path / "collected")
    merged = [group("decoder", [0, 1], "first")]
    merge_in_model(model, merged, None)
    ((before, after),) = fitting.fit(model, merged, 5)
    assert after <= before < 1e-10


def test_what_was_fitted_once_is_written_again(tmp_path):
    model, merged = pico(FAMILIES["gpt2"]), [group("decoder", [0, 1], "first")]
    fitting, found = reconstruction(model, "gpt2", tmp_path / "collected"), []
    for steps in (5, 5, 0):
        with temporary_changes(model):
            merge_in_model(model, merged, None)
            if steps:
                fitting.fit_once(model, merged, steps)
            found.append(model.transformer.h[1].mlp.c_fc.weight.clone())
    fitted, again, averaged = found
    assert torch.equal(fitted, again) and not torch.equal(fitted, averaged)


def test_a_sublayer_of_another_form_is_refused_by_name(tmp_path):
    model = pico(FAMILIES["gpt2"])
    model.transformer.h[0].mlp.act = torch.nn.Softshrink()
    with pytest.raises(ValueError, match=r"FF sublayers of the decoder cannot be fitted.*gelu_new"):
        reconstruction(model, "gpt2", tmp_path / "collected")
