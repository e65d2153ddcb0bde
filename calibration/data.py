"""The calibration images: read in batches, in order or shuffled, from an array or a torch data set."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import count
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import Dataset, IterableDataset, Subset

from cos_export.bounds import MOST_BATCH
from cos_export.datasets import ImageArray, Images, StoredImages, some_of
from cos_export.datasets.samples import asked, repeats
from cos_export.device import to_device
from cos_export.device_images import DeviceImages
from cos_export.errors import InputError
from cos_export.network import SpikingNetwork, any_inputs, are_frames, held_images
from cos_export.processes import process_count, rank
from cos_export.training.augmentation import mirrored, moved
from cos_export.whole_number import whole_number

__all__ = ["Batch", "CalibrationData", "calibration_data"]


class Batch(NamedTuple):
    """Some of the images.

    Attributes:
        images: (samples, ...).
        numbers: Which of the data's images they are, (samples,), where the images are.
    """

    images: Tensor
    numbers: Tensor


@dataclass(frozen=True)
class CalibrationData:
    """Images without labels, of which only a batch is in memory at once if they come from a data set.

    Attributes:
        images: (samples, ...) float32, or a data set whose items are images or start with one.
        batch_size: Samples computed at once by methods that only read statistics.
        network: What the images are for; each batch is checked against its input shape.
        frames: Whether they were given as frames, of which this has the mean over time.
    """

    images: ImageArray | Dataset[object]
    batch_size: int
    network: SpikingNetwork
    frames: bool = False

    def __len__(self) -> int:
        return len(self.images)  # type: ignore[arg-type]

    def ordered(self) -> Iterator[Tensor]:
        """The images of `in_order`."""
        return (batch.images for batch in self.in_order())

    def in_order(self) -> Iterator[Batch]:
        """One pass over this process's share of the images, in order, `batch_size` at a time.

        Of n processes the k-th takes the batches k, k + n, ...
        """
        starts = range(0, len(self), self.batch_size)[rank() :: process_count()]
        for start in starts:
            chosen = np.arange(start, min(start + self.batch_size, len(self)))
            yield Batch(self.take(chosen), torch.from_numpy(chosen))

    def shuffled(
        self,
        size: int,
        seed: int,
        first: int = 0,
        *,
        flip: bool = False,
        shift: int = 0,
        device: torch.device | str = "cpu",
    ) -> Iterator[Batch]:
        """Batches of `size` images for ever, each pass in a new order; fewer if there are fewer images.

        Of n processes the k-th gets the images k, k + n, ... of each batch, which may be none. Pixels that fit lie on
        the device as bytes meanwhile (`DeviceImages`), and images are mirrored and moved there.

        Args:
            size: Images in a batch.
            seed: Of the order, and of how the images are changed.
            first: How many batches to leave out: those that an interrupted calibration has seen.
            flip: Whether half of the images (channels, height, width) are mirrored left to right, others in each pass.
            shift: By how many pixels they are moved along each axis at most, anew in each pass; zeros come in.
            device: Where the batches are wanted.
        """
        size = min(size, len(self))
        per_pass = len(self) // size
        array = self.images if isinstance(self.images, np.ndarray | StoredImages) else None
        there = None if array is None else DeviceImages(array, device)
        for number in count(first // per_pass):
            random = np.random.default_rng((seed, number))
            order = random.permutation(len(self))
            turned = torch.from_numpy(random.random(len(self)) < 0.5)
            corner = torch.from_numpy(random.integers(0, 2 * shift + 1, (2, len(self))))
            # What is drawn for a pass goes to the device at once, and no update waits for it.
            order_there = torch.from_numpy(order).to(device)
            turned, corner = turned[order].to(device), corner[:, order].to(device)
            for start in range(first % per_pass if number == first // per_pass else 0, per_pass):
                part = slice(start * size + rank(), (start + 1) * size, process_count())
                if there is not None:
                    images = there.take(order_there[part], order[part])
                else:
                    images = to_device(self.take(order[part]), device)
                images = mirrored(images, turned[part]) if flip else images
                images = moved(images, corner[:, part], shift) if shift else images
                yield Batch(images, order_there[part])

    def split(self, first: int) -> tuple[CalibrationData, CalibrationData]:
        """The first images, and the others."""
        if isinstance(self.images, np.ndarray | StoredImages):
            parts = some_of(self.images, slice(first)), some_of(self.images, slice(first, None))
            return replace(self, images=parts[0]), replace(self, images=parts[1])
        begin, rest = Subset(self.images, range(first)), Subset(self.images, range(first, len(self)))
        return replace(self, images=begin), replace(self, images=rest)

    def take(self, chosen: Sequence[int] | NDArray[np.int64]) -> Tensor:
        """The images with these numbers, as a batch on the CPU, which may be empty."""
        if isinstance(self.images, np.ndarray | StoredImages):
            return torch.from_numpy(self.images[np.asarray(chosen, np.int64)])
        if len(chosen) == 0:
            return torch.empty(0, *self.network.input_shape)
        name = f"the {type(self.images).__name__}"
        return torch.from_numpy(held_images(self.network, asked(self.images, chosen, name)))


def calibration_data(network: SpikingNetwork, images: Images, batch_size: int) -> CalibrationData:
    """Images for a calibration of `network`; of frames the mean over the steps.

    A torch data set with a length is read item by item whenever its images are needed; all else is read at once, and so
    is one that gives other images when it is asked again: a teacher must have seen what is tuned on.

    Raises:
        InputError: They do not fit the network, there are none, or batch_size is below 1.
    """
    batch_size = whole_number("batch_size", batch_size, 1, MOST_BATCH)
    if isinstance(images, Dataset) and not isinstance(images, IterableDataset) and hasattr(images, "__len__"):
        if len(images) == 0:
            raise InputError("There are no images: the calibration data set is empty.")
        first = asked(images, [0], "the calibration data set")
        if repeats(images, "the calibration data set"):
            return CalibrationData(images, batch_size, network, are_frames(network, any_inputs(network, first)))
    array = any_inputs(network, images)
    return CalibrationData(held_images(network, array), batch_size, network, are_frames(network, array))
