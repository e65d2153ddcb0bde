from __future__ import annotations

import numpy as np
import pytest
import scalar_reference as reference
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from cos_export.errors import NetworkError
from cos_export.network import NeuronSpec
from cos_export.simulation.neuron import count_spikes, integrate_and_fire, neuron_tensors

# Multiples of 1/64 are exact in float32 and float64 alike: the two must agree spike for spike, ties included.
GRID = 64
CPU = torch.device("cpu")


def dyadic(low: float, high: float) -> st.SearchStrategy[float]:
    return st.integers(int(low * GRID), int(high * GRID)).map(lambda n: n / GRID)


def one(value: float) -> np.ndarray:
    return np.full(1, value, np.float32)


@settings(max_examples=300, deadline=None)
@given(st.lists(dyadic(-3, 3), min_size=1, max_size=16), dyadic(0.25, 2), dyadic(-2, 3))
def test_a_neuron_is_the_scalar_reference(currents: list[float], theta: float, v_init: float) -> None:
    expected = reference.run(currents, theta, v_init)
    train = torch.tensor(currents).reshape(-1, 1, 1)
    neuron = neuron_tensors(NeuronSpec(one(theta), one(v_init)), CPU, torch.float32)
    actual = integrate_and_fire(train, len(currents), neuron, record_potentials=True)
    assert actual.spikes.flatten().int().tolist() == expected.spikes
    assert actual.potentials is not None and actual.potentials.flatten().tolist() == expected.potentials
    assert float(actual.residual) == expected.potentials[-1]


@settings(max_examples=150, deadline=None)
@given(
    st.lists(dyadic(-2, 2), min_size=1, max_size=8),
    dyadic(0.25, 2),
    dyadic(-1, 1),
    st.lists(dyadic(-1, 1), max_size=6),
    st.booleans(),
)
def test_hard_reset_strict_comparison_and_bias(
    currents: list[float], theta: float, v_reset: float, bias: list[float], strict: bool
) -> None:
    v, expected = 0.0, []
    for t, current in enumerate(currents):
        m = v + current + (bias[t] if t < len(bias) else 0.0)
        fired = m > theta if strict else m >= theta
        v = v_reset if fired else m
        expected.append(int(fired))
    spec = NeuronSpec(
        one(theta),
        one(0.0),
        condition=">" if strict else ">=",
        reset="value",
        v_reset=one(v_reset),
        bias=np.asarray(bias, np.float32).reshape(-1, 1) if bias else None,
    )
    train = torch.tensor(currents).reshape(-1, 1, 1)
    neuron = neuron_tensors(spec, CPU, torch.float32)
    assert integrate_and_fire(train, len(currents), neuron).spikes.flatten().int().tolist() == expected
    assert count_spikes(train - 0.25, len(currents), neuron, added=0.25).item() == sum(expected)


@pytest.mark.parametrize("held", [False, True])
def test_spikes_are_counted_as_they_are_fired(held: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cos_export.simulation.neuron._CACHED", 30)
    generator = np.random.default_rng(0)
    threshold = generator.uniform(0.5, 1, (3, 2, 2)).astype(np.float32)
    spec = NeuronSpec(threshold, threshold / np.float32(2), silent=generator.random((3, 2, 2)) < 0.2)
    neuron = neuron_tensors(spec, CPU, torch.float32)
    currents = torch.from_numpy(generator.normal(0.3, 0.5, (1 if held else 5, 7, 3, 2, 2)).astype(np.float32))
    kept = currents.clone()
    added = torch.tensor([0.1, -0.1, 0.0]).reshape(3, 1, 1)
    expected = integrate_and_fire(currents + added, 5, neuron).spikes.sum(0)
    assert torch.equal(count_spikes(currents, 5, neuron, added=added), expected)
    assert expected.unique().tolist() == [0.0, 1.0, 2.0, 3.0, 4.0, 5.0] and torch.equal(currents, kept)


def test_a_silenced_neuron_goes_on_unheard() -> None:
    silent = np.array([True, False])
    spec = NeuronSpec(np.ones(2, np.float32), np.full(2, 0.5, np.float32), silent=silent)
    currents = torch.full((4, 1, 2), 0.75)
    run = integrate_and_fire(currents, 4, neuron_tensors(spec, CPU, torch.float32), record_potentials=True)
    assert run.spikes[:, 0, 0].sum() == 0 and run.spikes[:, 0, 1].sum() == 3
    assert run.potentials is not None and torch.equal(run.potentials[:, :, 0], run.potentials[:, :, 1])


def test_thresholds_may_differ_by_neuron_and_currents_be_constant() -> None:
    threshold = np.array([[[1.0, 0.5]]], np.float32)
    neuron = neuron_tensors(NeuronSpec(threshold, threshold / np.float32(2)), CPU, torch.float32)
    constant = torch.full((1, 3, 1, 1, 2), 0.25)
    actual = integrate_and_fire(constant, 8, neuron)
    assert torch.equal(actual.spikes, integrate_and_fire(constant.expand(8, -1, -1, -1, -1), 8, neuron).spikes)
    assert actual.spikes.sum(0)[0, 0, 0].tolist() == [2.0, 4.0]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"threshold": one(0.0), "v_init": one(0.0)}, "positive"),
        ({"threshold": one(np.nan), "v_init": one(0.0)}, "finite"),
        ({"threshold": one(1.0), "v_init": one(np.inf)}, "finite"),
        ({"threshold": one(1.0), "v_init": np.zeros(2, np.float32)}, "v_init has shape"),
        ({"threshold": one(1.0), "v_init": one(0.0), "reset": "value"}, "needs v_reset"),
        ({"threshold": one(1.0), "v_init": one(0.0), "bias": np.zeros((2, 3), np.float32)}, "bias must be"),
        ({"threshold": one(1.0), "v_init": one(0.0), "levels": 0}, "levels must be at least 1"),
    ],
)
def test_a_spec_that_cannot_be(arguments: dict[str, object], message: str) -> None:
    with pytest.raises(NetworkError, match=message):
        NeuronSpec(**arguments)  # type: ignore[arg-type]
