"""Max pooling as the average over the same windows, where the user wants it: replaced before the graph is walked."""

from __future__ import annotations

import operator as python_operator
from collections.abc import Callable, Mapping
from math import prod
from typing import Any

import torch
from torch import fx

from cos_export.capturing.tracing import REPLACED, named_arguments, operation

__all__ = ["WARNING", "average_max_pools"]

WARNING = "max pooling became average pooling: another function, so fine-tune the network with it"

_Average = tuple[Callable[..., Any], tuple[Any, ...]]


def average_max_pools(graph: fx.Graph) -> None:
    """Turns each max pooling that has an average over the same windows into that.

    What a window has in the padding counts as zeros, and the divisor is the same for all windows. Without one are
    windows with dilation, over one axis those that reach beyond the padding, and the maximum of two values.
    """
    for node in list(graph.nodes):
        average = _average(str(node.target), named_arguments(node)) if node.op == "call_function" else None
        if average is None:
            continue
        several = isinstance(node.meta.get("val"), list | tuple)
        if several and not _drop_indices(node):
            continue
        node.meta[REPLACED] = operation(node)
        node.target, node.args = average
        node.kwargs = {}


def _drop_indices(node: fx.Node) -> bool:
    """Makes of a pooling with two results one with the first, and says whether the other is not read."""
    reads = [user for user in node.users if user.target is python_operator.getitem]
    if len(reads) < len(node.users) or any(read.args[1] != 0 and read.users for read in reads):
        return False
    for read in reads:
        read.replace_all_uses_with(node)
        node.graph.erase_node(read)
    node.meta["val"] = node.meta["val"][0]
    return True


def _average(target: str, given: Mapping[str, Any]) -> _Average | None:
    """The operator and its arguments that average over the same windows, or None."""
    aten = torch.ops.aten
    if target.startswith(("aten.max_pool1d", "aten.max_pool2d")):
        if any(n != 1 for n in _numbers(given["dilation"])):
            return None
        sizes = (given["self"], given["kernel_size"], given["stride"] or given["kernel_size"], given["padding"])
        if "1d" in target:
            return None if given["ceil_mode"] else (aten.avg_pool1d.default, sizes)
        kernel = _numbers(given["kernel_size"])
        divisor = prod(kernel) if len(kernel) > 1 else kernel[0] ** 2
        return aten.avg_pool2d.default, (*sizes, given["ceil_mode"], True, divisor)
    if target == "aten.adaptive_max_pool1d.default":
        return aten.adaptive_avg_pool1d.default, (given["self"], given["output_size"])
    if target == "aten.adaptive_max_pool2d.default":
        return aten.adaptive_avg_pool2d.default, (given["self"], given["output_size"])
    if target in ("aten.amax.default", "aten.max.dim"):
        return aten.mean.dim, (given["self"], list(_numbers(given["dim"])), given["keepdim"])
    return None


def _numbers(given: Any) -> list[int]:
    return list(given) if isinstance(given, list | tuple) else [given]
