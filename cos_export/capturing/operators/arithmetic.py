"""Sums, factors, and what leaves its input as it is."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from cos_export.capturing.findings import Unsupported
from cos_export.capturing.folding import DoubleArray
from cos_export.capturing.operators.registry import Call, Converted, operator
from cos_export.capturing.operators.synapses import listed
from cos_export.capturing.operators.windows import expanded
from cos_export.capturing.values import Value

__all__ = ["affine", "channel_constant"]


@operator("aten.add.Tensor", "aten.add_.Tensor", "aten.add.Scalar", "aten.add_.Scalar")
def _add(call: Call) -> Converted:
    return _sum(call, "self", "other", call.number("alpha"))


@operator("aten.sub.Tensor", "aten.sub_.Tensor", "aten.sub.Scalar", "aten.sub_.Scalar")
def _subtract(call: Call) -> Converted:
    return _sum(call, "self", "other", -call.number("alpha"))


@operator("aten.rsub.Scalar", "aten.rsub.Tensor")
def _subtract_from(call: Call) -> Converted:
    return _sum(call, "other", "self", -call.number("alpha"))


def _sum(call: Call, first: str, second: str, factor: float) -> Converted:
    """The sum of one argument and `factor` times another one."""
    left, right = call.arguments[first], call.arguments[second]
    if isinstance(left, Value) and isinstance(right, Value):
        left, right = (call.signal(key, split=True) for key in (first, second))
        shape = np.broadcast_shapes(left.shape, right.shape) if len(left.shape) == len(right.shape) > 1 else ()
        if call.shape == shape and left.split == right.split == 1 and left.shape != right.shape:
            left, right = (_repeated(call, value) for value in (left, right))
        if left.shape != right.shape or left.split != right.split:
            raise Unsupported(
                f"values of shapes {left.shape} and {right.shape} (without the batch axis) are added by broadcasting",
                "bring both to one shape first, as a projected shortcut does",
            )
        return Converted(left.plus(right.times(factor)), "a second edge into what follows")
    if isinstance(left, Value):
        left = call.signal(first, split=True)
        return _shifted(call, left, 1.0, factor * channel_constant(call, second, left))
    value = call.signal(second, split=True)
    return _shifted(call, value, factor, channel_constant(call, first, value))


def _repeated(call: Call, value: Value) -> Value:
    """A value of one place for each channel, repeated to the shape of the call's result."""
    if value.shape == call.shape:
        return value
    return expanded(call.builder, f"{call.name}_repeated", value, call.shape)[1]


def _shifted(call: Call, value: Value, factor: float, offset: DoubleArray) -> Converted:
    """The value times a number, with another one added to each channel."""
    if not offset.any():
        return Converted(value.times(factor), "nothing" if factor == 1.0 else f"a factor {factor:.4g}")
    if not np.isfinite(offset).all():
        raise Unsupported("it adds a number that is not finite", "look for nan or inf in the trained weights")
    if value.split != 1:
        raise Unsupported(
            f"it adds a constant while the channels are spread over {value.split} axes", "add it before or after that"
        )
    return affine(call, value, np.full_like(offset, factor), offset)


def affine(call: Call, value: Value, gain: DoubleArray, offset: DoubleArray) -> Converted:
    """Gain * value + offset, by channel: in the synapse before it, or as one of its own.

    Args:
        call: What asks for it.
        value: (channels, ...), or with its channels over several axes.
        gain: (channels,).
        offset: (channels,).
    """
    names = call.only_reader_of
    if names and [term.source for term in value.terms if term.plain] == list(names):
        call.builder.fold_gain(names, gain, offset)
        return Converted(value, f"folded into {listed(names)}", synapses=names)
    names, result = call.builder.channel_gain(call.name, value, gain, offset)
    return Converted(result, f"a gain for each channel in synapse {listed(names)}", synapses=names)


def channel_constant(call: Call, key: str, value: Value) -> DoubleArray:
    """An argument that does not depend on the input, with one entry for each channel of `value`: (channels,).

    Raises:
        Unsupported: It differs from pixel to pixel, or has another shape.
    """
    spread = _constant(call, key, value).reshape(value.channels, -1)
    if bool((spread != spread[:, :1]).any()):
        raise Unsupported(
            "a constant differs from place to place within a channel, and no node of NIR adds a number to each place",
            "use one number for each channel, (channels, 1, 1); or add it behind a flatten, where places are channels",
        )
    return spread[:, 0].copy()


def _constant(call: Call, key: str, value: Value) -> DoubleArray:
    """An argument that does not depend on the input, of the shape of `value`."""
    given = call.arguments[key]
    if isinstance(given, int | float):
        return np.full(value.shape, float(given))
    if not isinstance(given, Tensor):
        raise Unsupported("it reads a value that is not known beforehand", "use numbers, parameters and buffers")
    array = np.asarray(given.detach().cpu().to(torch.float64).numpy())
    if array.ndim == len(value.shape) + 1 and len(array) == 1:
        array = array[0]
    try:
        return np.broadcast_to(array, value.shape)
    except ValueError:
        raise Unsupported(
            f"a constant of shape {tuple(given.shape)} changes the shape {value.shape} (without the batch axis)",
            "use one number, or one for each channel: (channels, 1, 1)",
        ) from None


