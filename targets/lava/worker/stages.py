"""Cuts a network into stages: a layer of neurons, or the readout, with the synapses in front of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from job import Job, JobError, Node
from operations import Operation, create

__all__ = ["Currents", "Stage", "constant_current", "cut", "operation"]


@dataclass(frozen=True)
class Stage:
    """What one process of the batched back end computes.

    Attributes:
        node: The layer of neurons, or the Output.
        synapses: What lies between it and its sources, in topological order.
        sources: The layers of neurons that it hears.
        hears_input: Whether the Input reaches it, too.
        input_name: The Input.
    """

    node: Node
    synapses: tuple[Node, ...]
    sources: tuple[Node, ...]
    hears_input: bool
    input_name: str


def cut(nodes: Sequence[Node]) -> tuple[Stage, ...]:
    """The stages of a network, in topological order.

    A synapse that two stages need belongs to both, and each computes it for itself.
    """
    known = {node.name: node for node in nodes}
    entry = next(node.name for node in nodes if node.kind == "input")
    stages = []
    for node in nodes:
        if node.kind not in ("neuron", "output"):
            continue
        needed: set[str] = set()
        sources: set[str] = set()
        waiting = list(node.inputs)
        while waiting:
            name = waiting.pop()
            if known[name].kind in ("input", "neuron"):
                sources.add(name)
            elif name not in needed:
                needed.add(name)
                waiting.extend(known[name].inputs)
        stages.append(
            Stage(
                node=node,
                synapses=tuple(n for n in nodes if n.name in needed),
                sources=tuple(n for n in nodes if n.name in sources and n.kind == "neuron"),
                hears_input=entry in sources,
                input_name=entry,
            )
        )
    return tuple(stages)


def operation(node: Node, dtype: np.dtype | type) -> Operation:
    """The operation of a synapse, its arrays read from the job's folder."""
    arrays = {key: array for key in node.arrays if (array := node.array(key)) is not None}
    try:
        return create(node.kind, {**node.settings, "shape": node.shape}, arrays, dtype)
    except (KeyError, ValueError, TypeError) as error:
        raise JobError(f"Node {node.name!r} ({node.kind}) cannot be built: {error}") from error


class Currents:
    """The current I(t) that reaches a stage from its sources.

    Whatever depends on the Input alone is the same at every step, so it is computed once per group.

    Args:
        stage: Whose current.
        dtype: In which it is computed.
    """

    def __init__(self, stage: Stage, dtype: np.dtype | type) -> None:
        self._stage = stage
        spiking = {node.name for node in stage.sources}
        for node in stage.synapses:
            if spiking.intersection(node.inputs):
                spiking.add(node.name)
        self._operations = {node.name: operation(node, dtype) for node in stage.synapses}
        self._fixed = [node for node in stage.synapses if node.name not in spiking]
        self._changing = [node for node in stage.synapses if node.name in spiking]
        self._constant = not spiking.intersection(stage.node.inputs)
        self._held: dict[str, np.ndarray] = {}

    def begin(self, images: np.ndarray | None) -> None:
        """Takes the next group's images, (batch, ...), or None if the Input does not reach this stage."""
        self._held = {} if images is None else {self._stage.input_name: images}
        self._evaluate(self._fixed, self._held)
        if self._constant:
            self._held = {"": self._sum(self._stage.node, self._held)}

    def step(self, spikes: Mapping[str, np.ndarray]) -> np.ndarray:
        """I(t) from the spikes s(t) of the sources, by their names: (batch, ...)."""
        if self._constant:
            return self._held[""]
        values = {**self._held, **spikes}
        self._evaluate(self._changing, values)
        return self._sum(self._stage.node, values)

    def _evaluate(self, nodes: Sequence[Node], values: dict[str, np.ndarray]) -> None:
        for node in nodes:
            values[node.name] = self._operations[node.name](self._sum(node, values))

    @staticmethod
    def _sum(node: Node, values: Mapping[str, np.ndarray]) -> np.ndarray:
        total = values[node.inputs[0]]
        for name in node.inputs[1:]:
            total = total + values[name]
        return total


def constant_current(stage: Stage, job: Job) -> np.ndarray:
    """What the biases of a stage's synapses alone bring to it: its current if every source is at zero.

    A bias goes through whatever follows it, so the chain is evaluated as it is, in float64.

    Returns:
        An array of the stage's shape.
    """
    shapes = {node.name: node.shape for node in job.nodes}
    currents = Currents(stage, np.float64)
    zeros = {node.name: np.zeros((1, *node.shape)) for node in stage.sources}
    currents.begin(np.zeros((1, *shapes[stage.input_name])) if stage.hears_input else None)
    return np.asarray(currents.step(zeros)[0])
