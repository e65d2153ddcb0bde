"""Arithmetic on weights, in float64; what is written at the end is rounded to float32 once."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from cos_export.graph import Shape

__all__ = ["DoubleArray", "apply_gain", "batch_norm_gain", "channel_weight", "window_weight"]

DoubleArray = NDArray[np.float64]


def batch_norm_gain(
    weight: DoubleArray | None,
    bias: DoubleArray | None,
    mean: DoubleArray,
    variance: DoubleArray,
    epsilon: float,
) -> tuple[DoubleArray, DoubleArray]:
    """Batch norm in eval mode as gain * x + offset, both of shape (channels,).

    gain = weight / sqrt(variance + epsilon),   offset = bias - gain * mean
    """
    # A variance of zero without epsilon gives inf, which whoever takes the gain refuses.
    with np.errstate(divide="ignore", invalid="ignore"):
        gain = (np.ones_like(mean) if weight is None else weight) / np.sqrt(variance + epsilon)
        return gain, (np.zeros_like(mean) if bias is None else bias) - gain * mean


def apply_gain(
    weight: DoubleArray, bias: DoubleArray, gain: DoubleArray, offset: DoubleArray
) -> tuple[DoubleArray, DoubleArray]:
    """The weight (out, ...) and bias (out,) of gain * (weight x + bias) + offset."""
    return weight * gain.reshape(-1, *[1] * (weight.ndim - 1)), bias * gain + offset


def channel_weight(gain: DoubleArray, shape: Shape) -> DoubleArray:
    """The dense weight that multiplies each channel of a value of `shape` by its entry of `gain`.

    A 1x1 kernel for (channels, height, width) and (channels, length), a diagonal matrix for (features,).
    """
    return np.diag(gain).reshape(len(gain), len(gain), *[1] * (len(shape) - 1))


def window_weight(channels: int, size: int) -> DoubleArray:
    """The dense kernel (channels, channels, size) that sums `size` neighbours of each channel."""
    return np.repeat(np.eye(channels)[:, :, None], size, axis=2)
