"""Images that are more than is held in memory: of them only those that are asked for are read."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, Protocol

import numpy as np
from numpy.typing import DTypeLike, NDArray

from cos_export.datasets.byte_images import AS_BYTES, ByteReader, Pixels, plain_bytes
from cos_export.datasets.pixels import PixelArray, pixel_values

__all__ = [
    "IN_MEMORY",
    "ImageArray",
    "Reader",
    "StoredImages",
    "bytes_or_values",
    "fits_in_memory",
    "in_memory",
    "kept_in_memory",
    "mean_over_frames",
    "some_of",
]

IN_MEMORY = 2**30
"""Bytes of float32 that a data set may take in memory, 1 GiB: CIFAR-10's 50,000 training images take 0.6."""


class Reader(Protocol):
    """Where images are: a folder, a file, or a data set of the user's."""

    @property
    def shape(self) -> tuple[int, ...]:
        """(samples, ...), as they are stored."""

    @property
    def fingerprint(self) -> str:
        """What tells these images from others, without reading them."""

    def read(self, numbers: Sequence[int]) -> Any:
        """The images with these numbers, in any form that `pixel_values` takes."""


class StoredImages:
    """An array of images, float32 (samples, ...), each of which is read whenever it is indexed, and then forgotten.

    They are read from files or a data set of the user's, or are pixels in memory that stay one byte each. It is indexed
    by a slice or by an array of numbers, along the first axis, and gives an array in memory.

    Args:
        reader: Where they are.
        name: What an error calls them.
        numbers: Which of the reader's images these are.
        changes: What is made of them, one after the other, as a normalisation: its words, and the function.
        shape: Of one image after that.
        by_pixel: Whether the changes give each pixel of a channel what its own value alone says.
    """

    def __init__(
        self,
        reader: Reader,
        name: str,
        numbers: range | None = None,
        changes: tuple[tuple[str, Callable[[PixelArray], PixelArray]], ...] = (),
        shape: tuple[int, ...] | None = None,
        by_pixel: bool = True,
    ) -> None:
        self._reader, self._name, self._changes, self._by_pixel = reader, name, changes, by_pixel
        self._numbers = range(reader.shape[0]) if numbers is None else numbers
        self.shape = (len(self._numbers), *(reader.shape[1:] if shape is None else shape))

    @property
    def ndim(self) -> int:
        """The number of axes."""
        return len(self.shape)

    @property
    def fingerprint(self) -> str:
        """What tells these images from others, without reading them: another change makes others of them."""
        return "/".join(
            [self._reader.fingerprint, str(self._numbers), str(self.shape), *(words for words, _ in self._changes)]
        )

    def __len__(self) -> int:
        return len(self._numbers)

    def __getitem__(self, which: slice | NDArray[np.integer[Any]]) -> PixelArray:
        chosen = self._numbers[which] if isinstance(which, slice) else [self._numbers[int(i)] for i in which]
        if len(chosen) == 0:
            return np.empty((0, *self.shape[1:]), np.float32)
        return self._as_changed(pixel_values(self._reader.read(chosen), self._name))

    def _as_changed(self, images: PixelArray) -> PixelArray:
        for _, change in self._changes:
            images = change(images)
        return images

    def __array__(self, dtype: DTypeLike | None = None, copy: bool | None = None) -> NDArray[Any]:
        """All of them, for numpy: an array of their own, so that one that shares memory (copy=False) cannot be had."""
        if copy is False:
            raise ValueError("Images that are read when they are indexed have no array to share: leave copy=False out.")
        return np.asarray(self[:], dtype)

    def pixels(self) -> Pixels | None:
        """The images as bytes, and what each of the 256 values is in each channel; None of what does not lie so."""
        if not isinstance(self._reader, ByteReader) or not self._by_pixel:
            return None
        chosen, axes = self._numbers, self.ndim - 2
        ramp = np.arange(256, dtype=np.uint8).reshape(256, 1, *[1] * axes)
        every = np.broadcast_to(ramp, (256, self.shape[1], *[1] * axes))
        values = self._as_changed(pixel_values(every, self._name)).reshape(256, self.shape[1])
        return Pixels(self._reader.pixels[chosen.start : chosen.stop : chosen.step], np.ascontiguousarray(values.T))

    def part(self, which: slice) -> PixelArray | StoredImages:
        """Some of them: in memory, if they fit there; bytes as bytes, if they are many."""
        some = StoredImages(
            self._reader, self._name, self._numbers[which], self._changes, self.shape[1:], self._by_pixel
        )
        many = isinstance(self._reader, ByteReader) and 4 * math.prod(some.shape) > AS_BYTES
        return some if many else kept_in_memory(some)

    def changed(
        self,
        words: str,
        change: Callable[[PixelArray], PixelArray],
        shape: tuple[int, ...] | None = None,
        *,
        by_pixel: bool = False,
    ) -> StoredImages:
        """The images with a change of each, made whenever they are read.

        Args:
            words: All that tells this change from others, its numbers too.
            change: From (samples, ...) to as many samples.
            shape: Of one image after it, if that is another.
            by_pixel: Whether it makes of each pixel of a channel what its value alone says, as a normalisation does.
        """
        after, changes = self.shape[1:] if shape is None else shape, (*self._changes, (words, change))
        each = self._by_pixel and by_pixel
        return StoredImages(self._reader, self._name, self._numbers, changes, after, each)


ImageArray = PixelArray | StoredImages
"""Images that a network takes, (samples, ...): both have `shape`, `ndim` and a length, and give arrays for a slice or
for an array of numbers."""


def some_of(images: ImageArray, which: slice) -> ImageArray:
    """A part of them, which is not read as long as it is large."""
    return images.part(which) if isinstance(images, StoredImages) else images[which]


def fits_in_memory(shape: tuple[int, ...]) -> bool:
    """Whether float32 images of that shape, (samples, ...), take no more than `IN_MEMORY`."""
    return 4 * math.prod(shape) <= IN_MEMORY


def bytes_or_values(images: Any, what: str = "The images") -> ImageArray:
    """Images as `pixel_values` has them; many of uint8 stay bytes until they are indexed.

    Args:
        images: As for `pixel_values`; pixels that stay bytes share the memory of these.
        what: What an error calls them.

    Raises:
        InputError: As `pixel_values`.
    """
    pixels = plain_bytes(images)
    return pixel_values(images, what) if pixels is None else StoredImages(ByteReader(pixels), what)


def kept_in_memory(images: StoredImages) -> ImageArray:
    """The images in an array, if they fit in memory, else as they are."""
    return images[:] if fits_in_memory(images.shape) else images


def mean_over_frames(frames: ImageArray) -> ImageArray:
    """The mean over time of frames (samples, T, ...), taken in float64: (samples, ...)."""

    def mean(some: PixelArray) -> PixelArray:
        averaged: PixelArray = some.mean(axis=1, dtype=np.float64).astype(np.float32)
        return averaged

    return (
        frames.changed("mean over time", mean, frames.shape[2:]) if isinstance(frames, StoredImages) else mean(frames)
    )


def in_memory(images: ImageArray) -> PixelArray:
    """The images in an array: for what cannot do with a part of them at once."""
    return images[:] if isinstance(images, StoredImages) else images
