from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import nir
import numpy as np
import pytest
import random_networks
from interrupted_calibration import whole_and_resumed
from small_networks import two_layers
from two_layer_reference import Doubles, dyadic_images, first_currents, held, second_currents
from two_layer_reference import fired as fired_at_once

from calibration import BiasCorrection, calibrate
from cos_export.errors import InputError, NetworkError
from cos_export.network import NeuronSpec, SpikingNetwork
from cos_export.network.schedule import SCHEDULES, Schedule
from cos_export.simulation import simulate

IMAGES = dyadic_images(10)
THETAS = (1.0, 0.75)


def fired_in_window(currents: Doubles, theta: float, v_init: Doubles | float) -> Doubles:
    """Spikes of a layer that adds up all currents before it fires: its first ones, as many as go into the sum."""
    counts = np.clip(np.floor((currents.sum(0) + v_init) / theta), 0, len(currents))
    return np.stack([counts > step for step in range(len(currents))]).astype(np.float64)


def of_layer(
    currents: Doubles, activation: Doubles, theta: float, potential: bool, schedule: Schedule
) -> tuple[Doubles, Doubles, Doubles]:
    """b (channels,), v_init (...) and the calibrated layer's spikes, by the two lines of the method."""
    fired = fired_in_window if schedule == "layerwise" else fired_at_once
    steps, channels = len(currents), currents.shape[2]
    bias = np.zeros(channels)
    spikes = fired(currents, theta, theta / 2)
    for c in range(channels):
        errors = [
            theta * (activation[n, c].ravel()[p] - spikes[:, n, c].reshape(steps, -1)[:, p].sum() / steps)
            for n in range(len(activation))
            for p in range(activation[n, c].size)
        ]
        bias[c] = np.float32(np.mean(errors))
    currents = currents + bias.reshape(-1, *[1] * (currents.ndim - 3))
    v_init = np.full(currents.shape[2:], theta / 2)
    if potential:
        actual = fired(currents, theta, v_init)
        for neuron in np.ndindex(v_init.shape):
            error = [theta * (activation[n][neuron] - actual[:, n][:, *neuron].mean()) for n in range(len(activation))]
            v_init[neuron] = np.float32(theta / 2 + steps * np.mean(error))
    return bias, v_init, fired(currents, theta, v_init)


@pytest.mark.parametrize("potential", [True, False])
@pytest.mark.parametrize(("steps", "batch_size"), [(1, 64), (3, 4)])
@pytest.mark.parametrize("schedule", SCHEDULES)
def test_layer_by_layer_from_its_definition(steps: int, batch_size: int, potential: bool, schedule: Schedule) -> None:
    network = replace(two_layers(seed=6), schedule=schedule)
    actual = calibrate(network, IMAGES, BiasCorrection(potential), steps, batch_size=batch_size)
    first = first_currents(network, IMAGES)
    ann = np.clip(first / THETAS[0], 0, 1), np.zeros(0)
    second_ann = np.clip(second_currents(network, ann[0]) / THETAS[1], 0, 1)
    b1, v1, spikes = of_layer(held(first, steps), ann[0], THETAS[0], potential, schedule)
    b2, v2, _ = of_layer(second_currents(network, spikes), second_ann, THETAS[1], potential, schedule)
    before, after = network.graph.nodes, actual.graph.nodes
    for node, layer, bias, v_init in (("conv", "first", b1, v1), ("dense", "second", b2, v2)):
        np.testing.assert_allclose(after[node].bias, before[node].bias + bias, rtol=1e-6, atol=1e-6)
        np.testing.assert_allclose(actual.neurons[layer].v_init, v_init, rtol=1e-6, atol=1e-6)
        assert np.array_equal(after[node].weight, before[node].weight)
        assert np.array_equal(actual.neurons[layer].threshold, network.neurons[layer].threshold)
        assert actual.neurons[layer].bias is None
        assert np.abs(bias).max() > 1e-3, "there was something to correct"
    assert np.array_equal(after["head"].bias, before["head"].bias)
    assert (actual.method, actual.num_timesteps, actual.rho) == ("bias", steps, 0)


def gaps(network: SpikingNetwork, reference: SpikingNetwork, steps: int) -> float:
    """The mean over the channels of |E[a_ann] - E[a_snn]| of the last layer."""
    first = np.clip(first_currents(reference, IMAGES), 0, 1)
    expected = np.clip(second_currents(reference, first) / THETAS[1], 0, 1).mean(0)
    return float(np.abs(expected - simulate(network, IMAGES, steps).spikes["second"].mean((0, 1))).mean())


@pytest.mark.parametrize("steps", [1, 2, 4])
def test_the_mean_rates_come_closer_to_the_activations(steps: int) -> None:
    network = two_layers(seed=6)
    assert gaps(calibrate(network, IMAGES, "bias", steps), network, steps) < gaps(network, network, steps)


def test_it_goes_on_after_a_kill(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    network = two_layers(seed=6)
    whole, again = whole_and_resumed(network, IMAGES, "bias", tmp_path / "state", monkeypatch)
    for name in network.layers:
        assert np.array_equal(whole.neurons[name].v_init, again.neurons[name].v_init)
    for name in ("conv", "dense"):
        assert np.array_equal(whole.graph.nodes[name].bias, again.graph.nodes[name].bias)


def test_the_network_is_left_as_it_was_and_a_hard_reset_is_refused() -> None:
    network = two_layers(seed=6)
    before = network.graph.nodes["conv"].bias.copy()
    calibrate(network, IMAGES, "bias", 2)
    assert np.array_equal(network.graph.nodes["conv"].bias, before)
    spec = network.neurons["second"]
    hard = NeuronSpec(spec.threshold, spec.v_init, reset="value", v_reset=np.zeros(6, np.float32))
    with pytest.raises(InputError, match="'second' is reset to a value"):
        calibrate(network.with_neurons({"second": hard}), IMAGES, "bias", 1)


def test_a_layer_behind_a_pool_is_refused_before_the_work() -> None:
    rng, seen = np.random.default_rng(0), list[str]()
    parts = [random_networks.conv2d(rng, 2, 3), random_networks.pool(nir.SumPool2d), "if"]
    network = random_networks.sequential(rng, (2, 6, 6), parts)
    with pytest.raises(NetworkError, match=r"layer 'if2': 'sumpool2d1' \(SumPool2d\) is not a synapse with a bias"):
        calibrate(
            network,
            random_networks.images(network, 4),
            "bias",
            1,
            progress=lambda stage, done, total: seen.append(stage),
        )
    assert not seen
