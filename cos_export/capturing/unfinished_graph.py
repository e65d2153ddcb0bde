"""A NIR graph that a walk builds up: its nodes by name, the weights of synapses still open to change, and its edges."""

from __future__ import annotations

import keyword
import re
from collections.abc import Sequence

import nir
import numpy as np

from cos_export.capturing.synapse import Synapse
from cos_export.network.graph import Shape
from cos_export.network.order import leading_to

__all__ = ["UnfinishedGraph"]

INPUT, OUTPUT = "input", "output"
"""The names of the two ends."""


class UnfinishedGraph:
    """The nodes and edges so far.

    Args:
        input_shape: The shape of one sample.
    """

    def __init__(self, input_shape: Shape) -> None:
        self._nodes: dict[str, nir.NIRNode | Synapse] = {INPUT: nir.Input({"input": np.array(input_shape)})}
        self._edges: list[tuple[str, str]] = []

    def add(self, preferred: str, node: nir.NIRNode | Synapse, sources: Sequence[str]) -> str:
        """Adds a node that takes the sum of what `sources` send, as it is; returns its name."""
        name = self._free_name(preferred)
        self._nodes[name] = node
        self._edges += [(source, name) for source in sources]
        return name

    def synapse(self, name: str) -> Synapse | None:
        """The synapse of that name, or None where that is something else."""
        node = self._nodes.get(name)
        return node if isinstance(node, Synapse) else None

    def sources_of(self, name: str) -> list[str]:
        """The nodes that it takes the sum of."""
        return [source for source, target in self._edges if target == name]

    def readers_of(self, name: str) -> list[str]:
        """The nodes that take what it sends."""
        return [target for source, target in self._edges if source == name]

    def replaced(self, name: str, parts: Sequence[tuple[nir.NIRNode | Synapse, Sequence[str]]]) -> list[str]:
        """Puts nodes in the place of one, the first of which keeps its name.

        Args:
            name: Whose readers take what they all send.
            parts: Each with the nodes that it takes the sum of.

        Returns:
            Their names.
        """
        readers = self.readers_of(name)
        self._edges = [edge for edge in self._edges if name not in edge]
        del self._nodes[name]
        names = [self.add(name, node, sources) for node, sources in parts]
        self._edges += [(part, reader) for reader in readers for part in names]
        return names

    def close(self, output_shape: Shape, sources: Sequence[str]) -> None:
        """Ends the graph in the sum of what `sources` send.

        What leads neither there nor to neurons goes, such as a synapse of which all readers have taken a copy: it would
        be computed, counted and rounded for nothing.
        """
        self._nodes[OUTPUT] = nir.Output({"output": np.array(output_shape)})
        self._edges += [(source, OUTPUT) for source in sources]
        neurons = [name for name, node in self._nodes.items() if isinstance(node, nir.IF)]
        read = leading_to([INPUT, OUTPUT, *neurons], self._edges)
        self._nodes = {name: node for name, node in self._nodes.items() if name in read}
        self._edges = [edge for edge in self._edges if edge[1] in read]

    def finished(self) -> nir.NIRGraph:
        """The graph, its weights rounded to float32."""
        nodes = {name: node.node() if isinstance(node, Synapse) else node for name, node in self._nodes.items()}
        return nir.NIRGraph(nodes, self._edges, metadata={}, type_check=False)

    def _free_name(self, preferred: str) -> str:
        """A name that every reader of NIR takes: an identifier, no keyword, not taken, not an end of the graph."""
        base = re.sub(r"\W", "_", preferred) or "node"
        if base[0].isdigit():
            base = f"layer_{base}"
        if keyword.iskeyword(base):
            base += "_"
        name, count = base, 0
        while name in self._nodes or name in (INPUT, OUTPUT):
            count += 1
            name = f"{base}_{count}"
        return name
