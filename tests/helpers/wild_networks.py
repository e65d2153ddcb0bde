"""Random networks, their images and T, with numbers as far apart as they may be."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import random_networks as build
from eight_bit_networks import in_integers, pictures
from lowered_networks import integers, joined, layerwise, summing

from cos_export.network import SpikingNetwork

__all__ = ["wild_network"]


def wild_network(seed: int) -> tuple[SpikingNetwork, Any, int]:
    """One of many: float32 or int8, of either schedule, of an image or frames, at T from 1 to 32.

    Half of them have thresholds up to 2^18 times as large as others of their layer, and start far from them.
    """
    rng = np.random.default_rng(seed)
    whole, meeting = bool(rng.integers(2)), rng.integers(5) == 0
    if whole:
        network = integers("joined", seed) if meeting else in_integers(summing(seed), seed)
        network = replace(network, schedule="synchronous")
    else:
        network = joined(seed) if meeting else build.random_network(seed)
    network = replace(network, num_timesteps=None)
    if rng.integers(2):
        network = _far_apart(network, rng)
    if rng.integers(2):
        network = layerwise(network)
    steps = int(rng.choice([1, 2, 3, 5, 7, 8, 32]))
    images = pictures(network, 3, seed) if whole else build.images(network, 3, seed)
    if rng.integers(4) == 0:
        network = replace(network, input_encoding="frames")
        images = np.stack([np.roll(images, t, 0) for t in range(steps)], 1)
    return network, images, steps


def _far_apart(network: SpikingNetwork, rng: np.random.Generator) -> SpikingNetwork:
    specs = {}
    for name, spec in network.neurons.items():
        shape = spec.shape
        if network.quantisation is not None:
            threshold = np.floor(2.0 ** rng.uniform(0, 18, shape))
            far = np.floor(rng.choice([-1, 1], shape) * 2.0 ** rng.uniform(0, 18, shape)) + 0.5
            near = np.floor(threshold * rng.uniform(-1, 2, shape)) + 0.5
        else:
            threshold = 2.0 ** rng.integers(-3, 8, shape) * rng.choice([1, 3, 5, 7], shape) / 8
            far, near = (build.dyadic(rng, *shape, low=-size, high=size) for size in (2000, 16))
        start = np.where(rng.random(shape) < 0.5, near, far)
        specs[name] = replace(spec, threshold=threshold.astype(np.float32), v_init=start.astype(np.float32))
    nodes = {name: build.spiking_node(spec) for name, spec in specs.items()}
    return network.with_nodes(nodes).with_neurons(specs)
