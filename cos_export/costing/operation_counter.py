"""Counts operations while a network runs: what every spike and every analog value meets."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterator, Mapping

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from cos_export.costing.fan_out import FanOuts, fan_outs, input_kinds
from cos_export.datasets import ImageArray
from cos_export.network import SpikingNetwork, are_frames
from cos_export.network.node_facts import facts
from cos_export.network.order import successors
from cos_export.network.wiring import is_wiring, picks_entries
from cos_export.processes import summed
from cos_export.simulation.input_train import input_train
from cos_export.simulation.layerwise import WindowRun
from cos_export.simulation.neuron import Run
from cos_export.simulation.program import Program, senders

__all__ = ["OperationCounter", "feeding_neurons"]

_CACHED = 1 << 17
"""Numbers in an array that a processor's cache holds beside another."""

Steps = NDArray[np.float64]
"""One number for each step, or one alone for what is computed once."""


def feeding_neurons(network: SpikingNetwork) -> frozenset[str]:
    """The nodes that feed a layer with no other layer between; what feeds no layer makes the readout."""
    feeds = successors(network.graph)
    feeding: set[str] = set()
    for name in reversed(network.order):
        if any(target in network.neurons or target in feeding for target in feeds[name]):
            feeding.add(name)
    return frozenset(feeding)


class OperationCounter:
    """Counts over a run of images, in which each batch, or part of one, tells of all layers in topological order.

    Memory is that of one part. What is counted are whole numbers, exact in float64 up to 2^53.

    Args:
        network: What runs.
        images: All inputs of the run, in order, as `check_inputs` returns them.
        steps: How many steps of each layer it is told of.
        activity: Over how many steps to take the mean of what each layer fires, to count what an artificial network
            with these activations computes; 0 not to.
        known: The network's fan-outs, where they have been found before.
    """

    def __init__(
        self,
        network: SpikingNetwork,
        images: ImageArray,
        steps: int,
        *,
        activity: int = 0,
        known: FanOuts | None = None,
    ) -> None:
        self.network, self.steps = network, steps
        self._images, self._activity = images, activity
        self.samples = 0
        self.spikes: dict[str, Steps] = {name: np.zeros(steps) for name in network.layers}
        self.operations: dict[str, Steps] = {}
        """By synapse or pooling node, of all samples at each step; of what the Input alone feeds once."""
        self.artificial: dict[str, float] = {}
        """By synapse, multiplications of an activation that is not 0, where each is the mean over a layer's spikes."""
        known = known or fan_outs(network)
        self._met = {
            name: {node: _in_memory_order(array) for node, array in met.items()} for name, met in known.spikes.items()
        }
        self.frames = are_frames(network, images)
        # What frames feed is another number at every step.
        self._kinds = {
            name: "graded" if self.frames and kind == "constant" else kind
            for name, kind in input_kinds(network).items()
        }
        self._fan_out = {name: _in_memory_order(array) for name, array in known.nodes.items()}
        for name in self._fan_out:
            self.operations[name] = np.zeros(1 if self._kinds[name] == "constant" else steps)
        # A maximum compares, and multiplies nothing.
        self._multiplying = tuple(
            name
            for name in self._fan_out
            if facts(network.graph.nodes[name]).weighted and not is_wiring(network.graph.nodes[name])
        )
        self._graded = tuple(name for name in self._fan_out if self._kinds[name] == "graded")
        # Of whose trains the numbers are made that these take.
        self._behind_graded = senders(network, self._graded) & set(network.layers)
        self._part: dict[str, Tensor] = {}
        self._program: Program | None = None

    def observe(self, name: str, run: Run | WindowRun) -> None:
        """Takes the run of a layer, as an `Observer` does; of one in a window no train is made to be counted."""
        if not isinstance(run, WindowRun):
            self.add(name, run.spikes)
            return
        self._count(name, _fired_by(run.counts, self.steps))
        if name in self._behind_graded:
            self._part[name] = run.spikes.float()
        elif self._activity:
            self._part[name] = (run.counts > 0).float().unsqueeze(0)
        self._end_part(name, len(run.counts), run.counts.device)

    def add(self, name: str, spikes: Tensor) -> None:
        """Takes the spikes of a layer, (at least `steps`, batch, ...) of 0 and 1."""
        spikes = spikes[: self.steps]
        self._count(name, _over_samples(spikes))
        if name in self._behind_graded:
            self._part[name] = spikes.float()
        elif self._activity:
            self._part[name] = _active(spikes[: self._activity])
        self._end_part(name, spikes.shape[1], spikes.device)

    def _count(self, name: str, fired: Steps) -> None:
        """Counts what meets the spikes of a layer, (steps, places) of how many samples fired there."""
        self.spikes[name] += fired.sum(1)
        for node, met in self._met[name].items():
            self.operations[node] += fired @ met

    def _end_part(self, name: str, samples: int, device: torch.device) -> None:
        """Counts what meets numbers that are not spikes, once the last layer has told."""
        if name != self.network.layers[-1]:
            return
        batch = slice(self.samples, self.samples + samples)
        self.samples = batch.stop
        trains, self._part = self._part, {}
        constant = [name for name in self.operations if self._kinds[name] == "constant"]
        program = self._program = self._program or self._sending_program(device)
        given = torch.from_numpy(self._images[batch]).to(device)
        shown = input_train(self.network, given, self.steps)
        # An artificial network takes one input: of frames their mean.
        images = shown[: self._activity or None].mean(0, keepdim=True) if self.frames else given.unsqueeze(0)
        for names, inputs in ((constant, images), (self._graded, shown)):
            for name, count in self._of_values(program, names, trains, inputs):
                self.operations[name] += count
        if self._activity:
            if self._graded:
                trains = {layer: train[: self._activity].mean(0, keepdim=True) for layer, train in trains.items()}
            for name, [count] in self._of_values(program, self._multiplying, trains, images):
                self.artificial[name] = self.artificial.get(name, 0.0) + float(count)

    def _sending_program(self, device: torch.device) -> Program:
        """The nodes that make the numbers which others take."""
        taking = [name for name, kind in self._kinds.items() if name in self._fan_out and kind != "spikes"]
        return Program(
            self.network, device, nodes=senders(self.network, [*taking, *(self._multiplying if self._activity else ())])
        )

    def _of_values(
        self, program: Program, names: Collection[str], trains: Mapping[str, Tensor], images: Tensor
    ) -> Iterator[tuple[str, Steps]]:
        """The products of what arrives at each node and is not 0, at each step: (steps or 1,)."""
        feeds = self.network.predecessors
        waiting = Counter(feeds[name] for name in names)
        found: dict[tuple[str, ...], Steps] = {}
        for name, arriving in program.arrivals(names, lambda source: trains.get(source, images)):
            sources = feeds[name]
            if sources not in found:
                found[sources] = _over_samples(torch.ne(arriving, 0, out=torch.empty_like(arriving)))
            waiting[sources] -= 1
            present = found[sources] if waiting[sources] else found.pop(sources)
            yield name, np.asarray(present @ self._fan_out[name])

    def sum_over_processes(self) -> None:
        """Adds what the other processes have counted, each on images of its own: whole numbers, so exactly."""
        samples = torch.tensor([self.samples], dtype=torch.float64)
        counts = (*self.spikes.values(), *self.operations.values())
        summed([samples, *map(torch.from_numpy, counts)])
        self.samples = int(samples)

    def kind(self, name: str) -> str:
        """What a node's operations are: "accumulate", "multiply", or "pooling"."""
        node = self.network.graph.nodes[name]
        if facts(node).kind == "pooling" or picks_entries(node):
            return "pooling"
        return "accumulate" if self._kinds[name] == "spikes" else "multiply"

    def products(self, name: str) -> int:
        """The products of a node's input with weights that are not 0, for one step of one image."""
        return int(self._fan_out[name].sum())

    def once(self, name: str) -> bool:
        """Whether the Input alone feeds a node, so that what it computes stays the same for all steps."""
        return self._kinds[name] == "constant"


