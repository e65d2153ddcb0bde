"""Whole numbers among a user's arguments."""

from __future__ import annotations

import operator
from typing import Any

import numpy as np

from cos_export.errors import InputError

__all__ = ["whole_number"]


def whole_number(name: str, value: Any, lowest: int, highest: int | None = None) -> int:
    """`value` as an int, if it is an integer of Python or NumPy from `lowest` to `highest`.

    A float is never cut, not even 4.0, and a bool is not a number here.

    Args:
        name: What the user calls it.
        value: What the user gave.
        lowest: The least that makes sense.
        highest: The most (`cos_export.bounds`), or None.

    Raises:
        InputError: It is something else, too low or too high.
    """
    if isinstance(value, bool | np.bool_) or not isinstance(value, int | np.integer):
        raise InputError(f"{name} must be a whole number, and is {value!r}.")
    number = operator.index(value)
    if number < lowest:
        raise InputError(f"{name} must be at least {lowest}, and is {number}.")
    if highest is not None and number > highest:
        raise InputError(f"{name} must be at most {highest}, and is {number}.")
    return number
