"""Images, with labels or without, from a torch Dataset or DataLoader."""

from __future__ import annotations

import hashlib
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import DataLoader, IterableDataset
from torch.utils.data import Dataset as TorchDataset

from cos_export.datasets.dataset import Dataset
from cos_export.datasets.pixels import is_raw, pixel_values
from cos_export.datasets.samples import asked, repeats, samples, stack
from cos_export.datasets.stored import StoredImages, fits_in_memory
from cos_export.errors import InputError, Notice
from cos_export.reading.numbers_file import Spool

__all__ = ["from_torch"]

_SHOWN = 60
"""Characters of a label that is not one."""


def from_torch(dataset: TorchDataset[Any] | DataLoader[Any], name: str) -> Dataset:
    """All samples of a torch `Dataset` or `DataLoader`: in memory, if they take no more than 1 GiB there.

    Of more, a `Dataset` with a length is asked for each sample again whenever it is needed, once all have been looked
    at for their labels. What gives its samples in its own order, as a DataLoader does, or other images when it is asked
    again, as with random transforms, is kept in a temporary file.

    Args:
        dataset: Gives (image, label), or images alone, or batches of them: an array or tensor (channels, height,
            width), (channels, length) or (features,), and a class number. Images of uint8 are divided by 255; those
            of a float type are taken as its transforms made them. Or frames
            (T, channels, height, width), as tonic's ToFrame makes them: integers are numbers of events. Of samples of
            more than two things the image alone is taken, which a `Notice` says.
        name: What it is called in reports.

    Raises:
        InputError: It is empty, or a sample is something else than that or of another shape.
    """
    images: list[Any] = []
    labels: list[int] = []
    held: _Held | None = None
    for i, sample in enumerate(samples(dataset, name)):
        if getattr(sample.image, "ndim", 3) not in (1, 2, 3, 4):
            raise InputError(
                f"The image of sample {i} of {name} has shape {tuple(sample.image.shape)}, and should be a tensor "
                "(channels, height, width), (channels, length) or (features,), or frames (T, channels, height, width)."
            )
        if sample.left_aside > 1 and not i:
            warnings.warn(
                f"{name} gives {sample.left_aside} things beside each image, so that its label is not known and the "
                "image alone is taken. Let it give (image, label).",
                Notice,
                stacklevel=2,
            )
        if i and sample.labelled != bool(labels):
            raise InputError(f"Sample {i} of {name} has {'a' if sample.labelled else 'no'} label, unlike those before.")
        if held is None and not fits_in_memory((i + 1, *getattr(sample.image, "shape", ()))):
            held = _Held(dataset, stack(images, name) if images else sample.image[None], name)
            images.clear()
        if held is None:
            images.append(sample.image)
        else:
            held.add(sample.image, i)
        if sample.labelled:
            labels.append(_label(sample.label, f"The label of sample {i} of {name}"))
    if not images and held is None:
        raise InputError(f"{name} has no samples.")
    stacked = stack(images, name) if held is None else held.images()
    raw = is_raw(stacked if held is None else held.first)
    how = "pixels 0..255 divided by 255" if raw else "taken as the data set gives them"
    # The data set turns uint8 and every float type into float32.
    if not labels:
        return Dataset(stacked, None, name, how, pixels=raw)  # type: ignore[arg-type]
    names = _class_names(dataset, max(labels))
    return Dataset(stacked, np.array(labels, np.int64), name, how, names, pixels=raw)  # type: ignore[arg-type]


class _Held:
    """Samples that are more than fit in memory, while the first pass over them goes on.

    Args:
        dataset: Where they come from.
        begun: Those until now, stacked.
        name: What they are of.
    """

    def __init__(self, dataset: TorchDataset[Any] | DataLoader[Any], begun: Tensor | NDArray[Any], name: str) -> None:
        self.first, self._dataset, self._name, self._count = begun[:1], dataset, name, len(begun)
        pixel_values(self.first, f"The images of {name}")  # What has no meaning is refused at once.
        counted = not isinstance(dataset, DataLoader | IterableDataset) and hasattr(dataset, "__len__")
        self._again = counted and repeats(dataset, name)
        self._spool = None if self._again else Spool(f"The images of {name}")
        if self._spool is not None:
            self._spool.add(_bytes(begun))

    def add(self, image: Any, number: int) -> None:
        """Takes the sample of that number in, unlike whose form none may be."""
        stack([self.first[0], image], self._name)
        self._count = number + 1
        if self._spool is not None:
            self._spool.add(_bytes(image))

    def images(self) -> StoredImages:
        """All of them, after the last."""
        shape, name = (self._count, *self.first.shape[1:]), f"The images of {self._name}"
        if self._spool is None:
            return StoredImages(_Asked(self._dataset, shape, self._name), name)
        return StoredImages(self._spool.numbers(shape, _plain(self.first).dtype), name)


@dataclass(frozen=True)
class _Asked:
    """A data set of the user's that is asked for its samples by number."""

    dataset: Any
    shape: tuple[int, ...]
    name: str

    @property
    def fingerprint(self) -> str:
        """The first sample and how many there are stand for all."""
        first = _bytes(self.read([0]))
        return hashlib.blake2b(repr(self.shape).encode() + first, digest_size=16).hexdigest()

    def read(self, numbers: Sequence[int]) -> Tensor | NDArray[Any]:
        """The samples with these numbers."""
        images = asked(self.dataset, numbers, self.name)
        if images.shape[1:] != self.shape[1:]:
            raise InputError(f"{self.name} gives images of another shape than when it was asked first.")
        return images


def _plain(images: Any) -> NDArray[Any]:
    """As an array; bfloat16, which numpy lacks, as float32."""
    if isinstance(images, Tensor):
        images = images.detach().cpu()
        images = images.float() if images.dtype == torch.bfloat16 else images
        return np.asarray(images.contiguous().numpy())
    return np.ascontiguousarray(images)


def _bytes(images: Any) -> bytes:
    return _plain(images).tobytes()


def _label(label: Any, what: str) -> int:
    single = isinstance(label, torch.Tensor | np.ndarray | np.generic) and int(np.prod(label.shape)) == 1
    number = label.item() if single else label
    if isinstance(number, bool) or not isinstance(number, int) or number < 0 or number > np.iinfo(np.int64).max:
        shown = repr(label)
        shown = f"a {type(label).__name__} of shape {tuple(np.shape(label))}" if len(shown) > _SHOWN else shown
        raise InputError(f"{what} is {shown}, and should be a class number from 0.{_hint(number)}")
    return number


def _hint(label: Any) -> str:
    if label is None:
        return " Of data without labels give the images alone."
    if isinstance(label, float) and label.is_integer():
        return " A whole number of a float type: give int(label)."
    several = isinstance(label, Tensor | np.ndarray | list | tuple) and np.ndim(label) == 1
    if several and sorted(np.unique(np.asarray(label)).tolist()) == [0, 1] and np.sum(np.asarray(label)) == 1:
        return f" It looks one-hot: give its argmax, {int(np.argmax(np.asarray(label)))}."
    return ""


def _class_names(dataset: TorchDataset[Any] | DataLoader[Any], largest: int) -> tuple[str, ...] | None:
    """What the data set calls its classes, in the attribute that torchvision's have."""
    held = getattr(dataset.dataset if isinstance(dataset, DataLoader) else dataset, "classes", None)
    if isinstance(held, list | tuple) and len(held) > largest and all(isinstance(name, str) for name in held):
        return tuple(held)
    return None
