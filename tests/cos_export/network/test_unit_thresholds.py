"""Thresholds of 1: the same spikes by NIR's equations."""

from dataclasses import replace

import nir
import numpy as np
import pytest
import random_networks as build
from integer_networks import in_fixed_point
from nir_interpreter import interpret

from cos_export.errors import NetworkError
from cos_export.network.unit_thresholds import with_unit_thresholds
from cos_export.nir_file import write_nir
from cos_export.simulation import simulate

T = 4
RNG = np.random.default_rng(0)


def powers(rng, shape, *, by_channel):
    """Thresholds by which a division changes no bit."""
    count = (shape[0], *[1] * (len(shape) - 1)) if by_channel else [1] * len(shape)
    return np.broadcast_to(2.0 ** rng.integers(-2, 3, count), shape).astype(np.float32)


def with_powers(network, *, by_channel):
    rng = np.random.default_rng(7)
    return network.with_neurons(
        {
            name: replace(spec, threshold=powers(rng, spec.shape, by_channel=by_channel))
            for name, spec in network.neurons.items()
        }
    )


def chain(**choices):
    layers = [build.conv2d(RNG, 2, 4), build.pool(nir.SumPool2d), build.IF, build.conv2d(RNG, 4, 4, groups=2)]
    layers += [build.IF, build.flatten(), build.affine(RNG, 48, 8), build.IF]
    return build.sequential(np.random.default_rng(3), (2, 8, 6), layers, **choices)


@pytest.mark.parametrize("by_channel", [False, True])
@pytest.mark.parametrize("make", [chain, lambda: build.residual(np.random.default_rng(3))])
@pytest.mark.parametrize("reset", ["subtract", "value"])
def test_the_spikes_are_the_same_by_the_equations(tmp_path, make, by_channel, reset):
    network = with_powers(make(), by_channel=by_channel)
    if reset == "value":
        network = network.with_neurons(
            {
                name: replace(spec, reset="value", v_reset=build.dyadic(RNG, *spec.shape, low=-4, high=0))
                for name, spec in network.neurons.items()
            }
        )
    network = network.with_neurons(
        {name: replace(spec, bias=None, silent=None) for name, spec in network.neurons.items()}
    )
    unit = with_unit_thresholds(network)
    images = build.images(network, 8)
    frames, runs = np.broadcast_to(images, (T, *images.shape)), []
    for one in (network, unit):
        write_nir(one, tmp_path / "model.nir")
        v_init = {layer: spec.v_init for layer, spec in one.neurons.items()}
        runs.append(
            interpret(tmp_path / "model.nir", frames, subtract=reset == "subtract", at_threshold=True, v_init=v_init)
        )
    for name, spikes in runs[0].spikes.items():
        assert (unit.neurons[name].threshold == 1).all()
        assert (unit.graph.nodes[name].v_threshold == 1).all()
        np.testing.assert_array_equal(runs[1].spikes[name], spikes)
        assert 0 < spikes.mean() < 1
    np.testing.assert_array_equal(runs[1].outputs, runs[0].outputs)


def test_steps_of_bias_and_silent_neurons_stay(tmp_path):
    network = with_powers(chain(bias_steps=3, silenced=True), by_channel=True)
    images = build.images(network, 8)
    expected, actual = (simulate(one, images, T).spikes for one in (network, with_unit_thresholds(network)))
    for name, spikes in expected.items():
        np.testing.assert_array_equal(actual[name], spikes)
    spec = network.neurons["if2"]
    np.testing.assert_array_equal(
        with_unit_thresholds(network).neurons["if2"].bias, spec.bias / spec.threshold[:, 0, 0]
    )


def test_what_cannot_have_thresholds_of_1():
    spec = build.neurons(np.random.default_rng(1), (4,))
    spec = replace(spec, threshold=np.full(4, 2, np.float32))
    direct = build.sequential(np.random.default_rng(3), (4,), [build.IF, build.affine(RNG, 4, 4), build.IF])
    direct = direct.with_neurons({"if0": spec})
    with pytest.raises(NetworkError, match=r"'input' \(Input\) feeds 'if0' with no weight between"):
        with_unit_thresholds(direct)
    uneven = chain()
    threshold = np.array(uneven.neurons["if2"].threshold)
    threshold[1, 2, 1] *= 2
    uneven = uneven.with_neurons({"if2": replace(uneven.neurons["if2"], threshold=threshold)})
    with pytest.raises(NetworkError, match=r"\(SumPool2d\) has the same weights for all neurons of a channel"):
        with_unit_thresholds(uneven)
    with pytest.raises(NetworkError, match="network of integers"):
        with_unit_thresholds(in_fixed_point(build.residual(np.random.default_rng(0)), 0))
