"""How what a wire carries lies in the memory of the C code: the channels of a pixel side by side."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from cos_export.network.graph import Shape

__all__ = ["Storage", "channels_last", "features"]

Scalar = TypeVar("Scalar", bound=np.generic)


@dataclass(frozen=True, eq=False)
class Storage:
    """An order of numbers, `pixels` rows of `channels`.

    Spikes are one bit each, and a row of them begins with a byte of its own.

    Attributes:
        pixels: Rows.
        channels: Numbers of a row.
        order: For each place in memory, the index in the flattened array of the network.
    """

    pixels: int
    channels: int
    order: NDArray[np.int64]

    @property
    def size(self) -> int:
        """Numbers in all."""
        return self.pixels * self.channels

    @property
    def row_bytes(self) -> int:
        """Bytes of the spikes of one row."""
        return (self.channels + 7) // 8

    @property
    def spike_bytes(self) -> int:
        """Bytes of the spikes of one step."""
        return self.pixels * self.row_bytes

    def orders_as(self, other: Storage) -> bool:
        """Whether both put the same numbers at the same places."""
        return np.array_equal(self.order, other.order)

    def equals(self, other: Storage) -> bool:
        """Whether both order alike, and in the same rows."""
        return self.channels == other.channels and self.orders_as(other)

    def arranged(self, values: NDArray[Scalar], leading: int = 0) -> NDArray[Scalar]:
        """An array of the network as (leading axes, pixels, channels).

        Args:
            values: The leading axes, and behind them the network's shape or what broadcasts to its size.
            leading: How many axes stand in front.
        """
        front = values.shape[:leading]
        return values.reshape(*front, -1)[..., self.order].reshape(*front, self.pixels, self.channels)

    def packed(self, spikes: NDArray[np.bool_], leading: int = 0) -> NDArray[np.uint8]:
        """Spikes as the C code holds them, the first in the lowest bit: (leading axes, `spike_bytes`)."""
        bits: NDArray[np.uint8] = np.packbits(self.arranged(spikes, leading), axis=-1, bitorder="little")
        return bits.reshape(*spikes.shape[:leading], self.spike_bytes)

    def unpacked(self, packed: NDArray[np.uint8], shape: Shape) -> NDArray[np.bool_]:
        """The inverse of `packed`: (leading axes, *shape)."""
        front = packed.shape[:-1]
        rows = packed.reshape(*front, self.pixels, self.row_bytes)
        bits = np.unpackbits(rows, axis=-1, count=self.channels, bitorder="little").reshape(*front, -1)
        return self.restored(bits.view(np.bool_), shape)

    def restored(self, values: NDArray[Scalar], shape: Shape) -> NDArray[Scalar]:
        """Numbers as they lie in memory, (leading axes, size), as the network has them: (leading axes, *shape)."""
        result = np.empty_like(values)
        result[..., self.order] = values
        return result.reshape(*values.shape[:-1], *shape)


def channels_last(shape: Shape) -> Storage:
    """The order of (channels, height, width), (channels, length) or (features,) with a pixel's channels together."""
    indices = np.arange(math.prod(shape), dtype=np.int64).reshape(shape)
    order = np.moveaxis(indices, 0, -1).ravel()
    return Storage(order.size // shape[0], shape[0], order)


def features(count: int) -> Storage:
    """The order of the flattened array itself, in one row."""
    return Storage(1, count, np.arange(count, dtype=np.int64))
