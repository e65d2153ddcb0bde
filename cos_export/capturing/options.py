"""What the user may choose about a capture."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal, get_args

import numpy as np
from numpy.typing import ArrayLike, NDArray

from cos_export.bounds import MOST_LEVELS
from cos_export.errors import InputError
from cos_export.whole_number import whole_number

__all__ = ["LARGEST_THRESHOLD", "SMALLEST_THRESHOLD", "MaxPool", "Options", "check_options"]

MaxPool = Literal["exact", "average", "refuse"]
"""What becomes of max pooling."""

SMALLEST_THRESHOLD = float(np.finfo(np.float32).tiny)
"""Below it float32 loses digits, and then becomes 0."""

LARGEST_THRESHOLD = float(np.finfo(np.float32).max)
"""Above it float32 is infinite."""


@dataclass(frozen=True)
class Options:
    """Choices, checked.

    Attributes:
        levels: L of quantised activations that do not say it themselves, or None.
        thresholds: Thresholds of ReLUs by key, shape () or (channels,), in float64.
        assume_thresholds: Whether a ReLU without a threshold is let through, for thresholds that come later.
        max_pool: Whether max pooling becomes neurons over differences, average pooling, or is refused.
    """

    levels: int | None = None
    thresholds: Mapping[str, NDArray[np.float64]] = field(default_factory=dict)
    assume_thresholds: bool = False
    max_pool: MaxPool = "exact"


def check_options(
    levels: int | None = None,
    thresholds: Mapping[str, ArrayLike] | None = None,
    max_pool: MaxPool = "exact",
    *,
    assume_thresholds: bool = False,
) -> Options:
    """The choices as `Options`.

    Raises:
        InputError: One of them is out of range.
    """
    levels = None if levels is None else whole_number("levels", levels, 1, MOST_LEVELS)
    if max_pool not in get_args(MaxPool):
        raise InputError(f"max_pool must be {' or '.join(map(repr, get_args(MaxPool)))}, and is {max_pool!r}.")
    checked = {}
    for key, given in (thresholds or {}).items():
        array = np.asarray(given)
        if array.dtype.kind not in "fiu" or array.ndim > 1 or array.size == 0:
            raise InputError(
                f"The threshold of {key!r} must be one number or one for each channel, and is of shape "
                f"{array.shape} and type {array.dtype}."
            )
        array = array.astype(np.float64)
        if not (np.isfinite(array).all() and (array > 0).all()):
            raise InputError(f"The threshold of {key!r} must be positive and finite everywhere.")
        if array.min() < SMALLEST_THRESHOLD or array.max() > LARGEST_THRESHOLD:
            raise InputError(
                f"The threshold of {key!r} must be from {SMALLEST_THRESHOLD:.3g} to {LARGEST_THRESHOLD:.3g}, for it "
                f"becomes float32, and is {array.min():.4g}" + (f" to {array.max():.4g}." if array.ndim else ".")
            )
        checked[key] = array
    return Options(levels, checked, assume_thresholds, max_pool)
