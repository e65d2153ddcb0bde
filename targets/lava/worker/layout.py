"""How arrays over a batch lie in memory: channels innermost, whatever their axes are called.

An array has the network's axes, (batch, channels, height, width), and its channels are neighbours in memory.
Windows of a convolution are then long runs, and element-wise work walks through all arrays in one order.
"""

from __future__ import annotations

import numpy as np

__all__ = ["channels_first", "channels_last", "wire_shape", "zeros"]


def channels_last(values: np.ndarray) -> np.ndarray:
    """A view of (batch, channels, ...) as (batch, ..., channels)."""
    return np.moveaxis(values, 1, -1) if values.ndim > 2 else values


def channels_first(values: np.ndarray) -> np.ndarray:
    """A view of (batch, ..., channels) as (batch, channels, ...)."""
    return np.moveaxis(values, -1, 1) if values.ndim > 2 else values


def wire_shape(batch: int, shape: tuple[int, ...]) -> tuple[int, ...]:
    """The shape in which a batch of (channels, ...) travels: (batch, ..., channels)."""
    return (batch, *shape[1:], shape[0])


def zeros(batch: int, shape: tuple[int, ...], dtype: np.dtype | type) -> np.ndarray:
    """Zeros of shape (batch, channels, ...), with the channels innermost in memory."""
    return channels_first(np.zeros(wire_shape(batch, shape), dtype))
