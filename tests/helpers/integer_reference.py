"""A network of integers run one neuron at a time in Python's own integers, straight from docs/numerics.md."""

from __future__ import annotations

import itertools
from fractions import Fraction
from typing import Any

import nir
import numpy as np

from cos_export.network import SpikingNetwork
from cos_export.network.graph import convolution, pooling

Values = dict[tuple[int, ...], int]
"""Integers by their index in (channels, ...)."""


def quantised_input(image: Any, scale: float, low: int, high: int) -> Values:
    """The image in 8 bits: the exact product with float32(1 / scale), rounded to float32, then half to even."""
    gain = np.float32(1.0 / scale)
    integers = {}
    for index, pixel in np.ndenumerate(np.asarray(image, np.float32)):
        exact = Fraction(float(pixel)) * Fraction(float(gain))
        integers[index] = min(max(round(Fraction(float(np.float32(float(exact))))), low), high)
    return integers


def run(network: SpikingNetwork, image: Any, steps: int) -> tuple[dict[str, Any], list[dict[int, Fraction]]]:
    """Spikes by layer, (steps, ...) of booleans, and for each t the exact mean of the readout, not yet scaled."""
    coding = network.quantisation
    assert coding is not None
    pixels = quantised_input(image, coding.input_scale, coding.input_minimum, coding.input_maximum)
    twice: dict[str, Values] = {
        name: {index: round(2 * float(v)) for index, v in np.ndenumerate(spec.v_init)}
        for name, spec in network.neurons.items()
    }
    spikes = {name: np.zeros((steps, *spec.shape), bool) for name, spec in network.neurons.items()}
    total: dict[int, int] = {}
    means = []
    for t in range(steps):
        wires: dict[str, Values] = {}
        for name in network.order:
            node = network.graph.nodes[name]
            arriving = dict.fromkeys(np.ndindex(*network.shapes[_source(network, name)]), 0)
            for source in network.predecessors[name]:
                for index, value in wires[source].items():
                    arriving[index] += value
            if name == network.input_name:
                wires[name] = pixels
            elif name in network.neurons:
                wires[name] = {}
                for index, current in arriving.items():
                    fired, twice[name][index] = _neuron(network, name, index, twice[name][index], current, t)
                    spikes[name][(t, *index)] = fired
                    wires[name][index] = int(fired)
            else:
                wires[name] = _through(node, arriving, network.shapes[name])
        for (label,), value in wires[network.output_name].items():
            total[label] = total.get(label, 0) + value
        means.append({label: Fraction(value, t + 1) for label, value in total.items()})
    return spikes, means


def _source(network: SpikingNetwork, name: str) -> str:
    return network.predecessors[name][0] if network.predecessors[name] else name


def _neuron(
    network: SpikingNetwork, name: str, index: tuple[int, ...], twice: int, current: int, t: int
) -> tuple[bool, int]:
    """Whether its spike reaches the next layers, and twice its potential: half-integers stay integers that way."""
    spec = network.neurons[name]
    beta = 0 if spec.bias is None or t >= len(spec.bias) else int(spec.bias[t, index[0]])
    m, theta = twice + 2 * (current + beta), 2 * int(spec.threshold[index])
    fires = m >= theta if spec.condition == ">=" else m > theta
    after = m
    if fires:
        after = m - theta if spec.v_reset is None else round(2 * float(spec.v_reset[index]))
    leaving = fires and not (spec.silent is not None and bool(spec.silent[index]))
    return leaving, after


def _through(node: Any, x: Values, shape: tuple[int, ...]) -> Values:
    if isinstance(node, nir.Output):
        return x
    if isinstance(node, nir.Flatten):
        return dict(zip(np.ndindex(*shape), (x[index] for index in sorted(x)), strict=True))
    if isinstance(node, nir.Scale):
        return {index: int(node.scale[index]) * value for index, value in x.items()}
    bias = getattr(node, "bias", None)
    start = {index: 0 if bias is None else int(bias[index[0]]) for index in np.ndindex(*shape)}
    if isinstance(node, (nir.Affine, nir.Linear)):
        for (o,), (i,) in itertools.product(list(start), list(x)):
            start[(o,)] += int(node.weight[o, i]) * x[(i,)]
        return start
    if isinstance(node, nir.SumPool2d):
        window = pooling(node)
        for c, i, j in start:
            for p, q in np.ndindex(*window.kernel):
                at = (i * window.stride[0] + p - window.padding[0], j * window.stride[1] + q - window.padding[1])
                start[c, i, j] += x.get((c, *at), 0)
        return start
    geometry = convolution(node)
    outs, ins = len(node.weight) // geometry.groups, node.weight.shape[1]
    for o, *place in start:
        for c, *tap in np.ndindex(*node.weight.shape[1:]):
            at = tuple(
                p * s + k * d - before
                for p, s, k, d, (before, _) in zip(
                    place, geometry.stride, tap, geometry.dilation, geometry.padding, strict=True
                )
            )
            start[(o, *place)] += int(node.weight[(o, c, *tap)]) * x.get((o // outs * ins + c, *at), 0)
    return start
