"""One sample after the other, from a torch data set, a DataLoader or a list of samples."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import DataLoader
from torch.utils.data import Dataset as TorchDataset

from cos_export.errors import InputError

__all__ = ["Sample", "Samples", "samples", "split_sample", "stack"]

Samples = TorchDataset[Any] | DataLoader[Any] | Sequence[Any]


@dataclass(frozen=True)
class Sample:
    """An image, and its label if there is one.

    Attributes:
        image: An array or tensor, without the batch axis.
        label: What the source gave beside it.
        labelled: Whether the source gave exactly one thing beside it.
    """

    image: Any
    label: Any = None
    labelled: bool = False


def samples(source: Samples, name: str) -> Iterator[Sample]:
    """The samples of `source` in its order: of a DataLoader in the order in which it gives them.

    Raises:
        InputError: What it gives is neither an image nor (image, label).
    """
    if not isinstance(source, DataLoader):
        # Without a length it is an iterable data set; with one, it need not stop by itself.
        counted = hasattr(source, "__len__")
        items = (source[i] for i in range(len(source))) if counted else iter(source)  # type: ignore[arg-type]
        yield from (split_sample(item, f"Sample {i} of {name}") for i, item in enumerate(items))
        return
    for number, batch in enumerate(source):
        whole = split_sample(batch, f"Batch {number} of {name}")
        if not isinstance(whole.image, Tensor | np.ndarray) or whole.image.ndim < 1:
            raise InputError(f"Batch {number} of {name} holds {_kind(whole.image)} in place of a batch of images.")
        if whole.labelled and (not hasattr(whole.label, "__len__") or len(whole.label) != len(whole.image)):
            raise InputError(f"Batch {number} of {name} has {len(whole.image)} images, and not as many labels.")
        for i in range(len(whole.image)):
            yield Sample(whole.image[i], whole.label[i], True) if whole.labelled else Sample(whole.image[i])


def split_sample(item: Any, what: str) -> Sample:
    """An item of a data set: an image, or a tuple or list that starts with one.

    Raises:
        InputError: It is a dictionary or is empty.
    """
    if isinstance(item, dict) or (isinstance(item, tuple | list) and not item):
        raise InputError(f"{what} is {_kind(item)}, and should be an image or (image, label).")
    if not isinstance(item, tuple | list):
        return Sample(item)
    return Sample(item[0], item[1], True) if len(item) == 2 else Sample(item[0])


def stack(images: Sequence[Any], name: str, first: int = 0) -> Tensor | NDArray[Any]:
    """Images of one shape and type as one array or tensor, samples first; their type is not judged here.

    Args:
        images: At least one; arrays or tensors.
        name: What they are of.
        first: The number of the first.

    Raises:
        InputError: One is neither an array nor a tensor, or unlike the first.
    """
    for i, image in enumerate(images):
        if not isinstance(image, Tensor | np.ndarray):
            raise InputError(
                f"The image of sample {first + i} of {name} is {_kind(image)}, and should be an array or a tensor. "
                "torchvision's ToTensor makes one of a PIL image."
            )
        if (image.shape, image.dtype) != (images[0].shape, images[0].dtype):
            raise InputError(
                f"The image of sample {first + i} of {name} is {_form(image)}, and that of sample {first} is "
                f"{_form(images[0])}. Let the transform make them alike."
            )
    if isinstance(images[0], Tensor):
        return torch.stack([image.detach().cpu() for image in images])
    return np.stack(images)


def _form(image: Any) -> str:
    return f"{tuple(image.shape)} {str(image.dtype).removeprefix('torch.')}"


def _kind(value: Any) -> str:
    return f"a {type(value).__name__}"
