"""What each NIR node that is not a neuron becomes in ONNX."""

from __future__ import annotations

from collections.abc import Callable
from functools import singledispatch

import nir
import numpy as np
import torch
from numpy.typing import NDArray

from cos_export.errors import NetworkError
from cos_export.network.graph import Pooling, Shape, convolution, pooling
from cos_export.network.node_facts import facts
from cos_export.onnx_file.attributes import convolution_attributes, sum_attributes, window_attributes
from cos_export.onnx_file.builder import GraphBuilder
from cos_export.simulation.synapses import is_multiple

__all__ = ["Synapse", "synapse"]

Synapse = Callable[[str, str], str]
"""(value, name for the result) -> the result. Called once per step, or once in all if its input is constant."""


@singledispatch
def synapse(node: nir.NIRNode, builder: GraphBuilder, name: str, shape: Shape, result: Shape) -> Synapse:
    """Adds `node`'s weights to the graph, and returns what appends the node itself.

    Args:
        node: A node of the network.
        builder: The graph.
        name: The node's name.
        shape: Of what it takes, without the batch axis.
        result: Of what it makes, without the batch axis.

    Raises:
        NetworkError: The node's type has no counterpart here.
    """
    raise NetworkError(f"Node {name!r}: a node of type {type(node).__name__} cannot be written as ONNX.")


def _float(value: object) -> NDArray[np.float32]:
    return np.asarray(value, np.float32)


@synapse.register(nir.Input)
@synapse.register(nir.Output)
def _(node: nir.NIRNode, builder: GraphBuilder, name: str, shape: Shape, result: Shape) -> Synapse:
    return lambda value, _: value


@synapse.register(nir.Conv1d)
@synapse.register(nir.Conv2d)
def _(node: nir.Conv1d | nir.Conv2d, builder: GraphBuilder, name: str, shape: Shape, result: Shape) -> Synapse:
    geometry = convolution(node)
    if is_multiple(torch.from_numpy(_float(node.weight)), torch.from_numpy(_float(node.bias)), geometry):
        # What a residual's identity path carries: a product changes no bit of the sum, and takes half the time.
        factor = builder.constant(f"{name}/weight", _float(node.weight).reshape(-1)[:1].reshape(()))
        return lambda value, out: builder.add("Mul", [value, factor], out)
    weight = builder.weights(f"{name}/weight", _float(node.weight))
    bias = builder.constant(f"{name}/bias", _float(node.bias))
    return lambda value, out: builder.add("Conv", [value, weight, bias], out, **convolution_attributes(geometry))


@synapse.register
def _(node: nir.Affine, builder: GraphBuilder, name: str, shape: Shape, result: Shape) -> Synapse:
    weight = builder.weights(f"{name}/weight", _float(node.weight))
    # A bias of one number for all would broadcast in NIR; Gemm's may as well.
    bias = builder.constant(f"{name}/bias", _float(node.bias))
    return lambda value, out: builder.add("Gemm", [value, weight, bias], out, transB=1)


@synapse.register
def _(node: nir.Linear, builder: GraphBuilder, name: str, shape: Shape, result: Shape) -> Synapse:
    weight = builder.weights(f"{name}/weight", _float(node.weight))
    return lambda value, out: builder.add("Gemm", [value, weight], out, transB=1)


@synapse.register
def _(node: nir.Scale, builder: GraphBuilder, name: str, shape: Shape, result: Shape) -> Synapse:
    scale = builder.weights(f"{name}/scale", _float(node.scale))
    return lambda value, out: builder.add("Mul", [value, scale], out)


def _sum(window: Pooling, builder: GraphBuilder, name: str, channels: int) -> Synapse:
    """The sum over each window, as a convolution of ones within each channel.

    Spikes are 0 and 1, so every partial sum is a small whole number and exact in any order. AveragePool
    times the window's size is not: n / 49 * 49 in float32 misses 4 of the counts n that a 7x7 window can have,
    and n * (1 / 49) * 49 misses 7. In ONNX Runtime both take the same time.
    """
    ones = builder.weights(f"{name}/ones", np.ones((channels, 1, *window.kernel), np.float32))
    return lambda value, out: builder.add("Conv", [value, ones], out, **sum_attributes(window, channels))


@synapse.register
def _(node: nir.SumPool2d, builder: GraphBuilder, name: str, shape: Shape, result: Shape) -> Synapse:
    return _sum(pooling(node), builder, name, shape[0])


@synapse.register
def _(node: nir.AvgPool2d, builder: GraphBuilder, name: str, shape: Shape, result: Shape) -> Synapse:
    window, size = pooling(node), facts(node).divisor
    if size & (size - 1) == 0:
        # Multiplying by 1/size and dividing by it are the same where size is a power of two.
        return lambda value, out: builder.add(
            "AveragePool",
            [value],
            out,
            **window_attributes(window),
            count_include_pad=1,
        )
    total = _sum(window, builder, name, shape[0])
    divisor = builder.constant(f"{name}/size", np.array(size, np.float32))
    return lambda value, out: builder.add("Div", [total(value, f"{out}/sum"), divisor], out)


@synapse.register
def _(node: nir.Flatten, builder: GraphBuilder, name: str, shape: Shape, result: Shape) -> Synapse:
    if len(result) == 1:
        return lambda value, out: builder.add("Flatten", [value], out, axis=1)
    # 0 keeps the batch axis.
    target = builder.constant(f"{name}/shape", np.array([0, *result], np.int64))
    return lambda value, out: builder.add("Reshape", [value, target], out)
