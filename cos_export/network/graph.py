"""Shapes of a NIR graph, and how the windows of its nodes slide.

NIR's own type inference is right for square, ungrouped convolutions only, so shapes are computed
here. Shapes have no batch axis and are (channels, height, width), (channels, length) or (features,).
"""

from __future__ import annotations

import copy
import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import singledispatch
from typing import Any

import nir
import numpy as np

from cos_export.errors import NetworkError
from cos_export.network.batch_axis import batch_axis_hint
from cos_export.network.fields import check_fields, check_size, spelled_padding, whole_number, whole_numbers

__all__ = [
    "Convolution",
    "Pooling",
    "Shape",
    "convolution",
    "output_shape",
    "pooling",
    "shapes",
    "with_attributes",
]

Shape = tuple[int, ...]


@dataclass(frozen=True)
class Convolution:
    """How a convolution slides, each entry one number per spatial axis.

    `padding` holds (before, after) per axis, since NIR's "same" may pad unevenly.
    """

    kernel: Shape
    stride: Shape
    padding: tuple[tuple[int, int], ...]
    dilation: Shape
    groups: int


@dataclass(frozen=True)
class Pooling:
    """How a pooling window slides: (height, width) each."""

    kernel: Shape
    stride: Shape
    padding: Shape


def shapes(graph: nir.NIRGraph, order: tuple[str, ...], feeds: Mapping[str, tuple[str, ...]]) -> dict[str, Shape]:
    """The output shape of every node.

    Args:
        graph: The graph.
        order: Its nodes in topological order.
        feeds: The predecessors of each node.

    Raises:
        NetworkError: A node's input has a shape that the node cannot take, or two edges into one
            node carry different shapes.
    """
    result: dict[str, Shape] = {}
    for name in order:
        arriving = {source: result[source] for source in feeds[name]}
        if len(set(arriving.values())) > 1:
            listed = ", ".join(f"{source!r} {shape}" for source, shape in arriving.items())
            raise NetworkError(f"Node {name!r} adds edges of different shapes: {listed}.")
        node = graph.nodes[name]
        if not arriving and not isinstance(node, nir.Input):
            raise NetworkError(f"Node {name!r} ({type(node).__name__}) has no edge into it and is not an Input.")
        try:
            result[name] = output_shape(node, next(iter(arriving.values()), ()))
        except NetworkError as error:
            raise NetworkError(f"Node {name!r} ({type(node).__name__}): {error}") from None
    return result


