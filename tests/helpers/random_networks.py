"""Small networks whose every number is a multiple of a power of two, so that float32 sums are exact in any order.

Spikes of two backends may then be compared with no tolerance at all.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise
from typing import Any

import nir
import numpy as np

from cos_export.network import NeuronSpec, SpikingNetwork
from cos_export.network.graph import Shape, output_shape

IF = "if"
"""Stands for a spiking layer in `sequential`."""


def dyadic(rng: np.random.Generator, *shape: int, low: int = -8, high: int = 8, unit: float = 0.125) -> Any:
    """Multiples of `unit` from `low` to `high` units, float32."""
    return (rng.integers(low, high + 1, shape) * unit).astype(np.float32)


def images(network: SpikingNetwork, batch: int, seed: int = 0) -> Any:
    """Inputs (batch, ...), multiples of 1/8 between -1 and 2."""
    return dyadic(np.random.default_rng(seed), batch, *network.input_shape, low=-8, high=16)


def neurons(rng: np.random.Generator, shape: Shape, **changes: Any) -> NeuronSpec:
    """A layer with one threshold or one for each neuron, and initial potentials from below 0 to above it."""
    threshold = np.full(shape, rng.integers(2, 9) / 4, np.float32)
    if rng.integers(2):
        threshold = dyadic(rng, *shape, low=2, high=8, unit=0.25)
    spec = NeuronSpec(threshold, dyadic(rng, *shape, low=-8, high=16))
    if changes.pop("bias_steps", 0):
        changes["bias"] = dyadic(rng, 3, shape[0], low=-4, high=4)
    if changes.pop("silenced", False):
        changes["silent"] = rng.random(shape) < 0.3
    if changes.get("reset") == "value":
        changes["v_reset"] = dyadic(rng, *shape, low=-4, high=1)
    return replace(spec, **changes)


def conv2d(
    rng: np.random.Generator,
    c_in: int,
    c_out: int,
    kernel: tuple[int, int] = (3, 3),
    *,
    stride: Any = 1,
    padding: Any = 1,
    dilation: Any = 1,
    groups: int = 1,
) -> nir.Conv2d:
    weight = dyadic(rng, c_out, c_in // groups, *kernel)
    return nir.Conv2d(None, weight, stride, padding, dilation, groups, dyadic(rng, c_out))


def conv1d(rng: np.random.Generator, c_in: int, c_out: int, kernel: int = 3, **geometry: Any) -> nir.Conv1d:
    groups = geometry.get("groups", 1)
    choices = {"stride": 1, "padding": 1, "dilation": 1, "groups": 1, **geometry}
    weight = dyadic(rng, c_out, c_in // groups, kernel)
    return nir.Conv1d(input_shape=None, weight=weight, bias=dyadic(rng, c_out), **choices)


def affine(rng: np.random.Generator, n_in: int, n_out: int) -> nir.Affine:
    return nir.Affine(dyadic(rng, n_out, n_in), dyadic(rng, n_out))


def pool(kind: type, size: Any = 2, stride: Any = None, padding: Any = 0) -> Any:
    window = np.array([size, size] if isinstance(size, int) else size)
    slide = window if stride is None else np.array([stride, stride])
    return kind(window, slide, np.array([padding, padding]))


def flatten() -> nir.Flatten:
    return nir.Flatten(None, 0, -1)


def sequential(
    rng: np.random.Generator, input_shape: Shape, layers: Sequence[Any], classes: int = 3, **choices: Any
) -> SpikingNetwork:
    """Input -> layers -> flatten (if need be) -> Affine -> Output, with `IF` standing for neurons of any shape."""
    nodes: dict[str, Any] = {"input": nir.Input(np.array(input_shape))}
    specs: dict[str, NeuronSpec] = {}
    shape = tuple(input_shape)
    for number, layer in enumerate(layers):
        if isinstance(layer, str):
            name = f"if{number}"
            specs[name] = neurons(rng, shape, **choices)
            nodes[name] = spiking_node(specs[name])
        else:
            nodes[f"{type(layer).__name__.lower()}{number}"] = layer
            shape = output_shape(layer, shape)
    if len(shape) > 1:
        nodes["flatten"] = flatten()
        shape = (int(np.prod(shape)),)
    nodes["readout"] = affine(rng, shape[0], classes)
    nodes["output"] = nir.Output(np.array([classes]))
    names = list(nodes)
    edges = list(pairwise(names))
    return SpikingNetwork(nir.NIRGraph(nodes, edges, type_check=False), specs, num_timesteps=4)


def spiking_node(spec: NeuronSpec) -> nir.IF:
    return nir.IF(np.ones_like(spec.threshold), spec.threshold)


def residual(rng: np.random.Generator, **choices: Any) -> SpikingNetwork:
    """Two spiking layers, the second fed by three edges: a convolution, a 1x1 shortcut and the constant input."""
    shape = (4, 6, 5)
    first, second = neurons(rng, shape, **choices), neurons(rng, shape, **choices)
    nodes = {
        "input": nir.Input(np.array([2, 6, 5])),
        "conv1": conv2d(rng, 2, 4),
        "if1": spiking_node(first),
        "conv2": conv2d(rng, 4, 4),
        "shortcut": conv2d(rng, 4, 4, (1, 1), padding=0),
        "analog": conv2d(rng, 2, 4, (1, 1), padding=0),
        "if2": spiking_node(second),
        "flatten": flatten(),
        "readout": affine(rng, 120, 3),
        "output": nir.Output(np.array([3])),
    }
    edges = [
        ("input", "conv1"),
        ("conv1", "if1"),
        ("if1", "conv2"),
        ("analog", "if2"),
        ("if1", "shortcut"),
        ("conv2", "if2"),
        ("input", "analog"),
        ("shortcut", "if2"),
        ("if2", "flatten"),
        ("flatten", "readout"),
        ("readout", "output"),
    ]
    graph = nir.NIRGraph(nodes, edges, type_check=False)
    return SpikingNetwork(graph, {"if1": first, "if2": second}, num_timesteps=4)


def random_network(seed: int) -> SpikingNetwork:
    """One of many small networks: any mix of layers, and neurons with any of their options."""
    rng = np.random.default_rng(seed)
    choices: dict[str, Any] = {
        "condition": ">=" if rng.integers(2) else ">",
        "reset": "subtract" if rng.integers(3) else "value",
        "silenced": bool(rng.integers(2)),
        "bias_steps": int(rng.integers(2)),
        "levels": 4 if rng.integers(2) else None,
    }
    if rng.integers(4) == 0:
        return residual(rng, **choices)
    if rng.integers(4) == 0:
        return sequential(rng, (2, 9), [conv1d(rng, 2, 4, stride=2), IF, conv1d(rng, 4, 3), IF], **choices)
    channels = 2 * int(rng.integers(1, 3))
    layers: list[Any] = [conv2d(rng, 2, channels, (3, 2), padding=(1, 0), stride=int(rng.integers(1, 3))), IF]
    if rng.integers(2):
        layers.append(pool(nir.SumPool2d if rng.integers(2) else nir.AvgPool2d, 2))
    groups = 2 if rng.integers(2) else 1
    layers += [conv2d(rng, channels, 4, groups=groups, padding="same"), IF]
    return sequential(rng, (2, 9, 10), layers, **choices)
