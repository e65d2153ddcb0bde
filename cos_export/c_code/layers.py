"""What each layer needs, in the order and the types of the C code."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from numpy.typing import NDArray

from cos_export.c_code.memory import Claim, placed
from cos_export.c_code.plan import Clear, Plan, Step, contributions
from cos_export.c_code.storage import Storage
from cos_export.c_code.tables import rows_of
from cos_export.network import NeuronSpec, SpikingNetwork
from cos_export.simulation.program import Program

__all__ = ["Layer", "Memory", "layers_of", "memory_of"]


@dataclass(frozen=True)
class Layer:
    """A layer of neurons, or the readout.

    Attributes:
        name: Of the node.
        number: Its place in the order in which layers run.
        storage: How its sums and spikes lie.
        spec: Its neurons, or None of the readout.
        from_input: What adds the current of the input: the same at every step, or that of a step's frame.
        from_layers: What adds that of the spikes.
        constant: The current of the biases at every step, (pixels or 1, channels or 1).
    """

    name: str
    number: int
    storage: Storage
    spec: NeuronSpec | None
    from_input: tuple[Step, ...]
    from_layers: tuple[Step, ...]
    constant: NDArray[np.int64]

    @property
    def steps(self) -> tuple[Step, ...]:
        """All of its steps."""
        return (*self.from_input, *self.from_layers)

    def rows(self, values: NDArray[np.generic]) -> NDArray[np.int64]:
        """An array of its neurons' shape in the order of memory: (pixels or 1, channels or 1) of whole numbers.

        Of a half-integer what is left below it: an integer that reaches a threshold is above it with the half, too.
        """
        return rows_of(self.storage.arranged(np.floor(np.asarray(values, np.float64)).astype(np.int64)))

    @cached_property
    def thresholds(self) -> NDArray[np.int64]:
        """theta, of a layer of neurons."""
        return self.rows(np.ones(self.storage.size) if self.spec is None else self.spec.threshold)


def layers_of(plan: Plan) -> list[Layer]:
    """The layers in the order in which they run, and the readout behind them."""
    network = plan.network
    program = Program(network)

    def nothing(name: str) -> torch.Tensor:
        return torch.zeros(1, 1, *network.shapes[name])

    constant = dict(program.arrivals({*network.layers, network.output_name}, nothing))
    found = []
    for number, name in enumerate((*network.layers, network.output_name)):
        storage, spec = plan.leaving[name], network.neurons.get(name)
        biases = constant[name][0, 0].numpy().astype(np.int64)
        found.append(
            Layer(
                name,
                number,
                storage,
                spec,
                tuple(contributions(plan, name, "input")),
                tuple(contributions(plan, name, "layer")),
                rows_of(np.asarray(storage.arranged(biases))),
            )
        )
    return found


@dataclass(frozen=True)
class Memory:
    """Where everything lies in the state.

    Attributes:
        words: By name, where 32-bit numbers begin.
        word_count: How many there are.
        bytes: By name, where spikes begin.
        byte_count: How many there are.
    """

    words: Mapping[tuple[str, ...], int]
    word_count: int
    bytes: Mapping[tuple[str, ...], int]
    byte_count: int


def memory_of(network: SpikingNetwork, layers: list[Layer], steps: int) -> Memory:
    """Places for the potentials and sums of one layer at a time, and for spikes until their last reader has run."""
    words: list[Claim] = []
    spikes: list[Claim] = []
    window = network.schedule == "layerwise"
    readers = {layer.name: layer.number for layer in layers}
    last = dict(readers)
    for layer in layers:
        for source in _layers_before(network, layer.name):
            last[source] = max(last[source], layer.number)
    for layer in layers:
        at = layer.number
        for key in _sums_of(layer, window, network.input_encoding == "frames"):
            words.append(Claim((layer.name, *key), layer.storage.size, at, at))
        words += [
            Claim((layer.name, "sums", step.sums.name), step.sums.storage.size, at, at)
            for step in {id(step): step for step in layer.steps if isinstance(step, Clear)}.values()
        ]
        if layer.spec is not None:
            size = layer.storage.size if window else steps * layer.storage.spike_bytes
            spikes.append(Claim((layer.name,), size, at, last[layer.name]))
    words = list({claim.name: claim for claim in words}.values())
    return Memory(*placed(words), *placed(spikes))


def _sums_of(layer: Layer, window: bool, frames: bool) -> list[tuple[str, ...]]:
    """What a layer keeps of its own size: potentials, which the readout has not, and what a held input adds."""
    own: list[tuple[str, ...]] = [] if layer.spec is None else [("potentials",)]
    held = bool(layer.from_input) and not frames and (layer.spec is None or not window)
    return [*own, ("current",)] if held else own


def _layers_before(network: SpikingNetwork, name: str) -> set[str]:
    """The layers that reach a node through synapses alone."""
    found: set[str] = set()
    waiting = list(network.predecessors[name])
    while waiting:
        source = waiting.pop()
        if source in network.neurons:
            found.add(source)
        else:
            waiting += network.predecessors[source]
    return found
