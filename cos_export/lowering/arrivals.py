"""What arrives at the layers of a network: the constant part, and bounds of the rest."""

from __future__ import annotations

from collections.abc import Mapping

import nir
import numpy as np
import torch
from numpy.typing import NDArray

from cos_export.errors import InputError, NetworkError
from cos_export.network import SpikingNetwork
from cos_export.network.graph import pooling, with_attributes
from cos_export.network.node_facts import bias_of, facts
from cos_export.network.wires import Wires
from cos_export.quantisation.intervals import Interval, carried, completed, input_interval
from cos_export.simulation.program import Program

__all__ = ["InputRange", "constant_currents", "current_bounds", "without_biases"]

InputRange = tuple[float, float]
"""The least and the largest number that an image may hold, as the network takes it."""


def constant_currents(network: SpikingNetwork) -> Mapping[str, NDArray[np.float64]]:
    """What the biases of the synapses bring to each layer, and to the Output, in every step: of its shape.

    A bias goes through whatever follows it, so at a padded border it may differ from position to position.
    """
    program = Program(network, dtype=torch.float64)
    nothing = {
        name: torch.zeros(1, 1, *network.shapes[name], dtype=torch.float64)
        for name in (*network.layers, network.input_name)
    }
    names = {*network.layers, network.output_name}
    with torch.no_grad():
        return {
            name: np.array(arriving[0, 0].numpy()) for name, arriving in program.arrivals(names, nothing.__getitem__)
        }


def without_biases(network: SpikingNetwork) -> SpikingNetwork:
    """The network whose synapses have a bias of zero."""
    changed = {}
    for name, node in network.graph.nodes.items():
        field, bias = facts(node).bias, bias_of(node)
        if field is not None and bias is not None and bias.any():
            changed[name] = with_attributes(node, **{field: np.zeros_like(bias)})
    return network.with_nodes(changed)


def current_bounds(network: SpikingNetwork, input_range: InputRange | None) -> Mapping[str, Interval]:
    """What one step can bring to each layer, and to the Output, by channel, whatever fires.

    Args:
        network: Its biases count, as at any step.
        input_range: What images may hold; by default what the integers may be, or pixels of 0..1 after the network's
            normalisation.

    Raises:
        InputError: What images may hold is not known.
        NetworkError: A node's output has no bounds here; the message names it.
    """
    wires: Wires[Interval] = Wires(network)
    intervals: dict[str, Interval] = {}
    for name, parts in wires.walk():
        if not parts:
            wires[name] = _images(network, input_range)
            continue
        arriving = Interval(*(np.sum(bounds, axis=0) for bounds in zip(*parts, strict=True)))
        if name in network.neurons or name == network.output_name:
            intervals[name] = arriving
            channels = np.ones(network.shapes[name][0])
            wires[name] = Interval(0.0 * channels, channels, channels)
            continue
        node, shape = network.graph.nodes[name], network.shapes[network.predecessors[name][0]]
        try:
            integers = network.quantisation is not None
            wires[name] = carried(node, completed(arriving), shape) if integers else _carried(node, arriving, shape)
        except NetworkError as error:
            raise NetworkError(f"Node {name!r}: {error}") from None
    return intervals


def _carried(node: nir.NIRNode, arriving: Interval, shape: tuple[int, ...]) -> Interval:
    """What a node makes of an interval of float32 numbers, which may be averaged."""
    if not isinstance(node, nir.AvgPool2d):
        return carried(node, arriving, shape)
    window = pooling(node)
    summed = carried(nir.SumPool2d(*map(np.array, (window.kernel, window.stride, window.padding))), arriving, shape)
    return Interval(*(bound / float(np.prod(window.kernel)) for bound in summed))


def _images(network: SpikingNetwork, input_range: InputRange | None) -> Interval:
    channels = network.input_shape[0]
    if network.quantisation is not None:
        return input_interval(network.quantisation, channels)
    if input_range is not None:
        low, high = (np.full(channels, float(end)) for end in input_range)
        if not (np.isfinite(low).all() and np.isfinite(high).all() and (low <= high).all()):
            raise InputError(f"input_range must be two finite numbers, the lesser first, and is {input_range!r}.")
    elif network.normalisation is not None:
        mean, std = (np.asarray(part, np.float64) for part in (network.normalisation.mean, network.normalisation.std))
        low, high = (np.broadcast_to((pixel - mean) / std, (channels,)) for pixel in (0.0, 1.0))
    else:
        raise InputError(
            "How large a sum may become depends on the images, and the network does not say how they are normalised: "
            "give the least and the largest number that they hold with input_range=(low, high)."
        )
    return Interval(low, high, np.maximum(np.abs(low), np.abs(high)))
