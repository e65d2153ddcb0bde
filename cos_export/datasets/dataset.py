"""Images in memory, or where they are stored, with their labels if these are known."""

from __future__ import annotations

import warnings
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from cos_export.datasets.labels import class_numbers
from cos_export.datasets.normalisation import Normalisation, agree
from cos_export.datasets.pixels import FRAME_AXES, PixelArray, is_raw
from cos_export.datasets.stored import ImageArray, StoredImages, bytes_or_values, mean_over_frames, some_of
from cos_export.errors import InputError, Notice
from cos_export.whole_number import whole_number

__all__ = ["Dataset"]


@dataclass(frozen=True)
class Dataset:
    """Images, signals or features, ready to be given to a network.

    Large arrays are not copied: images of float32, and many of uint8, share the memory of what was given, and what is
    written there later changes them.

    Attributes:
        images: float32 (samples, channels, height, width), (samples, channels, length) or (samples, features); or
            frames (samples, T, channels, height, width), one input for each step. uint8 is divided by 255 when given.
            Of more than 1 GiB, `StoredImages`: what is indexed is read then. So too of uint8 that would take more than
            64 MiB as float32: the pixels stay bytes, in memory, and what is indexed becomes float32.
        labels: int64 (samples,), class numbers from 0, or None if they are not known.
        name: What it is called in reports.
        normalisation: How the stored pixels became `images`, in words.
        class_names: What the classes are called, or None if that is not known.
        applied: The mean and std that `images` were normalised with, or None if they were not.
        pixels: Whether `images` were uint8, divided by 255.
    """

    images: ImageArray
    labels: NDArray[np.int64] | None
    name: str
    normalisation: str
    class_names: tuple[str, ...] | None = None
    applied: Normalisation | None = None
    pixels: bool = False

    def __post_init__(self) -> None:
        if is_raw(self.images) and self.applied is not None:
            raise InputError(f"The images of {self.name} are uint8, and cannot have been normalised.")
        object.__setattr__(self, "pixels", self.pixels or is_raw(self.images))
        if not isinstance(self.images, StoredImages):
            object.__setattr__(self, "images", bytes_or_values(self.images, f"The images of {self.name}"))
        for name in self.class_names or ():
            shown = name.encode("utf-8", "backslashreplace").decode()
            if shown != name:  # A name of a folder may be any bytes, which Python has as lone surrogates.
                raise InputError(
                    f"{self.name} has a class called '{shown}', which is not UTF-8, as every file that names it is. "
                    "Rename it."
                )
        if self.labels is None:
            return
        known = None if self.class_names is None else len(self.class_names)
        numbers = class_numbers(self.labels, len(self.images), known, f"The labels of {self.name}")
        object.__setattr__(self, "labels", numbers)

    def __len__(self) -> int:
        return len(self.images)

    @property
    def truth(self) -> NDArray[np.int64]:
        """The labels, where there must be some.

        Raises:
            InputError: There are none.
        """
        if self.labels is None:
            raise InputError(f"{self.name} has no labels, and they are needed here: one class number for each sample.")
        return self.labels

    @property
    def classes(self) -> int:
        """How many have a name, else one more than the largest label.

        Raises:
            InputError: There are neither names nor labels.
        """
        return int(self.truth.max()) + 1 if self.class_names is None else len(self.class_names)

    def labelled_by(self, decisions: NDArray[np.int64]) -> Dataset:
        """The same with its own labels, or else with the classes that an artificial network decides for.

        Accuracies then say how often another network decides alike, which a `Notice` says.

        Args:
            decisions: (samples,).
        """
        if self.labels is not None:
            return self
        warnings.warn(
            f"{self.name} has no labels. In their place stand the decisions of the artificial network, so accuracies "
            "say how often it is decided alike.",
            Notice,
            stacklevel=2,
        )
        return replace(self, labels=decisions)

    @property
    def frames(self) -> int | None:
        """T of frames, or None of images that are held."""
        return self.images.shape[1] if self.images.ndim == FRAME_AXES else None

    def mean_over_time(self) -> Dataset:
        """What an artificial network takes: images as they are, and of frames the mean over their steps."""
        if self.frames is None:
            return self
        return replace(
            self,
            images=mean_over_frames(self.images),
            normalisation=f"{self.normalisation}, the mean over {self.frames} frames",
        )

    def normalised(self, normalisation: Normalisation | None) -> Dataset:
        """The data set as a network of this normalisation takes it; None is a network that says nothing of it.

        Raises:
            InputError: It was normalised otherwise already, or has another number of channels.
        """
        if normalisation is None or (self.applied is not None and agree(self.applied, normalisation)):
            return self
        if self.applied is not None:
            raise InputError(
                f"{self.name} was normalised ({self.applied.words()}), and the network takes images "
                f"{normalisation.words()}. Load it without mean and std: the network's own are applied."
            )
        if self.pixels:
            normalisation.check_for_pixels(self.name)
        return replace(
            self,
            images=self._applied(normalisation),
            normalisation=f"{self.normalisation}, {normalisation.words()}",
            applied=normalisation,
        )

    def _applied(self, normalisation: Normalisation) -> ImageArray:
        what = f"the images of {self.name}"
        frames = self.frames is not None

        def apply(images: PixelArray) -> PixelArray:
            each = images.reshape(-1, *images.shape[2:]) if frames else images
            return normalisation.apply(each, what).reshape(images.shape)

        if isinstance(self.images, StoredImages):
            apply(self.images[:1])  # What does not fit is refused at once.
            return self.images.changed(str(normalisation), apply, by_pixel=True)
        return apply(self.images)

    def first(self, count: int | None) -> Dataset:
        """The first `count` samples, or all if it is None.

        Raises:
            InputError: `count` is below 1 or above the number of samples.
        """
        if count is None:
            return self
        if whole_number("The number of samples", count, 1) > len(self):
            raise InputError(f"{self.name} has {len(self)} samples: {count} cannot be taken.")
        return self._part(slice(count))

    def split_at(self, count: int) -> tuple[Dataset, Dataset]:
        """The first `count` samples, and the others.

        Raises:
            InputError: One of the two would be empty.
        """
        if not 1 <= count < len(self):
            raise InputError(f"{self.name} has {len(self)} samples and cannot be split after {count}.")
        return self.first(count), self._part(slice(count, None))

    def _part(self, which: slice) -> Dataset:
        labels = None if self.labels is None else self.labels[which]
        return replace(self, images=some_of(self.images, which), labels=labels)
