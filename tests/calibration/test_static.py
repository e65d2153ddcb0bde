from __future__ import annotations

import numpy as np
import pytest
import torch
from small_networks import layer, two_layers
from torch.utils.data import Dataset

from calibration import MeanMatching, Static, calibrate
from calibration.surrogate import differentiable_train, spike
from cos_export.errors import InputError
from cos_export.network import NeuronSpec, SpikingNetwork
from cos_export.neuron import integrate_and_fire, neuron_tensors
from cos_export.simulation import activate, simulate

IMAGES = np.random.default_rng(0).normal(size=(48, 2, 5, 5)).astype(np.float32)
SHORT = Static(updates=60, samples=16, rounds=3)


def test_the_derivative_is_the_triangle() -> None:
    excess = torch.tensor([-1.5, -1.0, -0.25, 0.0, 0.5, 1.0, 3.0], requires_grad=True)
    fired = spike(excess)
    fired.sum().backward()
    assert fired.tolist() == [0, 0, 0, 1, 1, 1, 1]
    assert excess.grad is not None and excess.grad.tolist() == [0.0, 0.0, 0.75, 1.0, 0.5, 0.0, 0.0]


def test_forward_is_the_contract() -> None:
    spec = layer((3, 4, 4), theta=0.75)
    spec = NeuronSpec(spec.threshold, spec.v_init, bias=np.array([[0.1, -0.2, 0.3]], np.float32))
    neuron = neuron_tensors(spec, torch.device("cpu"), torch.float32)
    currents = torch.randn(6, 5, 3, 4, 4, generator=torch.Generator().manual_seed(0))
    assert torch.equal(
        differentiable_train(currents, 6, neuron, neuron.v_init), integrate_and_fire(currents, 6, neuron).spikes
    )


def test_backward_through_two_steps_by_hand() -> None:
    """theta = 1, v(0) = 0.5, I = 0.25, 0.5: m(1) = 0.75 does not fire, m(2) = 1.25 does.

    With h(m) the triangle: ds1/dv0 = h(0.75) = 0.75; dv1/dv0 = 1 - 0.75 = 0.25; ds2/dv0 = h(1.25) 0.25 = 0.1875.
    """
    neuron = neuron_tensors(layer((1,), 1.0), torch.device("cpu"), torch.float64)
    v_init = torch.tensor([0.5], dtype=torch.float64, requires_grad=True)
    currents = torch.tensor([[[0.25]], [[0.5]]], dtype=torch.float64)
    train = differentiable_train(currents, 2, neuron, v_init)
    assert train.flatten().tolist() == [0.0, 1.0]
    first, second = (torch.autograd.grad(s.sum(), v_init, retain_graph=True)[0].item() for s in train)
    assert (first, second) == (0.75, 0.1875)


def divergence(network: SpikingNetwork, steps: int) -> float:
    """KL of the spiking network's answer from the artificial one's, in float64."""
    wanted = torch.from_numpy(activate(network, IMAGES)).double().log_softmax(1)
    found = torch.from_numpy(simulate(network, IMAGES, steps, record_spikes=False).logits[-1]).double().log_softmax(1)
    return float((wanted.exp() * (wanted - found)).sum(1).mean())


@pytest.mark.parametrize("steps", [1, 2])
def test_it_comes_closer_to_the_artificial_network_than_mean_matching(steps: int) -> None:
    network = two_layers(seed=8)
    matched = calibrate(network, IMAGES, MeanMatching(rounds=3), steps)
    tuned = calibrate(network, IMAGES, SHORT, steps)
    assert divergence(tuned, steps) < divergence(matched, steps)
    assert (tuned.method, tuned.num_timesteps, tuned.rho) == ("static", steps, 0)
    for name in network.layers:
        assert np.array_equal(tuned.neurons[name].threshold, network.neurons[name].threshold)
        assert tuned.neurons[name].v_init.shape == network.neurons[name].shape
    assert tuned.graph is network.graph, "weights stay as they are"


def test_it_keeps_mean_matching_where_the_gradient_does_not_help() -> None:
    network = two_layers(seed=8)
    matched = calibrate(network, IMAGES, MeanMatching(rounds=3), 3)
    led_astray = calibrate(network, IMAGES, Static(updates=3, samples=16, rounds=3, learning_rate=30.0), 3)
    for name in network.layers:
        assert np.array_equal(led_astray.neurons[name].v_init, matched.neurons[name].v_init)


def test_the_same_seed_gives_the_same_potentials() -> None:
    network = two_layers(seed=8)
    first, second = (calibrate(network, IMAGES, SHORT, 2) for _ in range(2))
    other = calibrate(network, IMAGES, Static(updates=60, samples=16, rounds=3, seed=1), 2)
    assert all(np.array_equal(first.neurons[n].v_init, second.neurons[n].v_init) for n in network.layers)
    assert any(not np.array_equal(first.neurons[n].v_init, other.neurons[n].v_init) for n in network.layers)


class Pairs(Dataset[object]):
    """Items as a torch data set gives them: an image and its label."""

    def __len__(self) -> int:
        return len(IMAGES)

    def __getitem__(self, index: int) -> object:
        return torch.from_numpy(IMAGES[index]), 0


def test_a_torch_data_set_serves_as_well_as_an_array() -> None:
    network = two_layers(seed=8)
    from_array, from_pairs = (calibrate(network, given, SHORT, 2, batch_size=7) for given in (IMAGES, Pairs()))
    assert all(np.array_equal(from_array.neurons[n].v_init, from_pairs.neurons[n].v_init) for n in network.layers)


def test_refusals() -> None:
    network = two_layers(seed=1)
    spec = network.neurons["second"]
    hard = network.with_neurons(
        {"second": NeuronSpec(spec.threshold, spec.v_init, reset="value", v_reset=np.zeros(6, np.float32))}
    )
    with pytest.raises(InputError, match="'second' is reset to a value"):
        calibrate(hard, IMAGES, SHORT, 1)
    with pytest.raises(InputError, match="at least one update"):
        Static(updates=0)
    with pytest.raises(InputError, match="at least one item"):
        calibrate(network, torch.utils.data.TensorDataset(torch.zeros(0, 2, 5, 5)), "static", 1)
