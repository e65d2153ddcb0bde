"""Labelled images from a torch Dataset."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch.utils.data import Dataset as TorchDataset

from cos_export.datasets.dataset import Dataset
from cos_export.errors import InputError
from cos_export.network import FloatArray

__all__ = ["from_torch"]


def from_torch(dataset: TorchDataset[Any], name: str) -> Dataset:
    """All samples of a torch `Dataset`, in memory.

    Args:
        dataset: Gives (image, label): an array or tensor (channels, height, width), and a class number. Images of
            uint8 are divided by 255; those of a float type are taken as its transforms made them.
        name: What it is called in reports.

    Raises:
        InputError: It is empty, or a sample is something else than that or of another shape.
    """
    images: list[NDArray[Any]] = []
    labels: list[int] = []
    for i, sample in enumerate(_samples(dataset)):
        if not isinstance(sample, tuple | list) or len(sample) != 2:
            raise InputError(f"Sample {i} of {name} is a {type(sample).__name__}, and should be (image, label).")
        image = _array(sample[0], f"The image of sample {i} of {name}")
        if images and (image.shape, image.dtype) != (images[0].shape, images[0].dtype):
            raise InputError(
                f"The image of sample {i} of {name} is {image.shape} {image.dtype}, and that of sample 0 is "
                f"{images[0].shape} {images[0].dtype}. Let the transform make them alike."
            )
        images.append(image)
        labels.append(_label(sample[1], f"The label of sample {i} of {name}"))
    if not images:
        raise InputError(f"{name} has no samples.")
    stacked: FloatArray = np.stack(images).astype(np.float32)
    how = "taken as the data set gives them"
    if images[0].dtype == np.uint8:
        stacked /= np.float32(255)
        how = "pixels 0..255 divided by 255"
    if not np.isfinite(stacked).all():
        raise InputError(f"The images of {name} hold values that are not finite numbers (nan or inf).")
    return Dataset(stacked, np.array(labels, np.int64), name, how, _class_names(dataset, max(labels)))


def _samples(dataset: TorchDataset[Any]) -> Iterator[Any]:
    # Without a length it is an iterable data set; with one, it need not stop by itself.
    if hasattr(dataset, "__len__"):
        return (dataset[i] for i in range(len(dataset)))
    return iter(dataset)


def _array(image: Any, what: str) -> NDArray[Any]:
    array = image.detach().cpu().numpy() if isinstance(image, torch.Tensor) else image
    if not isinstance(array, np.ndarray) or array.ndim != 3:
        shape = f" of shape {array.shape}" if isinstance(array, np.ndarray) else ""
        raise InputError(
            f"{what} is a {type(image).__name__}{shape}, and should be a tensor (channels, height, width). "
            "torchvision's ToTensor makes one of a PIL image."
        )
    if array.dtype != np.uint8 and array.dtype.kind != "f":
        raise InputError(f"{what} is of type {array.dtype}, and should be uint8 or of a float type.")
    return array


def _label(label: Any, what: str) -> int:
    single = isinstance(label, torch.Tensor | np.ndarray | np.generic) and int(np.prod(label.shape)) == 1
    number = label.item() if single else label
    if isinstance(number, bool) or not isinstance(number, int) or number < 0:
        raise InputError(f"{what} is {label!r}, and should be a class number from 0.")
    return number


def _class_names(dataset: TorchDataset[Any], largest: int) -> tuple[str, ...] | None:
    """What the data set calls its classes, in the attribute that torchvision's have."""
    held = getattr(dataset, "classes", None)
    if isinstance(held, list | tuple) and len(held) > largest and all(isinstance(name, str) for name in held):
        return tuple(held)
    return None
