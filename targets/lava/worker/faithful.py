"""Builds the Lava network of the faithful back end: Lava's synapses, our neurons, one sample at a time.

Each synapse delivers one step late, so all that meets in one port must have come through equally many:
shorter ways are made longer by synapses that only delay.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import lava_arguments
import numpy as np
from currents import constant_current, largest_sums
from job import Job, Node
from protocol import JobError
from stages import cut

if TYPE_CHECKING:
    from lava.magma.core.process.ports.ports import AbstractPort
    from lava.magma.core.process.process import AbstractProcess

__all__ = ["build"]


def _reshaped(port: AbstractPort, shape: tuple[int, ...]) -> AbstractPort:
    """The port's elements in their order, as `shape`."""
    return port if tuple(port.shape) == shape else port.reshape(shape)


@dataclass(frozen=True)
class _Wire:
    """What leaves a process, on its way to a port.

    Attributes:
        source: Where it leaves.
        shape: Of what it carries, in the network's layout.
        delay: Synapses behind it.
        binary: Whether it carries unit spikes only.
        opens: Steps of a sample's clock before the window of what it carries; None of a sum of several windows, not
            equally deep, that a layer of neurons adds up.
        reshapes: The shapes that Flatten nodes have given it since, each as (before, after).
    """

    source: AbstractPort
    shape: tuple[int, ...]
    delay: int
    binary: bool
    opens: int | None = 0
    reshapes: tuple[tuple[tuple[int, ...], tuple[int, ...]], ...] = ()

    def port(self) -> AbstractPort:
        """The port to connect, through virtual ports that reorder its elements."""
        port = _reshaped(self.source, lava_arguments.lava_shape(self.reshapes[0][0] if self.reshapes else self.shape))
        for before, after in self.reshapes:
            if len(before) > 1:
                port = port.transpose([2, 1, 0])
            if len(after) == 1:
                port = port.reshape(after)
            else:
                port = port.reshape(after if len(after) == 3 else (after[0], 1, after[1])).transpose([2, 1, 0])
        return port


