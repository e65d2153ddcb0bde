from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from small_networks import two_layers

from calibration.tuning.teacher import teacher_logits
from cos_export.network import SpikingNetwork
from cos_export.simulation import ann_logits, simulate
from cos_export.simulation.activations import limit_activation
from cos_export.simulation.program import Program

IMAGES = np.random.default_rng(4).normal(size=(24, 2, 5, 5)).astype(np.float32)


def quantised() -> SpikingNetwork:
    """Two layers of QCFS neurons with L = 2."""
    network = two_layers(seed=8)
    return network.with_neurons({name: replace(spec, levels=2) for name, spec in network.neurons.items()})


def softmax(logits: np.ndarray) -> np.ndarray:
    powers = np.exp(logits.astype(np.float64) - logits.max(1, keepdims=True))
    return powers / powers.sum(1, keepdims=True)


def test_the_activation_by_hand() -> None:
    network = quantised()
    neuron = Program(network).neurons["first"]
    currents = neuron.threshold * torch.tensor([-0.5, 0.0, 0.3, 0.6, 1.0, 2.5])
    torch.testing.assert_close(
        limit_activation("first", neuron, currents), torch.tensor([0.0, 0.0, 0.3, 0.6, 1.0, 1.0])
    )


def test_it_is_what_many_steps_come_to_and_not_the_quantised_network() -> None:
    network = quantised()
    limit = teacher_logits(Program(network), torch.from_numpy(IMAGES)).exp().numpy()
    far = np.abs(softmax(ann_logits(network, IMAGES)) - limit).mean()
    for steps, bound in ((64, 4.0), (1024, 64.0)):
        spiking = softmax(simulate(network, IMAGES, steps, record_spikes=False).logits[-1])
        assert np.abs(spiking - limit).mean() < far / bound


@pytest.mark.parametrize("both_sides", [False, True])
def test_the_mean_over_both_sides(both_sides: bool) -> None:
    network = quantised()
    without = network.with_neurons({name: replace(spec, levels=None) for name, spec in network.neurons.items()})
    expected = softmax(ann_logits(without, IMAGES))
    if both_sides:
        expected = (expected + softmax(ann_logits(without, IMAGES[..., ::-1].copy()))) / 2
    actual = teacher_logits(Program(network), torch.from_numpy(IMAGES), both_sides=both_sides)
    np.testing.assert_allclose(actual.exp().numpy(), expected, rtol=1e-5, atol=1e-6)
