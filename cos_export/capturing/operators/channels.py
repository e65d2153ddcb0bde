"""Operators that join, cut and re-order channels: they wait in the value's index until a synapse takes them."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
from torch import Tensor

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
    if any(value.split != 1 or value.order is not None for value in values):
        raise Unsupported(
            "it joins values whose channels are spread over several axes, or behind others",
            "bring them back to one axis before it",
        )
    axis = call.arguments.get("dim", 1)
    if axis % (len(values[0].shape) + 1) != 1:
        raise Unsupported(
            f"it joins along axis {axis}, and only channels can be joined",
            "join along axis 1, or add the values instead",
        )
    becomes = f"{len(values)} parts, each behind weights of its own" if len(values) > 1 else "nothing, for it is one"
    return Converted(Value.joined(values, call.shape), becomes)


@operator("aten.stack.default")
def _stack(call: Call) -> Converted:
    values = [value for value in call.arguments["tensors"] if isinstance(value, Value)]
    if len(values) < len(call.arguments["tensors"]):
        raise Unsupported("it joins a constant to what depends on the input", "leave the constant out")
    axis = call.arguments["dim"] % (len(call.shape) + 1)
    if any(value.split != 1 or value.order is not None for value in values) or axis not in (1, 2):
        raise Unsupported(
            f"it joins along a new axis {axis}, and only axes beside that of the channels can be made",
            "join along the channels: torch.cat(..., 1), or add the values",
        )
    joined = Value.joined(values, (sum(value.channels for value in values), *values[0].spatial))
    if axis == 1:
        return Converted(replace(joined, shape=call.shape, split=2), f"{len(values)} parts beside each other")
    picks = np.arange(joined.channels).reshape(len(values), -1).T.ravel()
    return Converted(joined.gathered(picks.tolist(), call.shape, 2), f"{len(values)} parts, channel by channel")


@operator("aten.index.Tensor", "aten.index_select.default")
def _index(call: Call) -> Converted:
    value = call.signal("self")
    places = call.arguments.get("indices", [None] * call.arguments.get("dim", 0) + [call.arguments.get("index")])
    chosen = [(axis, place) for axis, place in enumerate(places) if place is not None]
    if len(chosen) != 1 or chosen[0][0] != 1 or not isinstance(chosen[0][1], Tensor) or chosen[0][1].ndim != 1:
        raise Unsupported(
            "it picks places by index along other axes than that of the channels, or by what depends on the input",
            "pick channels only, x[:, [0, 2, 1]], or slices",
        )
    index = chosen[0][1]
    numbers = np.arange(value.channels)[index.cpu().numpy()]
    return Converted(value.gathered(numbers.tolist(), call.shape), f"{len(numbers)} of {value.channels} channels")


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
    value = call.signal("self", split=True, permuted=True)
    order = _axes(call.arguments, len(value.shape) + 1)
    if order is not None and order[0] == 0 and value.split == 1 and len(value.shape) > 1:
        return Converted(value.permuted([axis - 1 for axis in order[1:]]), "another order of axes, up to a flatten")
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
