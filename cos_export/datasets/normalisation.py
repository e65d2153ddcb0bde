"""Shifts and scales images by channel, and writes down that it did."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from cos_export.datasets.dataset import Dataset
from cos_export.errors import InputError
from cos_export.network import FloatArray

__all__ = ["normalised"]


def normalised(dataset: Dataset, mean: float | Sequence[float] | None, std: float | Sequence[float] | None) -> Dataset:
    """The data set with (image - mean) / std for images, in float32.

    Args:
        dataset: Returned as it is where both are None.
        mean: One number, or one for each channel.
        std: Likewise.

    Raises:
        InputError: There are not as many as channels, one is not finite, or one of `std` is not positive.
    """
    if mean is None and std is None:
        return dataset
    shift = _per_channel("mean", 0.0 if mean is None else mean, dataset)
    scale = _per_channel("std", 1.0 if std is None else std, dataset)
    if not (scale > 0).all():
        raise InputError(f"std must be positive, and is {_words(scale)}.")
    images = (dataset.images - shift[:, None, None]) / scale[:, None, None]
    words = f"{dataset.normalisation}, less {_words(shift)}, divided by {_words(scale)}"
    return replace(dataset, images=images, normalisation=words)


def _per_channel(name: str, given: float | Sequence[float], dataset: Dataset) -> FloatArray:
    channels = dataset.images.shape[1]
    values = np.atleast_1d(np.asarray(given, np.float32))
    if values.ndim != 1 or len(values) not in (1, channels):
        raise InputError(
            f"{name} has {values.size} values, and the images of {dataset.name} have {channels} channels. "
            "Give one value, or one for each channel."
        )
    if not np.isfinite(values).all():
        raise InputError(f"{name} must be finite, and is {_words(values)}.")
    return values


def _words(values: FloatArray) -> str:
    # The shortest decimals that give these float32 values.
    return " / ".join(np.format_float_positional(value, trim="-") for value in values)
