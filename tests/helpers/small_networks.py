"""Networks of two layers with dyadic weights, whose float32 sums are exact in any order."""

from __future__ import annotations

from itertools import pairwise

import nir
import numpy as np

from cos_export.network import NeuronSpec, SpikingNetwork


def layer(shape: tuple[int, ...], theta: float) -> NeuronSpec:
    threshold = np.full(shape, theta, np.float32)
    return NeuronSpec(threshold, threshold / np.float32(2))


def dyadic(rng: np.random.Generator, shape: tuple[int, ...], span: int = 16) -> np.ndarray:
    return (rng.integers(-span, span + 1, shape) / 16).astype(np.float32)


def two_layers(seed: int, theta: tuple[float, float] = (1.0, 0.75)) -> SpikingNetwork:
    """Input (2, 5, 5) -> Conv2d -> "first" (3, 5, 5) -> Flatten -> Affine "dense" -> "second" (6,) -> 4 classes."""
    rng = np.random.default_rng(seed)
    specs = {"first": layer((3, 5, 5), theta[0]), "second": layer((6,), theta[1])}
    nodes = {
        "input": nir.Input({"input": np.array([2, 5, 5])}),
        "conv": nir.Conv2d((5, 5), dyadic(rng, (3, 2, 3, 3)), 1, 1, 1, 1, dyadic(rng, (3,), 4)),
        "first": nir.IF(r=np.ones((3, 5, 5), np.float32), v_threshold=specs["first"].threshold),
        "flat": nir.Flatten({"input": np.array([3, 5, 5])}, -3, -1),
        "dense": nir.Affine(dyadic(rng, (6, 75), 8), dyadic(rng, (6,), 4)),
        "second": nir.IF(r=np.ones(6, np.float32), v_threshold=specs["second"].threshold),
        "head": nir.Affine(dyadic(rng, (4, 6)), dyadic(rng, (4,), 4)),
        "output": nir.Output({"output": np.array([4])}),
    }
    names = list(nodes)
    return SpikingNetwork(nir.NIRGraph(nodes, list(pairwise(names))), specs)


def one_neuron(theta: float) -> SpikingNetwork:
    """The input itself is the current of one neuron, whose spikes are the readout."""
    spec = layer((1,), theta)
    one = np.ones((1, 1), np.float32)
    nodes = {
        "input": nir.Input({"input": np.array([1])}),
        "synapse": nir.Linear(one),
        "neuron": nir.IF(r=np.ones(1, np.float32), v_threshold=spec.threshold),
        "head": nir.Linear(one),
        "output": nir.Output({"output": np.array([1])}),
    }
    return SpikingNetwork(nir.NIRGraph(nodes, list(pairwise(nodes))), {"neuron": spec})
