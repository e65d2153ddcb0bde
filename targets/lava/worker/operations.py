"""The synapses of a network in numpy: each operation maps (batch, ...) to (batch, ...).

This module needs nothing but numpy, so that it can be checked against any other implementation.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from layout import channels_first, channels_last, zeros

__all__ = ["Convolution", "Operation", "create", "flatten", "linear", "pool", "scale"]

Operation = Callable[[np.ndarray], np.ndarray]

_ROWS = 1024
"""Windows that a convolution unfolds at once: fewer read the weights too often, more leave the cache."""


def _pairs(values: Sequence[int], filler: int) -> tuple[int, int]:
    """One number per spatial axis as (height, width); a missing height is `filler`."""
    return (filler, int(values[0])) if len(values) == 1 else (int(values[0]), int(values[1]))


class Convolution:
    """A convolution over one or two axes, as a matrix product over unfolded windows.

        y[b, o, i, j] = bias[o] + sum over c, p, q of w[o, c, p, q] x[b, c', s i + d p - before, s j + d q - before]

    A few samples at a time are unfolded into a buffer that is kept: as many as make the product worth its
    reading of the weights, and no more, so that the buffer stays in the cache.

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
        self._groups, self._out_channels = groups, len(weight)
        split = weight.reshape(groups, len(weight) // groups, weight.shape[1], *self._kernel)
        self._matrix = np.ascontiguousarray(split.transpose(0, 3, 4, 2, 1)).reshape(groups, -1, split.shape[1])
        self._bias = bias
        self._prepared_for: tuple[int, ...] = ()

    def __call__(self, values: np.ndarray) -> np.ndarray:
        """Convolves (batch, channels, height, width), or (batch, channels, length)."""
        planes = channels_last(values)
        if self._single_axis:
            planes = planes[:, None]
        height, width = self._windows(planes.shape[1:3])
        out = np.empty((len(planes), height, width, self._out_channels), self._matrix.dtype)
        chunk = min(max(1, _ROWS // (height * width)), len(planes))
        self._prepare((chunk, *planes.shape[1:]), (height, width))
        for first in range(0, len(planes), chunk):
            self._multiply(planes[first : first + chunk], out[first : first + chunk])
        if self._bias is not None:
            out += self._bias
        return channels_first(out[:, 0] if self._single_axis else out)

    def _multiply(self, planes: np.ndarray, out: np.ndarray) -> None:
        """The product for (samples, height, width, channels), without the bias."""
        count = len(planes)
        if self._interior is not None:
            self._interior[:count] = planes
            planes = self._padded[:count]
        unfolded = self._unfolded[:, :count]
        unfolded[...] = self._view(planes, unfolded.shape)
        rows = out.reshape(-1, self._groups, self._matrix.shape[2])
        columns = self._columns[:, : len(rows)]
        if self._groups == 1:
            np.matmul(columns[0], self._matrix[0], out=rows[:, 0])
        else:
            rows[...] = np.matmul(columns, self._matrix).transpose(1, 0, 2)

    def _windows(self, sizes: Sequence[int]) -> tuple[int, int]:
        height, width = (
            (size + sum(pads) - spread * (kernel - 1) - 1) // stride + 1
            for size, kernel, stride, pads, spread in zip(
                sizes, self._kernel, self._stride, self._padding, self._dilation, strict=True
            )
        )
        return height, width

    def _prepare(self, shape: tuple[int, ...], windows: tuple[int, int]) -> None:
        """Buffers for `shape`, (samples, height, width, channels): padded samples, and their unfolded windows."""
        if shape == self._prepared_for:
            return
        samples, height, width, channels = shape
        (top, bottom), (left, right) = self._padding
        self._interior = None
        if top or bottom or left or right:
            self._padded = np.zeros(
                (samples, top + height + bottom, left + width + right, channels), self._matrix.dtype
            )
            self._interior = self._padded[:, top : top + height, left : left + width]
        per_group = channels // self._groups
        self._unfolded = np.empty((self._groups, samples, *windows, *self._kernel, per_group), self._matrix.dtype)
        self._columns = self._unfolded.reshape(self._groups, samples * windows[0] * windows[1], -1)
        self._prepared_for = shape

    def _view(self, planes: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
        """The windows of (samples, height, width, channels): (groups, samples, rows, columns, kernel..., channels)."""
        sample, row, cell, channel = planes.strides
        strides = (
            shape[-1] * channel,
            sample,
            self._stride[0] * row,
            self._stride[1] * cell,
            self._dilation[0] * row,
            self._dilation[1] * cell,
            channel,
        )
        return np.lib.stride_tricks.as_strided(planes, shape, strides, writeable=False)


def linear(weight: np.ndarray, bias: np.ndarray | None) -> Operation:
    """The product and sum W x + b, with weight (out, in)."""

    def apply(values: np.ndarray) -> np.ndarray:
        # The weight is not copied, so that processes share the pages of its file.
        result: np.ndarray = values.astype(weight.dtype, copy=False) @ weight.T
        if bias is not None:
            result += bias
        return result

    return apply


def scale(factors: np.ndarray) -> Operation:
    """The product s x, element by element."""
    laid_out = zeros(1, factors.shape, factors.dtype)
    laid_out[0] = factors
    return lambda values: laid_out * values


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
    (top, left), (high, wide) = padding, kernel

    def apply(values: np.ndarray) -> np.ndarray:
        planes = channels_last(values)
        if top or left:
            samples, height, width, channels = planes.shape
            padded = np.zeros((samples, height + 2 * top, width + 2 * left, channels), planes.dtype)
            padded[:, top : top + height, left : left + width] = planes
            planes = padded
        rows, columns = (
            (size - window) // step + 1 for size, window, step in zip(planes.shape[1:3], kernel, stride, strict=True)
        )
        total = np.zeros((len(planes), rows, columns, planes.shape[3]), dtype)
        for p in range(high):
            for q in range(wide):
                total += planes[:, p : p + stride[0] * rows : stride[0], q : q + stride[1] * columns : stride[1]]
        return channels_first(total if divisor == 1 else total / total.dtype.type(divisor))

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
    raise ValueError(f"a node of kind {kind!r} is not a synapse")
