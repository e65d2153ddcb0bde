"""Random wirings of `random_networks`: joins, heads anywhere, synapses in a row, pools that drop a border, zeros."""

from __future__ import annotations

from typing import Any

import nir
import numpy as np
from random_networks import affine, conv2d, dyadic, flatten, neurons, pool, spiking_node

from cos_export.network import NeuronSpec, SpikingNetwork
from cos_export.network.graph import Shape, output_shape

__all__ = ["random_graph", "sparse_frames", "sparse_images"]


def sparse_images(network: SpikingNetwork, batch: int, seed: int) -> Any:
    """(batch, ...), of which a third is 0."""
    return _sparse(seed, batch, *network.input_shape)


def sparse_frames(network: SpikingNetwork, batch: int, steps: int, seed: int) -> Any:
    """(batch, steps, ...), of which a third is 0."""
    return _sparse(seed, batch, steps, *network.input_shape)


def _sparse(seed: int, *shape: int) -> Any:
    rng = np.random.default_rng(seed)
    return dyadic(rng, *shape, low=-8, high=16) * (rng.random(shape) < 0.67).astype(np.float32)


def random_graph(seed: int, *, silenced: bool = True) -> SpikingNetwork:
    """Two or three layers of neurons that take any mix of what was there before, the Input too."""
    rng = np.random.default_rng(seed)
    graph = _Graph(rng, silenced)
    there = ["input"]
    for _ in range(int(rng.integers(2, 4))):
        head = there[-1] if rng.integers(3) else there[int(rng.integers(len(there)))]
        if graph.side(head) >= 3 and rng.integers(3) == 0:
            head = graph.add(head, pool(nir.SumPool2d, 2, int(rng.integers(1, 3)), int(rng.integers(0, 2))))
        # None at all: neurons on the image or on spikes, without a synapse.
        for _ in range(min(int(rng.integers(6)), 2)):
            head = graph.convolution(head)
        joined = [head]
        for other in there:
            if rng.integers(2) and len(joined) < 3 and graph.shapes[other][1:] == graph.shapes[head][1:]:
                branch = graph.branch(other, graph.shapes[head])
                joined += [branch] if branch not in joined else []
        there.append(graph.neurons(joined))
    heads = [graph.head(name) for name in there if name == there[-1] or rng.integers(4) == 0]
    return graph.network(heads)


class _Graph:
    """A graph in the making."""

    def __init__(self, rng: np.random.Generator, silenced: bool) -> None:
        shape = (int(rng.integers(1, 3)), *[int(rng.integers(4, 6))] * 2)
        self.rng, self.nodes, self.shapes = rng, {"input": nir.Input(np.array(shape))}, {"input": shape}
        self.edges: list[tuple[str, str]] = []
        self.specs: dict[str, NeuronSpec] = {}
        self.choices = {
            "condition": ">=" if rng.integers(2) else ">",
            "silenced": silenced and bool(rng.integers(2)),
            "bias_steps": int(rng.integers(2)),
        }

    def side(self, name: str) -> int:
        return min(self.shapes[name][1:])

    def add(self, source: str, node: Any) -> str:
        name = f"{type(node).__name__.lower()}{len(self.nodes)}"
        self.nodes[name], self.shapes[name] = node, output_shape(node, self.shapes[source])
        self.edges.append((source, name))
        return name

    def convolution(self, source: str) -> str:
        (c, side, _), rng = self.shapes[source], self.rng
        out, kernel = 2 * int(rng.integers(1, 3)), int(rng.integers(1, 4))
        groups = 2 if c % 2 == 0 and rng.integers(3) == 0 else 1
        stride = int(rng.integers(1, 3)) if side > 3 else 1
        padding = int(rng.integers(0, kernel)) if side > kernel else kernel // 2
        node = conv2d(rng, c, out, (kernel, kernel), stride=stride, padding=padding, groups=groups)
        return self.add(source, self.thinned(node))

    def branch(self, source: str, shape: Shape) -> str:
        """What joins a wire of that shape: the source itself, a factor for each place, or a convolution."""
        rng, fits = self.rng, self.shapes[source] == shape
        choice = int(rng.integers(3)) if fits else 2
        if choice == 0:
            return source
        if choice == 1:
            return self.add(source, nir.Scale(rng.integers(0, 3, shape).astype(np.float32)))
        return self.add(source, self.thinned(conv2d(rng, self.shapes[source][0], shape[0])))

    def neurons(self, sources: list[str]) -> str:
        name, shape = f"if{len(self.nodes)}", self.shapes[sources[0]]
        self.specs[name] = neurons(self.rng, shape, **self.choices)
        self.nodes[name], self.shapes[name] = spiking_node(self.specs[name]), shape
        self.edges += [(source, name) for source in sources]
        return name

    def head(self, source: str) -> str:
        if self.side(source) >= 2 and self.rng.integers(3) == 0:
            source = self.add(source, pool(nir.SumPool2d, 2))
        source = self.add(source, flatten())
        if self.rng.integers(4) == 0:
            source = self.add(source, self.thinned(affine(self.rng, self.shapes[source][0], 5)))
        return self.add(source, self.thinned(affine(self.rng, self.shapes[source][0], 3)))

    def thinned(self, node: Any) -> Any:
        """The node, or it with weights of 0, with none but these, or with biases of 0."""
        choice = self.rng.integers(5)
        if choice < 2:
            node.weight = node.weight * (self.rng.random(node.weight.shape) < 0.5 * choice)
        if choice == 2:
            node.bias = node.bias * 0
        return node

    def network(self, heads: list[str]) -> SpikingNetwork:
        nodes = {**self.nodes, "output": nir.Output(np.array([3]))}
        edges = [*self.edges, *((head, "output") for head in heads)]
        return SpikingNetwork(nir.NIRGraph(nodes, edges, type_check=False), self.specs, num_timesteps=4)
