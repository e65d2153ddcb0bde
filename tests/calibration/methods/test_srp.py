from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scalar_reference import run, srp_spikes
from small_networks import one_neuron, two_layers
from two_layer_reference import first_currents

from calibration.methods.srp import SRP
from cos_export.errors import InputError
from cos_export.simulation import simulate


@pytest.mark.parametrize(("tau", "steps"), [(1, 4), (4, 1), (4, 4), (3, 8)])
def test_two_layers_neuron_by_neuron(tau: int, steps: int) -> None:
    network = two_layers(seed=11)
    images = np.random.default_rng(4).integers(-32, 33, (5, 2, 5, 5)).astype(np.float32) / np.float32(16)
    trace = simulate(network, images, steps, calibration=SRP(tau=tau))
    conv = first_currents(network, images).reshape(len(images), -1)
    dense, theta = network.graph.nodes["dense"], (1.0, 0.75)
    for sample in range(len(images)):
        # First run: both layers together, nothing silenced; the second layer reads the unsilenced first.
        inputs = np.array([run([float(c)] * tau, theta[0], theta[0] / 2).spikes for c in conv[sample]]).T
        felt = inputs @ dense.weight.T.astype(np.float64) + dense.bias
        silent = [run(felt[:, j].tolist(), theta[1], theta[1] / 2).potentials[-1] <= 1e-3 * theta[1] for j in range(6)]
        # Second run: from theta / 2 again, the silent ones dropped.
        first = np.array([srp_spikes([float(c)] * max(tau, steps), theta[0], tau, steps) for c in conv[sample]]).T
        assert np.array_equal(trace.spikes["first"][:, sample].reshape(steps, -1), first)
        currents = first @ dense.weight.T.astype(np.float64) + dense.bias
        for j in range(6):
            expected = [0] * steps if silent[j] else run(currents[:, j].tolist(), theta[1], theta[1] / 2).spikes
            assert trace.spikes["second"][:, sample, j].astype(int).tolist() == expected


def dyadic(low: float, high: float) -> st.SearchStrategy[float]:
    return st.integers(int(low * 64), int(high * 64)).map(lambda n: n / 64)


@settings(max_examples=150, deadline=None)
@given(dyadic(-2, 2), dyadic(0.25, 2), st.integers(1, 8), st.integers(1, 8))
def test_one_neuron_is_the_scalar_reference(current: float, theta: float, tau: int, steps: int) -> None:
    network = one_neuron(theta)
    trace = simulate(network, np.full((1, 1), current, np.float32), steps, calibration=SRP(tau=tau))
    expected = srp_spikes([current] * max(tau, steps), theta, tau, steps)
    assert trace.spikes["neuron"].ravel().astype(int).tolist() == expected


def test_it_starts_from_half_whatever_the_network_holds() -> None:
    network = two_layers(seed=2)
    images = np.random.default_rng(3).normal(size=(3, 2, 5, 5)).astype(np.float32)
    other = network.with_neurons(
        {
            "first": type(network.neurons["first"])(
                network.neurons["first"].threshold, 0 * network.neurons["first"].v_init
            )
        }
    )
    a, b = (simulate(n, images, 3, calibration=SRP(tau=4)) for n in (network, other))
    assert np.array_equal(a.logits, b.logits)
    assert a.total_steps == 7 and a.states is not None and a.states.silent["first"].shape == (3, 3, 5, 5)


def test_states_reproduce_the_run() -> None:
    network = two_layers(seed=9)
    images = np.random.default_rng(5).normal(size=(5, 2, 5, 5)).astype(np.float32)
    silenced = simulate(network, images, 4, calibration=SRP(tau=4))
    again = simulate(network, images, 4, states=silenced.states)
    assert all(np.array_equal(silenced.spikes[name], again.spikes[name]) for name in network.layers)
    assert silenced.states is not None and any(mask.any() for mask in silenced.states.silent.values())


def test_refusals() -> None:
    with pytest.raises(InputError, match="tau >= 1"):
        SRP(tau=0)
