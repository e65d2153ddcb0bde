"""What the C code does for each layer: from the spikes that reach it to its own, one synapse after the other."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from cos_export.c_code.operations import Multiply, Operation, Pass, operation
from cos_export.c_code.storage import Storage, channels_last, features
from cos_export.errors import NetworkError
from cos_export.network import SpikingNetwork

__all__ = ["Add", "Apply", "Clear", "Plan", "Step", "Wire", "contributions", "plan_of"]

Leaf = Literal["input", "layer"]


@dataclass(frozen=True)
class Wire:
    """Where numbers lie: the input, the spikes of a layer, or sums that are kept for a moment.

    Attributes:
        kind: Which of them.
        name: Of the node that has put them there.
        storage: How they lie.
    """

    kind: Literal["input", "layer", "sums"]
    name: str
    storage: Storage


@dataclass(frozen=True)
class Clear:
    """Sets sums to zero."""

    sums: Wire


@dataclass(frozen=True)
class Apply:
    """Adds to sums what a synapse or a pooling node makes of a wire.

    Attributes:
        node: Its name, or those of several that became one.
        operation: What it does.
        source: What it reads.
        into: The sums, or None for those of the layer.
    """

    node: str
    operation: Operation
    source: Wire
    into: Wire | None


@dataclass(frozen=True)
class Add:
    """Adds a wire itself to sums, whose order may be another.

    Attributes:
        source: What it reads.
        order: Of the sums.
        into: The sums, or None for those of the layer.
    """

    source: Wire
    order: Storage
    into: Wire | None


Step = Clear | Apply | Add


@dataclass(frozen=True)
class Plan:
    """How everything lies, and what every node does.

    Attributes:
        network: Of integers.
        operations: By node, of those that compute.
        leaving: By node, how what it sends lies.
    """

    network: SpikingNetwork
    operations: dict[str, Operation]
    leaving: dict[str, Storage]


def plan_of(network: SpikingNetwork) -> Plan:
    """Decides the order in memory of what every node sends.

    Raises:
        NetworkError: A node has no counterpart in C; the message names it.
    """
    operations: dict[str, Operation] = {}
    leaving: dict[str, Storage] = {}
    for name in network.order:
        sources, shape = network.predecessors[name], network.shapes[name]
        if not sources:
            leaving[name] = channels_last(shape)
            continue
        arriving, taken = leaving[sources[0]], network.shapes[sources[0]]
        if name in network.neurons:
            leaving[name] = arriving
            continue
        try:
            operations[name] = operation(network.graph.nodes[name], arriving, taken, shape)
        except NetworkError as error:
            raise NetworkError(f"Node {name!r}: {error}") from None
        computed = operations[name]
        leaving[name] = arriving if isinstance(computed, Pass) else computed.gives
    leaving[network.output_name] = features(int(np.prod(network.output_shape)))
    return Plan(network, operations, leaving)


def contributions(plan: Plan, target: str, leaf: Leaf) -> list[Step]:
    """What adds to the sums of a layer, or of the Output, all that the input or other layers send it.

    Args:
        plan: Of the network.
        target: The layer, or the Output.
        leaf: Whether to begin at the Input or at the layers before.
    """
    walk = _Walk(plan, leaf)
    walk.add_all(target, None, plan.leaving[target])
    return _merged(walk.steps)


class _Walk:
    """Goes back from a node to the wires that reach it, and notes the steps on the way."""

    def __init__(self, plan: Plan, leaf: Leaf) -> None:
        self.steps: list[Step] = []
        self._plan, self._leaf = plan, leaf
        self._filled: dict[str, Wire] = {}

    def add_all(self, name: str, into: Wire | None, order: Storage) -> None:
        """Adds what reaches the node `name` to sums of the given order."""
        for source in self._sources(name):
            computed = self._plan.operations.get(source)
            if computed is None or isinstance(computed, Pass):
                self.steps.append(Add(self._leaf_wire(source), order, into))
            elif computed.gives.orders_as(order):
                self._apply(source, into)
            else:
                self.steps.append(Add(self._sums(source), order, into))

    def _sources(self, name: str) -> Iterator[str]:
        """What feeds a node, through nodes that compute nothing, and has the leaves that are asked for behind it."""
        for source in self._plan.network.predecessors[name]:
            if isinstance(self._plan.operations.get(source), Pass):
                yield from self._sources(source)
            elif self._reached(source):
                yield source

    def _reached(self, name: str) -> bool:
        network = self._plan.network
        if name == network.input_name:
            return self._leaf == "input"
        if name in network.neurons:
            return self._leaf == "layer"
        return any(True for _ in self._sources(name))

    def _leaf_wire(self, name: str) -> Wire:
        kind: Leaf = "layer" if name in self._plan.network.neurons else "input"
        return Wire(kind, name, self._plan.leaving[name])

    def _apply(self, name: str, into: Wire | None) -> None:
        """Adds to sums what the node `name` makes of each wire that reaches it."""
        computed = self._plan.operations[name]
        if isinstance(computed, Pass):
            raise NetworkError(f"Node {name!r} computes nothing.")
        for source in self._sources(name):
            wire = self._sums(source) if source in self._plan.operations else self._leaf_wire(source)
            if not wire.storage.equals(computed.takes):
                wire = self._reordered(wire, computed.takes)
            self.steps.append(Apply(name, computed, wire, into))

    def _sums(self, name: str) -> Wire:
        """What leaves a synapse or a pooling node, once it lies in sums of its own."""
        if name not in self._filled:
            wire = self._filled[name] = Wire("sums", name, self._plan.leaving[name])
            self.steps.append(Clear(wire))
            self._apply(name, wire)
        return self._filled[name]

    def _reordered(self, wire: Wire, storage: Storage) -> Wire:
        other = Wire("sums", f"{wire.name}, reordered at {len(self.steps)}", storage)
        self.steps += [Clear(other), Add(wire, storage, other)]
        return other


def _merged(steps: list[Step]) -> list[Step]:
    """Factors that stand side by side as one: a residual's identity path is several synapses if it takes more bits."""
    merged: list[Step] = []
    places: dict[tuple[str, str, str], int] = {}
    for step in steps:
        if not isinstance(step, Apply) or not isinstance(step.operation, Multiply):
            merged.append(step)
            continue
        key = (step.source.kind, step.source.name, "" if step.into is None else step.into.name)
        earlier = merged[places[key]] if key in places else None
        if isinstance(earlier, Apply) and isinstance(earlier.operation, Multiply):
            factors = earlier.operation.factors + step.operation.factors
            both = replace(earlier.operation, factors=factors)
            merged[places[key]] = replace(earlier, node=f"{earlier.node} + {step.node}", operation=both)
        else:
            places[key] = len(merged)
            merged.append(step)
    return merged
