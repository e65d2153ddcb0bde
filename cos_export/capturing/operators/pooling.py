"""Averages over windows: sums on the wire, their divisor in the weights that follow."""

from __future__ import annotations

from dataclasses import replace
from math import prod

import nir
import numpy as np

from cos_export.capturing.findings import Unsupported
from cos_export.capturing.operators.registry import Call, Converted, operator
from cos_export.capturing.operators.reshaping import reshaped
from cos_export.capturing.operators.synapses import listed
from cos_export.capturing.sliding import sliding
from cos_export.capturing.values import Value
from cos_export.network.graph import Shape

__all__: list[str] = []


@operator("aten.avg_pool1d.default", "aten.avg_pool2d.default")
def _average_pooling(call: Call) -> Converted:
    value = call.signal("self")
    axes = _spatial_axes(value)
    kernel = call.sizes("kernel_size", axes)
    stride = call.sizes("stride", axes) if call.arguments["stride"] else kernel
    padding = call.sizes("padding", axes)
    if any(padding) and not call.arguments["count_include_pad"]:
        raise Unsupported(
            "with count_include_pad=False its divisor differs at the border",
            "use count_include_pad=True, or no padding",
        )
    floor = tuple((n + 2 * p - k) // s + 1 for n, k, s, p in zip(value.shape[1:], kernel, stride, padding, strict=True))
    override = call.arguments.get("divisor_override")
    if call.arguments["ceil_mode"] and floor != call.shape[1:]:
        if not override:
            raise Unsupported(
                "with ceil_mode=True its last windows reach past the border, and their divisor is another one",
                "use ceil_mode=False, divisor_override, or a kernel and stride that divide the size",
            )
        return Converted(*_sum_past_the_border(call, value, kernel, stride, padding, 1.0 / override))
    divisor = override or prod(kernel)
    return Converted(*_window_sum(call, value, kernel, stride, padding, 1.0 / divisor))


@operator("aten.adaptive_avg_pool1d.default", "aten.adaptive_avg_pool2d.default")
def _adaptive_pooling(call: Call) -> Converted:
    value = call.signal("self")
    _spatial_axes(value)
    sizes = tuple(zip(value.shape[1:], call.shape[1:], strict=True))
    if any(before % after for before, after in sizes):
        raise Unsupported(
            f"its windows over {value.shape[1:]} for an output of {call.shape[1:]} are not of one size",
            "choose an output size that divides the input size, such as 1",
        )
    kernel = tuple(before // after for before, after in sizes)
    if prod(kernel) == 1:
        return Converted(value, "nothing, for the size stays the same")
    return Converted(*_window_sum(call, value, kernel, kernel, (0,) * len(kernel), 1.0 / prod(kernel)))


@operator("aten.mean.dim")
def _mean(call: Call) -> Converted:
    return _reduced(call, averages=True)


@operator("aten.sum.dim_IntList")
def _sum(call: Call) -> Converted:
    return _reduced(call, averages=False)


def _reduced(call: Call, *, averages: bool) -> Converted:
    value = call.signal("self", split=True)
    rank, split = len(value.shape) + 1, value.split
    given = call.arguments["dim"]
    axes = {d % rank for d in given} if given else set(range(rank))
    if 0 in axes or (axes & set(range(1, split + 1)) and axes & set(range(split + 1, rank))):
        raise Unsupported(
            f"it adds up axes {sorted(axes)} of {rank}, which are not space or channels alone",
            "average over height and width: x.mean((2, 3)); leave the batch axis out",
        )
    size = prod(value.shape[axis - 1] for axis in axes)
    if max(axes) <= split:
        return _over_channels(call, value, axes, 1.0 / size if averages else 1.0)
    if split != 1:
        raise Unsupported(
            f"the channels of its input are spread over {split} axes, {value.shape} without the batch axis",
            "reshape back to (batch, channels, height, width) before it",
        )
    kernel = tuple(n if axis + 2 in axes else 1 for axis, n in enumerate(value.shape[1:]))
    pooled, words = _window_sum(call, value, kernel, kernel, (0,) * len(kernel), 1.0 / size if averages else 1.0)
    result, becomes = reshaped(call, pooled)
    return Converted(result, words if result is pooled else f"{words} and {becomes}")


def _over_channels(call: Call, value: Value, axes: set[int], factor: float) -> Converted:
    """The sum over some of the axes that hold channels, as edges where one is left, else as weights of 1."""
    leading = value.shape[: value.split]
    numbers = np.arange(value.channels).reshape(leading)
    summed = np.moveaxis(numbers, [axis - 1 for axis in sorted(axes)], range(len(axes)))
    rows = summed.reshape(prod(leading[axis - 1] for axis in axes), -1)
    kept = (
        [1 if axis + 1 in axes else n for axis, n in enumerate(leading)]
        if call.arguments["keepdim"]
        else [n for axis, n in enumerate(leading) if axis + 1 not in axes]
    )
    if not kept:
        raise Unsupported(
            "it adds up all channels and leaves no axis for them", "keep the axis: keepdim=True, or a linear layer"
        )
    shape, split = (*kept, *value.spatial), len(kept)
    if len(rows) > 8:
        weight = np.zeros((rows.shape[1], value.channels))
        weight[np.arange(rows.shape[1])[None], rows] = factor
        flat = replace(value, shape=(value.channels, *value.spatial), split=1)
        names, result = call.builder.mixed(call.name, flat, weight)
        return Converted(replace(result, shape=shape, split=split), f"weights of 1 in synapse {listed(names)}")
    total = Value(shape, (), split)
    for row in rows:
        total = total.plus(value.gathered(row.tolist(), shape, split))
    return Converted(total.times(factor), f"{len(rows)} parts, added as edges into what follows")


def _spatial_axes(value: Value) -> int:
    if len(value.shape) not in (2, 3):
        raise Unsupported(
            f"it pools a value of shape {value.shape} without its batch axis",
            "give it (batch, channels, height, width) or (batch, channels, length)",
        )
    return len(value.shape) - 1


def _sum_past_the_border(
    call: Call, value: Value, kernel: Shape, stride: Shape, padding: Shape, factor: float
) -> tuple[Value, str]:
    """Sums over windows of which the last reach further than padding on both sides could: kernels of ones."""
    axes = [
        sliding(n, (-p, k - 1 - p), s, count)
        for n, k, s, p, count in zip(value.spatial, kernel, stride, padding, call.shape[1:], strict=True)
    ]
    ones = np.zeros([axis.kernel for axis in axes])
    ones[tuple(slice(axis.entry(-p), axis.entry(k - p)) for axis, k, p in zip(axes, kernel, padding, strict=True))] = (
        1.0
    )
    strides, paddings = tuple(axis.stride for axis in axes), tuple(axis.padding for axis in axes)
    names, result = call.builder.windowed(call.name, value, call.shape, ones, strides, paddings)
    return result.times(factor), f"Conv{len(kernel)}d {listed(names)} that sums, its divisor folded into what follows"


def _window_sum(
    call: Call, value: Value, kernel: Shape, stride: Shape, padding: Shape, factor: float
) -> tuple[Value, str]:
    channels = value.shape[0]
    sizes = tuple((n + 2 * p - k) // s + 1 for n, k, s, p in zip(value.shape[1:], kernel, stride, padding, strict=True))
    shape = (channels, *sizes)
    if len(kernel) == 2:
        name, result = call.builder.unweighted(
            call.name,
            value,
            shape,
            lambda _: nir.SumPool2d(np.array(kernel), np.array(stride), np.array(padding)),
        )
        return result.times(factor), f"SumPool2d {name!r}, its divisor folded into what follows"
    # NIR pools over two axes only; over one, a convolution with ones does the same.
    names, result = call.builder.windowed(call.name, value, shape, np.ones(kernel), stride, padding)
    return result.times(factor), f"Conv1d {listed(names)} that sums, its divisor folded into what follows"
