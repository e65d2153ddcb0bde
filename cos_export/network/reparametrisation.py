"""Other weights and thresholds for the same wiring: a constant current, and thresholds with the amplitude they carry.

Both take a network and return a new one; a run of it needs nothing that a run of the old one did not.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from functools import singledispatch
from typing import Any

import nir
import numpy as np
from numpy.typing import ArrayLike, NDArray

from cos_export.errors import InputError, NetworkError
from cos_export.network import FloatArray, SpikingNetwork
from cos_export.network.graph import convolution, with_attributes
from cos_export.network.node_facts import facts
from cos_export.network.order import successors
from cos_export.network.wiring import turns_sign

__all__ = ["feeds_alone", "mirrors_of", "scaled", "with_bias", "with_current_bias", "with_thresholds"]

DoubleArray = NDArray[np.float64]
Nodes = dict[str, nir.NIRNode]
Feeds = Mapping[str, tuple[str, ...]]


def with_current_bias(network: SpikingNetwork, biases: Mapping[str, ArrayLike]) -> SpikingNetwork:
    """Adds a constant current to each channel of some layers: I(t) + b for I(t), at every step.

    The current is folded into the bias of one synapse that feeds the layer and nothing else, so that no run takes a
    step or an operation more. A `nir.Linear` becomes a `nir.Affine`. Behind a Flatten the synapse before it is taken
    where the current is the same over each of that synapse's channels. What hands the negative of that current on to
    other neurons gets b as well, so that b - (I + b) is what it gave before.

    Args:
        network: It stays as it is.
        biases: b by layer, (channels,) or one number for all, in the unit of the current (that of the threshold).

    Raises:
        InputError: A layer is not the network's, or an array does not fit.
        NetworkError: No synapse that feeds a layer can take its bias; the message names the nodes and why.
    """
    nodes, feeds = dict(network.graph.nodes), successors(network.graph)
    for layer, bias in biases.items():
        current = np.broadcast_to(_by_channel(network, layer, bias, "bias"), network.neurons[layer].shape)
        reasons: list[str] = []
        for source in dict.fromkeys(network.predecessors[layer]):
            share = _synapse_behind(network, feeds, source, layer, current, reasons)
            if share is not None:
                name, amount = share
                nodes[name] = with_bias(nodes[name], amount)
                for other in mirrors_of(network, feeds, name):
                    nodes[other] = with_bias(nodes[other], amount)
                break
        else:
            raise NetworkError(f"No synapse can take the bias of layer {layer!r}: {'; '.join(reasons)}.")
    return network.with_nodes(nodes)


def mirrors_of(network: SpikingNetwork, feeds: Feeds, name: str) -> list[str]:
    """The readers of a synapse that take it alone and hand its negative on."""
    return [
        reader
        for reader in feeds[name]
        if turns_sign(network.graph.nodes[reader]) and network.predecessors[reader] == (name,)
    ]


def feeds_alone(network: SpikingNetwork, feeds: Feeds, name: str, reader: str) -> bool:
    """Whether a node feeds `reader`, once, and no other but what hands its negative on."""
    return feeds[name].count(reader) == 1 and set(feeds[name]) - set(mirrors_of(network, feeds, name)) == {reader}


def with_thresholds(network: SpikingNetwork, thresholds: Mapping[str, ArrayLike]) -> SpikingNetwork:
    """Gives some layers new thresholds, and their spikes the new amplitude.

    A wire carries the unit spike, and the amplitude theta is folded into the weights that read it. So with
    g = new theta / old theta, for each neuron,

        theta   <- theta g
        weights <- weights g      of every synapse that reads the layer, also through pools and Flatten
        v_init  <- v_init g       so that v_init / theta stays; v_reset too, where there is one

    and theta s(t) means downstream what it meant. The current of the layer itself, the per-step bias in its unit and
    the levels stay: in place of spikes the layer now stands for its activation clipped at the new theta.

    Args:
        network: It stays as it is.
        thresholds: New theta > 0 by layer, (channels,) or one number for all.

    Raises:
        InputError: A layer is not the network's, or an array does not fit.
        NetworkError: A spike of a layer reaches the Output, another layer or a sum with no weight on its way, or a
            convolution or pool would have to tell neurons of one channel apart. The message names the node.
    """
    nodes, neurons, feeds = dict(network.graph.nodes), {}, successors(network.graph)
    for layer, values in thresholds.items():
        spec, threshold = network.neurons.get(layer), _by_channel(network, layer, values, "threshold")
        if not np.all(threshold > 0) or spec is None:
            raise InputError(f"The thresholds of layer {layer!r} must be positive.")
        gain = threshold / spec.threshold.astype(np.float64)
        for reader in dict.fromkeys(feeds[layer]):
            _scale_readers(network, nodes, feeds, reader, layer, gain)
        raised = np.broadcast_to(threshold, spec.shape).astype(np.float32)
        neurons[layer] = replace(
            spec,
            threshold=raised,
            v_init=(spec.v_init * gain).astype(np.float32),
            v_reset=None if spec.v_reset is None else (spec.v_reset * gain).astype(np.float32),
        )
        nodes[layer] = with_attributes(nodes[layer], v_threshold=raised)
    return network.with_nodes(nodes).with_neurons(neurons)


def _by_channel(network: SpikingNetwork, layer: str, values: ArrayLike, what: str) -> DoubleArray:
    """`values` as (channels, 1, ...) in float64."""
    if layer not in network.neurons:
        raise InputError(f"There is no layer {layer!r}. The layers are {', '.join(map(repr, network.layers))}.")
    shape, array = network.neurons[layer].shape, np.asarray(values, np.float64)
    if array.shape not in ((), shape[:1]):
        raise InputError(
            f"The {what} of layer {layer!r} must be one number or ({shape[0]},), and has shape {array.shape}."
        )
    if not np.isfinite(array).all():
        raise InputError(f"The {what} of layer {layer!r} holds values that are not finite numbers (nan or inf).")
    return np.broadcast_to(array, shape[:1]).reshape(-1, *[1] * (len(shape) - 1))


# --- a constant current -----------------------------------------------------------------------------------


def _synapse_behind(
    network: SpikingNetwork, feeds: Feeds, name: str, reader: str, current: DoubleArray, reasons: list[str]
) -> tuple[str, DoubleArray] | None:
    """The synapse that can give `current` to `reader`, and its share by output channel; or None, and why not."""
    node = network.graph.nodes[name]
    said = f"{name!r} ({type(node).__name__})"
    if not feeds_alone(network, feeds, name, reader):
        reasons.append(f"{said} feeds other nodes, or the same one twice")
        return None
    if facts(node).kind == "rearrangement":
        sources = dict.fromkeys(network.predecessors[name])
        before = current.reshape(network.shapes[next(iter(sources))])
        shares = (_synapse_behind(network, feeds, source, name, before, reasons) for source in sources)
        return next((entry for entry in shares if entry is not None), None)
    if not facts(node).takes_bias:
        reasons.append(f"{said} is not a synapse with a bias")
        return None
    rows = current.reshape(len(current), -1)
    if np.any(rows != rows[:, :1]):
        reasons.append(f"{said} has one bias for each channel, and the layer needs one for each position")
        return None
    return name, rows[:, 0]


def with_bias(node: nir.NIRNode, amount: DoubleArray) -> nir.NIRNode:
    """A synapse that gives so much more; a `nir.Linear`, which has no bias, becomes a `nir.Affine`."""
    if facts(node).bias is None:
        return nir.Affine(node.weight, amount.astype(np.float32), metadata=node.metadata)
    return with_attributes(node, bias=(np.asarray(node.bias, np.float64) + amount).astype(np.float32))


# --- what a spike carries ---------------------------------------------------------------------------------


def _scale_readers(
    network: SpikingNetwork, nodes: Nodes, feeds: Feeds, name: str, source: str, gain: DoubleArray
) -> None:
    """Scales the first synapses on every way from `source` through `name`; `gain` has the shape of what `name` gets."""
    node = nodes[name]
    said = f"{name!r} ({type(node).__name__})"
    if set(network.predecessors[name]) != {source}:
        raise NetworkError(
            f"Node {said} adds {source!r} to other nodes with no weight between, so what its spikes carry cannot "
            "change alone. Put a synapse on each way (a 1x1 convolution)."
        )
    if facts(node).kind in ("output", "neurons"):
        raise NetworkError(
            f"Node {said} reads {source!r} with no weight between, so what its spikes carry cannot change. "
            "Put a synapse before it."
        )
    try:
        if facts(node).kind == "rearrangement":
            gain = gain.reshape(network.shapes[name])
        elif facts(node).kind == "pooling":
            gain = np.broadcast_to(_channel_gain(gain)[:, None, None], network.shapes[name])
        else:
            nodes[name] = scaled(node, gain)
            return
    except NetworkError as error:
        raise NetworkError(f"Node {said} reads {source!r}, and {error}") from None
    for reader in dict.fromkeys(feeds[name]):
        _scale_readers(network, nodes, feeds, reader, name, gain)


def _channel_gain(gain: DoubleArray) -> DoubleArray:
    rows = gain.reshape(len(gain), -1)
    # Quotients of float32 thresholds that are equal are equal, so no tolerance is needed.
    if np.any(rows != rows[:, :1]):
        raise NetworkError(
            "it has the same weights for all neurons of a channel, whose new thresholds are not all the same multiple "
            "of the old ones."
        )
    return rows[:, 0]


@singledispatch
def scaled(node: nir.NIRNode, gain: DoubleArray) -> nir.NIRNode:
    """The synapse that makes of x what `node` makes of gain * x."""
    raise NetworkError("it has no weights that could be scaled.")


@scaled.register(nir.Conv1d)
@scaled.register(nir.Conv2d)
def _(node: nir.Conv1d | nir.Conv2d, gain: DoubleArray) -> nir.NIRNode:
    weight, groups = np.asarray(node.weight), convolution(node).groups
    # Output channel o reads the input channels of its group: (outputs, inputs of a group).
    factors = np.repeat(_channel_gain(gain).reshape(groups, -1), len(weight) // groups, axis=0)
    return with_attributes(node, weight=_product(weight, factors.reshape(*factors.shape, *[1] * (weight.ndim - 2))))


@scaled.register(nir.Affine)
@scaled.register(nir.Linear)
def _(node: nir.Affine | nir.Linear, gain: DoubleArray) -> nir.NIRNode:
    return with_attributes(node, weight=_product(node.weight, gain[None, :]))


@scaled.register
def _(node: nir.Scale, gain: DoubleArray) -> nir.NIRNode:
    return with_attributes(node, scale=_product(node.scale, gain))


def _product(weight: Any, factors: DoubleArray) -> FloatArray:
    return (np.asarray(weight, np.float64) * factors).astype(np.float32)
