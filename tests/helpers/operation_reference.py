"""Operations counted one by one, in loops over places and weights: nothing of the package but its data classes."""

from __future__ import annotations

import itertools
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import nir
import numpy as np

from cos_export.network import SpikingNetwork

Place = tuple[int, ...]


@dataclass
class Count:
    """Sums over all samples and steps, by node."""

    accumulates: dict[str, int] = field(default_factory=lambda: defaultdict(int))
    multiplies: dict[str, int] = field(default_factory=lambda: defaultdict(int))
    once: dict[str, int] = field(default_factory=lambda: defaultdict(int))
    pooled: dict[str, int] = field(default_factory=lambda: defaultdict(int))


def _list(value: Any, axes: int) -> list[int]:
    flat = np.atleast_1d(np.asarray(value)).astype(int).ravel().tolist()
    return flat if len(flat) == axes else flat * axes


def taps(node: Any, shape: Place) -> Iterator[tuple[Place, Place, float]]:
    """(place of the input, place of the output, weight) of every connection that the node has."""
    if isinstance(node, (nir.Conv1d, nir.Conv2d)):
        weight = np.asarray(node.weight)
        axes, groups = weight.ndim - 2, int(node.groups)
        stride, dilation = _list(node.stride, axes), _list(node.dilation, axes)
        spans = [d * (k - 1) for d, k in zip(dilation, weight.shape[2:], strict=True)]
        if isinstance(node.padding, str):
            pads = [(s // 2, s - s // 2) if node.padding == "same" else (0, 0) for s in spans]
        else:
            pads = [(p, p) for p in _list(node.padding, axes)]
        sizes = [(n + sum(p) - s - 1) // t + 1 for n, p, s, t in zip(shape[1:], pads, spans, stride, strict=True)]
        for out, c, *position in itertools.product(*map(range, (weight.shape[0], weight.shape[1], *sizes))):
            source = out // (weight.shape[0] // groups) * weight.shape[1] + c
            for tap in itertools.product(*map(range, weight.shape[2:])):
                at = tuple(
                    i * t - p[0] + k * d for i, t, p, k, d in zip(position, stride, pads, tap, dilation, strict=True)
                )
                if all(0 <= i < n for i, n in zip(at, shape[1:], strict=True)):
                    yield (source, *at), (out, *position), float(weight[(out, c, *tap)])
    elif isinstance(node, (nir.Affine, nir.Linear)):
        for (out, c), weight in np.ndenumerate(np.asarray(node.weight)):
            yield (c,), (out,), float(weight)
    elif isinstance(node, nir.Scale):
        for place, weight in np.ndenumerate(np.asarray(node.scale)):
            yield place, place, float(weight)
    elif isinstance(node, (nir.SumPool2d, nir.AvgPool2d)):
        kernel, stride, padding = (_list(v, 2) for v in (node.kernel_size, node.stride, node.padding))
        share = 1.0 if isinstance(node, nir.SumPool2d) else 1.0 / (kernel[0] * kernel[1])
        sizes = [(n + 2 * p - k) // s + 1 for n, p, k, s in zip(shape[1:], padding, kernel, stride, strict=True)]
        for c, y, x, i, j in itertools.product(*map(range, (shape[0], *sizes, *kernel))):
            at = (y * stride[0] - padding[0] + i, x * stride[1] - padding[1] + j)
            if 0 <= at[0] < shape[1] and 0 <= at[1] < shape[2]:
                yield (c, *at), (c, y, x), share
    else:
        target = np.arange(np.prod(shape)).reshape(shape)
        for place, number in np.ndenumerate(target):
            yield place, tuple(int(i) for i in np.unravel_index(number, _shape(node, shape))), 1.0


def _shape(node: Any, shape: Place) -> Place:
    if not isinstance(node, nir.Flatten):
        return shape
    first, last = int(node.start_dim) % len(shape), int(node.end_dim) % len(shape)
    return (*shape[:first], int(np.prod(shape[first : last + 1])), *shape[last + 1 :])


def count_operations(network: SpikingNetwork, images: Any, spikes: dict[str, Any]) -> Count:
    """Follows every spike, and every number that is none, through the network.

    Args:
        network: What ran.
        images: (samples, ...).
        spikes: By layer, (steps, samples, ...).
    """
    nodes, count = network.graph.nodes, Count()
    edges: dict[str, list[str]] = defaultdict(list)
    for source, target in network.graph.edges:
        edges[target].append(source)
    into: dict[str, dict[Place, list[tuple[Place, float]]]] = {}
    kinds: dict[str, str] = {network.input_name: "constant"}
    input_kinds: dict[str, str] = {}
    for name in network.order:
        if name == network.input_name:
            continue
        arriving = {kinds[source] for source in edges[name]}
        input_kinds[name] = arriving.pop() if len(arriving) == 1 else "graded"
        synapse = isinstance(nodes[name], (nir.Conv1d, nir.Conv2d, nir.Affine, nir.Linear, nir.Scale))
        kinds[name] = "graded" if synapse and input_kinds[name] == "spikes" else input_kinds[name]
        if name in network.neurons:
            kinds[name] = "spikes"
            continue
        into[name] = defaultdict(list)
        for place, out, weight in taps(nodes[name], network.shapes[edges[name][0]]):
            into[name][place].append((out, weight))

    def follow(source: str, place: Place) -> None:
        for target in (name for name, sources in edges.items() if source in sources):
            node = nodes[target]
            if target in network.neurons or isinstance(node, nir.Output) or input_kinds[target] != "spikes":
                continue
            for out, weight in into[target][place]:
                if isinstance(node, (nir.SumPool2d, nir.AvgPool2d)):
                    count.pooled[target] += 1
                if isinstance(node, (nir.SumPool2d, nir.AvgPool2d, nir.Flatten)):
                    follow(target, out)
                else:
                    count.accumulates[target] += weight != 0

    steps = len(next(iter(spikes.values())))
    for sample, t in itertools.product(range(len(images)), range(steps)):
        values = {network.input_name: np.asarray(images[sample], np.float64)}
        for name in network.order:
            if name in network.neurons:
                values[name] = spikes[name][t, sample].astype(np.float64)
                for place in zip(*np.nonzero(values[name]), strict=True):
                    follow(name, tuple(map(int, place)))
            elif name != network.input_name:
                node, x = nodes[name], sum(values[source] for source in edges[name])
                result = np.zeros(network.shapes[name])
                for place, number in np.ndenumerate(x):
                    for out, weight in into[name][place]:
                        result[out] += number * weight
                        if input_kinds[name] == "spikes" or number == 0 or weight == 0:
                            continue
                        if isinstance(node, (nir.SumPool2d, nir.AvgPool2d)):
                            count.pooled[name] += input_kinds[name] != "constant" or t == 0
                        elif not isinstance(node, (nir.Flatten, nir.Output)):
                            (count.multiplies if input_kinds[name] == "graded" else count.once)[name] += (
                                input_kinds[name] == "graded" or t == 0
                            )
                if isinstance(node, (nir.Conv1d, nir.Conv2d, nir.Affine)):
                    result += np.asarray(node.bias).reshape(-1, *[1] * (result.ndim - 1))
                values[name] = result
    return count
