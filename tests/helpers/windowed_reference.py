"""The layer-wise schedule on one clock, step by step, in float64: nothing of the package but its data classes.

At every step each neuron adds what arrives in that step; it may fire only in its window, once a step; when the window
has closed it starts again from v_init. Inputs come as a list of (first step, image); each is held for T steps.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import nir
import numpy as np
import torch
from torch.nn import functional

from cos_export.network import SpikingNetwork

Array = Any


@dataclass
class Run:
    """Spikes by layer, (T, ...) of one window for each input, and the sum of the readout over its window."""

    spikes: dict[str, list[Array]] = field(default_factory=dict)
    logits: list[Array] = field(default_factory=list)
    last_step: int = 0


def _pair(value: Any, count: int) -> list[int]:
    flat = np.atleast_1d(np.asarray(value)).astype(int).ravel().tolist()
    return flat if len(flat) == count else flat * count


def _linear(node: Any, x: Array) -> Array:
    """The node without its bias, on one sample."""
    t = torch.from_numpy(np.asarray(x, np.float64))[None]
    if isinstance(node, (nir.Conv1d, nir.Conv2d)):
        axes = np.ndim(node.weight) - 2
        weight = torch.from_numpy(np.asarray(node.weight, np.float64))
        dilation = _pair(node.dilation, axes)
        if isinstance(node.padding, str):
            same = node.padding == "same"
            total = [d * (k - 1) if same else 0 for k, d in zip(weight.shape[2:], dilation, strict=True)]
            pads = [(n // 2, n - n // 2) for n in total]
        else:
            pads = [(p, p) for p in _pair(node.padding, axes)]
        t = functional.pad(t, [p for pair in reversed(pads) for p in pair])
        apply = functional.conv1d if axes == 1 else functional.conv2d
        t = apply(t, weight, None, _pair(node.stride, axes), 0, dilation, int(node.groups))
    elif isinstance(node, (nir.Affine, nir.Linear)):
        t = t @ torch.from_numpy(np.asarray(node.weight, np.float64)).T
    elif isinstance(node, nir.Scale):
        t = t * torch.from_numpy(np.asarray(node.scale, np.float64))
    elif isinstance(node, (nir.SumPool2d, nir.AvgPool2d)):
        size, stride, padding = (_pair(v, 2) for v in (node.kernel_size, node.stride, node.padding))
        t = functional.avg_pool2d(t, size, stride, padding) * (size[0] * size[1])
        if isinstance(node, nir.AvgPool2d):
            t = t / (size[0] * size[1])
    elif isinstance(node, nir.Flatten):
        t = t.flatten(1)
    return t[0].numpy()


def _bias(node: Any, x: Array) -> Array:
    """The node on one sample."""
    out = _linear(node, x)
    bias = getattr(node, "bias", None)
    if bias is None:
        return out
    full = np.broadcast_to(np.asarray(bias, np.float64), (len(out),))
    return out + full.reshape(-1, *[1] * (out.ndim - 1))


def _longest(network: SpikingNetwork, name: str) -> int:
    """The number of spiking layers on the longest path to a node, itself included."""
    edges = [(str(a), str(b)) for a, b in network.graph.edges]
    own = 1 if isinstance(network.graph.nodes[name], nir.IF) else 0
    return own + max((_longest(network, a) for a, b in edges if b == name), default=0)


def _arriving(network: SpikingNetwork, name: str, outputs: dict[str, Array], through: Any) -> Array:
    """The sum of what the edges into `name` bring, `outputs` holding those of the layers and of the Input."""
    total: Array = 0.0
    for a, b in network.graph.edges:
        if str(b) == name:
            node = network.graph.nodes[str(a)]
            value = (
                outputs[str(a)] if str(a) in outputs else through(node, _arriving(network, str(a), outputs, through))
            )
            total = total + value
    return total


def run(network: SpikingNetwork, images: list[tuple[int, Array]], steps: int) -> Run:
    """Runs images one after the other, each from its first step on.

    Args:
        network: Its Input, if it is one of integers, is given integers.
        images: (first step, image), in order.
        steps: T.
    """
    nodes = network.graph.nodes
    layers = [n for n in nodes if isinstance(nodes[n], nir.IF)]
    (output,) = [n for n in nodes if isinstance(nodes[n], nir.Output)]
    (entrance,) = [n for n in nodes if isinstance(nodes[n], nir.Input)]
    # A window of T steps opens after so many steps.
    opens = {name: (steps - 1) * _longest(network, name) for name in layers}
    reading = (steps - 1) * _longest(network, output)
    order = sorted(layers, key=lambda name: opens[name])
    shapes = {name: np.shape(network.neurons[name].v_init) for name in layers}
    silence = {name: np.zeros(shapes[name]) for name in layers}
    silence[entrance] = np.zeros_like(np.asarray(images[0][1], np.float64))
    # What biases alone bring, in every step in which they count.
    constant = {name: _arriving(network, name, silence, _bias) for name in [*layers, output]}
    v = {name: np.asarray(network.neurons[name].v_init, np.float64) for name in layers}
    result = Run({name: [np.zeros((steps, *shapes[name])) for _ in images] for name in layers})
    result.logits = [np.zeros(np.shape(constant[output])) for _ in images]
    result.last_step = images[-1][0] + max([reading, *opens.values()]) + steps - 1
    for now in range(1, result.last_step + 1):
        outputs = dict(silence)
        for first, image in images:
            if first <= now < first + steps:
                outputs[entrance] = np.asarray(image, np.float64)
        for name in order:
            spec = network.neurons[name]
            v[name] = v[name] + _arriving(network, name, outputs, _linear)
            for number, (first, _) in enumerate(images):
                # Steps of this image's own, counted from 1.
                mine = now - first + 1
                if opens[name] + 2 - steps <= mine <= opens[name] + 1:
                    v[name] = v[name] + constant[name]
                    index = mine - (opens[name] + 2 - steps)
                    if spec.bias is not None and index < len(spec.bias):
                        v[name] = v[name] + spec.bias[index].reshape(-1, *[1] * (len(shapes[name]) - 1))
                if opens[name] + 1 <= mine <= opens[name] + steps:
                    fired = v[name] > spec.threshold if spec.condition == ">" else v[name] >= spec.threshold
                    v[name] = v[name] - spec.threshold * fired
                    audible = fired if spec.silent is None else fired & ~spec.silent
                    result.spikes[name][number][mine - opens[name] - 1] = audible
                    outputs[name] = outputs[name] + audible
                if mine == opens[name] + steps:
                    v[name] = np.asarray(spec.v_init, np.float64)
        for number, (first, _) in enumerate(images):
            mine = now - first + 1
            # What comes early, or is constant, waits in the readout as in a layer.
            if mine >= 1:
                result.logits[number] += (
                    _arriving(network, output, outputs, _linear) if mine <= reading + steps else 0.0
                )
            if reading + 1 <= mine <= reading + steps:
                result.logits[number] += constant[output]
    result.logits = [logits / steps for logits in result.logits]
    return result
