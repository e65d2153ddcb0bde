"""Which wires must share a scale: integers that are added must mean the same.

A wire from the Input carries multiples of the input's scale, one from a spiking layer unit spikes, and one from a
synapse multiples of a scale that is free to choose. Flatten, SumPool2d and synapses that pick entries hand on the scale
of their input.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, replace

import nir
import numpy as np

from cos_export.errors import NetworkError
from cos_export.network import SpikingNetwork
from cos_export.network.graph import Pooling, Shape, with_attributes
from cos_export.network.node_facts import facts, weight_field
from cos_export.network.order import leading_to, successors
from cos_export.network.wiring import picks_entries

__all__ = [
    "Group",
    "fold_averages",
    "free_name",
    "groups",
    "has_own_scale",
    "in_order",
    "with_carriers",
    "without_dead_ends",
]


@dataclass(frozen=True)
class Group:
    """Wires that share a scale, and the nodes that take the sum of such wires.

    Attributes:
        producers: Weighted nodes whose output it is, in topological order.
        layers: Spiking layers whose current it is.
        readout: Whether the Output takes it.
        readers: All nodes that take it.
        edges: Edges into `readers` whose scale cannot be chosen: from the Input or a spiking layer.
    """

    producers: tuple[str, ...]
    layers: tuple[str, ...]
    readout: bool
    readers: tuple[str, ...]
    edges: tuple[tuple[str, str], ...]

    @property
    def inner(self) -> bool:
        """Whether it lies between synapses alone."""
        return bool(self.producers) and not self.layers and not self.readout


def groups(network: SpikingNetwork) -> list[Group]:
    """All groups of a network, in the topological order of their first readers.

    Raises:
        NetworkError: A synapse's output is added to its own input, which no scale can serve.
    """
    nodes = network.graph.nodes
    parent: dict[tuple[str, str], tuple[str, str]] = {}

    def find(key: tuple[str, str]) -> tuple[str, str]:
        parent.setdefault(key, key)
        while parent[key] != key:
            key = parent[key]
        return key

    for name in network.order:
        for source in network.predecessors[name]:
            if not _fixed(network, source):
                out = ("out" if has_own_scale(nodes[source]) else "in", source)
                parent[find(("in", name))] = find(out)
    members: dict[tuple[str, str], list[str]] = {}
    for name in network.order:
        if network.predecessors[name]:
            members.setdefault(find(("in", name)), []).append(name)
    producers: dict[tuple[str, str], list[str]] = {}
    for name in network.order:
        if has_own_scale(nodes[name]):
            producers.setdefault(find(("out", name)), []).append(name)
            if find(("out", name)) == find(("in", name)):
                raise NetworkError(
                    f"Node {name!r}: what it gives is added to what it takes, with no neurons between, so both would "
                    "need one scale. Such a network has no form in integers."
                )
    return [
        Group(
            producers=tuple(producers.get(key, ())),
            layers=tuple(name for name in readers if name in network.neurons),
            readout=network.output_name in readers,
            readers=tuple(readers),
            edges=tuple(
                (source, name) for name in readers for source in network.predecessors[name] if _fixed(network, source)
            ),
        )
        for key, readers in members.items()
    ]


def in_order(parts: list[Group]) -> list[Group]:
    """The groups, each after those that give its producers their input scale.

    Raises:
        NetworkError: There is no such order.
    """
    ordered: list[Group] = []
    while len(ordered) < len(parts):
        known = {name for group in ordered for name in group.readers}
        ready = [group for group in parts if group not in ordered and known.issuperset(group.producers)]
        if not ready:
            names = ", ".join(name for group in parts if group not in ordered for name in group.producers)
            raise NetworkError(f"The scales of {names} depend on each other: the network has no form in integers.")
        ordered += ready
    return ordered


def has_own_scale(node: nir.NIRNode) -> bool:
    """Whether what a node sends is counted in a scale that is free to choose."""
    return facts(node).weighted and not picks_entries(node)


def _fixed(network: SpikingNetwork, name: str) -> bool:
    return name in network.neurons or name == network.input_name


def with_carriers(network: SpikingNetwork) -> SpikingNetwork:
    """The same network with a synapse of weight 1 wherever a spike or the input is added to what has another scale.

    A layer that is fed without a synapse gets one, too, since its thresholds need a scale fine enough.
    """
    edges = [(str(source), str(target)) for source, target in network.graph.edges]
    nodes = dict(network.graph.nodes)
    for group in groups(network):
        kinds = {source == network.input_name for source, _ in group.edges}
        alone = not group.producers and not group.layers and not group.readout and len(kinds) < 2
        if alone or not group.edges:
            continue
        for edge, count in Counter(group.edges).items():
            for _ in range(count):
                source, target = edge
                name = free_name(nodes, f"{source}_to_{target}")
                nodes[name] = _identity(network.shapes[source])
                place = edges.index(edge)
                edges[place : place + 1] = [(source, name), (name, target)]
    return _rebuilt(network, nodes, edges)


def free_name(used: Iterable[str], preferred: str) -> str:
    """`preferred`, or that with the first number from 2 on which makes it new."""
    name, count = preferred, 2
    while name in used:
        name, count = f"{preferred}_{count}", count + 1
    return name


def _identity(shape: Shape) -> nir.NIRNode:
    channels = shape[0]
    one, none = np.eye(channels, dtype=np.float32), np.zeros(channels, np.float32)
    if len(shape) == 3:
        return nir.Conv2d(shape[1:], one[:, :, None, None], 1, 0, 1, 1, none)
    if len(shape) == 2:
        return nir.Conv1d(shape[1], one[:, :, None], 1, 0, 1, 1, none)
    # A dense matrix of features would be large, and almost empty.
    return nir.Scale(np.ones(shape, np.float32))


def without_dead_ends(network: SpikingNetwork) -> SpikingNetwork:
    """The same network without what leads neither to a layer nor to the Output: nothing says how fine it has to be."""
    graph = network.graph
    read = leading_to([network.input_name, network.output_name, *network.layers], graph.edges)
    nodes = {name: node for name, node in graph.nodes.items() if name in read}
    return _rebuilt(network, nodes, [edge for edge in graph.edges if edge[1] in read])


def fold_averages(network: SpikingNetwork) -> SpikingNetwork:
    """The same network with each AvgPool2d as a SumPool2d, its 1 / size in the weights of the nodes it feeds.

    Raises:
        NetworkError: One feeds something that cannot take the factor.
    """
    feeds, nodes = successors(network.graph), dict(network.graph.nodes)
    for name in network.order:
        divisor, window = facts(nodes[name]).divisor, facts(nodes[name]).geometry
        if divisor == 1 or not isinstance(window, Pooling):
            continue
        factor = 1.0 / divisor
        for reader in _weighted_readers(network, name, feeds, name):
            taking, field = nodes[reader], weight_field(nodes[reader])
            scaled = (np.asarray(getattr(taking, field), np.float64) * factor).astype(np.float32)
            nodes[reader] = with_attributes(taking, **{field: scaled})
        nodes[name] = nir.SumPool2d(*(np.array(part) for part in (window.kernel, window.stride, window.padding)))
    return _rebuilt(network, nodes, list(network.graph.edges))


def _weighted_readers(network: SpikingNetwork, name: str, feeds: dict[str, tuple[str, ...]], first: str) -> list[str]:
    """The weighted nodes that `name` reaches through other pooling and Flatten nodes, each fed by nothing else."""
    readers: list[str] = []
    for reader in feeds[name]:
        node, alone = network.graph.nodes[reader], len(network.predecessors[reader]) == 1
        if alone and facts(node).weighted:
            readers.append(reader)
        elif alone and facts(node).keeps_scale:
            readers += _weighted_readers(network, reader, feeds, first)
        else:
            raise NetworkError(
                f"Node {first!r} (AvgPool2d) feeds {reader!r}, which cannot take over its 1 / size. Put a synapse "
                "between them, or use SumPool2d."
            )
    return readers


def _rebuilt(network: SpikingNetwork, nodes: dict[str, nir.NIRNode], edges: list[tuple[str, str]]) -> SpikingNetwork:
    graph = nir.NIRGraph(nodes, edges, metadata=network.graph.metadata, type_check=False)
    return replace(network, graph=graph)
