"""Images, with labels or without, from a torch Dataset or DataLoader."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch.utils.data import DataLoader
from torch.utils.data import Dataset as TorchDataset

from cos_export.datasets.dataset import Dataset
from cos_export.datasets.pixels import is_raw
from cos_export.datasets.samples import samples, stack
from cos_export.errors import InputError

__all__ = ["from_torch"]


def from_torch(dataset: TorchDataset[Any] | DataLoader[Any], name: str) -> Dataset:
    """All samples of a torch `Dataset` or `DataLoader`, in memory.

    Args:
        dataset: Gives (image, label), or images alone, or batches of them: an array or tensor (channels, height,
            width), (channels, length) or (features,), and a class number. Images of uint8 are divided by 255; those
            of a float type are taken as its transforms made them. Or frames
            (T, channels, height, width), as tonic's ToFrame makes them: integers are numbers of events.
        name: What it is called in reports.

    Raises:
        InputError: It is empty, or a sample is something else than that or of another shape.
    """
    images: list[Any] = []
    labels: list[int] = []
    for i, sample in enumerate(samples(dataset, name)):
        if getattr(sample.image, "ndim", 3) not in (1, 2, 3, 4):
            raise InputError(
                f"The image of sample {i} of {name} has shape {tuple(sample.image.shape)}, and should be a tensor "
                "(channels, height, width), (channels, length) or (features,), or frames (T, channels, height, width)."
            )
        if i and sample.labelled != bool(labels):
            raise InputError(f"Sample {i} of {name} has {'a' if sample.labelled else 'no'} label, unlike those before.")
        images.append(sample.image)
        if sample.labelled:
            labels.append(_label(sample.label, f"The label of sample {i} of {name}"))
    if not images:
        raise InputError(f"{name} has no samples.")
    stacked = stack(images, name)
    how = "pixels 0..255 divided by 255" if is_raw(stacked) else "taken as the data set gives them"
    # The data set turns uint8 and every float type into float32.
    if not labels:
        return Dataset(stacked, None, name, how)  # type: ignore[arg-type]
    return Dataset(stacked, np.array(labels, np.int64), name, how, _class_names(dataset, max(labels)))  # type: ignore[arg-type]


def _label(label: Any, what: str) -> int:
    single = isinstance(label, torch.Tensor | np.ndarray | np.generic) and int(np.prod(label.shape)) == 1
    number = label.item() if single else label
    if isinstance(number, bool) or not isinstance(number, int) or number < 0 or number > np.iinfo(np.int64).max:
        raise InputError(f"{what} is {label!r}, and should be a class number from 0.")
    return number


def _class_names(dataset: TorchDataset[Any] | DataLoader[Any], largest: int) -> tuple[str, ...] | None:
    """What the data set calls its classes, in the attribute that torchvision's have."""
    held = getattr(dataset.dataset if isinstance(dataset, DataLoader) else dataset, "classes", None)
    if isinstance(held, list | tuple) and len(held) > largest and all(isinstance(name, str) for name in held):
        return tuple(held)
    return None
