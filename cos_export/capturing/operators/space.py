"""What changes the size of a map: each as a convolution where one does it, refused with the reason where none does."""

from __future__ import annotations

from math import prod

import numpy as np

from cos_export.capturing.findings import Unsupported
from cos_export.capturing.operators.registry import Call, Converted, operator
from cos_export.capturing.operators.synapses import listed
from cos_export.capturing.operators.windows import expanded
from cos_export.capturing.synapse import LARGEST_DENSE, Synapse

__all__: list[str] = []

_NO_NODE = "no node of NIR puts copies or zeros between the places of a map"


@operator("aten.conv_transpose1d.default", "aten.conv_transpose2d.input")
def _transposed_convolution(call: Call) -> Converted:
    """Of stride 1, it is a convolution with the kernel turned round and more padding.

    weight[o, i, k] = transposed[i, o, K - 1 - k]        padding' = dilation (K - 1) - padding
    """
    value, weight = call.signal("input"), call.weight("weight")
    axes, groups = weight.ndim - 2, int(call.arguments["groups"])
    stride, dilation = call.sizes("stride", axes), call.sizes("dilation", axes)
    padding, extra = call.sizes("padding", axes), call.sizes("output_padding", axes)
    if any(extra) or any(s > 1 and n > 1 for s, n in zip(stride, value.spatial, strict=True)):
        raise Unsupported(
            f"it spreads a map by a stride of {stride}, and {_NO_NODE}",
            "use stride 1, or work at the larger size from the start",
        )
    more = tuple(d * (k - 1) - p for d, k, p in zip(dilation, weight.shape[2:], padding, strict=True))
    if min(more) < 0:
        raise Unsupported(f"its padding {padding} cuts more off than its kernel reaches", "use less padding")
    inputs, outputs = len(weight), weight.shape[1]
    by_group = weight.reshape(groups, inputs // groups, outputs, *weight.shape[2:]).swapaxes(1, 2)
    turned = np.flip(by_group.reshape(groups * outputs, inputs // groups, *weight.shape[2:]), tuple(range(2, 2 + axes)))
    bias = call.constant("bias")
    synapse = Synapse(
        weight=turned.copy(),
        bias=np.zeros(len(turned)) if bias is None else bias,
        input_shape=value.shape,
        output_shape=call.shape,
        stride=(1,) * axes,
        padding=more,
        dilation=dilation,
        groups=groups,
    )
    names, result = call.builder.synapse(call.name, value, synapse)
    return Converted(result, f"Conv{axes}d {listed(names)} with the kernel turned round", synapses=names)


@operator("aten.pixel_unshuffle.default")
def _pixel_unshuffle(call: Call) -> Converted:
    """A convolution of stride r whose kernel of r x r picks one place.

    result[c r r + i r + j, y, x] = input[c, y r + i, x r + j]
    """
    value, factor = call.signal("self"), int(call.arguments["downscale_factor"])
    channels, places = value.channels, factor * factor
    picked = np.eye(places).reshape(places, factor, factor)
    dense = channels * channels * places * places <= LARGEST_DENSE
    weight = np.zeros((channels, places, channels if dense else 1, factor, factor))
    for channel in range(channels):
        weight[channel, :, channel if dense else 0] = picked
    synapse = Synapse(
        weight.reshape(channels * places, -1, factor, factor),
        np.zeros(channels * places),
        value.shape,
        call.shape,
        (factor, factor),
        (0, 0),
        (1, 1),
        1 if dense else channels,
    )
    names, result = call.builder.synapse(call.name, value, synapse)
    return Converted(result, f"Conv2d {listed(names)} that picks places", synapses=names)


@operator("aten.pixel_shuffle.default")
def _pixel_shuffle(call: Call) -> Converted:
    raise Unsupported(
        f"it moves channels into space between layers, and {_NO_NODE}",
        "leave it to the end of the model, where it is left out and noted",
    )


_RESIZING = ("upsample_nearest", "_upsample_nearest_exact", "upsample_linear", "upsample_bilinear", "upsample_bicubic")


@operator(*(f"aten.{kind}{axes}d.{form}" for kind in _RESIZING for axes in (1, 2) for form in ("default", "vec")))
def _resize(call: Call) -> Converted:
    value = call.first_signal()
    if value.shape == call.shape:
        return Converted(value, "nothing, for the size stays the same")
    if prod(value.spatial) != 1:
        raise Unsupported(
            f"it resizes {value.shape} to {call.shape}, and {_NO_NODE}",
            "use strides and average pooling, or leave it out; at the end of a model resize what it returns",
        )
    names, result = expanded(call.builder, call.name, value, call.shape)
    return Converted(result, f"synapse {listed(names)} that repeats a place")
