"""Two convolutions of the image in a row as one, whose integers no longer multiply."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import nir
import numpy as np
from numpy.typing import NDArray

from cos_export.network import SpikingNetwork
from cos_export.network.graph import convolution, with_attributes
from cos_export.network.wiring import turns_sign

__all__ = ["with_composed_stems"]

_MOST_WEIGHTS = 4
"""How many times the weights of the two convolutions that of both may be."""


def with_composed_stems(network: SpikingNetwork) -> SpikingNetwork:
    """The same network, in which a 1x1 convolution of nothing but a convolution of the image is one of the image.

    With W of kernel (h, w) and M of kernel (1, 1) and no padding,

        M (W x + b) + c = (M W) x + (M b + c)        with the strides of both multiplied

    at the border as well. It is left where the one would have more than `_MOST_WEIGHTS` times the weights of the two,
    and where it turns the sign, for integers are as fine with it as without. What nobody takes any more is left out.
    """
    while True:
        pair = next(filter(None, (_pair(network, name) for name in network.order)), None)
        if pair is None:
            return network
        first, second = pair
        nodes, edges = dict(network.graph.nodes), [(str(a), str(b)) for a, b in network.graph.edges]
        nodes[second] = _composed(nodes[first], nodes[second])
        edges[edges.index((first, second))] = (network.input_name, second)
        if all(source != first for source, _ in edges):
            del nodes[first]
            edges.remove((network.input_name, first))
        network = replace(network, graph=nir.NIRGraph(nodes, edges, metadata=network.graph.metadata, type_check=False))


def _pair(network: SpikingNetwork, name: str) -> tuple[str, str] | None:
    """What a 1x1 convolution takes from, and its name, if the two may be one."""
    nodes, sources = network.graph.nodes, network.predecessors[name]
    second = nodes[name]
    if not isinstance(second, nir.Conv1d | nir.Conv2d) or len(sources) != 1 or turns_sign(second):
        return None
    first = nodes[sources[0]]
    if type(first) is not type(second) or network.predecessors[sources[0]] != (network.input_name,):
        return None
    before, behind = convolution(first), convolution(second)
    plain = all(size == 1 for size in behind.kernel) and not np.any(behind.padding) and before.groups == 1
    if set(behind.stride) != {1}:
        plain = plain and all(low == high for low, high in before.padding)
    known = np.asarray(first.weight), np.asarray(second.weight)
    both = len(known[1]) * known[0][0].size
    return (sources[0], name) if plain and both <= _MOST_WEIGHTS * (known[0].size + known[1].size) else None


def _composed(first: Any, second: Any) -> nir.NIRNode:
    before, behind = convolution(first), convolution(second)
    mixing = _dense(np.asarray(second.weight, np.float64), behind.groups)
    weight = np.tensordot(mixing, np.asarray(first.weight, np.float64), 1)
    bias = mixing @ np.asarray(first.bias, np.float64) + np.asarray(second.bias, np.float64)
    return with_attributes(
        first,
        weight=weight.astype(np.float32),
        bias=bias.astype(np.float32),
        stride=tuple(a * b for a, b in zip(before.stride, behind.stride, strict=True)),
        padding=first.padding if set(behind.stride) == {1} else tuple(low for low, _ in before.padding),
    )


def _dense(weight: NDArray[np.float64], groups: int) -> NDArray[np.float64]:
    """A 1x1 kernel as a matrix (outputs, inputs), zero between groups."""
    outputs, inputs = weight.shape[0] // groups, weight.shape[1]
    matrix = np.zeros((groups * outputs, groups * inputs))
    for group in range(groups):
        rows = slice(group * outputs, (group + 1) * outputs)
        matrix[rows, group * inputs : (group + 1) * inputs] = weight[rows].reshape(outputs, inputs)
    return matrix
