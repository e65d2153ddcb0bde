"""Fan-out: how many weights what leaves a place meets, at every place, borders included."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Literal

import nir
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from cos_export.network import SpikingNetwork
from cos_export.network.graph import Shape, with_attributes
from cos_export.network.node_facts import facts
from cos_export.network.order import successors
from cos_export.network.wiring import picks_entries
from cos_export.simulation.synapses import synapse

__all__ = ["FanOuts", "WireKind", "fan_out", "fan_outs", "hands_spikes_on", "input_kinds"]

WireKind = Literal["constant", "spikes", "graded"]
"""What arrives at a node: the same numbers at every step, which the Input alone has made; spikes, which may have been
summed or pooled; or numbers that a synapse has made of spikes."""

FanOut = NDArray[np.float64]


def input_kinds(network: SpikingNetwork) -> Mapping[str, WireKind]:
    """What arrives at each node but the Input."""
    leaving: dict[str, WireKind] = {network.input_name: "constant"}
    arriving: dict[str, WireKind] = {}
    for name in network.order:
        if name == network.input_name:
            continue
        kinds = {leaving[source] for source in network.predecessors[name]}
        kind: WireKind = kinds.pop() if len(kinds) == 1 else "graded"
        arriving[name] = leaving[name] = kind
        if name in network.neurons:
            leaving[name] = "spikes"
        elif kind == "spikes" and not hands_spikes_on(network.graph.nodes[name]):
            leaving[name] = "graded"
    return arriving


def hands_spikes_on(node: nir.NIRNode) -> bool:
    """Whether a spike that arrives leaves as one, at as many places as it meets windows."""
    return facts(node).kind in ("pooling", "rearrangement") or picks_entries(node)


def fan_out(node: nir.NIRNode, shape: Shape) -> FanOut:
    """The number of weights other than 0 that each place of a synapse's input meets: of shape `shape`.

    A synapse is linear, so that is what ones at its output become on the way back through it, each weight taken as 1:
    the transposed pass, exact in float64. Of a pooling node it is the number of windows that a place lies in.

    Args:
        node: A synapse or a pooling node.
        shape: Of its input, without the batch axis.
    """
    return _backwards(_counting(node), shape, None)


@dataclass(frozen=True)
class FanOuts:
    """What numbers and spikes meet in a network, whatever it runs on and for however many steps.

    Attributes:
        nodes: By synapse or pooling node, `fan_out`.
        spikes: By layer and then by synapse or pooling node, how many of its weights or windows one spike of a neuron
            meets. A spike goes through pooling nodes by itself: what it meets behind them is what every window that it
            lies in meets. Synapses that a synapse feeds take no spikes, and are not among these.
    """

    nodes: Mapping[str, FanOut]
    spikes: Mapping[str, Mapping[str, FanOut]]


def fan_outs(network: SpikingNetwork) -> FanOuts:
    """The fan-outs of all nodes and layers of a network."""
    nodes = {
        name: fan_out(network.graph.nodes[name], network.shapes[network.predecessors[name][0]])
        for name in network.order
        if facts(network.graph.nodes[name]).kind in ("synapse", "pooling")
    }
    feeds, kinds = successors(network.graph), input_kinds(network)
    # By node, what one spike that leaves it meets: by synapse or pooling node, an array of the node's output shape.
    met: dict[str, dict[str, FanOut]] = {}
    for name in reversed(network.order):
        total: dict[str, FanOut] = {}
        for target in feeds[name]:
            if kinds[target] != "spikes" or target in network.neurons or target == network.output_name:
                continue
            node, shape = network.graph.nodes[target], network.shapes[name]
            if target in nodes:
                total[target] = total.get(target, 0) + nodes[target]
            if hands_spikes_on(node):
                for behind, array in met[target].items():
                    passed = _backwards(_counting(node), shape, array)
                    total[behind] = total.get(behind, 0) + passed
        met[name] = total
    return FanOuts(nodes, {name: met[name] for name in network.layers})


def _counting(node: nir.NIRNode) -> nir.NIRNode:
    """The node with 1 in place of every weight that is not 0, and no bias; a pooling node adds."""
    about = facts(node)
    if about.kind == "pooling":
        return nir.SumPool2d(node.kernel_size, node.stride, node.padding)
    changes = {}
    if about.weights is not None:
        changes[about.weights] = (np.asarray(getattr(node, about.weights)) != 0).astype(np.float64)
    if about.bias is not None:
        changes[about.bias] = np.zeros_like(np.asarray(getattr(node, about.bias)), np.float64)
    return with_attributes(node, **changes)


def _backwards(node: nir.NIRNode, shape: Shape, behind: FanOut | None) -> FanOut:
    """The transposed pass of a linear node: of what stands at its output, or of ones."""
    forward: Callable[[Tensor], Tensor] = synapse(node, lambda array: torch.as_tensor(np.asarray(array)).double())
    with torch.enable_grad():
        place = torch.zeros(1, *shape, dtype=torch.float64, requires_grad=True)
        outputs = forward(place)
        weight = torch.ones_like(outputs) if behind is None else torch.from_numpy(behind)[None]
        (gradient,) = torch.autograd.grad(outputs, place, weight)
    # Whole numbers, from which a convolution by a transform may differ in the last digits.
    return np.asarray(gradient[0].round().numpy())