@operator("aten.mul.Tensor", "aten.mul_.Tensor", "aten.mul.Scalar", "aten.mul_.Scalar")
def _multiply(call: Call) -> Converted:
    left, right = call.arguments["self"], call.arguments["other"]
    if isinstance(left, Value) and isinstance(right, Value):
        raise Unsupported(
            "two values that depend on the input are multiplied, as in a gate or attention",
            "leave the gate out: spikes can be weighted by constants only",
        )
    signal, constant = ("self", "other") if isinstance(left, Value) else ("other", "self")
    value = call.signal(signal, split=True)
    return _scaled(call, value, _constant(call, constant, value))


@operator("aten.div.Tensor", "aten.div_.Tensor", "aten.div.Scalar", "aten.div_.Scalar")
def _divide(call: Call) -> Converted:
    value = call.signal("self", split=True)
    if isinstance(call.arguments["other"], Value):
        raise Unsupported("it divides by a value that depends on the input", "divide by constants only")
    divisor = _constant(call, "other", value)
    if not divisor.all():
        raise Unsupported("it divides by zero", "divide by another number")
    return _scaled(call, value, 1.0 / divisor)


def _scaled(call: Call, value: Value, gains: DoubleArray) -> Converted:
    """The value times a number for each channel, or for each place: `gains` has its shape."""
    by_place = gains.reshape(value.channels, -1)
    gain, low, high = by_place[:, 0].copy(), float(gains.min()), float(gains.max())
    if np.isfinite(gains).all() and bool((by_place != by_place[:, :1]).any()):
        if value.split != 1:
            raise Unsupported(
                f"its factors differ from place to place while the channels are spread over {value.split} axes",
                "multiply before or after that",
            )
        name, result = call.builder.place_gain(call.name, value, gains)
        return Converted(result, f"factors {low:.4g} to {high:.4g} by place in synapse {name!r}")
    words = f"a factor {low:.4g}" if low == high else f"factors {low:.4g} to {high:.4g} by channel"
    if not np.isfinite(gains).all():
        raise Unsupported(f"its factor is {words}", "look for nan or inf in the trained weights")
    if call.only_reader_of:
        return affine(call, value, gain, np.zeros_like(gain))
    return Converted(value.scaled(gain), f"{words} in the weights that follow")


@operator("aten.neg.default")
def _negate(call: Call) -> Converted:
    return Converted(call.signal("self").times(-1.0), "a factor -1 in the weights that follow")


@operator(
    "aten.dropout.default",
    "aten.dropout_.default",
    "aten.feature_dropout.default",
    "aten.feature_dropout_.default",
    "aten.alpha_dropout.default",
    "aten.alpha_dropout_.default",
    "aten.feature_alpha_dropout.default",
)
def _dropout(call: Call) -> Converted:
    if call.arguments["train"]:
        raise Unsupported(
            "it drops values at random even in eval mode",
            "use nn.Dropout, or F.dropout(x, training=self.training)",
        )
    return Converted(call.first_signal(split=True, permuted=True), "nothing")


@operator(
    "aten.alias.default",
    "aten.clone.default",
    "aten.contiguous.default",
    "aten.detach.default",
    "aten.detach_.default",
    "aten.lift_fresh_copy.default",
    "aten.positive.default",
    "aten.to.device",
    "aten.to.dtype",
    "aten.to.dtype_layout",
    "aten._to_copy.default",
    "aten.expand.default",
    "aten.expand_as.default",
)
def _nothing(call: Call) -> Converted:
    value = call.first_signal(split=True, permuted=True)
    if value.shape != call.shape:
        value = call.first_signal()
        names, repeated = expanded(call.builder, call.name, value, call.shape)
        return Converted(repeated, f"synapse {listed(names)} that repeats a place")
    return Converted(value, "nothing")


@operator("aten.copy_.default")
def _copy(call: Call) -> Converted:
    call.signal("self", split=True)
    value = call.signal("src", split=True)
    if value.shape != call.shape:
        raise Unsupported(f"it repeats {value.shape} to {call.shape}", "keep the shape as it is")
    return Converted(value, "nothing")


@operator("aten.fill_.Scalar", "aten.zero_.default")
def _overwrite(call: Call) -> Converted:
    if call.node.users:
        raise Unsupported(
            "it writes a constant over what is read again later",
            "compute in new tensors where the old one is still needed, z / 2 in place of z.div_(2)",
        )
    return Converted(call.signal("self", split=True), "nothing, for what it overwrites is not read again")
