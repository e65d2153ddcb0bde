from __future__ import annotations

import numpy as np
import pytest
from scalar_reference import run
from small_networks import layer, two_layers
from two_layer_reference import dyadic_images

from calibration import OPI, calibrate
from cos_export.network import NeuronSpec


def conversion_errors(u: float, theta: float, steps: int) -> np.ndarray:
    """theta * count / T - z in units of theta / T, over currents spread evenly between 0 and theta (1 - 1 / T)."""
    grid = theta * (np.arange(4000) + 0.5) / 4000 * (1 - 1 / steps)
    counts = np.array([run([z] * steps, theta, u * theta).count for z in grid])
    return counts - grid * steps / theta


@pytest.mark.parametrize(("theta", "steps"), [(1.0, 4), (0.75, 3), (2.5, 8)])
def test_the_errors_are_those_of_the_derivation_and_half_is_the_best(theta: float, steps: int) -> None:
    squares = {}
    for u in (0.0, 0.25, 0.4, 0.5, 0.6, 0.75, 1.0 - 1e-9):
        errors = conversion_errors(u, theta, steps)
        assert errors.mean() == pytest.approx(u - 0.5, abs=5e-3)
        assert (errors**2).mean() == pytest.approx((u**3 + (1 - u) ** 3) / 3, abs=5e-3)
        squares[u] = (errors**2).mean()
    assert min(squares, key=lambda u: squares[u]) == 0.5


def test_it_starts_every_neuron_at_half_its_threshold_whatever_was_there() -> None:
    network, rng = two_layers(seed=1), np.random.default_rng(0)
    first = NeuronSpec(rng.uniform(0.5, 2, (3, 5, 5)).astype(np.float32), rng.normal(size=(3, 5, 5)).astype(np.float32))
    moved = network.with_neurons({"first": first, "second": layer((6,), 0.75)})
    actual = calibrate(moved, dyadic_images(2), "opi", 3)
    assert np.array_equal(actual.neurons["first"].v_init, first.threshold / 2)
    assert np.array_equal(actual.neurons["second"].v_init, np.full(6, 0.375, np.float32))
    assert (actual.method, actual.num_timesteps, actual.rho) == ("opi", 3, 0)
    half = calibrate(moved, dyadic_images(2), "half", 3)
    for name in network.layers:
        assert np.array_equal(actual.neurons[name].v_init, half.neurons[name].v_init)
    assert not OPI().needs_data
