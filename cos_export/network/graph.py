"""Order, wiring and shapes of a NIR graph.

NIR's own type inference is right for square, ungrouped convolutions only, so shapes are computed
here. Shapes have no batch axis and are (channels, height, width), (channels, length) or (features,).
"""

from __future__ import annotations

import copy
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from functools import singledispatch
from typing import Any

import nir
import numpy as np

from cos_export.errors import NetworkError

__all__ = [
    "Convolution",
    "Pooling",
    "Shape",
    "convolution",
    "output_shape",
    "pooling",
    "predecessors",
    "shapes",
    "successors",
    "topological_order",
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


def predecessors(graph: nir.NIRGraph) -> dict[str, tuple[str, ...]]:
    """The nodes that feed each node, in the order of the edges."""
    found: dict[str, list[str]] = defaultdict(list)
    for source, target in graph.edges:
        found[target].append(source)
    return {name: tuple(found[name]) for name in graph.nodes}


def successors(graph: nir.NIRGraph) -> dict[str, tuple[str, ...]]:
    """The nodes that each node feeds, in the order of the edges."""
    found: dict[str, list[str]] = defaultdict(list)
    for source, target in graph.edges:
        found[source].append(target)
    return {name: tuple(found[name]) for name in graph.nodes}


def topological_order(graph: nir.NIRGraph) -> tuple[str, ...]:
    """Every node after all that feed it; ties in the order in which the graph lists its nodes.

    Raises:
        NetworkError: An edge names a node that is not there, or the graph has a cycle.
    """
    for source, target in graph.edges:
        for name in (source, target):
            if name not in graph.nodes:
                raise NetworkError(
                    f"The edge {source!r} -> {target!r} names {name!r}, which is no node of the graph. "
                    f"The nodes are {', '.join(map(repr, graph.nodes))}."
                )
    feeds, waits = successors(graph), {k: len(v) for k, v in predecessors(graph).items()}
    rank = {name: i for i, name in enumerate(graph.nodes)}
    ready = [name for name, count in waits.items() if count == 0]
    order: list[str] = []
    while ready:
        name = min(ready, key=rank.__getitem__)
        ready.remove(name)
        order.append(name)
        for target in feeds[name]:
            waits[target] -= 1
            if waits[target] == 0:
                ready.append(target)
    if len(order) < len(graph.nodes):
        looped = sorted(set(graph.nodes) - set(order))
        raise NetworkError(
            f"The graph has a cycle through {', '.join(map(repr, looped))}. Only feed-forward networks can be run."
        )
    return tuple(order)


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
            raise NetworkError(f"Node {name!r} ({type(node).__name__}) has no edge into it and is no Input.")
        try:
            result[name] = output_shape(node, next(iter(arriving.values()), ()))
        except NetworkError as error:
            raise NetworkError(f"Node {name!r} ({type(node).__name__}): {error}") from None
    return result


def _numbers(value: Any, count: int) -> Shape:
    flat = np.atleast_1d(np.asarray(value)).astype(int).ravel()
    return tuple(int(flat[min(i, len(flat) - 1)]) for i in range(count))


def convolution(node: nir.Conv1d | nir.Conv2d) -> Convolution:
    """The geometry of a NIR convolution, whatever spelling its fields use.

    Raises:
        NetworkError: "same" padding with a stride, which NIR does not define, or an unknown word.
    """
    axes = np.ndim(node.weight) - 2
    kernel = tuple(int(k) for k in np.shape(node.weight)[2:])
    stride, dilation = _numbers(node.stride, axes), _numbers(node.dilation, axes)
    spelled = node.padding
    if isinstance(spelled, np.ndarray) and spelled.dtype.kind in "OSU":
        spelled = spelled.item()
    if isinstance(spelled, bytes):
        spelled = spelled.decode()
    if isinstance(spelled, str):
        if spelled not in ("same", "valid"):
            raise NetworkError(f'padding must be "same", "valid" or numbers, and is {spelled!r}.')
        if spelled == "same" and any(s != 1 for s in stride):
            raise NetworkError(f'padding "same" needs stride 1, here {stride}.')
        total = [d * (k - 1) if spelled == "same" else 0 for k, d in zip(kernel, dilation, strict=True)]
        padding = tuple((t // 2, t - t // 2) for t in total)
    else:
        padding = tuple((p, p) for p in _numbers(spelled, axes))
    return Convolution(kernel, stride, padding, dilation, int(node.groups))


def with_attributes(node: nir.NIRNode, **values: Any) -> nir.NIRNode:
    """The node with other values in some of its fields, which are not checked: NIR's constructors check shapes."""
    result = copy.copy(node)
    for key, value in values.items():
        setattr(result, key, value)
    return result


def pooling(node: nir.SumPool2d | nir.AvgPool2d) -> Pooling:
    """The geometry of a NIR pooling node."""
    return Pooling(_numbers(node.kernel_size, 2), _numbers(node.stride, 2), _numbers(node.padding, 2))


@singledispatch
def output_shape(node: nir.NIRNode, shape: Shape) -> Shape:
    """The shape that `node` makes of an input of `shape`.

    Raises:
        NetworkError: The node takes no such input, or its type cannot be run.
    """
    raise NetworkError(f"a node of type {type(node).__name__} cannot be run: what it does to a shape is not known.")


def _expect(found: Shape, wanted: Shape) -> None:
    if found != wanted:
        raise NetworkError(f"it takes shape {wanted}, and gets {found}.")


def _array_shape(value: Any) -> Shape:
    return tuple(int(n) for n in np.atleast_1d(np.asarray(value)))


@output_shape.register
def _(node: nir.Input, shape: Shape) -> Shape:
    return _array_shape(node.input_type["input"])


@output_shape.register
def _(node: nir.Output, shape: Shape) -> Shape:
    declared = node.output_type["output"]
    if declared is not None:
        _expect(shape, _array_shape(declared))
    return shape


@output_shape.register
def _(node: nir.IF, shape: Shape) -> Shape:
    _expect(shape, tuple(np.shape(node.v_threshold)))
    return shape


@output_shape.register
def _(node: nir.Scale, shape: Shape) -> Shape:
    _expect(shape, tuple(np.shape(node.scale)))
    return shape


@output_shape.register(nir.Affine)
@output_shape.register(nir.Linear)
def _(node: nir.Affine | nir.Linear, shape: Shape) -> Shape:
    if np.ndim(node.weight) != 2:
        raise NetworkError(f"its weight must be (out, in), and has shape {np.shape(node.weight)}.")
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


@output_shape.register(nir.Conv1d)
@output_shape.register(nir.Conv2d)
def _(node: nir.Conv1d | nir.Conv2d, shape: Shape) -> Shape:
    geometry, weight = convolution(node), np.shape(node.weight)
    if len(shape) != len(weight) - 1 or shape[0] != weight[1] * geometry.groups:
        raise NetworkError(
            f"it takes {weight[1] * geometry.groups} channels over {len(weight) - 2} axes, and gets shape {shape}."
        )
    return (int(weight[0]), *_windows(shape[1:], geometry))


@output_shape.register(nir.SumPool2d)
@output_shape.register(nir.AvgPool2d)
def _(node: nir.SumPool2d | nir.AvgPool2d, shape: Shape) -> Shape:
    if len(shape) != 3:
        raise NetworkError(f"it takes (channels, height, width), and gets shape {shape}.")
    window = pooling(node)
    padding = tuple((p, p) for p in window.padding)
    return (shape[0], *_windows(shape[1:], Convolution(window.kernel, window.stride, padding, (1, 1), 1)))


@output_shape.register
def _(node: nir.Flatten, shape: Shape) -> Shape:
    first = int(node.start_dim) % len(shape)
    last = int(node.end_dim) % len(shape)
    return (*shape[:first], int(np.prod(shape[first : last + 1])), *shape[last + 1 :])