def _in_memory_order(array: NDArray[np.float64]) -> NDArray[np.float64]:
    """A fan-out of shape (channels, ...) as `_over_samples` lays places out."""
    return np.moveaxis(array, 0, -1).ravel()


def _active(spikes: Tensor) -> Tensor:
    """Which neurons fired at all, of (steps, batch, ...): (1, batch, ...) of 0 and 1."""
    active = spikes[0].to(torch.float32, copy=True)
    for spike in spikes[1:]:
        torch.maximum(active, spike, out=active)
    return active.unsqueeze(0)


def _fired_by(counts: Tensor, steps: int) -> Steps:
    """How many samples have fired k = 1..steps times at least, of counts (batch, channels, ...): (steps, places).

    These are the spikes of step k of a window, laid out as in `_over_samples`.
    """
    numbers = counts.movedim(1, -1).flatten(1)
    fired = numbers.new_empty(steps, numbers.shape[1])
    size = _CACHED // len(numbers) + 1 if counts.device.type == "cpu" else numbers.shape[1]
    for start in range(0, numbers.shape[1], size):
        places = slice(start, start + size)
        part = numbers[:, places]
        reached = torch.empty_like(part)
        for k in range(steps):
            torch.ge(part, k + 1, out=reached)
            torch.sum(reached, 0, dtype=torch.float32, out=fired[k, places])
    return fired.double().cpu().numpy()


def _over_samples(values: Tensor) -> NDArray[np.float64]:
    """The sum over the samples of (steps, batch, channels, ...) of 0 and 1: (steps, places), the channels innermost.

    That is how layers lie in memory: in any other order a sum takes ten times as long.
    """
    return values.movedim(2, -1).flatten(2).sum(1, dtype=torch.float32).double().cpu().numpy()
