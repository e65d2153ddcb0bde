"""What each NIR node that is not a neuron becomes in C."""

from __future__ import annotations

from dataclasses import dataclass
from functools import singledispatch
from typing import Any

import nir
import numpy as np
from numpy.typing import NDArray

from cos_export.c_code.storage import Storage, channels_last, features
from cos_export.errors import NetworkError
from cos_export.network.graph import Convolution, Shape, convolution, pooling

__all__ = ["Axis", "Convolve", "Dense", "Multiply", "Operation", "Pass", "Pool", "operation"]


@dataclass(frozen=True)
class Axis:
    """How a window slides along one axis.

    Attributes:
        size: Places that are read.
        results: Places that are written.
        kernel: Taps of the window.
        stride: From one window to the next.
        dilation: From one tap to the next.
        before: Places of padding before the first.
    """

    size: int
    results: int
    kernel: int
    stride: int
    dilation: int
    before: int


@dataclass(frozen=True, eq=False)
class Convolve:
    """A convolution: each spike adds the weights of its channel at every place that its window reaches.

    Attributes:
        takes: The order of what it reads.
        gives: Of what it writes.
        vertical: Of one row if there is one axis only.
        horizontal: The axis whose places lie side by side.
        groups: Of channels.
        weights: (rows of taps, channels that are read, taps of a row from the last to the first, channels of a group
            that are written) of int8: in this order what a row of taps adds lies side by side if the stride is 1.
    """

    takes: Storage
    gives: Storage
    vertical: Axis
    horizontal: Axis
    groups: int
    weights: NDArray[np.int8]


@dataclass(frozen=True, eq=False)
class Dense:
    """A matrix: each spike adds its row.

    Attributes:
        takes: The order of what it reads.
        gives: Of what it writes.
        weights: (places that are read, places that are written) of int8.
    """

    takes: Storage
    gives: Storage
    weights: NDArray[np.int8]


@dataclass(frozen=True, eq=False)
class Multiply:
    """A factor for each place, and nothing between places.

    Attributes:
        takes: The order of what it reads.
        gives: The same.
        factors: (pixels or 1, channels or 1) of integers.
    """

    takes: Storage
    gives: Storage
    factors: NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class Pool:
    """Sums over windows, each channel by itself."""

    takes: Storage
    gives: Storage
    vertical: Axis
    horizontal: Axis


@dataclass(frozen=True)
class Pass:
    """Nothing: what arrives lies as it has to."""


Operation = Convolve | Dense | Multiply | Pool | Pass


@singledispatch
def operation(node: nir.NIRNode, arriving: Storage, shape: Shape, result: Shape) -> Operation:
    """What `node` does to what arrives.

    Args:
        node: A node of a network of integers.
        arriving: The order in which its (first) input lies, which it may take as it is.
        shape: Of its input.
        result: Of its output.

    Raises:
        NetworkError: The node's type has no counterpart here.
    """
    raise NetworkError(f"a node of type {type(node).__name__} cannot be written as C.")


@operation.register(nir.Flatten)
@operation.register(nir.Input)
@operation.register(nir.Output)
def _(node: nir.NIRNode, arriving: Storage, shape: Shape, result: Shape) -> Operation:
    return Pass()


@operation.register(nir.Conv1d)
@operation.register(nir.Conv2d)
def _(node: nir.Conv1d | nir.Conv2d, arriving: Storage, shape: Shape, result: Shape) -> Operation:
    weight, geometry = np.asarray(node.weight), convolution(node)
    factors = _diagonal(weight, geometry)
    if factors is not None:
        return Multiply(channels_last(shape), channels_last(result), factors[None])
    vertical, horizontal = _axes(geometry, shape[1:], result[1:])
    outputs, members = weight.shape[:2]
    size = (vertical.kernel, horizontal.kernel)
    # groups, channels that a group writes, channels that it reads, rows of taps, taps
    parted = weight.reshape(geometry.groups, outputs // geometry.groups, members, *size)[..., ::-1]
    ordered = parted.transpose(3, 0, 2, 4, 1).reshape(size[0], geometry.groups * members, size[1], -1)
    return Convolve(
        channels_last(shape), channels_last(result), vertical, horizontal, geometry.groups, ordered.astype(np.int8)
    )


def _diagonal(weight: NDArray[np.generic], geometry: Convolution) -> NDArray[np.int64] | None:
    """The factors, (channels,) or (1,), of a convolution that multiplies each channel; None of any other."""
    plain = all(n == 1 for n in (*geometry.kernel, *geometry.stride))
    if not plain or any(p for pair in geometry.padding for p in pair):
        return None
    square: NDArray[Any] = weight.reshape(weight.shape[:2]).astype(np.int64)
    if geometry.groups == len(square) and square.shape[1] == 1:
        factors = square[:, 0]
    elif (
        geometry.groups == 1
        and square.shape[0] == square.shape[1]
        and np.array_equal(square, np.diag(square.diagonal()))
    ):
        factors = square.diagonal()
    else:
        return None
    return factors[:1] if np.all(factors == factors[0]) else factors


def _axes(geometry: Convolution, sizes: Shape, results: Shape) -> tuple[Axis, Axis]:
    """Both axes of a window; of a single one the vertical has one place."""
    axes = [
        Axis(size, count, kernel, stride, dilation, before)
        for size, count, kernel, stride, dilation, (before, _) in zip(
            sizes, results, geometry.kernel, geometry.stride, geometry.dilation, geometry.padding, strict=True
        )
    ]
    first, *others = axes
    return (first, others[0]) if others else (Axis(1, 1, 1, 1, 1, 0), first)


@operation.register(nir.Affine)
@operation.register(nir.Linear)
def _(node: nir.Affine | nir.Linear, arriving: Storage, shape: Shape, result: Shape) -> Operation:
    rows = np.asarray(node.weight).T[arriving.order]
    return Dense(arriving, features(result[0]), rows.astype(np.int8))


@operation.register
def _(node: nir.Scale, arriving: Storage, shape: Shape, result: Shape) -> Operation:
    factors = arriving.arranged(np.asarray(node.scale).astype(np.int64))
    return Multiply(arriving, arriving, np.asarray(factors))


@operation.register
def _(node: nir.SumPool2d, arriving: Storage, shape: Shape, result: Shape) -> Operation:
    window = pooling(node)
    padding = tuple((p, p) for p in window.padding)
    axes = _axes(Convolution(window.kernel, window.stride, padding, (1, 1), 1), shape[1:], result[1:])
    return Pool(channels_last(shape), channels_last(result), *axes)
