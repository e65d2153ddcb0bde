"""One sample after the other, from a torch data set, a DataLoader or a list of samples."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import DataLoader, IterableDataset
from torch.utils.data import Dataset as TorchDataset

from cos_export.errors import InputError

__all__ = ["Sample", "Samples", "asked", "repeats", "samples", "split_sample", "stack"]

_TRIED = 8
"""Samples that a data set is asked for twice."""

Samples = TorchDataset[Any] | DataLoader[Any] | Sequence[Any]


@dataclass(frozen=True)
class Sample:
    """An image, and its label if there is one.

    Attributes:
        image: An array or tensor, without the batch axis.
        label: What the source gave beside it.
        labelled: Whether the source gave exactly one thing beside it.
        left_aside: Things that it gave beside it, if they were more: which of them is the label is not known.
    """

    image: Any
    label: Any = None
    labelled: bool = False
    left_aside: int = 0


def samples(source: Samples, name: str) -> Iterator[Sample]:
    """The samples of `source` in its order: of a DataLoader in the order in which it gives them.

    Raises:
        InputError: What it gives is neither an image nor (image, label), or the images come in the same memory, each
            written over one before.
    """
    yield from _each_of_its_own(
        _batched(source, name) if isinstance(source, DataLoader) else _one_by_one(source, name), name
    )


def asked(source: Any, numbers: Iterable[int], name: str) -> Tensor | NDArray[Any]:
    """The images of some samples of a data set with a length, by their numbers, stacked.

    Raises:
        InputError: As `samples` and `stack`.
    """
    given = (split_sample(source[int(i)], f"Sample {int(i)} of {name}") for i in numbers)
    return stack([sample.image for sample in _each_of_its_own(given, name)], name)


def repeats(source: Any, name: str) -> bool:
    """Whether a data set with a length gives the same images when it is asked again.

    Random transforms show in the first few: of mirroring half of them by chance one data set in 256 goes unnoticed.
    """
    tried = range(min(_TRIED, len(source)))
    once, again = ([_content(split_sample(source[i], f"Sample {i} of {name}").image) for i in tried] for _ in range(2))
    return once == again


def _each_of_its_own(given: Iterable[Sample], name: str) -> Iterator[Sample]:
    """The samples, whose images must not lie in the same memory one after the other."""
    first: Sample | None = None
    kept: bytes | None = None
    for sample in given:
        if first is None:
            first, kept = sample, _content(sample.image)
        yield sample
    if first is not None and _content(first.image) != kept:
        raise InputError(
            f"{name} has changed the image of its first sample while it gave others: it writes several into the same "
            "memory. Let it return a copy of each: image.clone() of a tensor, image.copy() of an array."
        )


def _one_by_one(source: TorchDataset[Any] | Sequence[Any], name: str) -> Iterator[Sample]:
    # One with a length and no order of its own need not stop by itself. The length of an iterable one may be a guess.
    counted = hasattr(source, "__len__") and not isinstance(source, IterableDataset)
    items = (source[i] for i in range(len(source))) if counted else iter(source)  # type: ignore[arg-type]
    yield from (split_sample(item, f"Sample {i} of {name}") for i, item in enumerate(items))


def _batched(source: DataLoader[Any], name: str) -> Iterator[Sample]:
    for number, batch in enumerate(source):
        what = f"Batch {number} of {name}"
        whole = split_sample(batch, what)
        if source.batch_size is None and source.batch_sampler is None:
            # It hands on what its data set gives, which may be samples or batches: only a label tells.
            if not whole.labelled:
                raise InputError(
                    f"{name} makes no batches (batch_size=None) and gives no labels, so that one image cannot be told "
                    "from a batch of them. Give it a batch_size."
                )
            if np.ndim(whole.label) == 0:
                yield whole
                continue
        if not isinstance(whole.image, Tensor | np.ndarray) or whole.image.ndim < 1:
            raise InputError(f"{what} holds {_kind(whole.image)} in place of a batch of images.")
        if whole.labelled and (not hasattr(whole.label, "__len__") or len(whole.label) != len(whole.image)):
            raise InputError(f"{what} has {len(whole.image)} images, and not as many labels.")
        for i in range(len(whole.image)):
            yield replace(whole, image=whole.image[i], label=whole.label[i] if whole.labelled else None)


def _content(image: Any) -> bytes | None:
    """What an image holds now, or None of what is not plain numbers in this machine's memory."""
    if isinstance(image, Tensor):
        plain = image.layout == torch.strided and image.device.type == "cpu" and not image.is_quantized
        image = image.detach().contiguous().reshape(-1).view(torch.uint8).numpy() if plain and image.numel() else None
    return image.tobytes() if isinstance(image, np.ndarray) else None


def split_sample(item: Any, what: str) -> Sample:
    """An item of a data set: an image, or a tuple or list that starts with one.

    Raises:
        InputError: It is a dictionary or is empty.
    """
    if isinstance(item, dict) or (isinstance(item, tuple | list) and not item):
        raise InputError(f"{what} is {_kind(item)}, and should be an image or (image, label).")
    if not isinstance(item, tuple | list):
        return Sample(item)
    return Sample(item[0], item[1], True) if len(item) == 2 else Sample(item[0], left_aside=len(item) - 1)


def stack(images: Sequence[Any], name: str) -> Tensor | NDArray[Any]:
    """Images of one shape and type as one array or tensor, samples first; their type is not judged here.

    Args:
        images: At least one; arrays or tensors.
        name: What they are of.

    Raises:
        InputError: One is neither an array nor a tensor, or unlike the first.
    """
    for i, image in enumerate(images):
        if not isinstance(image, Tensor | np.ndarray):
            raise InputError(
                f"The image of sample {i} of {name} is {_kind(image)}, and should be an array or a tensor. "
                "torchvision's ToTensor makes one of a PIL image."
            )
        alike = isinstance(image, Tensor) == isinstance(images[0], Tensor)
        if not alike or (image.shape, image.dtype) != (images[0].shape, images[0].dtype):
            this, that = ("" if alike else f"{_kind(one)}, " for one in (image, images[0]))
            raise InputError(
                f"The image of sample {i} of {name} is {this}{_form(image)}, and that of sample 0 is "
                f"{that}{_form(images[0])}. Let the transform make them alike."
            )
    if isinstance(images[0], Tensor):
        return torch.stack([image.detach().cpu() for image in images])
    return np.stack(images)


def _form(image: Any) -> str:
    return f"{tuple(image.shape)} {str(image.dtype).removeprefix('torch.')}"


def _kind(value: Any) -> str:
    name = type(value).__name__
    return f"{'an' if name[:1].lower() in 'aeiou' or name == 'ndarray' else 'a'} {name}"
