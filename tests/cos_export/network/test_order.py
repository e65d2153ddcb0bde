"""Which nodes feed which, and the order of a graph."""

from __future__ import annotations

import nir
import numpy as np
import pytest

from cos_export.errors import NetworkError
from cos_export.network.order import predecessors, successors, topological_order


def _graph(edges: list[tuple[str, str]], names: list[str] | None = None) -> nir.NIRGraph:
    names = names or sorted({name for edge in edges for name in edge})
    return nir.NIRGraph({name: nir.Input(np.array([1])) for name in names}, edges, type_check=False)


def test_order_puts_every_node_after_its_feeds_whatever_the_order_of_edges() -> None:
    graph = _graph([("d", "e"), ("b", "d"), ("a", "b"), ("c", "d"), ("a", "c")])
    order = topological_order(graph)
    assert order == ("a", "b", "c", "d", "e")


def test_ties_follow_the_listing() -> None:
    graph = _graph([("in", "z"), ("in", "a"), ("z", "out"), ("a", "out")], names=["out", "z", "in", "a"])
    assert topological_order(graph) == ("in", "z", "a", "out")


def test_cycle_is_named() -> None:
    with pytest.raises(NetworkError, match="cycle through 'b', 'c'"):
        topological_order(_graph([("a", "b"), ("b", "c"), ("c", "b")]))


def test_dangling_edge_is_named() -> None:
    with pytest.raises(NetworkError, match="'b', which is not a node"):
        topological_order(_graph([("a", "b")], names=["a"]))


def test_neighbours_keep_the_order_of_edges() -> None:
    graph = _graph([("c", "d"), ("a", "d"), ("a", "b")])
    assert predecessors(graph)["d"] == ("c", "a")
    assert successors(graph)["a"] == ("d", "b")
    assert predecessors(graph)["a"] == ()
