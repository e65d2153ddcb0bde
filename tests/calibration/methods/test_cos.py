from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scalar_reference import cos_potential, run
from small_networks import layer, two_layers

from calibration.methods.cos import COS, calibrated_potentials, presimulate
from cos_export.errors import InputError
from cos_export.network import NeuronSpec
from cos_export.simulation import simulate
from cos_export.simulation.neuron import NeuronTensors, integrate_and_fire, neuron_tensors

# Multiples of 1/64 are exact in float32 and float64 alike, so the two may be compared spike for spike, and ties occur.
GRID = 64


def dyadic(low: float, high: float) -> st.SearchStrategy[float]:
    return st.integers(int(low * GRID), int(high * GRID)).map(lambda n: n / GRID)


def tensors(theta: float, v_init: float) -> NeuronTensors:
    one = np.ones(1, np.float32)
    return neuron_tensors(NeuronSpec(theta * one, v_init * one), torch.device("cpu"), torch.float32)


def calibrated(currents: list[float], theta: float, v_init: float, iterations: int) -> float:
    train = torch.tensor(currents).reshape(-1, 1, 1)
    return float(calibrated_potentials(train, len(currents), tensors(theta, v_init), iterations))


@settings(max_examples=400, deadline=None)
@given(st.lists(dyadic(-3, 3), min_size=1, max_size=9), dyadic(0.25, 2), dyadic(-1, 2), st.sampled_from([1, 2, 3, 4]))
def test_potential_is_the_scalar_references(
    currents: list[float], theta: float, v_init: float, iterations: int
) -> None:
    expected = cos_potential(currents, theta, v_init, iterations)
    assert calibrated(currents, theta, v_init, iterations) == pytest.approx(expected, rel=1e-5, abs=1e-5)


@settings(max_examples=400, deadline=None)
@given(st.lists(dyadic(-3, 3), min_size=1, max_size=9), dyadic(0.25, 2), dyadic(-1, 2))
def test_one_iteration_corrects_exactly_one_spike(currents: list[float], theta: float, v_init: float) -> None:
    """Theorem 2: after the shift the count over the rho steps changes by one, in the right direction."""
    before = run(currents, theta, v_init)
    after = run(currents, theta, calibrated(currents, theta, v_init, 1))
    saturated = before.count == len(currents)
    if before.potentials[-1] < 0 and before.count > 0:
        assert after.count == before.count - 1
    elif before.potentials[-1] >= theta and not saturated:
        assert after.count == before.count + 1
    else:
        assert after.count == before.count


# Worked by hand, theta = 1, v_init = 1/2.
@pytest.mark.parametrize(
    ("currents", "iterations", "expected"),
    [
        # Fires at t = 1 with v = 0.6, ends at v = -1.4 after one spike: down by max(1, 0.6 + eps) = 1.
        ([1.1, -1.0, -0.5, -0.5], 1, -0.5),
        # Fires at t = 1 with v = 1.5, ends at -0.5: down by 1.5 + eps.
        ([2.0, -1.0, -1.0, 0.0], 1, -1.001),
        # v(t) = -0.5, -0.5, 3.5 - 1 = 2.5 fires: psi = +2. The largest quiet potential is -0.5: up by 1.501.
        ([-1.0, 0.0, 4.0], 1, 2.001),
        # Twice: from 2.001 the first two steps fire at 0.001 and not at 0.001: quiet potential 0.001 -> up by 1.
        ([-1.0, 0.0, 4.0], 2, 3.001),
        # Exactly at the threshold at t = 1: the tie fires, v = 0, then 0: v(rho) = 0 is not an offset.
        ([0.5, 0.0], 1, 0.5),
        # Saturated: every step fires and v(rho) = 2.5, so the maximum is over nothing: up by 1001.001.
        ([2.0, 2.0], 1, 1001.501),
        # No spike and v(rho) < 0: nothing to take back.
        ([-1.0, -1.0], 1, 0.5),
    ],
)
def test_cases_worked_by_hand(currents: list[float], iterations: int, expected: float) -> None:
    assert calibrated(currents, 1.0, 0.5, iterations) == pytest.approx(expected, rel=1e-6)


