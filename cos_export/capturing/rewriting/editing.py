"""Puts operations into a traced graph that stand for another one, and are told of by its name and line."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, fx

from cos_export.capturing.aliasing import mutates, shares, written
from cos_export.capturing.tracing import PART_OF, operation

__all__ = ["Editing", "rewritable"]


def rewritable(graph: fx.Graph) -> list[fx.Node]:
    """The operations that may be written as others: all but what is left out, and views of constants that are written.

    What stands for such a view would be a copy, and what is written into that is lost. Of what depends on the input,
    writing into a part is noticed when the graph is walked.
    """
    unread: set[fx.Node] = set()
    for node in reversed(graph.nodes):
        if node.op == "call_function" and not mutates(node) and unread.issuperset(node.users):
            unread.add(node)
    seen: set[fx.Node] = set()
    for node in graph.nodes:
        waiting = written(node) if node.op == "call_function" and mutates(node) else []
        while waiting:
            view = waiting.pop()
            if view not in seen and view.op == "call_function" and shares(view):
                seen.add(view)
                waiting += view.all_input_nodes
    kept = unread.union(view for view in seen if not mutates(view) and _is_constant(view))
    return [node for node in graph.nodes if node.op == "call_function" and node not in kept]


def _is_constant(node: fx.Node) -> bool:
    """Whether it has no axis of samples, whose number the graph leaves open."""
    held = node.meta.get("val")
    return isinstance(held, Tensor) and all(str(n).isdigit() for n in held.shape)


class Editing:
    """Writes one node of a graph anew.

    Args:
        node: What the new nodes stand for; they come before it.
    """

    def __init__(self, node: fx.Node) -> None:
        self._node = node

    def call(self, target: Any, *arguments: Any) -> fx.Node:
        """A new node that calls an operator of ATen on nodes and plain values."""
        graph = self._node.graph
        with graph.inserting_before(self._node):
            made = graph.call_function(target, arguments)
        for key in ("nn_module_stack", "stack_trace", "torch_fn", "source_fn_stack"):
            if key in self._node.meta:
                made.meta[key] = self._node.meta[key]
        made.meta[PART_OF] = operation(self._node)
        with torch.no_grad():
            made.meta["val"] = target(*fx.node.map_arg(arguments, lambda node: node.meta["val"]))
        return made

    def finish(self, result: fx.Node) -> None:
        """Lets `result` take the node's place; what the node wrote into is written by a copy."""
        schema = self._node.target._schema  # type: ignore[union-attr]
        if schema.is_mutable:
            result = self.call(torch.ops.aten.copy_.default, self._node.args[0], result)
        self._node.replace_all_uses_with(result)
        self._node.graph.erase_node(self._node)
