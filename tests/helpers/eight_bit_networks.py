"""Small networks of integers whose weights reach the limits of 8 bits."""

from __future__ import annotations

import copy
from dataclasses import replace
from typing import Any

import nir
import numpy as np
from random_networks import IF, conv1d, conv2d, pool, residual, sequential, spiking_node

from cos_export.network import Quantisation, SpikingNetwork

TOPOLOGIES = ("convolutions", "pooling", "residual", "one_axis", "scaled", "every_option")


def topology(name: str) -> SpikingNetwork:
    """Stride, padding, groups and dilation; pooling; a residual; one axis; factors; every option of a neuron."""
    rng = np.random.default_rng(3)
    if name == "convolutions":
        layers: list[Any] = [
            conv2d(rng, 2, 4, (3, 2), stride=(2, 1), padding=(1, 2)),
            IF,
            conv2d(rng, 4, 6, (2, 4), padding="same", groups=2),
            IF,
            conv2d(rng, 6, 4, (2, 2), padding=1, dilation=(2, 1)),
            IF,
        ]
        return sequential(rng, (2, 5, 4), layers)
    if name == "pooling":
        layers = [conv2d(rng, 2, 3), IF, pool(nir.SumPool2d, 2, 1, 1), conv2d(rng, 3, 4), IF, pool(nir.SumPool2d, 2)]
        return sequential(rng, (2, 5, 5), layers)
    if name == "one_axis":
        return sequential(rng, (2, 9), [conv1d(rng, 2, 4, stride=2), IF, conv1d(rng, 4, 4, 2, groups=2), IF])
    if name == "scaled":
        return sequential(rng, (2, 4, 3), [conv2d(rng, 2, 3), IF, nir.Scale(np.ones((3, 4, 3), np.float32)), IF])
    choices: dict[str, Any] = {}
    if name == "every_option":
        choices = {"condition": ">", "reset": "value", "bias_steps": 3, "silenced": True}
    return residual(rng, **choices)


def in_integers(network: SpikingNetwork, seed: int) -> SpikingNetwork:
    """The wiring of `network` with other numbers: many weights of -128 and 127, and thresholds that currents reach."""
    rng = np.random.default_rng(seed)

    def whole(shape: Any, low: int, high: int) -> Any:
        values = rng.integers(low, high + 1, np.shape(shape))
        return np.where(rng.random(np.shape(shape)) < 0.2, rng.choice([low, high]), values).astype(np.float32)

    nodes: dict[str, Any] = {name: copy.copy(node) for name, node in network.graph.nodes.items()}
    for node in nodes.values():
        for field in ("weight", "scale"):
            if getattr(node, field, None) is not None:
                setattr(node, field, whole(getattr(node, field), -128, 127))
        if getattr(node, "bias", None) is not None:
            node.bias = whole(node.bias, -300, 300)
    specs = {}
    for name, spec in network.neurons.items():
        half = np.float32(0.5)
        specs[name] = replace(
            spec,
            threshold=whole(spec.threshold, 1, 400),
            v_init=whole(spec.v_init, -200, 300) + half,
            v_reset=None if spec.v_reset is None else whole(spec.v_reset, -50, 20) + half,
            bias=None if spec.bias is None else whole(spec.bias, -90, 90),
        )
        nodes[name] = spiking_node(specs[name])
    scale, readout = (float(np.float32(part)) for part in (0.013, 0.0017))
    graph = nir.NIRGraph(nodes, list(network.graph.edges), type_check=False)
    coding = Quantisation(scale, readout_scale=readout)
    return replace(network, graph=graph, neurons=specs, quantisation=coding)


def with_node(network: SpikingNetwork, name: str, **fields: Any) -> SpikingNetwork:
    """The network with some fields of one node replaced."""
    nodes = dict(network.graph.nodes)
    nodes[name] = copy.copy(nodes[name])
    for field, value in fields.items():
        setattr(nodes[name], field, value)
    return replace(network, graph=nir.NIRGraph(nodes, list(network.graph.edges), type_check=False))


def pictures(network: SpikingNetwork, count: int, seed: int = 0) -> Any:
    """Images (count, ...) of which some lie beyond the 8 bits, and some halfway between two integers."""
    rng = np.random.default_rng(seed)
    images = rng.normal(scale=0.8, size=(count, *network.input_shape))
    assert network.quantisation is not None
    halfway = (rng.integers(-130, 130, images.shape) + 0.5) * network.quantisation.input_scale
    return np.where(rng.random(images.shape) < 0.3, halfway, images).astype(np.float32)
