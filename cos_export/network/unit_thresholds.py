"""Thresholds of 1: what a layer's threshold was is divided out of the weights before it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import nir
import numpy as np
from numpy.typing import NDArray

from cos_export.errors import NetworkError
from cos_export.network.graph import with_attributes
from cos_export.network.neuron_spec import FloatArray, NeuronSpec
from cos_export.network.node_facts import facts
from cos_export.network.order import successors
from cos_export.network.reparametrisation import feeds_alone, mirrors_of, scaled
from cos_export.network.spiking_network import SpikingNetwork

__all__ = ["with_unit_thresholds"]

DoubleArray = NDArray[np.float64]
Nodes = dict[str, nir.NIRNode]


def with_unit_thresholds(network: SpikingNetwork) -> SpikingNetwork:
    """The network whose every neuron has theta = 1 and fires the same spikes, up to the rounding of one division.

        I / theta                      weights and biases of the synapses before the layer, divided by theta
        v_init / theta                 and v_reset and the per-step bias

    A wire carries the unit spike as before, so nothing changes behind the layer. Where theta is a power of two no bit
    of any potential / theta changes.

    Args:
        network: It stays as it is.

    Raises:
        NetworkError: It is one of integers; or a current reaches a layer with no weights of its own on its way, or a
            convolution would have to tell neurons of one channel apart. The message names the nodes.
    """
    if network.quantisation is not None:
        raise NetworkError("The thresholds of a network of integers are integers, and cannot become 1.")
    nodes, neurons, feeds = dict(network.graph.nodes), {}, successors(network.graph)
    for layer, spec in network.neurons.items():
        theta = np.asarray(spec.threshold, np.float64)
        if np.all(theta == 1):
            continue
        for source in dict.fromkeys(network.predecessors[layer]):
            _divide_behind(network, nodes, feeds, source, layer, theta)
        neurons[layer] = _unit(layer, spec, theta)
        nodes[layer] = with_attributes(nodes[layer], v_threshold=neurons[layer].threshold)
    return network.with_nodes(nodes).with_neurons(neurons)


def _unit(layer: str, spec: NeuronSpec, theta: DoubleArray) -> NeuronSpec:
    bias = spec.bias
    if bias is not None:
        rows = theta.reshape(len(theta), -1)
        if np.any(rows != rows[:, :1]):
            raise NetworkError(
                f"Layer {layer!r} has a per-step bias for each channel, and thresholds that differ within one: it "
                "cannot have thresholds of 1."
            )
        bias = _quotient(bias, rows[:, 0])
    return replace(
        spec,
        threshold=np.ones(spec.shape, np.float32),
        v_init=_quotient(spec.v_init, theta),
        v_reset=None if spec.v_reset is None else _quotient(spec.v_reset, theta),
        bias=bias,
    )


def _divide_behind(
    network: SpikingNetwork,
    nodes: Nodes,
    feeds: Mapping[str, tuple[str, ...]],
    name: str,
    reader: str,
    theta: DoubleArray,
) -> None:
    """Divides what `name` sends to `reader` by `theta`, of its shape, in the synapses that it comes from."""
    node = nodes[name]
    said = f"{name!r} ({type(node).__name__})"
    kind = facts(node).kind
    if kind in ("input", "neurons"):
        raise NetworkError(
            f"Node {said} feeds {reader!r} with no weight between, so that its threshold cannot become 1. Put a "
            "synapse on the way (a 1x1 convolution)."
        )
    if not feeds_alone(network, feeds, name, reader):
        raise NetworkError(f"Node {said} feeds others beside {reader!r}, whose threshold cannot become 1 alone.")
    if kind == "synapse":
        nodes[name] = _divided(node, theta, said)
        for other in mirrors_of(network, feeds, name):
            nodes[other] = scaled(nodes[other], theta)
        return
    for source in dict.fromkeys(network.predecessors[name]):
        shape = network.shapes[source]
        if kind == "pooling":
            before = np.broadcast_to(_by_channel(theta, said)[:, None, None], shape)
        else:
            before = theta.reshape(shape)
        _divide_behind(network, nodes, feeds, source, name, before)


def _divided(node: nir.NIRNode, theta: DoubleArray, said: str) -> nir.NIRNode:
    known = facts(node)
    weights = np.asarray(getattr(node, known.weights or "weight"))
    if weights.ndim == theta.ndim:  # A Scale has a weight for each number that it sends.
        return with_attributes(node, **{known.weights or "scale": _quotient(weights, theta)})
    rows = _by_channel(theta, said)
    values = {known.weights or "weight": _quotient(weights, rows.reshape(-1, *[1] * (weights.ndim - 1)))}
    if known.bias is not None:
        values[known.bias] = _quotient(np.broadcast_to(getattr(node, known.bias), rows.shape), rows)
    return with_attributes(node, **values)


def _by_channel(theta: DoubleArray, said: str) -> DoubleArray:
    rows = theta.reshape(len(theta), -1)
    if np.any(rows != rows[:, :1]):
        raise NetworkError(f"Node {said} has the same weights for all neurons of a channel, whose thresholds differ.")
    return rows[:, 0]


def _quotient(values: object, divisor: DoubleArray) -> FloatArray:
    return np.asarray(np.asarray(values, np.float64) / divisor, np.float32)
