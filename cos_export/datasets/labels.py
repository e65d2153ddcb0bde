"""The classes of samples: one number each, which the readout must know."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from cos_export.errors import InputError

__all__ = ["check_class_names", "class_numbers"]

_SHOWN = 9
"""Names of classes in an error."""


def class_numbers(
    labels: Any, samples: int | None = None, classes: int | None = None, what: str = "The labels"
) -> NDArray[np.int64]:
    """Labels as int64 (samples,), class numbers from 0.

    Args:
        labels: An array, tensor or list of whole numbers.
        samples: How many there must be, if that is known.
        classes: How many classes there are, if that is known.
        what: What the error calls them.

    Raises:
        InputError: They are not one whole number from 0 to `classes` - 1 for each sample; the message names the first
            sample that is wrong.
    """
    array = _array(labels, what)
    if array.ndim != 1:
        hint = " They look one-hot: give labels.argmax(axis=1)." if _is_one_hot(array) else ""
        raise InputError(f"{what} must be (samples,), one class number each, and have shape {array.shape}.{hint}")
    if array.dtype.kind not in "iu":
        hint = " Whole numbers in a float type: give labels.astype(int)." if array.dtype.kind == "f" else ""
        raise InputError(f"{what} must be class numbers, of an integer type, and are of type {array.dtype}.{hint}")
    if samples is not None and len(array) != samples:
        raise InputError(f"{what} must be one for each image: there are {samples} images and {len(array)} labels.")
    wrong = (array < 0) | (array > (np.iinfo(np.int64).max if classes is None else classes - 1))
    if wrong.any():
        first = int(wrong.argmax())
        known = "" if classes is None else f": there are {classes} classes, 0 to {classes - 1}"
        raise InputError(f"{what} must be class numbers from 0, and that of sample {first} is {array[first]}{known}.")
    return array.astype(np.int64)


def check_class_names(
    names: Sequence[str] | None, called: str, expected: Sequence[str] | None, expected_called: str
) -> None:
    """Refuses data whose classes are numbered otherwise than those that they are held against, where both have names.

    Args:
        names: Of the data's classes, or None.
        called: What the error calls the data.
        expected: The other names, or None.
        expected_called: What the error calls what has them.

    Raises:
        InputError: They differ.
    """
    if names is not None and expected is not None and tuple(names) != tuple(expected):
        raise InputError(
            f"The classes of {called} are {', '.join(names[:_SHOWN])}, and those of {expected_called} are "
            f"{', '.join(expected[:_SHOWN])}: their numbers differ. Give a folder of just these classes."
        )


def _array(labels: Any, what: str) -> NDArray[Any]:
    try:
        return labels.detach().cpu().numpy() if isinstance(labels, Tensor) else np.asarray(labels)
    except (ValueError, TypeError, RuntimeError) as error:
        raise InputError(f"{what} are not one array of class numbers: {error}.") from error


def _is_one_hot(array: NDArray[Any]) -> bool:
    return array.ndim == 2 and array.dtype.kind in "biuf" and bool((np.count_nonzero(array, axis=1) == 1).all())
