"""Operators with weights, and the activation: convolution, linear map, batch norm, QCFS."""

from __future__ import annotations

from typing import Literal

import numpy as np

from cos_export.capturing.findings import Unsupported
from cos_export.capturing.folding import DoubleArray, batch_norm_gain
from cos_export.capturing.operators.registry import Call, Converted, operator
from cos_export.capturing.refusals import refusal
from cos_export.capturing.synapse import Synapse
from cos_export.capturing.tracing import operation
from cos_export.capturing.values import Value
from cos_export.network.graph import Shape

__all__ = ["listed"]


def listed(names: tuple[str, ...]) -> str:
    """The nodes that one operation became, in words."""
    if len(names) == 1:
        return repr(names[0])
    return f"{names[0]!r} and {len(names) - 1} more, one for each part"


@operator("aten.conv1d.default", "aten.conv2d.default", "aten.conv1d.padding", "aten.conv2d.padding")
def _convolution(call: Call) -> Converted:
    value, weight = call.signal("input"), call.weight("weight")
    axes = weight.ndim - 2
    if len(value.shape) != axes + 1:
        raise Unsupported(
            f"it convolves over {axes} axes a value of shape {value.shape} without its batch axis",
            f"give it (batch, channels{', height, width' if axes == 2 else ', length'})",
        )
    bias, dilation = call.constant("bias"), call.sizes("dilation", axes)
    synapse = Synapse(
        weight=weight,
        bias=np.zeros(len(weight)) if bias is None else bias,
        input_shape=value.shape,
        output_shape=call.shape,
        stride=call.sizes("stride", axes),
        padding=_padding(call, weight.shape[2:], dilation),
        dilation=dilation,
        groups=int(call.arguments["groups"]),
    )
    names, result = call.builder.synapse(call.name, value, synapse)
    return Converted(result, f"Conv{axes}d {listed(names)}", synapses=names)


def _padding(call: Call, kernel: Shape, dilation: Shape) -> Shape | Literal["same"]:
    """Numbers where both sides are padded alike; PyTorch's "same" gives the odd one to the end, as NIR's."""
    given = call.arguments["padding"]
    if given == "valid":
        return (0,) * len(kernel)
    if given == "same":
        total = [d * (k - 1) for k, d in zip(kernel, dilation, strict=True)]
        return "same" if any(t % 2 for t in total) else tuple(t // 2 for t in total)
    return call.sizes("padding", len(kernel))


@operator("aten.linear.default")
def _linear(call: Call) -> Converted:
    return _features(call, "input", call.weight("weight"), call.constant("bias"))


@operator("aten.matmul.default", "aten.mm.default")
def _product(call: Call) -> Converted:
    first, second = ("self", "mat2") if "mat2" in call.arguments else ("self", "other")
    if not isinstance(call.arguments[first], Value) or isinstance(call.arguments[second], Value):
        raise Unsupported(*refusal(operation(call.node)))
    return _features(call, first, _matrix(call, second), None)


@operator("aten.addmm.default")
def _product_and_bias(call: Call) -> Converted:
    if not isinstance(call.arguments["mat1"], Value) or call.number("alpha") != 1 or call.number("beta") != 1:
        raise Unsupported(*refusal(operation(call.node)))
    return _features(call, "mat1", _matrix(call, "mat2"), call.constant("self"))


def _matrix(call: Call, key: str) -> DoubleArray:
    """The weight (outputs, inputs) of a constant that is multiplied from the right."""
    matrix = call.weight(key)
    if matrix.ndim != 2:
        raise Unsupported(*refusal(operation(call.node)))
    return matrix.T


def _features(call: Call, key: str, weight: DoubleArray, bias: DoubleArray | None) -> Converted:
    value = call.signal(key, permuted=True)
    bias = np.zeros(len(weight)) if bias is None else np.broadcast_to(bias.reshape(-1), len(weight)).copy()
    if value.order is not None and value.order[-1] == 0:
        # Along channels that come last it is a convolution with a kernel of 1.
        names, mixed = call.builder.mixed(call.name, value.base, weight, bias)
        return Converted(mixed.permuted(value.order), f"synapse {listed(names)} with a kernel of 1")
    if len(value.shape) != 1:
        raise Unsupported(
            f"it is applied along the last axis of a value of shape {value.shape} without its batch axis",
            "flatten before it, or use a convolution with a kernel of 1",
        )
    names, result = call.builder.synapse(call.name, value, Synapse(weight, bias, value.shape, call.shape))
    return Converted(result, f"Affine {listed(names)}", synapses=names)


@operator("aten.batch_norm.default")
def _batch_norm(call: Call) -> Converted:
    value = call.signal("input")
    if call.arguments["training"]:
        raise Unsupported(
            "it normalises with the statistics of the batch, so samples would depend on each other",
            "use nn.BatchNorm with track_running_stats=True, and no training=True in forward",
        )
    gain, offset = batch_norm_gain(
        call.constant("weight"),
        call.constant("bias"),
        call.weight("running_mean"),
        call.weight("running_var"),
        float(call.arguments["eps"]),
    )
    if call.only_reader_of:
        call.builder.fold_gain(call.only_reader_of, gain, offset)
        return Converted(value, f"folded into {listed(call.only_reader_of)}", synapses=call.only_reader_of)
    names, result = call.builder.channel_gain(call.name, value, gain, offset)
    return Converted(result, f"a gain for each channel in synapse {listed(names)}", synapses=names)


@operator("cos_export.qcfs.default")
def _qcfs(call: Call) -> Converted:
    value, threshold = call.signal("z"), call.number("threshold")
    if not (np.isfinite(threshold) and threshold > 0):
        raise Unsupported(
            f"its threshold is {threshold:g}, and must be a positive number",
            "train with a lower learning rate or a higher initial threshold, or set the threshold by hand",
        )
    name, result = call.builder.neurons(call.name, value, threshold, int(call.arguments["levels"]))
    return Converted(result, f"IF {name!r} with threshold {threshold:.4g}")
