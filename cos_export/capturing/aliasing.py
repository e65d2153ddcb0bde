"""Which tensors of a traced graph share memory, and whether an in-place operation spoils what is read later."""

from __future__ import annotations

import operator as python_operator
from collections.abc import Iterable

import torch
from torch import fx

from cos_export.capturing.findings import Unsupported
from cos_export.capturing.tracing import named_arguments, operation

__all__ = ["Aliasing", "draws", "mutates", "shares", "written"]

_SHARING = ("reshape", "contiguous", "dropout", "flatten", "to", "feature_dropout")
"""They return their input itself when there is nothing to do."""

_ASSIGNING = ("copy", "fill", "zero")
"""They have no form that is not in place."""


class Aliasing:
    """Which of the nodes seen so far share memory, and what writes to it.

    Args:
        nodes: All nodes of the graph, in order.
    """

    def __init__(self, nodes: Iterable[fx.Node]) -> None:
        self._rank = {node: i for i, node in enumerate(nodes)}
        # Nodes that share memory have the same root.
        self._root: dict[fx.Node, fx.Node] = {}

    def add(self, node: fx.Node, read: fx.Node) -> None:
        """Notes a node, and `read`, the first of what it reads."""
        self._root[node] = self._root.get(read, read) if shares(node) else node

    def check(self, node: fx.Node) -> None:
        """Refuses to overwrite what is read again: the graph would go on with the old value.

        Raises:
            Unsupported: A later operation reads the overwritten memory other than through the result.
        """
        if not mutates(node):
            return
        for other, root in self._root.items():
            if other is not node and root is self._root[node]:
                self._refuse_later_reader(other, node)
        self._refuse_later_reader(self._root[node], node)

    def _refuse_later_reader(self, alias: fx.Node, node: fx.Node) -> None:
        if alias is not node and any(self._rank[user] > self._rank[node] for user in alias.users):
            name = operation(node).rstrip("_")
            raise Unsupported(
                "it overwrites in place what is read again later",
                "compute in new tensors where the old one is still needed, z / 2 in place of z.div_(2)"
                if name in _ASSIGNING
                else f"use {name} that is not in place",
            )


def mutates(node: fx.Node) -> bool:
    """Whether the operation writes to one of its arguments."""
    schema = getattr(node.target, "_schema", None)
    return bool(schema is not None and schema.is_mutable)


def written(node: fx.Node) -> list[fx.Node]:
    """The arguments that the operation writes to."""
    schema, given = getattr(node.target, "_schema", None), named_arguments(node)
    entries = [] if schema is None else schema.arguments
    held = [given[entry.name] for entry in entries if entry.alias_info is not None and entry.alias_info.is_write]
    return [argument for argument in held if isinstance(argument, fx.Node)]


def draws(node: fx.Node) -> bool:
    """Whether the operation draws random numbers that something reads."""
    seeded = torch.Tag.nondeterministic_seeded in getattr(node.target, "tags", ())
    # Dropout and its kin draw in training only, and not all of them carry the tag.
    in_training = {"train", "training"} & set(given := named_arguments(node))
    drawing = any(given[name] for name in in_training) if in_training else seeded
    return bool(node.users) and drawing and ("dropout" in operation(node) or seeded)


def shares(node: fx.Node) -> bool:
    """Whether the result lies in the memory of an argument, as a view or what was written in place."""
    if mutates(node) or node.target is python_operator.getitem or str(node.target) == "cos_export.window.default":
        return True
    schema = getattr(node.target, "_schema", None)
    aliased = schema is not None and any(entry.alias_info is not None for entry in schema.returns)
    return aliased or operation(node) in _SHARING
