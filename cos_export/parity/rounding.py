"""How far a float32 backend may be from exact arithmetic, whatever order it adds in.

For a sum of n products in float32 with unit roundoff u = 2^-24, in any order and with or without fused
multiply-add,

    |fl(sum w x + b) - (sum w x + b)| <= gamma(n + 1) (sum |w| |x| + |b|),     gamma(k) = k u / (1 - k u)

(Higham, Accuracy and Stability of Numerical Algorithms, 2nd edition, sections 3.1 and 4.2; docs/parity.md derives
it). Here the sums on the right are evaluated for the very inputs at hand.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cache
from typing import NamedTuple

import nir
import numpy as np
import torch
from torch import Tensor

from cos_export.network.node_facts import bias_of, facts
from cos_export.network.windows import over_window
from cos_export.parity.packed_sums import paired
from cos_export.simulation.synapses import synapse

__all__ = ["UNIT_ROUNDOFF", "Bounded", "added", "bounded_synapse", "exact", "gamma"]

UNIT_ROUNDOFF = 2.0**-24 + 2.0**-53
"""u of float32, rounding to nearest, and that of the float64 in which the right value is computed beside it."""


class Bounded(NamedTuple):
    """A float64 value (samples, ...) and how far a float32 backend may be from it, of the same shape; None is 0."""

    value: Tensor
    error: Tensor | None


def exact(value: Tensor) -> Bounded:
    """A value that every backend holds exactly: an input, a spike, or a sum of integers."""
    return Bounded(value, None)


def gamma(operations: int, unit: float = UNIT_ROUNDOFF) -> float:
    """The relative error of k roundings in a row: k u / (1 - k u), with u = `unit`."""
    return operations * unit / (1.0 - operations * unit)


def added(parts: Sequence[Bounded], unit: float = UNIT_ROUNDOFF, *, steps: int | None = None) -> Bounded:
    """Several values that meet, in whatever order a backend adds them.

    The error is what the parts bring and that of p - 1 additions: sum e + gamma(p - 1) (sum |x| + e). If they are sums
    over T steps, a backend may as well add them step by step, and divide them by theta first: gamma(T p + 2).
    """
    if len(parts) == 1:
        return parts[0]
    value = parts[0].value
    for part in parts[1:]:
        value = value + part.value
    if unit == 0:
        return exact(value)
    brought = torch.zeros_like(value)
    magnitude = torch.zeros_like(value)
    for part in parts:
        magnitude += part.value.abs()
        if part.error is not None:
            brought += part.error
    additions = len(parts) - 1 if steps is None else steps * len(parts) + 2
    return Bounded(value, brought + gamma(additions, unit) * (magnitude + brought))


def bounded_synapse(
    node: nir.NIRNode, unit: float = UNIT_ROUNDOFF, *, steps: int | None = None
) -> Callable[[Bounded], Bounded]:
    """What `node` makes of a value and its error, with unit roundoff `unit`: 0 where all sums are of integers.

    The exact value is the node's own float64 function. For the error the same function is evaluated with the
    absolute values of weights and bias: |W| (|x| + e) + |b| bounds every partial sum, and |W| e carries on the error
    that the input had. The bound itself is summed in float32, which is fast, and divided by what rounding may have
    taken off it: all its terms have one sign, so that is a share of gamma(n + 2) at most.

    With `steps` = T it is what the node makes of the sum over T steps. A backend may form that sum first, and multiply
    the input and the bias by T, or add up the T results: T (n + 1) + T - 1 additions and a product, in any order. It
    may have divided the weights by the threshold of the neurons that follow: two roundings more.
    """
    node = node if steps is None else over_window(node, steps, np.float64)
    apply, length = synapse(node, _float64), facts(node).terms
    if length == 0:
        return lambda inputs: Bounded(apply(inputs.value), None if inputs.error is None else apply(inputs.error))
    if unit == 0:
        multiplies = facts(node).weighted and length > 1
        sums = paired(apply, synapse(node, _absolute)) if multiplies else apply
        return lambda inputs: exact(sums(inputs.value))
    bias = None if bias_of(node) is None else _absolute(bias_of(node))
    # Few inputs bring an error along, and weights in float64 are twice as large as the network's: made when needed.
    absolute = cache(lambda: synapse(node, _absolute))
    fast = synapse(node, lambda array: torch.as_tensor(np.asarray(array)).to(torch.float32).abs())
    operations = length + 1 if steps is None else steps * (length + 2) + 3
    roundings = gamma(operations, unit) / (1.0 - gamma(length + 2))

    def evaluate(inputs: Bounded) -> Bounded:
        arriving = inputs.value.abs() if inputs.error is None else inputs.value.abs() + inputs.error
        error = roundings * fast(arriving.to(torch.float32)).to(torch.float64)
        if inputs.error is not None:
            passed = absolute()(inputs.error)
            error += passed if bias is None else passed - bias.reshape(-1, *[1] * (passed.ndim - 2))
        return Bounded(apply(inputs.value), error)

    return evaluate


def _absolute(array: object) -> Tensor:
    return _float64(array).abs()


def _float64(array: object) -> Tensor:
    return torch.as_tensor(np.asarray(array)).to(torch.float64)
