"""Arithmetic on weights, in float64; what is written at the end is rounded to float32 once."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from cos_export.capturing.values import Term, vector
from cos_export.network.graph import Shape

__all__ = ["DoubleArray", "apply_gain", "batch_norm_gain", "channel_weight", "wired_weight"]

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


def wired_weight(weight: DoubleArray, term: Term, groups: int) -> DoubleArray:
    """The weight that does to a term's source what `weight` does to the term.

    With the term's channels c = 0, 1, ... and the source's channels j,

        wired[o, j, ...] = sum over c with index[c] = j of weight[o, c, ...] * scale[c]

    Args:
        weight: (out, in / groups, ...).
        term: Its index must be None if groups > 1.
        groups: Of channels.

    Returns:
        (out, width / groups, ...).
    """
    if isinstance(term.scale, float):
        scaled = weight if term.scale == 1.0 else weight * term.scale
    else:
        factors = vector(term.scale, term.channels).reshape(groups, 1, -1, *[1] * (weight.ndim - 2))
        scaled = (weight.reshape(groups, -1, *weight.shape[1:]) * factors).reshape(weight.shape)
    if term.index is None:
        return scaled
    picks = term.picks()
    used = np.flatnonzero(picks >= 0)
    wired = np.zeros((len(weight), term.width, *weight.shape[2:]))
    if len(np.unique(picks[used])) == len(used):
        wired[:, picks[used]] = scaled[:, used]
    else:
        np.add.at(wired.swapaxes(0, 1), picks[used], scaled[:, used].swapaxes(0, 1))
    return wired
