"""The numbers of a step graph: what a wire carries, and how synapses and sums are written for it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import nir
import numpy as np
from numpy.typing import NDArray
from onnx import TensorProto

from cos_export.network import SpikingNetwork
from cos_export.network.graph import Shape, with_attributes
from cos_export.network.node_facts import bias_of, facts
from cos_export.onnx_file.builder import GraphBuilder
from cos_export.onnx_file.synapses import synapse
from cos_export.quantisation.intervals import Interval

__all__ = ["FloatArithmetic", "StepArithmetic", "Wire", "bias_constant"]


@dataclass(frozen=True)
class Wire:
    """What a node sends in one step.

    Attributes:
        value: Its name, (batch, ...).
        kind: Its type in ONNX.
        carried: In a network of integers, what it can be by channel.
    """

    value: str
    kind: int = TensorProto.FLOAT
    carried: Interval | None = None


class StepArithmetic(Protocol):
    """How a step is computed: in float32, or in integers."""

    @property
    def kind(self) -> int:
        """The type of potentials and currents in ONNX."""

    @property
    def spike_kind(self) -> int:
        """The type of the spikes that leave the graph."""

    def numbers(self, values: object) -> NDArray[Any]:
        """Potentials, thresholds or biases as constants of `kind`."""

    def images(self, builder: GraphBuilder, value: str, shown: str | None) -> Wire:
        """What the Input sends: zeros where the boolean `shown` is false."""

    def spikes(self, builder: GraphBuilder, name: str, fired: str) -> Wire:
        """What a layer sends, of booleans."""

    def summed(self, builder: GraphBuilder, name: str, wires: Sequence[Wire]) -> Wire:
        """What several edges bring, in the order of the edges."""

    def current(self, builder: GraphBuilder, name: str, wire: Wire) -> str:
        """A wire's value as numbers of `kind`."""

    def through(self, builder: GraphBuilder, name: str, wire: Wire, gate: str | None) -> Wire:
        """What a node that is not a neuron makes of a wire; its bias counts where `gate` is 1, not where it is 0."""


def bias_constant(node: nir.NIRNode, axes: int) -> NDArray[Any] | None:
    """The bias of a node, to be added to what it makes of a batch whose samples have so many axes."""
    bias = bias_of(node)
    return None if bias is None else np.asarray(bias).reshape(1, -1, *[1] * (axes - 1))


class FloatArithmetic:
    """float32: the operations of the T-step graph, in their order.

    Args:
        network: What is written.
    """

    kind = TensorProto.FLOAT
    spike_kind = TensorProto.BOOL

    def __init__(self, network: SpikingNetwork) -> None:
        self._network = network

    def numbers(self, values: object) -> NDArray[Any]:
        """float32."""
        return np.asarray(values, np.float32)

    def images(self, builder: GraphBuilder, value: str, shown: str | None) -> Wire:
        """The images themselves."""
        if shown is None:
            return Wire(value)
        none = builder.constant(f"{value}/zero", np.array(0, np.float32))
        return Wire(builder.add("Where", [shown, value, none], f"{value}/held"))

    def spikes(self, builder: GraphBuilder, name: str, fired: str) -> Wire:
        """0 and 1 in float32."""
        return Wire(builder.add("Cast", [fired], f"{name}/spike", to=TensorProto.FLOAT))

    def summed(self, builder: GraphBuilder, name: str, wires: Sequence[Wire]) -> Wire:
        """The sum, from the first edge to the last."""
        total = wires[0].value
        for number, wire in enumerate(wires[1:], start=2):
            total = builder.add("Add", [total, wire.value], f"{name}/sum{number}")
        return Wire(total)

    def current(self, builder: GraphBuilder, name: str, wire: Wire) -> str:
        """The value as it is."""
        return wire.value

    def through(self, builder: GraphBuilder, name: str, wire: Wire, gate: str | None) -> Wire:
        """The node as in the T-step graph; with a gate, its bias apart."""
        network = self._network
        node, shape = network.graph.nodes[name], _input_shape(network, name)
        field, bias = facts(node).bias, bias_constant(node, len(network.shapes[name]))
        apart = gate is not None and field is not None and bias is not None and bool(bias.any())
        if apart and field is not None:
            node = with_attributes(node, **{field: np.zeros_like(np.asarray(getattr(node, field), np.float32))})
        apply = synapse(node, builder, name, shape, network.shapes[name])
        value = apply(wire.value, f"{name}/current")
        if apart and bias is not None and gate is not None:
            held = builder.constant(f"{name}/constant", self.numbers(bias))
            value = builder.add("Add", [value, builder.add("Mul", [held, gate], f"{name}/counted")], f"{name}/biased")
        return Wire(value)


def _input_shape(network: SpikingNetwork, name: str) -> Shape:
    sources = network.predecessors[name]
    return network.shapes[sources[0]] if sources else network.input_shape
