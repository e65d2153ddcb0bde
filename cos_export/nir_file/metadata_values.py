"""Entries of NIR metadata: what of it a file can hold, and one value of it as what it must be."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cos_export.errors import NetworkError
from cos_export.network import FloatArray
from cos_export.network.fields import numbers
from cos_export.reading.limits import MAX_STEPS

__all__ = ["array", "floats", "integer", "number", "others", "word"]


def others(metadata: Mapping[str, Any], ours: Collection[str]) -> dict[str, Any]:
    """The entries that are not `ours` and that a NIR file can hold; the rest is left out."""
    return {key: value for key, value in metadata.items() if key not in ours and _storable(key, value)}


def _storable(key: object, value: Any) -> bool:
    if not isinstance(key, str) or key in ("", ".") or "/" in key or "\0" in key:
        return False
    if isinstance(value, str):
        return "\0" not in value
    if isinstance(value, Mapping):
        return all(_storable(inner, item) for inner, item in value.items())
    if isinstance(value, (bool, int, float, np.number, np.bool_, np.ndarray)):
        return np.asarray(value).dtype.kind in "biuf"
    return False


def floats(key: str, value: Any) -> FloatArray | None:
    """A float32 array of finite numbers, or None if there is none; errors are those of `array`."""
    values = array(key, value)
    return None if values is None else values.astype(np.float32)


def array(key: str, value: Any) -> NDArray[Any] | None:
    """An array of finite numbers, or None if there is none.

    Raises:
        NetworkError: It is something else.
    """
    if value is None:
        return None
    return numbers(f"its metadata's {key}", value)


def word(key: str, metadata: Mapping[str, Any]) -> str | None:
    """A string, or None if there is none.

    Raises:
        NetworkError: It is something else.
    """
    value = metadata.get(key)
    if value is not None and not isinstance(value, str):
        raise NetworkError(f"{key} = {value!r} in the metadata; it must be a string.")
    return value


def number(key: str, value: Any) -> float:
    """One finite number.

    Raises:
        NetworkError: It is something else.
    """
    stored = np.asarray(value)
    if stored.dtype.kind not in "iuf" or stored.size != 1:
        raise NetworkError(f"{key} = {value!r} in the metadata; it must be a number.")
    if not np.isfinite(stored).all():
        raise NetworkError(f"{key} = {value!r} in the metadata; it must be finite.")
    return float(stored.item())


def integer(key: str, value: Any, least: int, most: int = MAX_STEPS) -> int:
    """One whole number from `least` to `most`.

    Raises:
        NetworkError: It is something else.
    """
    whole = number(key, value)
    if not whole.is_integer() or not least <= whole <= most:
        raise NetworkError(f"{key} = {value!r} in the metadata; it must be a whole number from {least} to {most}.")
    return int(whole)
