"""Images that are more than is held in memory: of them only those that are asked for are read."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from cos_export.datasets.pixels import PixelArray, pixel_values

__all__ = [
    "IN_MEMORY",
    "ImageArray",
    "Reader",
    "StoredImages",
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

    It is indexed by a slice or by an array of numbers, along the first axis, and gives an array in memory.

    Args:
        reader: Where they are.
        name: What an error calls them.
        numbers: Which of the reader's images these are.
        changes: What is made of them, one after the other, as a normalisation.
        shape: Of one image after that.
    """

    def __init__(
        self,
        reader: Reader,
        name: str,
        numbers: range | None = None,
        changes: tuple[Callable[[PixelArray], PixelArray], ...] = (),
        shape: tuple[int, ...] | None = None,
    ) -> None:
        self._reader, self._name, self._changes = reader, name, changes
        self._numbers = range(reader.shape[0]) if numbers is None else numbers
        self.shape = (len(self._numbers), *(reader.shape[1:] if shape is None else shape))

    @property
    def ndim(self) -> int:
        """The number of axes."""
        return len(self.shape)

    @property
    def fingerprint(self) -> str:
        """What tells these images from others, without reading them."""
        return f"{self._reader.fingerprint}/{self._numbers}/{self.shape}"

    def __len__(self) -> int:
        return len(self._numbers)

    def __getitem__(self, which: slice | NDArray[np.integer[Any]]) -> PixelArray:
        chosen = self._numbers[which] if isinstance(which, slice) else [self._numbers[int(i)] for i in which]
        if len(chosen) == 0:
            return np.empty((0, *self.shape[1:]), np.float32)
        images = pixel_values(self._reader.read(chosen), self._name)
        for change in self._changes:
            images = change(images)
        return images

    def part(self, which: slice) -> PixelArray | StoredImages:
        """Some of them: in memory, if they fit there."""
        return kept_in_memory(
            StoredImages(self._reader, self._name, self._numbers[which], self._changes, self.shape[1:])
        )

    def changed(self, change: Callable[[PixelArray], PixelArray], shape: tuple[int, ...] | None = None) -> StoredImages:
        """The images with a change of each, made whenever they are read.

        Args:
            change: From (samples, ...) to as many samples.
            shape: Of one image after it, if that is another.
        """
        after = self.shape[1:] if shape is None else shape
        return StoredImages(self._reader, self._name, self._numbers, (*self._changes, change), after)


ImageArray = PixelArray | StoredImages
"""Images that a network takes, (samples, ...): both have `shape`, `ndim` and a length, and give arrays for a slice or
for an array of numbers."""


def some_of(images: ImageArray, which: slice) -> ImageArray:
    """A part of them, which is not read as long as it is large."""
    return images.part(which) if isinstance(images, StoredImages) else images[which]


def fits_in_memory(shape: tuple[int, ...]) -> bool:
    """Whether float32 images of that shape, (samples, ...), take no more than `IN_MEMORY`."""
    return 4 * math.prod(shape) <= IN_MEMORY


def kept_in_memory(images: StoredImages) -> ImageArray:
    """The images in an array, if they fit in memory, else as they are."""
    return images[:] if fits_in_memory(images.shape) else images


def mean_over_frames(frames: ImageArray) -> ImageArray:
    """The mean over time of frames (samples, T, ...), taken in float64: (samples, ...)."""

    def mean(some: PixelArray) -> PixelArray:
        averaged: PixelArray = some.mean(axis=1, dtype=np.float64).astype(np.float32)
        return averaged

    return frames.changed(mean, frames.shape[2:]) if isinstance(frames, StoredImages) else mean(frames)


def in_memory(images: ImageArray) -> PixelArray:
    """The images in an array: for what cannot do with a part of them at once."""
    return images[:] if isinstance(images, StoredImages) else images
