"""Maxima and minima of spikes: neurons over differences, or the average over the same windows in their place."""

from __future__ import annotations

import operator as python_operator

from cos_export.capturing.findings import Unsupported
from cos_export.capturing.maxima import Windows, larger, pooled
from cos_export.capturing.operators.registry import Call, Converted, operator
from cos_export.capturing.operators.reshaping import reshaped
from cos_export.capturing.values import Value
from cos_export.network.graph import Shape

__all__: list[str] = []


@operator(
    "aten.max_pool1d.default",
    "aten.max_pool2d.default",
    "aten.max_pool1d_with_indices.default",
    "aten.max_pool2d_with_indices.default",
)
def _max_pooling(call: Call) -> Converted:
    value = _map(call)
    axes = len(value.shape) - 1
    kernel = call.sizes("kernel_size", axes)
    windows = Windows(
        kernel=kernel,
        stride=call.sizes("stride", axes) if call.arguments["stride"] else kernel,
        padding=call.sizes("padding", axes),
        dilation=call.sizes("dilation", axes),
        count=call.shape[1:],
    )
    return _extremes(call, value, windows, 1)


@operator("aten.adaptive_max_pool1d.default", "aten.adaptive_max_pool2d.default")
def _adaptive_max_pooling(call: Call) -> Converted:
    value = _map(call)
    sizes = tuple(zip(value.spatial, call.shape[1:], strict=True))
    if any(before % after for before, after in sizes):
        raise Unsupported(
            f"its windows over {value.spatial} for an output of {call.shape[1:]} are not of one size",
            "choose an output size that divides the input size, such as 1",
        )
    return _extremes(call, value, _side_by_side(tuple(b // a for b, a in sizes), value.spatial), 1)


@operator("aten.amax.default", "aten.max.dim")
def _largest(call: Call) -> Converted:
    return _over_axes(call, 1)


@operator("aten.amin.default", "aten.min.dim")
def _smallest(call: Call) -> Converted:
    return _over_axes(call, -1)


@operator("aten.maximum.default", "aten.max.other")
def _maximum(call: Call) -> Converted:
    return _larger(call, 1)


@operator("aten.minimum.default", "aten.min.other")
def _minimum(call: Call) -> Converted:
    return _larger(call, -1)


def _larger(call: Call, direction: int) -> Converted:
    _check_exact(call)
    if not all(isinstance(call.arguments[key], Value) for key in ("self", "other")):
        raise Unsupported(
            "it compares what depends on the input with a constant",
            "use nn.Hardtanh(0, b) for a bound b, and nn.ReLU for 0",
        )
    value, other = call.signal("self"), call.signal("other")
    if value.shape != other.shape:
        raise Unsupported(
            f"values of shapes {value.shape} and {other.shape} (without the batch axis) are compared by broadcasting",
            "bring both to one shape first",
        )
    before = call.builder.neuron_count
    result = larger(call.builder, call.name, value, other, direction)
    return Converted(result, _words(call, before, direction))


def _over_axes(call: Call, direction: int) -> Converted:
    value = _map(call)
    rank, given = len(value.shape) + 1, call.arguments["dim"]
    axes = {axis % rank for axis in (given if isinstance(given, list | tuple) else [given])}
    if not axes or not axes <= set(range(2, rank)):
        raise Unsupported(
            f"it compares along axes {sorted(axes)} of {rank}, and only spatial axes can be pooled",
            "pool over height and width: x.amax((2, 3))",
        )
    kernel = tuple(n if axis + 2 in axes else 1 for axis, n in enumerate(value.spatial))
    return _extremes(call, value, _side_by_side(kernel, value.spatial), direction)


def _side_by_side(kernel: Shape, sizes: Shape) -> Windows:
    none, one = (0,) * len(kernel), (1,) * len(kernel)
    return Windows(kernel, kernel, none, one, tuple(n // k for n, k in zip(sizes, kernel, strict=True)))


def _extremes(call: Call, value: Value, windows: Windows, direction: int) -> Converted:
    """The extreme value of each window, in the shape of the call's result."""
    _check_exact(call)
    before = call.builder.neuron_count
    result, _ = reshaped(call, pooled(call.builder, call.name, value, windows, direction))
    words = _words(call, before, direction)
    if len(call.shapes) == 1:
        return Converted(result, words)
    if any(user.target is not python_operator.getitem or user.args[1] != 0 for user in call.node.users if user.users):
        raise Unsupported("where the maximum was found is read", "use the maximum alone, and no unpooling")
    return Converted((result, *map(call.builder.unknown, call.shapes[1:])), words)


def _words(call: Call, before: int, direction: int) -> str:
    count = call.builder.neuron_count - before
    return f"{count:,} neurons over differences, for the {'largest' if direction > 0 else 'smallest'}"


def _map(call: Call) -> Value:
    value = call.signal("self")
    if len(value.shape) not in (2, 3):
        raise Unsupported(
            f"it pools a value of shape {value.shape} without its batch axis",
            "give it (batch, channels, height, width) or (batch, channels, length)",
        )
    return value


def _check_exact(call: Call) -> None:
    """Refuses what the user wants refused, and what has no average in its place."""
    if call.options.max_pool == "refuse":
        raise Unsupported(
            'max pooling is to be refused (max_pool="refuse", on the command line --max-pool refuse)',
            "leave that option out for neurons that compute it exactly, or use average pooling",
        )
    if call.options.max_pool == "average":
        raise Unsupported(
            "there is no average over the same windows",
            'use max_pool="exact" (commands: --max-pool exact), or average pooling in its place and fine-tune with it',
        )