def test_presimulation_keeps_the_extremes_of_the_stack() -> None:
    generator = torch.Generator().manual_seed(1)
    currents = torch.randn(7, 5, 3, 4, 4, generator=generator)
    spec = layer((3, 4, 4), theta=0.75)
    neuron = neuron_tensors(spec, torch.device("cpu"), torch.float32)
    stack = integrate_and_fire(currents, 7, neuron, record_potentials=True)
    actual = presimulate(currents, 7, neuron, neuron.v_init.expand(currents.shape[1:]))
    assert stack.potentials is not None
    fired = stack.spikes.bool()
    assert torch.equal(actual.residual, stack.potentials[-1])
    assert torch.equal(actual.count, stack.spikes.sum(0))
    assert torch.equal(actual.lowest, stack.potentials.masked_fill(~fired, torch.inf).amin(0))
    assert torch.equal(actual.highest, stack.potentials.masked_fill(fired, -torch.inf).amax(0))


@pytest.mark.parametrize("steps", [1, 2, 6])
def test_a_layer_is_presimulated_on_the_calibrated_spikes_below(steps: int) -> None:
    """Layer 2's potentials are those of its own first rho currents, also where T < rho."""
    network, rho = two_layers(seed=3), 4
    images = np.random.default_rng(0).integers(-32, 33, (6, 2, 5, 5)).astype(np.float32) / 16
    trace = simulate(network, images, steps, calibration=COS(rho=rho))
    assert trace.states is not None and trace.total_steps == rho + steps
    # The same upstream spikes, from the calibrated potentials of the first layer, for max(T, rho) steps.
    longer = simulate(network, images, max(steps, rho), states=trace.states)
    assert np.array_equal(longer.spikes["first"][:steps], trace.spikes["first"])
    weight = network.graph.nodes["dense"].weight
    bias = network.graph.nodes["dense"].bias
    spikes = longer.spikes["first"].reshape(max(steps, rho), len(images), -1).astype(np.float64)
    currents = spikes @ weight.T.astype(np.float64) + bias
    theta = float(network.neurons["second"].threshold[0])
    for sample in range(len(images)):
        for unit in range(currents.shape[-1]):
            expected = cos_potential(currents[:rho, sample, unit].tolist(), theta, theta / 2, 1)
            assert trace.states.v_init["second"][sample, unit] == pytest.approx(expected, rel=1e-5, abs=1e-5)


def test_steps_below_rho_are_a_prefix_of_a_longer_run() -> None:
    network = two_layers(seed=5)
    images = np.random.default_rng(1).normal(size=(4, 2, 5, 5)).astype(np.float32)
    short, long = (simulate(network, images, steps, calibration=COS(rho=4)) for steps in (2, 8))
    assert np.array_equal(short.logits, long.logits[:2])


def test_states_reproduce_the_run() -> None:
    network = two_layers(seed=7)
    images = np.random.default_rng(2).normal(size=(5, 2, 5, 5)).astype(np.float32)
    calibrated_run = simulate(network, images, 3, calibration=COS(rho=4, iterations=2), batch_size=2)
    again = simulate(network, images, 3, states=calibrated_run.states, batch_size=3)
    for name, spikes in calibrated_run.spikes.items():
        assert np.array_equal(spikes, again.spikes[name])


@pytest.mark.parametrize("cached", [1, 200, 1 << 30])
def test_parts_of_a_batch_do_not_matter(monkeypatch: pytest.MonkeyPatch, cached: int) -> None:
    """What fits a cache decides how a batch of 7 is cut, and nothing else."""
    network = two_layers(seed=9)
    options: dict[str, Any] = {"calibration": COS(rho=3, iterations=2), "batch_size": 7}
    images = np.random.default_rng(3).integers(-16, 17, (7, 2, 5, 5)).astype(np.float32) / 16
    expected = [simulate(network, image[np.newaxis], 4, **options) for image in images]
    monkeypatch.setattr("calibration.methods.cos._CACHED", cached)
    monkeypatch.setattr("cos_export.simulation.neuron._CACHED", cached)
    actual = simulate(network, images, 4, **options)
    for number, one in enumerate(expected):
        assert np.array_equal(actual.logits[:, number], one.logits[:, 0])
        for name in network.layers:
            assert np.array_equal(actual.spikes[name][:, number], one.spikes[name][:, 0])
            assert actual.states is not None and one.states is not None
            assert np.array_equal(actual.states.v_init[name][number], one.states.v_init[name][0])


def test_refusals() -> None:
    with pytest.raises(InputError, match="rho >= 1"):
        COS(rho=0)
    hard = two_layers(seed=1)
    spec = hard.neurons["first"]
    reset = NeuronSpec(spec.threshold, spec.v_init, reset="value", v_reset=np.zeros_like(spec.threshold))
    with pytest.raises(InputError, match="'first' is reset to a value"):
        simulate(hard.with_neurons({"first": reset}), np.zeros((1, 2, 5, 5), np.float32), 2, calibration=COS())
