"""Bounds that are tensors of the module, such as a learnt upper bound of a ReLU, as numbers, or as gains by channel.

    clip(z, a, b)        with a and b one number each: the same with numbers
    clip(z, a, b)        a + (b - a) clip((z - a) / (b - a), 0, 1)        with one for each channel
    max(z, a)            a + relu(z - a)
    min(z, b)            b - relu(b - z)
    min(relu(z), b)      clip(z, 0, b)

PACT (Choi et al., arXiv 1805.06085) is the last of these, or the second with a = 0.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, fx

from cos_export.capturing.aliasing import draws, mutates
from cos_export.capturing.rewriting.editing import Editing, rewritable
from cos_export.capturing.tracing import named_arguments

__all__ = ["rewrite_bounds"]

_aten = torch.ops.aten

_CLIPS = ("aten.clamp.Tensor", "aten.clamp_.Tensor", "aten.clip.Tensor", "aten.clip_.Tensor")
_LOWER = ("aten.clamp_min.Tensor", "aten.clamp_min_.Tensor", "aten.maximum.default", "aten.max.other")
_UPPER = ("aten.clamp_max.Tensor", "aten.clamp_max_.Tensor", "aten.minimum.default", "aten.min.other")
_NUMBERS = ("aten.clamp_max.default", "aten.clamp_max_.default", "aten.clamp.default", "aten.clamp_.default")
_RELUS = ("aten.relu.default", "aten.relu_.default")

_Bound = float | fx.Node | None
"""One number for all, a node with one for each channel, or none at all."""


def rewrite_bounds(graph: fx.Graph, constants: Mapping[fx.Node, Tensor]) -> None:
    """Writes each clip whose bounds are known tensors as one with numbers, or with gains for each channel, in place.

    What has a bound that depends on the input, or differs from place to place, stays as it is and is refused later.

    Args:
        graph: Of the module.
        constants: The parameters, buffers and other tensors of the module.
    """
    known: dict[fx.Node, Tensor | None] = {}
    for node in rewritable(graph):
        arguments = _arguments(node, constants, known)
        if arguments is None:
            continue
        value, low, high = arguments
        relu = value if low is None and str(value.target) in _RELUS and len(value.users) == 1 else None
        if relu is not None and isinstance(relu.args[0], fx.Node):
            value, low = relu.args[0], 0.0
        editing = Editing(node)
        result = _clipped(editing, value, low, high)
        if result is not None:
            editing.finish(result)
            if relu is not None and not relu.users:
                graph.erase_node(relu)


def _arguments(
    node: fx.Node, constants: Mapping[fx.Node, Tensor], known: dict[fx.Node, Tensor | None]
) -> tuple[fx.Node, _Bound, _Bound] | None:
    """What a node clips, and its bounds, if they are tensors of the module."""
    target, given = str(node.target), named_arguments(node)
    if target in _NUMBERS:
        low, high = given.get("min"), given.get("max")
        value = given["self"]
        above_relu = low is None and str(getattr(value, "target", "")) in _RELUS
        if above_relu and isinstance(high, int | float) and high > 0:
            return value, None, float(high)
        if not isinstance(low, fx.Node) and not isinstance(high, fx.Node):
            return None
    elif target in _CLIPS:
        value, low, high = given["self"], given.get("min"), given.get("max")
    elif target in _LOWER + _UPPER:
        first, second = list(given.values())[:2]
        if not isinstance(first, fx.Node) or not isinstance(second, fx.Node):
            return None
        value, bound = (second, first) if _value(first, constants, known) is not None else (first, second)
        low, high = (bound, None) if target in _LOWER else (None, bound)
    else:
        return None
    if not isinstance(value, fx.Node) or _value(value, constants, known) is not None:
        return None
    bounds = [_bound(bound, value, constants, known) for bound in (low, high)]
    return None if "unknown" in bounds else (value, bounds[0], bounds[1])


def _bound(given: Any, value: fx.Node, constants: Mapping[fx.Node, Tensor], known: dict[fx.Node, Tensor | None]) -> Any:
    """A bound as one number, as a node with one for each channel, None if there is none, or "unknown"."""
    if given is None or isinstance(given, int | float):
        return None if given is None else float(given)
    held = _value(given, constants, known) if isinstance(given, fx.Node) else None
    if held is None or not held.is_floating_point():
        return "unknown"
    if len(torch.unique(held)) == 1:
        return float(held.flatten()[0])
    shape = value.meta["val"].shape
    by_channel = (held.ndim == len(shape) and held.shape[0] == 1) or held.ndim == len(shape) - 1
    axis = held.ndim - (len(shape) - 1)
    fits = by_channel and held.shape[axis] == shape[1] and held.numel() == held.shape[axis]
    return given if fits else "unknown"


def _value(node: fx.Node, constants: Mapping[fx.Node, Tensor], known: dict[fx.Node, Tensor | None]) -> Tensor | None:
    """What a node is, if that depends on the module alone."""
    if node in constants:
        return constants[node].detach()
    if node in known:
        return known[node]
    known[node] = None
    inputs = node.all_input_nodes
    plain = node.op == "call_function" and callable(node.target) and not mutates(node) and not draws(node)
    values = {argument: _value(argument, constants, known) for argument in inputs} if plain else {}
    if plain and inputs and all(value is not None for value in values.values()):
        args, kwargs = fx.node.map_arg((node.args, node.kwargs), values.__getitem__)
        with torch.no_grad():
            result = node.target(*args, **kwargs)  # type: ignore[operator]
        number = torch.tensor(float(result)) if isinstance(result, int | float) else None
        known[node] = result if isinstance(result, Tensor) else number
    return known[node]


def _clipped(editing: Editing, value: fx.Node, low: _Bound, high: _Bound) -> fx.Node | None:
    """Clip(value, low, high)."""
    if not isinstance(low, fx.Node) and not isinstance(high, fx.Node):
        if low is None or high is None or low < high:
            return editing.call(_aten.clamp.default, value, _finite(low), _finite(high))
        return None
    if high is None:
        above = editing.call(_aten.relu.default, editing.call(_aten.sub.Tensor, value, low))
        return editing.call(_aten.add.Tensor, above, low)
    if low is None:
        below = editing.call(_aten.sub.Tensor, editing.call(_aten.neg.default, value), _negative(editing, high))
        clipped = editing.call(_aten.relu.default, below)
        return editing.call(_aten.sub.Tensor, editing.call(_aten.neg.default, clipped), _negative(editing, high))
    starts_at_0 = isinstance(low, float) and low == 0
    shifted = value if starts_at_0 else editing.call(_aten.sub.Tensor, value, low)
    width = high if starts_at_0 else _difference(editing, high, low)
    unit = editing.call(_aten.hardtanh.default, editing.call(_aten.div.Tensor, shifted, width), 0.0, 1.0)
    scaled = editing.call(_aten.mul.Tensor, unit, width)
    return scaled if starts_at_0 else editing.call(_aten.add.Tensor, scaled, low)


def _difference(editing: Editing, high: _Bound, low: _Bound) -> fx.Node:
    if isinstance(high, fx.Node):
        return editing.call(_aten.sub.Tensor, high, low)
    return editing.call(_aten.rsub.Scalar, low, high)


def _negative(editing: Editing, bound: _Bound) -> fx.Node | float:
    return editing.call(_aten.neg.default, bound) if isinstance(bound, fx.Node) else -float(bound or 0.0)


def _finite(bound: _Bound) -> _Bound:
    return None if isinstance(bound, float) and math.isinf(bound) else bound
