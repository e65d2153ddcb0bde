"""Cuts a network into stages: a layer of neurons, or the readout, with the synapses in front of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from job import Node

__all__ = ["Stage", "cut"]


@dataclass(frozen=True)
class Stage:
    """What one process of the batched back end computes.

    Attributes:
        node: The layer of neurons, or the Output.
        synapses: What lies between it and its sources, in topological order.
        sources: The layers of neurons that it takes spikes from.
        reads_input: Whether the Input reaches it, too.
        input_name: The Input.
    """

    node: Node
    synapses: tuple[Node, ...]
    sources: tuple[Node, ...]
    reads_input: bool
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
                reads_input=entry in sources,
                input_name=entry,
            )
        )
    return tuple(stages)
