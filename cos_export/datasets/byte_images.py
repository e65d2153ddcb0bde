"""Pixels that stay one byte each, in memory, and what every byte stands for."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

__all__ = ["AS_BYTES", "ByteReader", "Pixels", "plain_bytes"]

AS_BYTES = 2**26
"""Bytes that images must take as float32, 64 MiB, for their pixels to stay bytes: a quarter of that."""

_CHANNEL_AXES = (3, 4)
"""Axes of images and signals (samples, channels, ...); of features each would be a channel."""

_MOST_CHANNELS = 1024
"""Beyond, a table of what each byte is in each channel would be large."""


class Pixels(NamedTuple):
    """Images as bytes, and what they are to a network.

    Attributes:
        bytes: uint8 (samples, channels, ...).
        values: float32 (channels, 256): byte b of channel c stands for values[c, b].
    """

    bytes: NDArray[np.uint8]
    values: NDArray[np.float32]


class ByteReader:
    """Pixels in memory as what `StoredImages` reads from.

    Args:
        pixels: uint8 (samples, channels, ...).
    """

    def __init__(self, pixels: NDArray[np.uint8]) -> None:
        self.pixels = pixels
        self.shape: tuple[int, ...] = pixels.shape

    @property
    def fingerprint(self) -> str:
        """A hash of all pixels as they are now: their memory is the user's."""
        return hashlib.blake2b(np.ascontiguousarray(self.pixels).data, digest_size=16).hexdigest()

    def read(self, numbers: Sequence[int]) -> NDArray[np.uint8]:
        """The images with these numbers."""
        if isinstance(numbers, range) and numbers.step == 1:
            return self.pixels[numbers.start : numbers.stop]
        return self.pixels[np.asarray(numbers, np.int64)]


def plain_bytes(images: Any) -> NDArray[np.uint8] | None:
    """The images as an array of pixels 0..255, if they are many and may stay as they are; else None.

    Args:
        images: Anything that `pixel_values` may be given. Memory is shared with it.
    """
    if isinstance(images, Tensor):
        dense = images.dtype == torch.uint8 and images.layout == torch.strided and images.device.type == "cpu"
        images = images.detach().numpy() if dense else None
    if not isinstance(images, np.ndarray) or isinstance(images, np.ma.MaskedArray) or images.dtype != np.uint8:
        return None
    if images.ndim not in _CHANNEL_AXES or 4 * images.size <= AS_BYTES or images.shape[1] > _MOST_CHANNELS:
        return None
    pixels: NDArray[np.uint8] = images
    # torch takes no memory that may not be written.
    return pixels if pixels.flags.writeable and pixels.flags.c_contiguous else pixels.copy(order="C")
