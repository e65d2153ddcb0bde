"""A step of a network of integers in integers: uint8 spikes, int8 weights, int32 sums and potentials.

ConvInteger and MatMulInteger take 8 bits. A wire that carries more than 7 (pixels, the sum over a large window, or of
several edges) is taken apart into digits of base 128, and one that can be negative is moved up by its zero point:

    x = sum_k 128^k (d_k - z_k),     d_k and z_k the digits of x - low and of -low
    W x = sum_k 128^k (W (d_k - z_k))

Seven bits, because processors before VNNI add two products of uint8 and int8 in 16 bits and saturate: 2 x 255 x 127 is
beyond 2^15 - 1 = 32,767, and 2 x 127 x 128 = 32,512 is not. ONNX Runtime and OpenVINO use it (VPMADDUBSW).
Every sum fits into 32 bits, for `quantisation.ranges` proves that it fits into 24.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import singledispatchmethod
from typing import Any

import nir
import numpy as np
import torch
from numpy.typing import NDArray
from onnx import TensorProto

from cos_export.errors import NetworkError
from cos_export.network import SpikingNetwork
from cos_export.network.graph import Pooling, convolution, pooling, with_attributes
from cos_export.network.node_facts import facts
from cos_export.onnx_file.attributes import convolution_attributes, sum_attributes
from cos_export.onnx_file.builder import GraphBuilder
from cos_export.onnx_file.step_arithmetic import Wire, bias_constant
from cos_export.quantisation.intervals import Interval, carried, completed, input_interval
from cos_export.simulation.synapses import is_multiple

__all__ = ["IntegerArithmetic"]

_BASE = 128
"""Of the digits that meet weights of 8 bits."""


class IntegerArithmetic:
    """Integers throughout.

    Args:
        network: What is written.

    Raises:
        NetworkError: It is not one of integers.
    """

    kind = TensorProto.INT32
    spike_kind = TensorProto.UINT8

    def __init__(self, network: SpikingNetwork) -> None:
        if network.quantisation is None:
            raise NetworkError("The network is not one of integers.")
        self._network, self._coding = network, network.quantisation

    def numbers(self, values: object) -> NDArray[Any]:
        """int32: of a half-integer the integer below it, from which `>=` fires the same spikes."""
        return np.floor(np.asarray(values, np.float64)).astype(np.int32)

    def images(self, builder: GraphBuilder, value: str, shown: str | None) -> Wire:
        """The integers as they are given."""
        kind = TensorProto.INT8 if self._coding.input_minimum < 0 else TensorProto.UINT8
        wire = Wire(value, kind, input_interval(self._coding, self._network.input_shape[0]))
        if shown is None:
            return wire
        none = builder.constant(f"{value}/zero", np.array(0, np.int32))
        held = builder.add("Where", [shown, self.current(builder, value, wire), none], f"{value}/held")
        return Wire(held, TensorProto.INT32, wire.carried)

    def spikes(self, builder: GraphBuilder, name: str, fired: str) -> Wire:
        """0 and 1 in a byte each."""
        ones = np.ones(self._network.shapes[name][0])
        value = builder.add("Cast", [fired], f"{name}/spike", to=TensorProto.UINT8)
        return Wire(value, TensorProto.UINT8, Interval(0 * ones, ones, ones))

    def summed(self, builder: GraphBuilder, name: str, wires: Sequence[Wire]) -> Wire:
        """The sum in int32; one wire alone stays as it is."""
        if len(wires) == 1:
            return wires[0]
        values = [self.current(builder, f"{name}/part{number}", wire) for number, wire in enumerate(wires)]
        total = values[0]
        for number, value in enumerate(values[1:], start=2):
            total = builder.add("Add", [total, value], f"{name}/sum{number}")
        ends = zip(*(_known(wire) for wire in wires), strict=True)
        return Wire(total, TensorProto.INT32, Interval(*(np.sum(end, axis=0) for end in ends)))

    def current(self, builder: GraphBuilder, name: str, wire: Wire) -> str:
        """The value in int32."""
        if wire.kind == TensorProto.INT32:
            return wire.value
        return builder.add("Cast", [wire.value], f"{name}/wide", to=TensorProto.INT32)

    def through(self, builder: GraphBuilder, name: str, wire: Wire, gate: str | None) -> Wire:
        """The node in integers; what it can carry comes along."""
        network = self._network
        node = network.graph.nodes[name]
        made = self._node(node, builder, name, wire)
        bias = bias_constant(node, len(network.shapes[name]))
        if bias is not None and bias.any():
            value = builder.constant(f"{name}/bias", self.numbers(bias))
            if gate is not None:
                value = builder.add("Mul", [value, gate], f"{name}/counted")
            made = Wire(builder.add("Add", [made.value, value], f"{name}/current"), made.kind)
        return Wire(made.value, made.kind, self._carried(name, node, _known(wire), gated=gate is not None))

    def _carried(self, name: str, node: nir.NIRNode, arriving: Interval, *, gated: bool) -> Interval:
        """What a node sends, whether its bias counts in a step or not."""
        shape, field = self._network.shapes[self._network.predecessors[name][0]], facts(node).bias
        nodes = [node]
        if gated and field is not None:
            nodes.append(with_attributes(node, **{field: 0 * np.asarray(getattr(node, field))}))
        try:
            known = [carried(one, completed(arriving), shape) for one in nodes]
        except NetworkError as error:
            raise NetworkError(f"Node {name!r}: {error}") from None
        low, high, partial = zip(*known, strict=True)
        return Interval(np.min(low, axis=0), np.max(high, axis=0), np.max(partial, axis=0))

    @singledispatchmethod
    def _node(self, node: nir.NIRNode, builder: GraphBuilder, name: str, wire: Wire) -> Wire:
        """What `node` makes of a wire, without its bias."""
        kind = type(node).__name__
        raise NetworkError(f"Node {name!r}: a node of type {kind} cannot be written in integers as ONNX.")

    @_node.register(nir.Output)
    def _(self, node: nir.Output, builder: GraphBuilder, name: str, wire: Wire) -> Wire:
        return wire

    @_node.register(nir.Flatten)
    def _(self, node: nir.Flatten, builder: GraphBuilder, name: str, wire: Wire) -> Wire:
        result = self._network.shapes[name]
        if len(result) == 1:
            return Wire(builder.add("Flatten", [wire.value], f"{name}/flat", axis=1), wire.kind)
        target = builder.constant(f"{name}/shape", np.array([0, *result], np.int64))
        return Wire(builder.add("Reshape", [wire.value, target], f"{name}/flat"), wire.kind)

    @_node.register(nir.Scale)
    def _(self, node: nir.Scale, builder: GraphBuilder, name: str, wire: Wire) -> Wire:
        return self._product(builder, name, wire, self.numbers(node.scale))

    @_node.register(nir.Conv1d)
    @_node.register(nir.Conv2d)
    def _(self, node: nir.Conv1d | nir.Conv2d, builder: GraphBuilder, name: str, wire: Wire) -> Wire:
        geometry, weight = convolution(node), np.asarray(node.weight, np.float32)
        bias = np.asarray(node.bias, np.float32)
        if is_multiple(torch.from_numpy(weight), torch.from_numpy(bias), geometry):
            return self._product(builder, name, wire, self.numbers(weight.reshape(-1)[:1].reshape(())))
        return self._multiplied(
            builder, "ConvInteger", name, wire, self._byte_weights(name, weight), convolution_attributes(geometry)
        )

    @_node.register(nir.Affine)
    @_node.register(nir.Linear)
    def _(self, node: nir.Affine | nir.Linear, builder: GraphBuilder, name: str, wire: Wire) -> Wire:
        return self._multiplied(builder, "MatMulInteger", name, wire, self._byte_weights(name, node.weight).T, {})

    @_node.register(nir.SumPool2d)
    def _(self, node: nir.SumPool2d, builder: GraphBuilder, name: str, wire: Wire) -> Wire:
        window: Pooling = pooling(node)
        channels = self._network.shapes[name][0]
        return self._multiplied(
            builder,
            "ConvInteger",
            name,
            wire,
            np.ones((channels, 1, *window.kernel), np.int8),
            sum_attributes(window, channels),
        )

    def _byte_weights(self, name: str, weight: object) -> NDArray[Any]:
        values = np.asarray(weight, np.float32)
        if values.min() < -128 or values.max() > 127:
            raise NetworkError(
                f"Node {name!r}: its weights must be integers of -128..127 to be written in a byte each."
            )
        return values.astype(np.int8)

    def _product(self, builder: GraphBuilder, name: str, wire: Wire, factor: NDArray[Any]) -> Wire:
        held = builder.constant(f"{name}/weight", factor)
        value = self.current(builder, name, wire)
        return Wire(builder.add("Mul", [value, held], f"{name}/product"), TensorProto.INT32)

    def _multiplied(
        self,
        builder: GraphBuilder,
        operator: str,
        name: str,
        wire: Wire,
        weight: NDArray[Any],
        attributes: dict[str, Any],
    ) -> Wire:
        held = builder.constant(f"{name}/weight", weight)
        total = ""
        for number, (value, zero) in enumerate(self._digits(builder, name, wire)):
            inputs = [value, held]
            if zero:
                inputs.append(builder.constant(f"{name}/zero{number}", np.array(zero, np.uint8)))
            part = builder.add(operator, inputs, f"{name}/product{number}", **attributes)
            if number:
                place = builder.constant(f"{name}/place{number}", np.array(_BASE**number, np.int32))
                part = builder.add("Mul", [part, place], f"{name}/placed{number}")
                part = builder.add("Add", [total, part], f"{name}/total{number}")
            total = part
        return Wire(total, TensorProto.INT32)

    def _digits(self, builder: GraphBuilder, name: str, wire: Wire) -> list[tuple[str, int]]:
        """The digits of a wire's value as uint8, the least first, each with its zero point."""
        # Borders hold zeros, so the digits of -low must have places, whatever the wire itself carries.
        low, high = int(min(0, _known(wire).low.min())), int(max(0, _known(wire).high.max()))
        if wire.kind == TensorProto.UINT8 and low == 0 and high < _BASE:
            return [(wire.value, 0)]
        value, width = self.current(builder, f"{name}/input", wire), high - low
        if low < 0:
            moved = builder.constant(f"{name}/low", np.array(-low, np.int32))
            value = builder.add("Add", [value, moved], f"{name}/moved")
        found: list[tuple[str, int]] = []
        number, zeros = 0, -low
        while width > 0 or not found:
            digit = value
            if width >= _BASE:
                base = builder.constant(f"{name}/base{number}", np.array(_BASE, np.int32))
                digit = builder.add("Mod", [value, base], f"{name}/remainder{number}")
                value = builder.add("Div", [value, base], f"{name}/quotient{number}")
            narrow = builder.add("Cast", [digit], f"{name}/digit{number}", to=TensorProto.UINT8)
            found.append((narrow, zeros % _BASE))
            number, zeros, width = number + 1, zeros // _BASE, width // _BASE
        return found


def _known(wire: Wire) -> Interval:
    if wire.carried is None:
        raise NetworkError(f"It is not known what {wire.value!r} can carry.")
    return wire.carried
