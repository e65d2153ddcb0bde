from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import nir
import numpy as np
import pytest
from divergence import divergence
from integer_networks import in_fixed_point
from small_networks import layer, two_layers

from calibration import Static, calibrate
from calibration.tuning.warm_start import warm_start
from cos_export.errors import InputError
from cos_export.network import SpikingNetwork
from cos_export.network.graph import with_attributes
from cos_export.nir_file import read_nir, write_nir

IMAGES = np.random.default_rng(1).normal(size=(240, 2, 5, 5)).astype(np.float32)
EVERYTHING = Static(("potential", "threshold", "bias", "weight"), updates=60, samples=16, rounds=3, learning_rate=0.02)


def test_what_was_learned_at_one_step_is_adapted_to_three(tmp_path: Path) -> None:
    network = two_layers(seed=8)
    write_nir(calibrate(network, IMAGES, EVERYTHING, 1), tmp_path / "one.nir")
    start = read_nir(tmp_path / "one.nir")
    continued = calibrate(network, IMAGES, replace(EVERYTHING, updates=30, learning_rate=0.004, start_from=start), 3)
    assert divergence(continued, network, 3, IMAGES) < divergence(warm_start(start, network, 3), network, 3, IMAGES)
    assert (continued.method, continued.num_timesteps) == ("static", 3)
    moved = np.abs(continued.graph.nodes["dense"].weight - start.graph.nodes["dense"].weight).max()
    away = np.abs(start.graph.nodes["dense"].weight - network.graph.nodes["dense"].weight).max()
    assert 0 < moved < 0.5 * away, "it stays near what it started from, and not near the network that was given"


def test_a_start_that_gradients_do_not_improve_is_what_is_returned() -> None:
    network = two_layers(seed=8)
    start = calibrate(network, IMAGES, EVERYTHING, 2)
    astray = calibrate(network, IMAGES, replace(EVERYTHING, updates=3, learning_rate=30.0, start_from=start), 2)
    for name in network.layers:
        assert np.array_equal(astray.neurons[name].v_init, start.neurons[name].v_init)
        assert np.array_equal(astray.neurons[name].threshold, start.neurons[name].threshold)
    assert np.array_equal(astray.graph.nodes["dense"].weight, start.graph.nodes["dense"].weight)


def test_what_it_answers_to_is_the_network_that_was_given() -> None:
    """A start whose weights are all wrong is drawn to the network, and not to its own limit."""
    network = two_layers(seed=8)
    wrong = network.with_nodes({"head": with_attributes(network.graph.nodes["head"], bias=np.full(4, 5.0, np.float32))})
    wrong.graph.nodes["head"].bias[0] = -5.0
    tuned = calibrate(network, IMAGES, replace(EVERYTHING, learning_rate=0.05, start_from=wrong), 2)
    assert divergence(tuned, network, 2, IMAGES) < 0.3 * divergence(wrong, network, 2, IMAGES)


@pytest.mark.parametrize(("steps", "expected"), [(1, [0]), (2, [0, 1]), (4, [0, 1, 1, 1])])
def test_the_last_bias_goes_on(steps: int, expected: list[int]) -> None:
    network = two_layers(seed=8)
    bias = np.array([[0.25, 0.0, 1.0], [0.5, -1.0, 2.0]], np.float32)
    start = network.with_neurons({"first": replace(network.neurons["first"], bias=bias)})
    actual = warm_start(start, network, steps)
    assert np.array_equal(actual.neurons["first"].bias, bias[expected])  # type: ignore[arg-type]
    assert actual.neurons["second"].bias is None


def test_another_network_is_refused() -> None:
    network = two_layers(seed=8)
    wider = with_attributes(
        network.graph.nodes["head"], weight=np.ones((5, 6), np.float32), bias=np.ones(5, np.float32)
    )
    output = nir.Output({"output": np.array([5])})
    with pytest.raises(InputError, match=r"'head' is Affine of weights \(5, 6\) to \(5,\) there, and .*\(4, 6\)"):
        warm_start(network.with_nodes({"head": wider, "output": output}), network, 2)
    conv = network.graph.nodes["conv"]
    dilated = with_attributes(conv, dilation=(2, 2), padding=(2, 2))
    with pytest.raises(InputError, match=r"'conv' is Conv2d .*dilation=\(2, 2\).* there"):
        warm_start(network.with_nodes({"conv": dilated}), network, 2)
    nodes = {**network.graph.nodes, "second": nir.Linear(np.eye(6, dtype=np.float32))}
    shallow = SpikingNetwork(nir.NIRGraph(nodes, network.graph.edges), {"first": layer((3, 5, 5), 1.0)})
    with pytest.raises(InputError, match=r"'second' is Linear .* there, and IF .* here"):
        warm_start(shallow, network, 2)


def test_other_integers_are_refused() -> None:
    network = in_fixed_point(two_layers(seed=8), seed=0)
    assert warm_start(network, network, 2).numerics == "int8"
    with pytest.raises(InputError, match="The start is a network of int8, and the one to calibrate of float32"):
        warm_start(network, two_layers(seed=8), 2)
    assert network.quantisation is not None
    finer = replace(network, quantisation=replace(network.quantisation, readout_scale=0.125))
    with pytest.raises(InputError, match="quantised with other scales"):
        warm_start(finer, network, 2)


def test_a_start_of_other_neurons_is_refused() -> None:
    network = two_layers(seed=8)
    spec = network.neurons["second"]
    silent = network.with_neurons({"second": replace(spec, silent=np.ones(spec.shape, np.bool_))})
    with pytest.raises(InputError, match="'second' has silent ones"):
        calibrate(network, IMAGES, Static(updates=1, start_from=silent), 2)
