"""The synapses of a network in numpy: each operation maps (batch, ...) to (batch, ...).

This module imports nothing but numpy, so that it can be checked against any other implementation.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

__all__ = ["Convolution", "Operation", "create", "flatten", "linear", "pool", "scale"]

Operation = Callable[[np.ndarray], np.ndarray]


def _pairs(values: Sequence[int], filler: int) -> tuple[int, int]:
    """One number per spatial axis as (height, width); a missing height is `filler`."""
    return (filler, int(values[0])) if len(values) == 1 else (int(values[0]), int(values[1]))


class Convolution:
    """A convolution over one or two axes, as a matrix product over unfolded windows.

        y[b, o, i, j] = bias[o] + sum over c, p, q of w[o, c, p, q] x[b, c', s i + d p - before, s j + d q - before]

    Samples are unfolded one at a time into a buffer that is kept, so that it stays in the cache and no
    memory is asked for at each step.

    Args:
        weight: (out channels, in channels / groups, kernel...).
        bias: (out channels,), or None.
        stride: One number per axis.
        padding: (before, after) with zeros, one pair per axis.
        dilation: One number per axis.
        groups: Channels are split into so many independent groups.
    """

    def __init__(
        self,
        weight: np.ndarray,
        bias: np.ndarray | None,
        *,
        stride: Sequence[int],
        padding: Sequence[Sequence[int]],
        dilation: Sequence[int],
        groups: int,
    ) -> None:
        self._single_axis = weight.ndim == 3
        self._kernel = _pairs(weight.shape[2:], 1)
        self._stride = _pairs(stride, 1)
        self._dilation = _pairs(dilation, 1)
        pads = [tuple(pair) for pair in padding]
        self._padding = [(0, 0), *pads] if self._single_axis else pads
        self._groups = groups
        self._out_channels = len(weight)
        self._matrix = np.ascontiguousarray(weight.reshape(groups, len(weight) // groups, -1))
        self._bias = None if bias is None else bias.reshape(-1, 1)
        self._pointwise = self._kernel == self._stride == (1, 1) and not any(map(any, self._padding))
        self._prepared_for: tuple[int, ...] = ()

    def __call__(self, values: np.ndarray) -> np.ndarray:
        """Convolves (batch, channels, height, width), or (batch, channels, length)."""
        planes = values[:, :, None] if self._single_axis else values
        height, width = self._windows(planes.shape[2:])
        out = np.empty((len(planes), self._groups, self._matrix.shape[1], height * width), self._matrix.dtype)
        if self._pointwise:
            columns = planes.reshape(len(planes), self._groups, -1, height * width)
            np.matmul(self._matrix, columns.astype(out.dtype, copy=False), out=out)
        else:
            self._prepare(planes.shape[1:])
            for sample in range(len(planes)):
                self._interior[...] = planes[sample]
                self._unfolded[...] = self._view
                np.matmul(self._matrix, self._columns, out=out[sample])
        result = out.reshape(len(planes), self._out_channels, height * width)
        if self._bias is not None:
            result += self._bias
        spatial = (width,) if self._single_axis else (height, width)
        return result.reshape(len(planes), self._out_channels, *spatial)

    def _windows(self, sizes: Sequence[int]) -> tuple[int, int]:
        height, width = (
            (size + sum(pads) - spread * (kernel - 1) - 1) // stride + 1
            for size, kernel, stride, pads, spread in zip(
                sizes, self._kernel, self._stride, self._padding, self._dilation, strict=True
            )
        )
        return height, width

    def _prepare(self, shape: tuple[int, ...]) -> None:
        """Buffers for samples of `shape`: the padded sample, a view of its windows, and their copy."""
        if shape == self._prepared_for:
            return
        channels, height, width = shape
        (top, bottom), (left, right) = self._padding
        padded = np.zeros((channels, top + height + bottom, left + width + right), self._matrix.dtype)
        self._interior = padded[:, top : top + height, left : left + width]
        rows, columns = self._windows((height, width))
        per_group = channels // self._groups
        plane, row, cell = padded.strides
        self._view = np.lib.stride_tricks.as_strided(
            padded,
            (self._groups, per_group, *self._kernel, rows, columns),
            (
                per_group * plane,
                plane,
                self._dilation[0] * row,
                self._dilation[1] * cell,
                self._stride[0] * row,
                self._stride[1] * cell,
            ),
            writeable=False,
        )
        self._columns = np.empty((self._groups, per_group * math.prod(self._kernel), rows * columns), padded.dtype)
        self._unfolded = self._columns.reshape(self._view.shape)
        self._prepared_for = shape


def linear(weight: np.ndarray, bias: np.ndarray | None) -> Operation:
    """The product and sum W x + b, with weight (out, in)."""
    transposed = np.ascontiguousarray(weight.T)

    def apply(values: np.ndarray) -> np.ndarray:
        result = values.astype(transposed.dtype, copy=False) @ transposed
        return result if bias is None else result + bias

    return apply


def scale(factors: np.ndarray) -> Operation:
    """The product s x, element by element."""
    return lambda values: factors * values


def pool(
    kernel: Sequence[int],
    stride: Sequence[int],
    padding: Sequence[int],
    divisor: int,
    dtype: np.dtype | type = np.float32,
) -> Operation:
    """The sum over windows of (batch, channels, height, width), padded with zeros, over `divisor`.

    A divisor of 1 is sum pooling, the window's size average pooling that counts the padding.
    """

    def apply(values: np.ndarray) -> np.ndarray:
        border = [(0, 0), (0, 0), *((p, p) for p in padding)]
        padded = np.pad(values, border) if any(padding) else values
        rows, columns = (
            (size - window) // step + 1 for size, window, step in zip(padded.shape[2:], kernel, stride, strict=True)
        )
        total = np.zeros((*values.shape[:2], rows, columns), dtype)
        for p in range(kernel[0]):
            for q in range(kernel[1]):
                total += padded[:, :, p : p + stride[0] * rows : stride[0], q : q + stride[1] * columns : stride[1]]
        return total if divisor == 1 else total / total.dtype.type(divisor)

    return apply


def flatten(shape: Sequence[int]) -> Operation:
    """(batch, ...) as (batch, *shape), in the order of its elements."""
    return lambda values: values.reshape(len(values), *shape)


def create(
    kind: str, settings: Mapping[str, Any], arrays: Mapping[str, np.ndarray], dtype: np.dtype | type = np.float32
) -> Operation:
    """The operation of a job's node, computed in `dtype`.

    Args:
        kind: "convolution", "linear", "scale", "pool" or "flatten".
        settings: Geometry, as the job's node has it.
        arrays: Weights by name.
        dtype: float32 for a run, float64 to evaluate constants without rounding.

    Raises:
        ValueError: The kind is unknown.
    """
    cast = {name: np.asarray(array, dtype) for name, array in arrays.items()}
    if kind == "convolution":
        return Convolution(
            cast["weight"],
            cast.get("bias"),
            stride=settings["stride"],
            padding=settings["padding"],
            dilation=settings["dilation"],
            groups=settings["groups"],
        )
    if kind == "linear":
        return linear(cast["weight"], cast.get("bias"))
    if kind == "scale":
        return scale(cast["scale"])
    if kind == "pool":
        return pool(settings["kernel"], settings["stride"], settings["padding"], settings["divisor"], dtype)
    if kind == "flatten":
        return flatten(settings["shape"])
    raise ValueError(f"a node of kind {kind!r} is no synapse")
