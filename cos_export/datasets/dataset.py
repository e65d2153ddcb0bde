"""Labelled images in memory."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from cos_export.errors import InputError
from cos_export.network import FloatArray
from cos_export.whole_number import whole_number

__all__ = ["Dataset"]


@dataclass(frozen=True)
class Dataset:
    """Labelled images, ready to be given to a network.

    Attributes:
        images: float32 (samples, channels, height, width).
        labels: int64 (samples,), class numbers from 0.
        name: What it is called in reports.
        normalisation: How the stored pixels became `images`, in words.
        class_names: What the classes are called, or None if that is not known.
    """

    images: FloatArray
    labels: NDArray[np.int64]
    name: str
    normalisation: str
    class_names: tuple[str, ...] | None = None

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def classes(self) -> int:
        """How many have a name, else one more than the largest label."""
        return int(self.labels.max()) + 1 if self.class_names is None else len(self.class_names)

    def first(self, count: int | None) -> Dataset:
        """The first `count` samples, or all if it is None.

        Raises:
            InputError: `count` is below 1 or above the number of samples.
        """
        if count is None:
            return self
        if whole_number("The number of samples", count, 1) > len(self):
            raise InputError(f"{self.name} has {len(self)} samples: {count} cannot be taken.")
        return replace(self, images=self.images[:count], labels=self.labels[:count])

    def split_at(self, count: int) -> tuple[Dataset, Dataset]:
        """The first `count` samples, and the others.

        Raises:
            InputError: One of the two would be empty.
        """
        if not 1 <= count < len(self):
            raise InputError(f"{self.name} has {len(self)} samples and cannot be split after {count}.")
        return self.first(count), replace(self, images=self.images[count:], labels=self.labels[count:])
