"""Small networks of integers whose wiring is rare: synapses in a row, orders that meet, spikes without a synapse."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise
from typing import Any

import nir
import numpy as np
from random_networks import flatten, pool

from cos_export.network import NeuronSpec, Quantisation, SpikingNetwork

Shape = tuple[int, ...]

NAMES: tuple[str, ...] = (
    "synapses in a row",
    "flattened branches meet",
    "channels flattened with rows",
    "pooling feeds neurons and readout",
    "the input everywhere",
    "readout of pixels",
    "factors side by side",
    "spikes are the readout",
    "features behind one pixel",
)


def unusual(name: str, seed: int = 0) -> SpikingNetwork:
    """The network that NAMES describes."""
    rng = np.random.default_rng(seed)

    def conv(inputs: int, outputs: int, kernel: int = 3, padding: int = 1, largest: int = 9, **geometry: int) -> Any:
        weight = rng.integers(-largest, largest + 1, (outputs, inputs, kernel, kernel)).astype(np.float32)
        stride = geometry.get("stride", 1)
        return nir.Conv2d(None, weight, stride, padding, 1, 1, rng.integers(-40, 41, outputs).astype(np.float32))

    def dense(inputs: int, outputs: int, largest: int = 60) -> Any:
        weight = rng.integers(-largest, largest + 1, (outputs, inputs)).astype(np.float32)
        return nir.Affine(weight, rng.integers(-90, 91, outputs).astype(np.float32))

    def identity(channels: int, factor: int) -> Any:
        weight = np.float32(factor) * np.eye(channels, dtype=np.float32)[:, :, None, None]
        return nir.Conv2d(None, weight, 1, 0, 1, 1, np.zeros(channels, np.float32))

    parts: dict[str, tuple[Shape, dict[str, Any], str]] = {
        "synapses in a row": (
            (2, 5, 4),
            {
                "first": conv(2, 3, largest=3),
                "second": conv(3, 3, 2, 1, largest=3),
                "a": (3, 6, 5),
                "third": conv(3, 2, largest=3, stride=2),
                "fourth": conv(2, 3, 1, 0, largest=3),
                "pool": pool(nir.SumPool2d, 2, 1),
                "fifth": conv(3, 2, 1, 0, largest=3),
                "b": (2, 2, 2),
                "flatten": flatten(),
                "head": dense(8, 3),
            },
            "input first second a third fourth pool fifth b flatten head output",
        ),
        "flattened branches meet": (
            (2, 3, 4),
            {
                "conv": conv(2, 2, largest=60),
                "a": (2, 3, 4),
                "flat_a": flatten(),
                "flat": flatten(),
                "dense": dense(24, 24),
                "b": (24,),
                "both": dense(24, 5),
                "c": (5,),
                "sum": (24,),
                "head": dense(5, 3),
                "other": dense(24, 3),
            },
            "input conv a flat_a sum other output, input flat dense b sum, b both, flat_a both c head output",
        ),
        "channels flattened with rows": (
            (2, 3, 5),
            {
                "conv": conv(2, 2, largest=60),
                "a": (2, 3, 5),
                "rows": nir.Flatten(None, 0, 1),
                "line": nir.Conv1d(
                    None, rng.integers(-50, 51, (4, 6, 3)).astype(np.float32), 2, 1, 1, 1, np.ones(4, np.float32)
                ),
                "b": (4, 3),
                "columns": nir.Flatten(None, -2, -1),
                "head": dense(12, 3),
            },
            "input conv a rows line b columns head output",
        ),
        "pooling feeds neurons and readout": (
            (2, 4, 4),
            {
                "conv": conv(2, 3, largest=60),
                "a": (3, 4, 4),
                "pool": pool(nir.SumPool2d, 3, 1, 1),
                "b": (3, 4, 4),
                "wide": pool(nir.SumPool2d, 4),
                "flatten": flatten(),
            },
            "input conv a pool b wide flatten output",
        ),
        "the input everywhere": (
            (6,),
            {"a": (6,), "dense": dense(6, 6), "b": (6,), "head": dense(6, 3), "direct": dense(6, 3)},
            "input a dense b head output, input b, input direct output",
        ),
        "readout of pixels": (
            (1, 4, 3),
            {"conv": conv(1, 3, largest=60), "a": (3, 4, 3), "head": conv(3, 2, largest=60)},
            "input conv a head output",
        ),
        "factors side by side": (
            (3, 3, 3),
            {
                "conv": conv(3, 3, largest=60),
                "a": (3, 3, 3),
                "one": identity(3, 127),
                "two": identity(3, 101),
                "depth": nir.Conv2d(
                    None, np.array([5, -7, 90], np.float32).reshape(3, 1, 1, 1), 1, 0, 1, 3, np.zeros(3, np.float32)
                ),
                "scale": nir.Scale(rng.integers(-100, 101, (3, 3, 3)).astype(np.float32)),
                "next": conv(3, 3, largest=60),
                "b": (3, 3, 3),
                "flatten": flatten(),
                "head": dense(27, 3),
            },
            "input conv a one b flatten head output, a two b, a depth b, a scale b, a next b",
        ),
        "spikes are the readout": ((4,), {"dense": dense(4, 3), "a": (3,)}, "input dense a output"),
        "features behind one pixel": (
            (9, 1, 1),
            {"conv": conv(9, 10, 1, 0, 60), "a": (10, 1, 1), "flatten": flatten(), "b": (10,), "head": dense(10, 3)},
            "input conv a flatten b head output",
        ),
    }
    shape, nodes, wiring = parts[name]
    return _network(rng, shape, nodes, wiring)


def _network(rng: np.random.Generator, shape: Shape, parts: dict[str, Any], wiring: str) -> SpikingNetwork:
    """Nodes by name, a shape standing for neurons, and the ways through them."""
    nodes: dict[str, Any] = {"input": nir.Input(np.array(shape))}
    specs: dict[str, NeuronSpec] = {}
    for name, part in parts.items():
        nodes[name] = part
        if isinstance(part, tuple):
            threshold = rng.integers(20, 300, part).astype(np.float32)
            specs[name] = NeuronSpec(
                threshold, np.floor(threshold * rng.uniform(-0.5, 1, part)).astype(np.float32) + 0.5
            )
            nodes[name] = nir.IF(np.ones_like(threshold), threshold)
    nodes["output"] = nir.Output(None)
    edges: list[tuple[str, str]] = []
    for way in wiring.split(","):
        names = way.split()
        edges += [edge for edge in pairwise(names) if edge not in edges]
    graph = nir.NIRGraph(nodes, edges, type_check=False)
    coding = Quantisation(1.0, -8, 8, 0.125)
    return replace(SpikingNetwork(graph, specs, num_timesteps=3), quantisation=coding)
