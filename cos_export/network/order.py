"""Which nodes of a graph feed which, and an order in which each comes after all that feed it."""

from __future__ import annotations

import heapq
from collections import Counter, defaultdict
from collections.abc import Iterable

import nir

from cos_export.errors import NetworkError

__all__ = ["leading_to", "predecessors", "successors", "topological_order"]


def predecessors(graph: nir.NIRGraph) -> dict[str, tuple[str, ...]]:
    """The nodes that feed each node, in the order of the edges."""
    sources: dict[str, list[str]] = defaultdict(list)
    for source, target in graph.edges:
        sources[target].append(source)
    return {name: tuple(sources[name]) for name in graph.nodes}


def successors(graph: nir.NIRGraph) -> dict[str, tuple[str, ...]]:
    """The nodes that each node feeds, in the order of the edges."""
    targets: dict[str, list[str]] = defaultdict(list)
    for source, target in graph.edges:
        targets[source].append(target)
    return {name: tuple(targets[name]) for name in graph.nodes}


def leading_to(ends: Iterable[str], edges: Iterable[tuple[str, str]]) -> frozenset[str]:
    """The nodes from which a way leads to one of `ends`, those themselves among them."""
    sources: dict[str, list[str]] = defaultdict(list)
    for source, target in edges:
        sources[target].append(source)
    waiting = list(ends)
    found: set[str] = set()
    while waiting:
        name = waiting.pop()
        if name not in found:
            found.add(name)
            waiting += sources[name]
    return frozenset(found)


def topological_order(graph: nir.NIRGraph) -> tuple[str, ...]:
    """Every node after all that feed it; ties in the order in which the graph lists its nodes.

    Raises:
        NetworkError: A name is not a string, an edge is not a pair of names, names a node that is not there or is
            listed twice, or the graph has a cycle.
    """
    for name in graph.nodes:
        if not isinstance(name, str):
            raise NetworkError(f"The graph has a node {name!r}: the name of a node must be a string.")
    for edge in graph.edges:
        if not isinstance(edge, list | tuple) or len(edge) != 2 or not all(isinstance(name, str) for name in edge):
            raise NetworkError(f"The graph has an edge {edge!r}: it must be a pair of names.")
        source, target = edge
        for name in edge:
            if name not in graph.nodes:
                raise NetworkError(
                    f"The edge {source!r} -> {target!r} names {name!r}, which is not a node of the graph. "
                    f"The nodes are {_listed(graph.nodes)}."
                )
    for (source, target), count in Counter((source, target) for source, target in graph.edges).items():
        if count > 1:
            raise NetworkError(
                f"The edge {source!r} -> {target!r} is listed {count} times. NIR does not say whether that adds its "
                "current as often: list it once, or double the weights."
            )
    feeds, waits = successors(graph), {k: len(v) for k, v in predecessors(graph).items()}
    rank = {name: i for i, name in enumerate(graph.nodes)}
    ready = [(rank[name], name) for name, count in waits.items() if count == 0]
    order: list[str] = []
    while ready:
        _, name = heapq.heappop(ready)
        order.append(name)
        for target in feeds[name]:
            waits[target] -= 1
            if waits[target] == 0:
                heapq.heappush(ready, (rank[target], target))
    if len(order) < len(graph.nodes):
        looped = sorted(set(graph.nodes) - set(order))
        raise NetworkError(
            f"The graph has a cycle through {_listed(looped)}: recurrent neurons are not supported. Only feed-forward "
            "networks can be run."
        )
    return tuple(order)


def _listed(names: Iterable[str]) -> str:
    """Names for a message, which a large graph does not make endless."""
    quoted = [repr(name) for name in names]
    return ", ".join(quoted if len(quoted) <= 20 else [*quoted[:20], f"and {len(quoted) - 20} more"])
