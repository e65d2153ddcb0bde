"""The one walk through a network: each node after all that feed it, and what lies on the wires until it is read."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Generic, TypeVar

from cos_export.network.spiking_network import SpikingNetwork

__all__ = ["Wires"]

Value = TypeVar("Value")


class Wires(Generic[Value]):
    """What each node of a network sends, while something still has to read it.

    A walk is written as

        wires: Wires[Tensor] = Wires(network)
        for name, arriving in wires.walk():
            wires[name] = ...

    where `arriving` holds what each source of the node sends, in the order of its edges. A value is dropped when its
    last reader is reached, so memory does not grow with the depth; what the Output takes stays.

    Args:
        network: Whose nodes are visited, in topological order.
    """

    def __init__(self, network: SpikingNetwork) -> None:
        self._network = network
        self._values: dict[str, Value] = {}
        self._last_reader = {source: name for name in network.order for source in network.predecessors[name]}

    def walk(self) -> Iterator[tuple[str, list[Value]]]:
        """Each node's name, and what arrives at it: a list of the caller's own, empty at the Input."""
        for name in self._network.order:
            yield name, self._arriving(name)

    def _arriving(self, name: str) -> list[Value]:
        sources = self._network.predecessors[name]
        arriving = [self._values[source] for source in sources]
        for source in set(sources):
            if self._last_reader[source] == name:
                del self._values[source]
        return arriving

    def __setitem__(self, name: str, value: Value) -> None:
        self._values[name] = value

    def __getitem__(self, name: str) -> Value:
        return self._values[name]

    @property
    def readout(self) -> Value:
        """What reaches the Output, after the walk."""
        return self._values[self._network.output_name]
