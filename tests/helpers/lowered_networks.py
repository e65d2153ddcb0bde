"""Layer-wise networks to be lowered, and what the lowered run must have fired."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import nir
import numpy as np
import random_networks as build
from eight_bit_networks import in_integers, topology, with_node

from cos_export.network import SpikingNetwork
from cos_export.network.windows import windows
from cos_export.simulation.trace import Trace

TOPOLOGIES = ("convolutions", "pooling", "residual", "one_axis", "scaled", "joined")


def layerwise(network: SpikingNetwork) -> SpikingNetwork:
    """The network under the layer-wise schedule, its neurons reset by subtraction."""
    neurons = {name: replace(spec, reset="subtract", v_reset=None) for name, spec in network.neurons.items()}
    return replace(network.with_neurons(neurons), schedule="layerwise")


def summing(seed: int) -> SpikingNetwork:
    """A random network with sums in place of averages, which keep no integers."""
    network = build.random_network(seed)
    averages = {name: node for name, node in network.graph.nodes.items() if isinstance(node, nir.AvgPool2d)}
    return network.with_nodes(
        {name: nir.SumPool2d(node.kernel_size, node.stride, node.padding) for name, node in averages.items()}
    )


def joined(seed: int) -> SpikingNetwork:
    """Layers of three depths meet in front of the readout, and one of them nothing reads.

    Between conv2 and if2 a convolution and a padded pool follow, so that what its bias brings is less at the border.
    """
    rng = np.random.default_rng(seed)
    specs = {f"if{n}": build.neurons(rng, (3, 5, 4), bias_steps=3, silenced=n == 2) for n in (1, 2, 3, 4)}
    pool = build.pool(nir.SumPool2d, 3, 1, 1)
    nodes: dict[str, Any] = {
        "input": nir.Input(np.array([2, 5, 4])),
        "conv1": build.conv2d(rng, 2, 3),
        "conv2": build.conv2d(rng, 3, 3, groups=3),
        "inner": build.conv2d(rng, 3, 3),
        "pool": pool,
        "conv3": build.conv2d(rng, 3, 3),
        "late": build.conv2d(rng, 2, 3),
        "conv4": build.conv2d(rng, 3, 3),
        **{name: build.spiking_node(spec) for name, spec in specs.items()},
        "flatten": build.flatten(),
        "readout": build.affine(rng, 60, 3),
        "output": nir.Output(np.array([3])),
    }
    edges = [
        *[("input", "conv1"), ("conv1", "if1"), ("if1", "conv2"), ("conv2", "inner"), ("inner", "pool")],
        *[("pool", "if2"), ("if2", "conv3"), ("conv3", "if3"), ("input", "late"), ("late", "if3")],
        *[("if3", "conv4"), ("conv4", "if4"), ("if1", "flatten"), ("if3", "flatten"), ("if2", "flatten")],
        *[("flatten", "readout"), ("readout", "output")],
    ]
    return SpikingNetwork(nir.NIRGraph(nodes, edges, type_check=False), specs)


def integers(name: str, seed: int = 3) -> SpikingNetwork:
    """A layer-wise network of integers; weights that follow each other without neurons between are small."""
    if name != "joined":
        return layerwise(in_integers(topology(name), seed))
    network = layerwise(in_integers(joined(seed), seed))
    for inner in ("conv2", "inner"):
        node: Any = network.graph.nodes[inner]
        network = with_node(network, inner, weight=np.clip(node.weight, -4, 4))
    return network


def check_windows(network: SpikingNetwork, steps: int, actual: Any, expected: Any) -> None:
    """Every layer's window holds the expected spikes, and nothing fires outside of it."""
    for name, opens in windows(network, steps).opens.items():
        spikes = np.asarray(actual[name])
        assert np.array_equal(spikes[opens : opens + steps], expected[name]), name
        assert not spikes[:opens].any(), name
        assert not spikes[opens + steps :].any(), name


def check_trace(network: SpikingNetwork, steps: int, actual: Trace, expected: Trace) -> None:
    check_windows(network, steps, actual.spikes, expected.spikes)
    np.testing.assert_allclose(actual.logits[-1], expected.logits[-1], rtol=1e-5, atol=1e-5)
