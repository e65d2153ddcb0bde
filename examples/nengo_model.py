"""model.nir in Nengo 4.1.0, which has no importer: each synapse a matrix, each layer an ensemble of our neurons.

    pip install nengo==4.1.0
    python examples/nengo_model.py out/digits/model.nir images.npy

A layer-wise network is lowered first (`cos_export.lowered`). Nengo runs one image at a time.
"""

from __future__ import annotations

import sys
from typing import Any

import nengo
import numpy as np
import torch

from cos_export.clients.network import rounded
from cos_export.clients.nir_graph import Array, Layer, NirGraph, read_graph
from cos_export.clients.synapses import synapse
from cos_export.errors import NetworkError

__all__ = ["run"]


class IntegrateAndFire(nengo.neurons.NeuronType):
    """m = v + J, a spike of 1 where m >= threshold, which is then subtracted."""

    state = {"voltage": nengo.dists.Choice([0.0])}  # noqa: RUF012 - what Nengo asks for
    spiking = True
    threshold = nengo.params.NdarrayParam("threshold", shape=("*",))

    def __init__(self, layer: Layer) -> None:
        super().__init__(initial_state={"voltage": layer.v_init.ravel()})
        self.threshold = layer.threshold.ravel()

    def max_rates_intercepts(self, gain: Array, bias: Array) -> tuple[Array, Array]:
        """Nengo asks, and uses neither where gain and bias are given."""
        return np.ones_like(gain), np.zeros_like(bias)

    def step(self, dt: float, J: Array, output: Array, voltage: Array) -> None:  # noqa: N803 - Nengo's name
        """One step, in place."""
        voltage += J
        output[...] = voltage >= self.threshold
        voltage -= output * self.threshold


def run(graph: NirGraph, image: Array, steps: int) -> tuple[dict[str, Array], Array]:
    """The spikes by layer, (steps, neurons), and what is read out in each step, (steps, classes), of one image.

    Raises:
        NetworkError: The network is layer-wise.
    """
    if graph.layerwise:
        raise NetworkError("The network is layer-wise: lower it first (cos_export.lowered).")
    pixels = torch.from_numpy(np.asarray(image, np.float32))
    inputs = (pixels if graph.integers is None else rounded(pixels, graph.integers)).numpy().ravel()
    held = steps if graph.encoding.held is None else graph.encoding.held
    shapes, wires, probes = {}, dict[str, Any](), {}
    with nengo.Network() as model:
        for name in graph.order:
            if not graph.sources[name]:
                shapes[name] = graph.input_shape
                wires[name] = nengo.Node(lambda t: inputs if round(t * 1000) <= held else 0 * inputs)
                continue
            shape = shapes[graph.sources[name][0]]
            if name in graph.layers:
                layer, shapes[name] = graph.layers[name], shape
                fixed = {"gain": np.ones(layer.v_init.size), "bias": np.zeros(layer.v_init.size)}
                arriving = nengo.Ensemble(layer.v_init.size, 1, neuron_type=IntegrateAndFire(layer), **fixed).neurons
                audible = np.ones(shape) if layer.silent is None else 1.0 - layer.silent
                wires[name] = nengo.Node(size_in=layer.v_init.size)
                nengo.Connection(arriving, wires[name], transform=audible.ravel(), synapse=None)
                if layer.bias is not None:
                    spread = np.prod(shape[1:], dtype=int)
                    padded = np.vstack([layer.bias, np.zeros((steps, shape[0]))]).repeat(spread, axis=1)
                    beta = nengo.Node(lambda t, padded=padded: padded[round(t * 1000) - 1])
                    nengo.Connection(beta, arriving, synapse=None)
            else:
                module, size = synapse(name, graph.nodes[name]).double().requires_grad_(False), int(np.prod(shape))
                nothing = module(torch.zeros(1, *shape, dtype=torch.float64))
                matrix = module(torch.eye(size, dtype=torch.float64).reshape(size, *shape)) - nothing
                shapes[name] = tuple(nothing.shape[1:])
                through = nengo.Node(size_in=size)
                wires[name] = arriving = nengo.Node(size_in=nothing.numel())
                nengo.Connection(through, arriving, transform=matrix.reshape(size, -1).T.numpy(), synapse=None)
                nengo.Connection(nengo.Node(nothing.numpy().ravel()), arriving, synapse=None)
                arriving = through
            for source in graph.sources[name]:
                nengo.Connection(wires[source], arriving, synapse=None)
            probes[name] = nengo.Probe(wires[name])
    with nengo.Simulator(model, dt=0.001, progress_bar=False) as simulator:
        simulator.run_steps(steps)
    return {name: simulator.data[probes[name]] > 0 for name in graph.layers}, simulator.data[probes[graph.output]]


def main() -> None:
    """Prints the class of each image."""
    graph, images = read_graph(sys.argv[1]), np.load(sys.argv[2], allow_pickle=False)
    for image in images:
        print(run(graph, image, graph.steps or 1)[1].sum(0).argmax())


if __name__ == "__main__":
    main()
