"""Small networks of integers, for targets in fixed point."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import nir
import numpy as np

from cos_export.network import Quantisation, SpikingNetwork


def in_fixed_point(network: SpikingNetwork, seed: int) -> SpikingNetwork:
    """The network with other numbers: 8 bits of weights, thresholds that currents reach, half-integers in v_init."""
    rng = np.random.default_rng(seed)

    def whole(shape: Any, largest: int) -> Any:
        return rng.integers(-largest, largest + 1, np.shape(shape)).astype(np.float32)

    nodes = dict(network.graph.nodes)
    for node in nodes.values():
        if getattr(node, "weight", None) is not None:
            node.weight = whole(node.weight, 127)
        if getattr(node, "bias", None) is not None:
            node.bias = whole(node.bias, 500)
    specs = {}
    for name, spec in network.neurons.items():
        threshold = rng.integers(150, 400, spec.shape).astype(np.float32)
        half = np.float32(0.5)
        specs[name] = replace(
            spec,
            threshold=threshold if seed % 2 else np.full_like(threshold, threshold.flat[0]),
            v_init=whole(spec.v_init, 300) + half,
            v_reset=None if spec.v_reset is None else whole(spec.v_reset, 50) + half,
            bias=None if spec.bias is None else whole(spec.bias, 99),
        )
        nodes[name] = nir.IF(np.ones_like(threshold), specs[name].threshold)
    graph = nir.NIRGraph(nodes, list(network.graph.edges), type_check=False)
    return replace(network, graph=graph, neurons=specs, quantisation=Quantisation(1.0, -8, 8, 0.5))


def integer_images(network: SpikingNetwork, samples: int) -> Any:
    return np.random.default_rng(1).integers(-8, 9, (samples, *network.input_shape)).astype(np.float32)
