"""Per-sample COS on stacked steps, written down plainly, on PyTorch's default memory layout.

The pre-simulation keeps potentials and spikes of every step in lists, `torch.stack` joins them, and the reduction over
the stack comes afterwards. In one of three ways:

    as published         as the published code does, a synapse computes all steps as one batch, once, and top-1 is taken
                         of the stack, where what does not count stands at 1000 thresholds
    stacked, min and max the same with minimum and maximum over the stack: what of it is the price of top-1 alone
    step by step         the same, but each step goes through synapse and neuron on its own, in the pre-simulation and
                         once more in the run, as simulators of spiking networks mostly do
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial

import nir
import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from cos_export.network import SpikingNetwork
from cos_export.network.graph import convolution
from cos_export.simulation import mean_readout
from cos_export.simulation.neuron import NeuronTensors, neuron_tensors
from cos_export.simulation.presimulation import EPSILON, NEVER_SILENT
from cos_export.simulation.synapses import is_multiple, synapse

__all__ = ["PUBLISHED", "STACKED", "STEP_BY_STEP", "Answer", "Stacked"]

PUBLISHED, STACKED, STEP_BY_STEP = "as published", "stacked, min and max", "step by step"


@dataclass(frozen=True)
class Answer:
    """What one run comes to: mean readouts (T, batch, classes), potentials and, on request, spikes by layer."""

    logits: np.ndarray
    v_init: dict[str, np.ndarray]
    spikes: dict[str, np.ndarray]


class Stacked:
    """COS with one iteration on stacked steps, in one of the three ways."""

    def __init__(
        self, network: SpikingNetwork, images: np.ndarray, steps: int, rho: int, device: torch.device, way: str
    ) -> None:
        self.network, self.steps, self.rho, self.way, self.device = network, steps, rho, way, device
        self.horizon = max(steps, rho)
        self.images = torch.from_numpy(images).to(device)
        nodes = network.graph.nodes
        self.synapses = {name: self._synapse(nodes[name]) for name in network.order if name not in network.neurons}
        # An array in another order would lead every later sum, and so the convolutions, out of the default layout.
        self.neurons = {
            name: replace(neuron, v_init=neuron.v_init.contiguous(), threshold=neuron.threshold.contiguous())
            for name, spec in network.neurons.items()
            for neuron in [neuron_tensors(spec, device, torch.float32)]
        }
        readers = {name: self._read_by(name) for name in [*network.layers, network.output_name]}
        self.last = {source: name for name, sources in readers.items() for source in sources}

    def _move(self, array: object) -> Tensor:
        return torch.as_tensor(np.asarray(array)).to(self.device)

    def _synapse(self, node: nir.NIRNode) -> Callable[[Tensor], Tensor]:
        if not isinstance(node, nir.Conv2d):
            return synapse(node, self._move)
        weight, bias, geometry = self._move(node.weight), self._move(node.bias), convolution(node)
        if is_multiple(weight, bias, geometry):
            return synapse(node, self._move)
        return partial(
            functional.conv2d,
            weight=weight,
            bias=bias,
            stride=geometry.stride,
            padding=[before for before, _ in geometry.padding],
            dilation=geometry.dilation,
            groups=geometry.groups,
        )

    def _read_by(self, name: str) -> set[str]:
        sources = set()
        for source in self.network.predecessors[name]:
            sources |= {source} if source in self.neurons else self._read_by(source)
        return sources

    def _arriving(self, name: str, output_of: Callable[[str], Tensor]) -> Tensor:
        parts = [
            output_of(source)
            if source in self.neurons or source == self.network.input_name
            else self.synapses[source](self._arriving(source, output_of))
            for source in self.network.predecessors[name]
        ]
        return sum(parts[1:], parts[0])

    @torch.no_grad()
    def __call__(self, keep: bool) -> Answer:
        """Runs the batch."""
        trains: dict[str, Tensor] = {}
        v_init: dict[str, np.ndarray] = {}
        spikes: dict[str, np.ndarray] = {}
        for name in self.network.layers:
            trains[name], shifted = self._layer(self._currents(name, trains), self.neurons[name])
            v_init[name] = shifted.cpu().numpy()
            if keep:
                spikes[name] = trains[name][: self.steps].bool().cpu().numpy()
            for source in [source for source in trains if self.last[source] == name]:
                del trains[source]
        arriving = self._currents(self.network.output_name, trains)
        outputs = torch.stack([arriving(t) for t in range(self.steps)])
        return Answer(mean_readout(outputs, self.steps).cpu().numpy(), v_init, spikes)

    def _currents(self, name: str, trains: dict[str, Tensor]) -> Callable[[int], Tensor]:
        """The current of each step, computed anew whenever it is asked for, or all at once."""
        if self.way == STEP_BY_STEP:
            return lambda t: self._arriving(name, lambda source: trains[source][t] if source in trains else self.images)
        flat = self._arriving(name, lambda source: trains[source].flatten(0, 1) if source in trains else self.images)
        every = flat.reshape(-1, len(self.images), *flat.shape[1:]).expand(self.horizon, -1, *flat.shape[1:])
        return lambda t: every[t]

    def _layer(self, currents: Callable[[int], Tensor], neuron: NeuronTensors) -> tuple[Tensor, Tensor]:
        theta = neuron.threshold
        start = neuron.v_init.expand(len(self.images), *neuron.v_init.shape)
        potential, potentials, fired = start, [], []
        for t in range(self.rho):
            potential = potential + currents(t)
            spike = (potential >= theta).float()
            potential = potential - theta * spike
            potentials.append(potential)
            fired.append(spike)
        stack, spikes = torch.stack(potentials), torch.stack(fired)
        count = spikes.sum(0)
        if self.way == PUBLISHED:
            far = torch.ones_like(stack) * theta
            lowest = torch.topk(torch.where(spikes > 0, stack, 1000 * far), 1, dim=0, largest=False)[0][0]
            highest = torch.topk(torch.where(spikes > 0, NEVER_SILENT * far, stack), 1, dim=0)[0][0]
        else:
            lowest = torch.where(spikes > 0, stack, torch.inf).amin(0)
            highest = torch.where(spikes > 0, NEVER_SILENT * theta, stack).amax(0)
        one = theta.expand_as(start)
        down = torch.maximum(one, lowest + EPSILON * theta)
        up = torch.maximum(one, theta + EPSILON * theta - highest)
        shifted = torch.where((potential < 0) & (count > 0), start - down, start)
        shifted = torch.where(potential >= theta, start + up, shifted)
        potential, train = shifted, []
        for t in range(self.horizon):
            potential = potential + currents(t)
            spike = (potential >= theta).float()
            potential = potential - theta * spike
            train.append(spike)
        return torch.stack(train), shifted
