"""Sums and means over an axis that was made by a stack, as sums of what was stacked."""

from __future__ import annotations

import torch
from torch import fx

from cos_export.capturing.rewriting.editing import Editing, rewritable
from cos_export.capturing.tracing import named_arguments

__all__ = ["rewrite_stacks"]

_SUMS = ("aten.sum.dim_IntList", "aten.mean.dim")


def rewrite_stacks(graph: fx.Graph) -> None:
    """Writes stack(values).sum(axis) and .mean(axis) as additions, in place."""
    for node in rewritable(graph):
        if node.op != "call_function" or str(node.target) != "aten.stack.default":
            continue
        given, rank, readers = named_arguments(node), node.meta["val"].ndim, list(node.users)
        if not readers or not all(_sums(reader, given["dim"] % rank, rank) for reader in readers):
            continue
        values = given["tensors"]
        for reader in readers:
            editing, total = Editing(reader), values[0]
            for value in values[1:]:
                total = editing.call(torch.ops.aten.add.Tensor, total, value)
            divisor = float(len(values)) if str(reader.target) == "aten.mean.dim" else 1.0
            editing.finish(editing.call(torch.ops.aten.div.Tensor, total, divisor))
        graph.erase_node(node)


def _sums(reader: fx.Node, axis: int, rank: int) -> bool:
    """Whether a node adds up that axis of a stack, and no other one."""
    if str(reader.target) not in _SUMS:
        return False
    given = named_arguments(reader)
    return bool(given["dim"]) and [d % rank for d in given["dim"]] == [axis] and not given["keepdim"]
