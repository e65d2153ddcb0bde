"""The PyTorch reference: a network's synapses on a device, and the walk through its layers.

All steps of a layer are computed before the next layer starts, so a synapse sees one batch of steps x
samples, and the first one, whose input never changes, is computed once.
"""

from __future__ import annotations

import copy
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import nullcontext
from functools import reduce

import numpy as np
import torch
from torch import Tensor

from cos_export.device import plain_sums
from cos_export.freed_memory import keep_freed_memory
from cos_export.network import SpikingNetwork
from cos_export.network.node_facts import facts
from cos_export.network.wires import Wires
from cos_export.simulation.fixed_point import quantise_input
from cos_export.simulation.input_train import input_train
from cos_export.simulation.neuron import NeuronTensors, neuron_tensors
from cos_export.simulation.synapses import Synapse, synapse

__all__ = ["NeuronRule", "Program", "senders"]

NeuronRule = Callable[[str, NeuronTensors, Tensor], Tensor]
"""(layer, its neurons, currents (steps or 1, batch, ...)) -> what leaves the layer (steps or 1, batch, ...).

The currents are the rule's own: it may overwrite them, and send them on.
"""


class Program:
    """A network compiled for one device and dtype.

    Args:
        network: What to run.
        device: Where.
        dtype: float32 is the reference; float64 measures its rounding.
        window: How many steps what lies on a wire is the sum of. A constant current, which is that of the input and of
            every bias, counts as often.
        nodes: Those that are asked for, of which the others' weights are not kept; by default all.
    """

    def __init__(
        self,
        network: SpikingNetwork,
        device: torch.device | str = "cpu",
        dtype: torch.dtype = torch.float32,
        *,
        window: int = 1,
        nodes: Collection[str] | None = None,
    ) -> None:
        self.network = network
        self.window = window
        self.device = torch.device(device)
        self.dtype = dtype
        if self.device.type == "cpu":
            keep_freed_memory()
        self.neurons: Mapping[str, NeuronTensors] = {
            name: neuron_tensors(spec, self.device, dtype) for name, spec in network.neurons.items()
        }
        self._synapses = {
            name: self._synapse_of(name, {})
            for name in (network.order if nodes is None else nodes)
            if name not in network.neurons
        }
        self._synapses[network.input_name] = self._send_images
        self.readout_scale = network.readout_scale
        edges = Counter(source for name in network.order for source in network.predecessors[name])
        self._read_once = {source for source, count in edges.items() if count == 1}

    def _move(self, array: object) -> Tensor:
        return torch.as_tensor(np.asarray(array)).to(device=self.device, dtype=self.dtype)

    def propagate(self, images: Tensor, rule: NeuronRule, steps: int | None = None) -> Tensor:
        """Walks the network once, layer by layer, and lets `rule` say what each layer sends on.

        A value is dropped as soon as its last reader has run, so memory does not grow with the depth.

        Args:
            images: (batch, ...) on this program's device and of its dtype, or frames (batch, at least T, ...), before
                any rounding to integers.
            rule: From a layer's currents to its output.
            steps: T, without which a network whose input is not held for all steps is refused.

        Returns:
            What reaches the Output node: (steps or 1, batch, classes), in units of `readout_scale`.
        """
        network = self.network
        wires: Wires[Tensor] = Wires(network)
        # By name, what lies in memory that a synapse has filled, which whoever gave the images and the rule cannot see.
        computed: set[str] = set()
        if images.ndim == 4:
            images = images.contiguous(memory_format=torch.channels_last)
        for name, parts in wires.walk():
            sources = network.predecessors[name]
            arriving = parts.pop(0) if sources else input_train(network, images, steps)
            own = bool(sources) and sources[0] in computed & self._read_once
            while parts:
                part = parts.pop(0)
                # What stands for all steps has no room for a sum that differs from step to step.
                room = own and len(arriving) >= len(part)
                arriving = arriving.add_(part) if room else arriving + part
                own = True
                del part
            if name in self.neurons:
                wires[name] = rule(name, self.neurons[name], arriving if own else arriving.clone())
            else:
                wires[name] = outputs = self._through(name, arriving)
                if own or not _share_memory(arriving, outputs):
                    computed.add(name)
                del outputs
        return wires.readout

    def currents(self, name: str, outputs: Callable[[str], Tensor]) -> Tensor:
        """What arrives at a layer, from what the layers and the input before it send.

        Args:
            name: The layer.
            outputs: From the name of a layer, or of the Input, to its output: (steps or 1, batch, ...).

        Returns:
            I, (steps or 1, batch, ...): the same numbers that `propagate` finds.
        """

        def leaving(source: str) -> Tensor:
            if source in self.neurons:
                return outputs(source)
            if source == self.network.input_name:
                return self._through(source, outputs(source))
            return self._through(source, self.currents(source, outputs))

        first, *others = self.network.predecessors[name]
        total = leaving(first)
        for source in others:
            total = total + leaving(source)
        return total

    def arrivals(self, names: Collection[str], outputs: Callable[[str], Tensor]) -> Iterator[tuple[str, Tensor]]:
        """What arrives at each of several nodes, in one walk that computes each synapse at most once.

        Args:
            names: The nodes: layers, synapses, the Output, any but the Input.
            outputs: As for `currents`.

        Yields:
            The nodes in topological order, each with what `currents` finds.
        """
        network, sending = self.network, senders(self.network, names)
        wires: Wires[Tensor | None] = Wires(network)
        for name, parts in wires.walk():
            arriving = None
            if name in names or (name in sending and name not in self.neurons):
                present = [part for part in parts if part is not None]
                arriving = reduce(torch.add, present) if present else None
            if name in names and arriving is not None:
                yield name, arriving
            if name not in sending:
                wires[name] = None
            elif name in self.neurons:
                wires[name] = outputs(name)
            else:
                wires[name] = self._through(name, outputs(name) if arriving is None else arriving)

    def with_arrays(self, arrays: Mapping[str, Mapping[str, Tensor]]) -> Program:
        """The same program with other arrays in some synapses, which gradients may pass through.

        Args:
            arrays: By node, such as {"fc": {"weight": ..., "bias": ...}}, on this program's device.
        """
        changed = copy.copy(self)
        changed._synapses = self._synapses | {name: self._synapse_of(name, tensors) for name, tensors in arrays.items()}
        return changed

    def _synapse_of(self, name: str, arrays: Mapping[str, Tensor]) -> Synapse:
        node = self.network.graph.nodes[name]
        known = facts(node)
        tensors = {id(getattr(node, field)): tensor for field, tensor in arrays.items()}
        if known.bias is not None and self.window > 1:
            bias = getattr(node, known.bias)
            constant = tensors[id(bias)] if id(bias) in tensors else self._move(bias)
            tensors[id(bias)] = constant * float(self.window)
        return synapse(node, lambda array: tensors[id(array)] if id(array) in tensors else self._move(array))

    def _send_images(self, images: Tensor) -> Tensor:
        """What the Input sends in a step: the images, as the integers of a network of integers."""
        return quantise_input(images, self.network.quantisation)

    def _through(self, name: str, arriving: Tensor) -> Tensor:
        """What a node that is not a layer makes of (steps or 1, batch, ...)."""
        if name == self.network.input_name and self.window > 1:
            return self._over_window(arriving)
        steps, batch = arriving.shape[:2]
        transformed = self.device.type == "cuda" and self.network.quantisation is not None
        with plain_sums() if transformed else nullcontext():
            flat = self._synapses[name](arriving.flatten(0, 1))
        return flat.reshape(steps, batch, *flat.shape[1:])

    def _over_window(self, images: Tensor) -> Tensor:
        """What the Input sends over a window: what is held as often as there are steps, or the sum of the frames."""
        values = quantise_input(images, self.network.quantisation)
        return values * float(self.window) if len(values) == 1 else values.sum(0, keepdim=True)


def senders(network: SpikingNetwork, names: Collection[str]) -> set[str]:
    """The nodes whose outputs make up what arrives at `names`: as far back as the layers, or the Input."""
    sending: set[str] = set()
    for name in reversed(network.order):
        if name in names or (name in sending and name not in network.neurons):
            sending.update(network.predecessors[name])
    return sending


def _share_memory(one: Tensor, other: Tensor) -> bool:
    return one.untyped_storage().data_ptr() == other.untyped_storage().data_ptr()
