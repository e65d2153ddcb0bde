"""Sums, factors, and what leaves its input as it is."""

from __future__ import annotations

from torch import Tensor

from cos_export.capturing.findings import Unsupported
from cos_export.capturing.operators.registry import Call, Converted, operator
from cos_export.capturing.values import Value

__all__: list[str] = []


@operator("aten.add.Tensor", "aten.add_.Tensor")
def _add(call: Call) -> Converted:
    return _sum(call, call.number("alpha"), "added")


@operator("aten.sub.Tensor", "aten.sub_.Tensor")
def _subtract(call: Call) -> Converted:
    return _sum(call, -call.number("alpha"), "subtracted")


def _sum(call: Call, factor: float, verb: str) -> Converted:
    left, right = call.arguments["self"], call.arguments["other"]
    if isinstance(left, Value) and not isinstance(right, Tensor | Value) and right == 0:
        # Python's sum() starts from it.
        return Converted(left, "nothing")
    if not isinstance(left, Value) or not isinstance(right, Value):
        raise Unsupported(
            f"a constant is {verb}", "put it into the bias of the convolution, linear layer or batch norm before it"
        )
    if left.shape != right.shape or left.split != right.split:
        raise Unsupported(
            f"values of shapes {left.shape} and {right.shape} (without the batch axis) are {verb} by broadcasting",
            "bring both to one shape first, as a projected shortcut does",
        )
    return Converted(left.plus(right.times(factor)), "a second edge into what follows")


@operator("aten.mul.Tensor", "aten.mul_.Tensor", "aten.mul.Scalar", "aten.mul_.Scalar")
def _multiply(call: Call) -> Converted:
    left, right = call.arguments["self"], call.arguments["other"]
    if isinstance(left, Value) and isinstance(right, Value):
        raise Unsupported(
            "two values that depend on the input are multiplied, as in a gate or attention",
            "leave the gate out: spikes can be weighted by constants only",
        )
    value, factor = (left, call.number("other")) if isinstance(left, Value) else (right, call.number("self"))
    return Converted(value.times(factor), f"a factor {factor:.4g} in the weights that follow")


@operator("aten.div.Tensor", "aten.div_.Tensor", "aten.div.Scalar", "aten.div_.Scalar")
def _divide(call: Call) -> Converted:
    value, divisor = call.signal("self", split=True), call.number("other")
    if divisor == 0:
        raise Unsupported("it divides by zero", "divide by another number")
    return Converted(value.times(1.0 / divisor), f"a factor 1/{divisor:.4g} in the weights that follow")


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
    return Converted(call.first_signal(split=True), "nothing")


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
)
def _nothing(call: Call) -> Converted:
    value = call.first_signal(split=True)
    if value.shape != call.shape:
        raise Unsupported(f"it repeats {value.shape} to {call.shape}", "keep the shape as it is")
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