class _Builder:
    def __init__(self, job: Job) -> None:
        self._job = job
        self._nodes = {node.name: node for node in job.nodes}
        self._wires: dict[str, list[_Wire]] = {}
        self._stages = {stage.node.name: stage for stage in cut(job.nodes)}
        read = {source.name for stage in self._stages.values() for source in stage.sources}
        self._unread = [node for node in job.nodes if node.kind == "neuron" and node.name not in read]
        self._readout = _readout_only(job.nodes)
        self._largest: dict[str, float] = {}
        if job.integers:
            for stage in self._stages.values():
                self._largest.update(largest_sums(stage, job))

    def build(self) -> tuple[AbstractProcess, int]:
        makers: dict[str, Callable[[Node], list[_Wire]]] = {
            "input": self._input,
            "neuron": self._neuron,
            "convolution": self._convolution,
            "pool": self._pool,
            "linear": self._linear,
            "scale": self._scale,
            "flatten": self._flatten,
        }
        readout = next(node for node in self._job.nodes if node.kind == "output")
        for node in self._job.nodes:
            if node is not readout:
                self._wires[node.name] = makers[node.kind](node)
        delay, process = self._accumulator(readout)
        latest = max([delay, *(wire.delay for wires in self._wires.values() for wire in wires)])
        return process, self._job.clock_steps(self._job.samples) + latest

    def _arriving(self, node: Node) -> list[_Wire]:
        """What is added at a node, all equally late."""
        wires = [wire for name in node.inputs for wire in self._wires[name]]
        ways = [(id(wire.source), wire.reshapes) for wire in wires]
        if len(set(ways)) < len(ways):
            raise JobError(
                f"Node {node.name!r} adds the same input twice, which Lava's ports cannot do. "
                'Use the "batched" back end, or double a weight.'
            )
        if self._job.layerwise and node.name in self._readout:
            return self._in_step(node, wires)
        latest = max(wire.delay for wire in wires)
        opens = wires[0].opens if len({wire.opens for wire in wires}) == 1 else None
        return [replace(self._delayed(wire, latest - wire.delay), opens=opens) for wire in wires]

    def _in_step(self, node: Node, wires: Sequence[_Wire]) -> list[_Wire]:
        """What is added in the readout, which takes the first spike of each layer in one step, however deep it is."""
        opens = [wire.opens for wire in wires if wire.opens is not None]
        if len(opens) < len(wires):
            raise JobError(
                f"Node {node.name!r}, which is read out, adds layers of different depth that a layer of neurons takes "
                'through the same synapse, too. Use the "batched" back end.'
            )
        last = max(opens)
        latest = max(wire.delay + own for wire, own in zip(wires, opens, strict=True))
        delayed = [self._delayed(wire, latest - wire.delay - own) for wire, own in zip(wires, opens, strict=True)]
        return [replace(wire, delay=latest - last, opens=last) for wire in delayed]

    def _delayed(self, wire: _Wire, steps: int) -> _Wire:
        from lava.proc.conv.process import Conv

        if not steps:
            return wire
        port: AbstractPort = wire.port()
        width = int(np.prod(wire.shape))
        for _ in range(steps):
            arguments = lava_arguments.identity(wire.shape, lava_arguments.port_type(self._job))
            delay = Conv(**arguments, num_message_bits=0 if wire.binary else 16)
            _reshaped(port, (width, 1, 1)).connect(delay.s_in)
            port = delay.a_out
        return _Wire(port, wire.shape, wire.delay + steps, wire.binary, wire.opens)

    def _synapse(self, node: Node, process: AbstractProcess, shape: tuple[int, ...]) -> list[_Wire]:
        """Connects what arrives at a node to its process."""
        arriving = self._arriving(node)
        for wire in arriving:
            _reshaped(wire.port(), process.s_in.shape).connect(process.s_in)
        return [_Wire(process.a_out, shape, arriving[0].delay + 1, False, arriving[0].opens)]

    def _bits(self, node: Node) -> int:
        """0 if unit spikes arrive, which Lava's synapses then take as such; else the input is graded."""
        wires = [wire for name in node.inputs for wire in self._wires[name]]
        return 0 if len(wires) == 1 and wires[0].binary else 16

    def _in_shape(self, node: Node) -> tuple[int, ...]:
        return self._nodes[node.inputs[0]].shape

    def _input(self, node: Node) -> list[_Wire]:
        from processes.faithful.source_process import source_process

        return [_Wire(source_process(self._job, node).s_out, node.shape, 0, False)]

    def _neuron_process(self, node: Node, unread: tuple[tuple[int, ...], ...] = ()) -> tuple[int, AbstractProcess]:
        from processes.faithful.neuron_process import neuron_process

        arriving = self._arriving(node)
        constant = constant_current(self._stages[node.name], self._job)
        delay = arriving[0].delay
        process = neuron_process(self._job, node, delay, constant, unread)
        for wire in arriving:
            wire.port().connect(process.a_in)
        return delay, process

    def _neuron(self, node: Node) -> list[_Wire]:
        delay, process = self._neuron_process(node)
        return [_Wire(process.s_out, node.shape, delay, True, node.opens)]

    def _accumulator(self, node: Node) -> tuple[int, AbstractProcess]:
        delay, process = self._neuron_process(node, tuple(other.shape for other in self._unread))
        for place, other in enumerate(self._unread):
            self._wires[other.name][0].source.connect(getattr(process, f"unread_{place}"))
        return delay, process

    def _convolution(self, node: Node) -> list[_Wire]:
        return self._synapse(node, self._conv(lava_arguments.convolution(node, self._in_shape(node)), node), node.shape)

    def _pool(self, node: Node) -> list[_Wire]:
        return self._synapse(node, self._conv(lava_arguments.pool(node, self._in_shape(node)), node), node.shape)

    def _conv(self, arguments: Mapping[str, Any], node: Node) -> AbstractProcess:
        from lava.proc.conv.process import Conv

        if self._job.integers:
            lava_arguments.check_range(node, self._largest[node.name])
        weight = arguments["weight"].astype(lava_arguments.port_type(self._job))
        return Conv(**{**arguments, "weight": weight}, num_message_bits=self._bits(node))

    def _linear(self, node: Node) -> list[_Wire]:
        from lava.proc.dense.process import Dense

        weight = np.asarray(node.array("weight"), np.float64)
        process = Dense(**self._weights(node, weight), num_message_bits=self._bits(node))
        return self._synapse(node, process, node.shape)

    def _scale(self, node: Node) -> list[_Wire]:
        from lava.proc.sparse.process import Sparse
        from scipy.sparse import csr_matrix, diags

        factors = lava_arguments.to_lava(np.asarray(node.array("scale"), np.float64)).ravel()
        given = self._weights(node, factors)
        weights = csr_matrix(diags(given.pop("weights")))
        return self._synapse(node, Sparse(weights=weights, **given, num_message_bits=16), node.shape)

    def _weights(self, node: Node, weights: np.ndarray) -> dict[str, Any]:
        """The arguments of Lava's `Dense` or `Sparse` that hold the weights.

        In fixed point both keep 8 bits and a sign, of which the last bit is always lost: weights are doubled,
        and the exponent halves the sums.
        """
        from lava.utils.weightutils import SignMode

        if not self._job.integers:
            return {"weights": weights}
        lava_arguments.check_range(node, self._largest[node.name])
        lava_arguments.check_weights(node, weights)
        return {"weights": (2 * weights).astype(np.int32), "weight_exp": -1, "sign_mode": SignMode.MIXED}

    def _flatten(self, node: Node) -> list[_Wire]:
        wires = [wire for name in node.inputs for wire in self._wires[name]]
        before = self._in_shape(node)
        return [replace(wire, shape=node.shape, reshapes=(*wire.reshapes, (before, node.shape))) for wire in wires]


def _readout_only(nodes: Sequence[Node]) -> frozenset[str]:
    """The Output, and the synapses from which nothing but it is reached."""
    readout_only: set[str] = set()
    for node in reversed(nodes):
        readers = [other.name for other in nodes if node.name in other.inputs]
        synapse = node.kind not in ("input", "neuron")
        if synapse and all(reader in readout_only for reader in readers):
            readout_only.add(node.name)
    return frozenset(readout_only)


def build(job: Job) -> tuple[AbstractProcess, int]:
    """The readout's process, connected to all others, and the number of Lava's steps to run.

    Raises:
        JobError: A node cannot be written as Lava's processes.
    """
    return _Builder(job).build()
