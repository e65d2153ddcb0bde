"""Operators that join, cut and re-order channels: they wait in the value's index until a synapse takes them."""

from __future__ import annotations

from typing import Any

import numpy as np

from cos_export.capturing.findings import Unsupported
from cos_export.capturing.operators.registry import Call, Converted, operator
from cos_export.capturing.values import Value

__all__: list[str] = []


@operator("aten.cat.default", "aten.concat.default", "aten.concatenate.default", "aten.hstack.default")
def _concatenate(call: Call) -> Converted:
    listed = call.arguments["tensors"]
    values = [value for value in listed if isinstance(value, Value)]
    if len(values) < len(listed):
        raise Unsupported("it joins a constant to what depends on the input", "leave the constant out")
    if any(value.split != 1 for value in values):
        raise Unsupported(
            "it joins values whose channels are spread over several axes", "bring them back to one axis before it"
        )
    axis = call.arguments.get("dim", 1)
    if axis % (len(values[0].shape) + 1) != 1:
        raise Unsupported(
            f"it joins along axis {axis}, and only channels can be joined",
            "join along axis 1, or add the values instead",
        )
    becomes = f"{len(values)} parts, each behind weights of its own" if len(values) > 1 else "nothing, for it is one"
    return Converted(Value.joined(values, call.shape), becomes)


@operator("aten.slice.Tensor")
def _slice(call: Call) -> Converted:
    value = call.signal("self")
    first, last, step = (call.arguments[key] for key in ("start", "end", "step"))
    axis = call.arguments["dim"] % (len(value.shape) + 1)
    if value.shape == call.shape and step == 1:
        return Converted(value, "nothing, for it takes all of it")
    _only_channels(axis)
    picks = range(*slice(first, last, step).indices(value.channels))
    return Converted(value.gathered(picks, call.shape), f"{len(picks)} of {value.channels} channels")


@operator("aten.chunk.default", "aten.split.Tensor", "aten.split.sizes", "aten.split_with_sizes.default")
def _split(call: Call) -> Converted:
    value = call.signal("self")
    _only_channels(call.arguments["dim"] % (len(value.shape) + 1))
    parts, first = [], 0
    for shape in call.shapes:
        parts.append(value.gathered(range(first, first + shape[0]), shape))
        first += shape[0]
    return Converted(tuple(parts), f"parts of {', '.join(str(shape[0]) for shape in call.shapes)} channels")


def _only_channels(axis: int) -> None:
    if axis != 1:
        raise Unsupported(
            f"it takes a part along axis {axis}, and only channels can be parted",
            "crop before the network, or use a convolution with a stride",
        )


@operator("aten.channel_shuffle.default", "aten.native_channel_shuffle.default")
def _channel_shuffle(call: Call) -> Converted:
    value, groups = call.signal("self"), int(call.arguments["groups"])
    picks = np.arange(value.channels).reshape(groups, -1).T.ravel()
    return Converted(value.gathered(picks.tolist(), value.shape), "another order of channels in the weights")


@operator(
    "aten.transpose.int",
    "aten.permute.default",
    "aten.swapaxes.default",
    "aten.swapdims.default",
    "aten.movedim.int",
)
def _permute(call: Call) -> Converted:
    value = call.signal("self", split=True)
    order = _axes(call.arguments, len(value.shape) + 1)
    if order is None or order[0] != 0 or order[value.split + 1 :] != list(range(value.split + 1, len(order))):
        raise Unsupported(
            "it re-orders axes that are not channels",
            "keep (channels, height, width) whole until the flatten; channels alone can be shuffled",
        )
    axes = [axis - 1 for axis in order[1 : value.split + 1]]
    picks = np.arange(value.channels).reshape(value.shape[: value.split]).transpose(axes).ravel()
    moved = value.gathered(picks.tolist(), call.shape, value.split)
    return Converted(moved, "another order of channels in the weights")


def _axes(given: Any, rank: int) -> list[int] | None:
    """Which axis stands where after it, or None where it is spelled in another way."""
    if "dims" in given:
        return [axis % rank for axis in given["dims"]]
    numbers = [given[key] % rank for key in given if key != "self" and isinstance(given[key], int)]
    if len(numbers) != 2:
        return None
    first, second = numbers
    order = list(range(rank))
    if "source" in given:
        order.insert(second, order.pop(first))
    else:
        order[first], order[second] = order[second], order[first]
    return order
