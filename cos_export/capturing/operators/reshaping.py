"""Operators that only regroup axes."""

from __future__ import annotations

from dataclasses import replace
from math import prod

import nir
import numpy as np

from cos_export.capturing.findings import Unsupported
from cos_export.capturing.operators.registry import Call, Converted, operator
from cos_export.capturing.values import Value
from cos_export.network.graph import Shape

__all__ = ["reshaped"]


@operator(
    "aten.flatten.using_ints",
    "aten.view.default",
    "aten.reshape.default",
    "aten._unsafe_view.default",
    "aten.squeeze.dim",
    "aten.squeeze.dims",
    "aten.squeeze.default",
    "aten.unsqueeze.default",
    "aten.view_as.default",
    "aten.reshape_as.default",
    "aten.unflatten.int",
)
def _reshape(call: Call) -> Converted:
    value = call.first_signal(split=True, permuted=True)
    if value.order is not None and value.shape != call.shape:
        return _flattened_permutation(call, value)
    return Converted(*reshaped(call, value))


def _flattened_permutation(call: Call, value: Value) -> Converted:
    """All axes as one, in another order than that of the map: the features are picked by those that follow."""
    if len(call.shape) != 1:
        raise Unsupported(
            f"it turns shape {value.shape}, whose channels are not in front, into {call.shape}",
            "flatten all of it, x.flatten(1), or permute back before it",
        )
    base = value.base
    picks = np.arange(prod(base.shape)).reshape(base.shape).transpose(value.order).ravel()
    flat = call.builder.flattened(call.name, base)
    return Converted(flat.gathered(picks.tolist(), call.shape), "Flatten, its order in the weights that follow")


def reshaped(call: Call, value: Value) -> tuple[Value, str]:
    """`value` in the shape of the call's result, which keeps the order of the elements, and what that takes.

    Raises:
        Unsupported: It does more than merge neighbouring axes into one, or spread channels over several.
    """
    if value.shape == call.shape:
        return value, "nothing, for the shape stays the same"
    split = len(call.shape) - len(value.spatial)
    if split >= 1 and call.shape[split:] == value.spatial:
        words = "nothing, for the channels are on one axis again" if split == 1 else "channels over several axes"
        return replace(value, shape=call.shape, split=split), words
    merged = _merged_axes(value.shape, call.shape) if value.split == 1 else None
    if merged is None:
        raise Unsupported(
            f"it turns shape {value.shape} into {call.shape} (without the batch axis)",
            "only axes behind the batch axis can be merged: flatten all of them, x.flatten(1)",
        )
    first, last = merged
    rank = len(value.shape)
    # Counted from the end, these mean the same with a batch axis and without.
    name, result = call.builder.unweighted(
        call.name,
        value,
        call.shape,
        lambda shape: nir.Flatten({"input": np.array(shape)}, start_dim=first - rank, end_dim=last - rank),
        spread=prod(value.shape[1 : last + 1]) if first == 0 else 1,
    )
    return result, f"Flatten {name!r}"


def _merged_axes(before: Shape, after: Shape) -> tuple[int, int] | None:
    """The first and last of the axes of `before` that are merged to give `after`, or None."""
    width = len(before) - len(after) + 1
    if width < 2:
        return None
    # The longest common front comes first, so that a whole flatten is found as one.
    for first in range(len(after)):
        last = first + width - 1
        if (*before[:first], prod(before[first : last + 1]), *before[last + 1 :]) == after:
            return first, last
    return None
