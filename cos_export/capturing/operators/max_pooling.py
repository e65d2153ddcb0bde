"""Max pooling: refused, or replaced by the average over the same windows before the graph is walked."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import fx

from cos_export.capturing.findings import Unsupported
from cos_export.capturing.operators.registry import Call, Converted, operator
from cos_export.capturing.refusals import refusal
from cos_export.capturing.tracing import REPLACED, named_arguments, operation

__all__ = ["WARNING", "average_max_pools"]

WARNING = "max pooling became average pooling: another function, so fine-tune the network with it"

_AVERAGES = {
    "aten.max_pool1d.default": torch.ops.aten.avg_pool1d.default,
    "aten.max_pool2d.default": torch.ops.aten.avg_pool2d.default,
}


def average_max_pools(graph: fx.Graph) -> None:
    """Turns each max pooling without padding and dilation, whose windows all lie inside, into average pooling."""
    for node in graph.nodes:
        given = named_arguments(node)
        if str(node.target) not in _AVERAGES or not _has_average(given):
            continue
        node.meta[REPLACED] = operation(node)
        node.target = _AVERAGES[str(node.target)]
        node.args = (given["self"], given["kernel_size"], given["stride"] or given["kernel_size"])
        node.kwargs = {}


def _has_average(given: Mapping[str, Any]) -> bool:
    padded, dilated = any(_numbers(given["padding"])), any(n != 1 for n in _numbers(given["dilation"]))
    return not (padded or dilated or given["ceil_mode"])


def _numbers(given: int | Sequence[int]) -> Sequence[int]:
    return [given] if isinstance(given, int) else given


@operator(*_AVERAGES)
def _max_pooling(call: Call) -> Converted:
    reason, fix = refusal(operation(call.node))
    if _has_average(call.arguments):
        raise Unsupported(reason, fix)
    # Not the fix that max_pool="average" would be, for it was given perhaps, and does not help here.
    raise Unsupported(
        f"{reason}, and with padding, dilation or ceil_mode there is no average over the same windows",
        "use nn.AvgPool2d in its place and train (or fine-tune) with it",
    )
