"""Activations of straight pieces as ReLUs, bounded or not, each of which becomes a population of neurons.

    |z|                  relu(z) + relu(-z)
    leaky(z)             relu(z) - a relu(-z)                     PReLU with an a for each channel, RReLU in eval mode
    clip(z, a, b)        clip(z, 0, b) - clip(-z, 0, -a)          where a < 0 < b: Hardtanh
                         a + clip(z - a, 0, b - a)                where 0 < a
                         b - clip(b - z, 0, b - a)                where b <= 0
    max(z, a)            a + relu(z - a)                          a threshold that does not jump
    min(z, b)            b - relu(b - z)
    hardsigmoid(z)       clip(z + 3, 0, 6) / 6
    softshrink(z)        relu(z - a) - relu(-z - a)

Two populations have 2T + 1 values together, and are silent where z = 0.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import fx

from cos_export.capturing.rewriting.editing import Editing, rewritable
from cos_export.capturing.tracing import named_arguments

__all__ = ["rewrite_activations"]

_aten = torch.ops.aten

_Rule = Callable[[Editing, fx.Node, dict[str, Any]], fx.Node | None]
"""From the input of an activation and its other arguments to what it is; None where it is nothing of the kind."""

_RULES: dict[str, _Rule] = {}


def rewrite_activations(graph: fx.Graph) -> None:
    """Writes each activation of straight pieces as ReLUs, in place. Those that are ReLUs already stay."""
    for node in rewritable(graph):
        rule = _RULES.get(str(node.target)) if node.op == "call_function" else None
        given = named_arguments(node)
        value = next(iter(given.values()), None)
        if rule is None or not isinstance(value, fx.Node):
            continue
        editing = Editing(node)
        result = rule(editing, value, given)
        if result is not None:
            editing.finish(result)


def _rule(*targets: str) -> Callable[[_Rule], _Rule]:
    def register(rule: _Rule) -> _Rule:
        _RULES.update(dict.fromkeys(targets, rule))
        return rule

    return register


def _relu(editing: Editing, value: fx.Node, bound: float = math.inf) -> fx.Node:
    if math.isinf(bound):
        return editing.call(_aten.relu.default, value)
    return editing.call(_aten.hardtanh.default, value, 0.0, bound)


def _negative(editing: Editing, value: fx.Node) -> fx.Node:
    return editing.call(_aten.neg.default, value)


@_rule("aten.abs.default", "aten.abs_.default")
def _absolute(editing: Editing, value: fx.Node, given: dict[str, Any]) -> fx.Node:
    return editing.call(_aten.add.Tensor, _relu(editing, value), _relu(editing, _negative(editing, value)))


@_rule("aten.leaky_relu.default", "aten.leaky_relu_.default")
def _leaky(editing: Editing, value: fx.Node, given: dict[str, Any]) -> fx.Node | None:
    return _two_slopes(editing, value, float(given["negative_slope"]))


@_rule("aten.rrelu.default", "aten.rrelu_.default")
def _randomised_leaky(editing: Editing, value: fx.Node, given: dict[str, Any]) -> fx.Node | None:
    if given["training"]:
        return None
    return _two_slopes(editing, value, (float(given["lower"]) + float(given["upper"])) / 2)


@_rule("aten.prelu.default")
def _parametric(editing: Editing, value: fx.Node, given: dict[str, Any]) -> fx.Node | None:
    weight, rank = given["weight"], value.meta["val"].ndim
    if not isinstance(weight, fx.Node):
        return None
    if weight.meta["val"].numel() > 1 and rank > 2:
        weight = editing.call(_aten.reshape.default, weight, [-1, *[1] * (rank - 2)])
    return _two_slopes(editing, value, weight)


def _two_slopes(editing: Editing, value: fx.Node, slope: float | fx.Node) -> fx.Node:
    if slope == 0:
        return _relu(editing, value)
    above = _relu(editing, value)
    below = editing.call(_aten.mul.Tensor, _relu(editing, _negative(editing, value)), slope)
    return editing.call(_aten.sub.Tensor, above, below)


@_rule("aten.hardtanh.default", "aten.hardtanh_.default")
def _hardtanh(editing: Editing, value: fx.Node, given: dict[str, Any]) -> fx.Node | None:
    return _clipped(editing, value, given["min_val"], given["max_val"])


@_rule("aten.clamp.default", "aten.clamp_.default", "aten.clip.default", "aten.clip_.default")
def _clamp(editing: Editing, value: fx.Node, given: dict[str, Any]) -> fx.Node | None:
    return _clipped(editing, value, given["min"], given["max"])


@_rule("aten.clamp_min.default", "aten.clamp_min_.default")
def _clamp_min(editing: Editing, value: fx.Node, given: dict[str, Any]) -> fx.Node | None:
    return _clipped(editing, value, given["min"], None)


@_rule("aten.clamp_max.default", "aten.clamp_max_.default")
def _clamp_max(editing: Editing, value: fx.Node, given: dict[str, Any]) -> fx.Node | None:
    return _clipped(editing, value, None, given["max"])


@_rule("aten.threshold.default", "aten.threshold_.default")
def _threshold(editing: Editing, value: fx.Node, given: dict[str, Any]) -> fx.Node | None:
    if given["threshold"] != given["value"]:
        return None
    return _clipped(editing, value, given["threshold"], None)


def _clipped(editing: Editing, value: fx.Node, least: Any, most: Any) -> fx.Node | None:
    """Clip(value, least, most), None for no bound."""
    low = -math.inf if least is None else least
    high = math.inf if most is None else most
    if not all(isinstance(bound, int | float) for bound in (low, high)) or not low < high or low == 0:
        return None
    if math.isinf(low) and math.isinf(high):
        return None
    if low < 0 < high and not math.isinf(low) and not math.isinf(high):
        above = _relu(editing, value, float(high))
        return editing.call(_aten.sub.Tensor, above, _relu(editing, _negative(editing, value), -float(low)))
    if math.isinf(low) or high <= 0:
        below = editing.call(_aten.sub.Tensor, _negative(editing, value), -float(high))
        clipped = _relu(editing, below, float(high) - float(low))
        return editing.call(_aten.sub.Tensor, _negative(editing, clipped), -float(high))
    clipped = _relu(editing, editing.call(_aten.sub.Tensor, value, float(low)), float(high) - float(low))
    return editing.call(_aten.add.Tensor, clipped, float(low))


@_rule("aten.hardsigmoid.default", "aten.hardsigmoid_.default")
def _hardsigmoid(editing: Editing, value: fx.Node, given: dict[str, Any]) -> fx.Node:
    six = _relu(editing, editing.call(_aten.add.Tensor, value, 3.0), 6.0)
    return editing.call(_aten.div.Tensor, six, 6.0)


@_rule("aten.softshrink.default")
def _softshrink(editing: Editing, value: fx.Node, given: dict[str, Any]) -> fx.Node | None:
    width = float(given["lambd"])
    if width <= 0:
        return None
    above = _relu(editing, editing.call(_aten.sub.Tensor, value, width))
    below = _relu(editing, editing.call(_aten.sub.Tensor, _negative(editing, value), width))
    return editing.call(_aten.sub.Tensor, above, below)