def convolution(node: nir.Conv1d | nir.Conv2d) -> Convolution:
    """The geometry of a NIR convolution, whatever spelling its fields use.

    Raises:
        NetworkError: "same" padding with a stride, which NIR does not define, or a field that is not such numbers.
    """
    axes = np.ndim(node.weight) - 2
    kernel = tuple(int(k) for k in np.shape(node.weight)[2:])
    stride = whole_numbers("stride", node.stride, axes, 1)
    dilation = whole_numbers("dilation", node.dilation, axes, 1)
    word = spelled_padding(node.padding)
    if word is None:
        padding = tuple((p, p) for p in whole_numbers("padding", node.padding, axes, 0))
    else:
        if word == "same" and any(s != 1 for s in stride):
            raise NetworkError(f'padding "same" needs stride 1, here {stride}.')
        total = [d * (k - 1) if word == "same" else 0 for k, d in zip(kernel, dilation, strict=True)]
        padding = tuple((t // 2, t - t // 2) for t in total)
    return Convolution(kernel, stride, padding, dilation, whole_number("groups", node.groups, 1))


def with_attributes(node: nir.NIRNode, **values: Any) -> nir.NIRNode:
    """The node with other values in some of its fields, which are not checked: NIR's constructors check shapes."""
    result = copy.copy(node)
    for key, value in values.items():
        setattr(result, key, value)
    return result


def pooling(node: nir.SumPool2d | nir.AvgPool2d) -> Pooling:
    """The geometry of a NIR pooling node.

    Raises:
        NetworkError: A field is not such numbers.
    """
    return Pooling(
        whole_numbers("kernel_size", node.kernel_size, 2, 1),
        whole_numbers("stride", node.stride, 2, 1),
        whole_numbers("padding", node.padding, 2, 0),
    )


def output_shape(node: nir.NIRNode, shape: Shape) -> Shape:
    """The shape that `node` makes of an input of `shape`, once its own fields have been checked.

    Raises:
        NetworkError: A field cannot be used (`check_fields`), the node takes no such input, sends more than any
            memory is meant to hold, or its type cannot be run.
    """
    check_fields(node)
    result = _shape_after(node, shape)
    check_size(result)
    return result


@singledispatch
def _shape_after(node: nir.NIRNode, shape: Shape) -> Shape:
    raise NetworkError(f"a node of type {type(node).__name__} cannot be run: what it does to a shape is not known.")


def _expect(actual: Shape, expected: Shape) -> None:
    if actual != expected:
        hint = batch_axis_hint(actual, len(expected)) if actual[1:] == expected else ""
        raise NetworkError(f"it takes shape {expected}, and gets {actual}.{hint}")


def _array_shape(value: Any) -> Shape:
    return tuple(int(n) for n in np.atleast_1d(np.asarray(value)))


@_shape_after.register
def _(node: nir.Input, shape: Shape) -> Shape:
    return _array_shape(node.input_type["input"])


@_shape_after.register
def _(node: nir.Output, shape: Shape) -> Shape:
    declared = node.output_type["output"]
    if declared is not None:
        _expect(shape, _array_shape(declared))
    return shape


@_shape_after.register
def _(node: nir.IF, shape: Shape) -> Shape:
    _expect(shape, tuple(np.shape(node.v_threshold)))
    return shape


@_shape_after.register
def _(node: nir.Scale, shape: Shape) -> Shape:
    _expect(shape, tuple(np.shape(node.scale)))
    return shape


@_shape_after.register(nir.Affine)
@_shape_after.register(nir.Linear)
def _(node: nir.Affine | nir.Linear, shape: Shape) -> Shape:
    out_features, in_features = np.shape(node.weight)
    _expect(shape, (in_features,))
    return (out_features,)


def _windows(sizes: Shape, geometry: Convolution) -> Shape:
    result = tuple(
        (n + sum(p) - d * (k - 1) - 1) // s + 1
        for n, k, s, p, d in zip(
            sizes, geometry.kernel, geometry.stride, geometry.padding, geometry.dilation, strict=True
        )
    )
    if min(result) < 1:
        raise NetworkError(f"a window of {geometry.kernel} does not fit into {sizes}.")
    return result


@_shape_after.register(nir.Conv1d)
@_shape_after.register(nir.Conv2d)
def _(node: nir.Conv1d | nir.Conv2d, shape: Shape) -> Shape:
    geometry, weight = convolution(node), np.shape(node.weight)
    if len(shape) != len(weight) - 1 or shape[0] != weight[1] * geometry.groups:
        raise NetworkError(
            f"it takes {weight[1] * geometry.groups} channels over {len(weight) - 2} axes, and gets shape {shape}."
            f"{batch_axis_hint(shape, len(weight) - 1)}"
        )
    return (int(weight[0]), *_windows(shape[1:], geometry))


@_shape_after.register(nir.SumPool2d)
@_shape_after.register(nir.AvgPool2d)
def _(node: nir.SumPool2d | nir.AvgPool2d, shape: Shape) -> Shape:
    if len(shape) != 3:
        raise NetworkError(f"it takes (channels, height, width), and gets shape {shape}.{batch_axis_hint(shape, 3)}")
    window = pooling(node)
    padding = tuple((p, p) for p in window.padding)
    return (shape[0], *_windows(shape[1:], Convolution(window.kernel, window.stride, padding, (1, 1), 1)))


@_shape_after.register
def _(node: nir.Flatten, shape: Shape) -> Shape:
    first, last = (_axis(field, getattr(node, field), len(shape)) for field in ("start_dim", "end_dim"))
    if first > last:
        raise NetworkError(f"start_dim {node.start_dim} lies behind end_dim {node.end_dim} of the shape {shape}.")
    return (*shape[:first], math.prod(shape[first : last + 1]), *shape[last + 1 :])


def _axis(field: str, value: Any, axes: int) -> int:
    axis = whole_number(field, value, -axes)
    if axis >= axes:
        raise NetworkError(f"{field} is {axis}, and the shape that arrives has {axes} axes.")
    return axis % axes
