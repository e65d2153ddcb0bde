"""How far a float32 backend may be from exact arithmetic, whatever order it adds in.

For a sum of n products in float32 with unit roundoff u = 2^-24, in any order and with or without fused
multiply-add,

    |fl(sum w x + b) - (sum w x + b)| <= gamma(n + 1) (sum |w| |x| + |b|),     gamma(k) = k u / (1 - k u)

(Higham, Accuracy and Stability of Numerical Algorithms, 2nd edition, sections 3.1 and 4.2). Here the sums on the
right are evaluated in float64 for the very inputs at hand, so the bound is as tight as the theorem allows.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import singledispatch
from typing import NamedTuple

import nir
import numpy as np
import torch
from torch import Tensor

from cos_export.errors import NetworkError
from cos_export.graph import pooling
from cos_export.propagation import synapse

__all__ = ["UNIT_ROUNDOFF", "Bounded", "bounded_synapse", "exact", "gamma", "sum_of"]

UNIT_ROUNDOFF = 2.0**-24
"""u of float32, rounding to nearest."""


class Bounded(NamedTuple):
    """A float64 value and how far a float32 backend may be from it, both (samples, ...)."""

    value: Tensor
    error: Tensor


def exact(value: Tensor) -> Bounded:
    """A value that every backend holds exactly: an input, or a spike."""
    return Bounded(value, torch.zeros_like(value))


def gamma(operations: int, unit: float = UNIT_ROUNDOFF) -> float:
    """The relative error of k roundings in a row: k u / (1 - k u), with u = `unit`."""
    return operations * unit / (1.0 - operations * unit)


def sum_of(parts: list[Bounded]) -> tuple[Bounded, Tensor]:
    """Several values that meet: their exact sum with the errors they bring, and the sum of their magnitudes.

    The roundings of the addition itself are left to the caller, who knows what else is added to the same sum.
    """
    value, error = parts[0]
    magnitude = value.abs() + error
    for part in parts[1:]:
        value, error = value + part.value, error + part.error
        magnitude = magnitude + part.value.abs() + part.error
    return Bounded(value, error), magnitude


def bounded_synapse(node: nir.NIRNode, unit: float = UNIT_ROUNDOFF) -> Callable[[Bounded], Bounded]:
    """What `node` makes of a value and its error, with unit roundoff `unit`: 0 where all sums are exact.

    The exact value is the node's own float64 function. For the error the same function is evaluated with the
    absolute values of weights and bias: |W| (|x| + e) + |b| bounds every partial sum, and |W| e carries on the error
    that the input had.
    """
    apply = synapse(node, _float64)
    if terms(node) == 0 or unit == 0:
        return lambda given: Bounded(apply(given.value), apply(given.error))
    absolute = synapse(node, lambda array: _float64(array).abs())
    roundings = gamma(terms(node) + 1, unit)

    def evaluate(given: Bounded) -> Bounded:
        magnitude = absolute(given.value.abs() + given.error)
        error = roundings * magnitude
        if bool(given.error.any()):
            error = error + absolute(given.error) - absolute(torch.zeros_like(given.error))
        return Bounded(apply(given.value), error)

    return evaluate


def _float64(array: object) -> Tensor:
    return torch.as_tensor(np.asarray(array)).to(torch.float64)


@singledispatch
def terms(node: nir.NIRNode) -> int:
    """The number of products that one output of `node` sums; 0 where nothing is computed.

    Raises:
        NetworkError: The node's type cannot be run.
    """
    raise NetworkError(f"A node of type {type(node).__name__} has no rounding bound.")


@terms.register(nir.Input)
@terms.register(nir.Output)
@terms.register(nir.Flatten)
def _(node: nir.NIRNode) -> int:
    return 0


@terms.register(nir.Conv1d)
@terms.register(nir.Conv2d)
def _(node: nir.Conv1d | nir.Conv2d) -> int:
    return int(np.prod(np.shape(node.weight)[1:]))


@terms.register(nir.Affine)
@terms.register(nir.Linear)
def _(node: nir.Affine | nir.Linear) -> int:
    return int(np.shape(node.weight)[1])


@terms.register
def _(node: nir.Scale) -> int:
    return 1


@terms.register(nir.SumPool2d)
@terms.register(nir.AvgPool2d)
def _(node: nir.SumPool2d | nir.AvgPool2d) -> int:
    return int(np.prod(pooling(node).kernel))
