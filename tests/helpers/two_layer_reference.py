"""The network `small_networks.two_layers` one neuron and one sum at a time, in float64, straight from the equations."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scalar_reference import run

from cos_export.network import FloatArray, SpikingNetwork

Doubles = NDArray[np.float64]


def first_currents(network: SpikingNetwork, images: NDArray[np.float32]) -> Doubles:
    """The convolution by its definition, (samples, 3, 5, 5)."""
    node = network.graph.nodes["conv"]
    padded = np.pad(images.astype(np.float64), ((0, 0), (0, 0), (1, 1), (1, 1)))
    result = np.zeros((len(images), 3, 5, 5))
    for i in range(5):
        for j in range(5):
            window = padded[:, None, :, i : i + 3, j : j + 3]
            result[:, :, i, j] = (window * node.weight[None].astype(np.float64)).sum((2, 3, 4)) + node.bias
    return result


def second_currents(network: SpikingNetwork, outputs: Doubles) -> Doubles:
    """The dense layer's of what the first sends, (..., 3, 5, 5) as (..., 6)."""
    node = network.graph.nodes["dense"]
    currents: Doubles = outputs.reshape(*outputs.shape[:-3], -1) @ node.weight.T.astype(np.float64) + node.bias
    return currents


def fired(currents: Doubles, theta: float, v_init: Doubles | FloatArray | float) -> Doubles:
    """Spikes (steps, samples, ...) of a layer from its currents (steps, samples, ...), one neuron at a time."""
    steps, samples = currents.shape[:2]
    flat = currents.reshape(steps, samples, -1)
    starts = np.broadcast_to(v_init, currents.shape[2:]).ravel()
    result = np.zeros_like(flat)
    for sample in range(samples):
        for neuron in range(flat.shape[2]):
            result[:, sample, neuron] = run(flat[:, sample, neuron].tolist(), theta, float(starts[neuron])).spikes
    return result.reshape(currents.shape)


def held(currents: Doubles, steps: int) -> Doubles:
    """A current that is the same at every step: (steps, samples, ...)."""
    return np.broadcast_to(currents, (steps, *currents.shape)).copy()


def dyadic_images(samples: int, seed: int = 3) -> NDArray[np.float32]:
    """Multiples of 1/16 from -2 to 2, for which the currents of the first layer are exact in float32."""
    return (np.random.default_rng(seed).integers(-32, 33, (samples, 2, 5, 5)) / 16).astype(np.float32)
