"""The one way in for images: whatever form a user has them in, one meaning."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike
from torch import Tensor
from torch.utils.data import DataLoader
from torch.utils.data import Dataset as TorchDataset

from cos_export.datasets.dataset import Dataset
from cos_export.datasets.from_torch import from_torch
from cos_export.datasets.normalisation import Normalisation
from cos_export.datasets.pixels import is_raw
from cos_export.datasets.samples import samples, split_sample, stack
from cos_export.datasets.stored import ImageArray, StoredImages, bytes_or_values
from cos_export.errors import InputError

__all__ = ["Images", "image_array", "labelled"]

Images = ArrayLike | Tensor | TorchDataset[Any] | DataLoader[Any] | Dataset | StoredImages
"""Arrays, tensors, lists of them, torch data sets and DataLoaders with or without labels, what `load_dataset` reads."""


def image_array(images: Images, normalisation: Normalisation | None = None, what: str = "The images") -> ImageArray:
    """Images as float32 (samples, ...), as a network of this normalisation takes them.

        uint8              (pixel / 255 - mean) / std
        any float type     as it is: whoever made floats of the pixels has normalised them, too
        a `Dataset`        (x - mean) / std, unless it was loaded with just this mean and std
        frames             (samples, T, channels, height, width): integers but uint8 are numbers of events, as they are
        all else           refused

    Args:
        images: In any of the forms of `Images`. Labels are left aside.
        normalisation: Of the network, or None: then mean is 0 and std 1.
        what: What an error calls them.

    Returns:
        An array that may share the memory of `images` where that is float32; of a `Dataset` that is larger than memory,
        what reads it (`StoredImages`), and of uint8 that would take more than 64 MiB what makes float32 of a part.

    Raises:
        InputError: They are of another type or form, there are none, one is unlike the others or holds a value that is
            not finite, or a `Dataset` was normalised otherwise.
    """
    if isinstance(images, StoredImages):
        return images
    if isinstance(images, Dataset):
        return images.normalised(normalisation).images
    given = _together(images, what)
    values = bytes_or_values(given, what)
    if values.ndim < 1 or len(values) == 0:
        raise InputError("There are no images.")
    if normalisation is None or not is_raw(given):
        return values
    normalisation.check_for_pixels(what)
    if isinstance(values, StoredImages):
        normalisation.apply(values[:1], what)  # What does not fit is refused at once.
        return values.changed(str(normalisation), lambda images: normalisation.apply(images, what), by_pixel=True)
    return normalisation.apply(values, what)


def labelled(data: Dataset | TorchDataset[Any] | DataLoader[Any]) -> Dataset:
    """Images with labels, in memory.

    Raises:
        InputError: A sample is not (image, label), or unlike the others; or a `Dataset` has no labels.
    """
    if isinstance(data, TorchDataset | DataLoader):
        data = from_torch(data, type(data).__name__)
    if isinstance(data, Dataset):
        data.truth  # noqa: B018 - what has no labels is refused
        return data
    raise InputError(
        f"Images with labels are needed, and a {type(data).__name__} was given. Give what load_dataset returns, or a "
        "torch Dataset or DataLoader of (image, label)."
    )


def _together(images: Any, what: str) -> Any:
    """One array or tensor; a list of numbers is left to numpy."""
    if isinstance(images, TorchDataset | DataLoader):
        name = f"the {type(images).__name__}"
        taken = [sample.image for sample in samples(images, name)]
    elif isinstance(images, tuple | list) and images and _holds_images(images):
        name = what[:1].lower() + what[1:]
        taken = [split_sample(item, f"Sample {i} of {name}").image for i, item in enumerate(images)]
    else:
        return images
    if not taken:
        raise InputError("There are no images.")
    return stack(taken, name)


def _holds_images(items: tuple[Any, ...] | list[Any]) -> bool:
    """Whether a list holds arrays, or tuples that start with one: samples, and not nested numbers."""
    first = items[0]
    if isinstance(first, tuple | list) and first:
        first = first[0]
    return isinstance(first, Tensor | np.ndarray) and first.ndim > 0
