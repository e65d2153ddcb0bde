"""The header of an array of numbers in numpy's format, checked before anything of the array's size is allocated.

Nothing is ever unpickled. What numpy reads with `allow_pickle=False` is narrowed further: plain booleans, integers or
floats, of a shape that arrays have.
"""

from __future__ import annotations

import io
import math
import tokenize
import warnings
from dataclasses import dataclass
from typing import Any, BinaryIO

import numpy as np
from numpy.lib import format as npy

from cos_export.errors import InputError
from cos_export.reading.limits import MAX_DIMENSIONS, MAX_HEADER

__all__ = ["ArrayHeader", "read_header"]


@dataclass(frozen=True)
class ArrayHeader:
    """What an array says of itself.

    Attributes:
        shape: Its shape.
        dtype: Of booleans, integers or floats, in whichever byte order.
        fortran_order: Whether the first axis is contiguous.
        start: Where in the member its numbers begin.
    """

    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    fortran_order: bool
    start: int

    @property
    def nbytes(self) -> int:
        """Bytes of its numbers."""
        return math.prod(self.shape) * self.dtype.itemsize


def read_header(file: BinaryIO, where: str) -> ArrayHeader:
    """The header of a .npy, after which the file stands at its numbers.

    Args:
        file: At its start.
        where: What to call it in messages.

    Raises:
        InputError: It is not an array of plain numbers.
    """
    start = file.read(len(npy.MAGIC_PREFIX) + 2)
    if len(start) < len(npy.MAGIC_PREFIX) + 2 or not start.startswith(npy.MAGIC_PREFIX):
        raise InputError(f"{where} is not an array of numpy.")
    version = (start[-2], start[-1])
    if version not in ((1, 0), (2, 0)):
        raise InputError(
            f"{where} has version {version} of numpy's format. Arrays of plain numbers have (1, 0) or (2, 0)."
        )
    field = file.read(2 if version == (1, 0) else 4)
    length = int.from_bytes(field, "little")
    if length > MAX_HEADER:
        raise InputError(f"{where} has a header of {length:,} bytes, and those of plain numbers have about 128.")
    content = io.BytesIO(field + file.read(length))
    read = npy.read_array_header_1_0 if version == (1, 0) else npy.read_array_header_2_0
    try:
        # numpy and Python warn of odd spellings, which do not concern the user.
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            shape, fortran_order, dtype = read(content, max_header_size=MAX_HEADER)
    except (ValueError, TypeError, SyntaxError, RecursionError, MemoryError, OverflowError, LookupError) as error:
        raise InputError(f"{where} has a damaged header: {error}.") from error
    except tokenize.TokenError as error:
        raise InputError(f"{where} has a damaged header: {error.args[0]}.") from error
    _check_dtype(where, dtype)
    if len(shape) > MAX_DIMENSIONS or any(type(side) is not int or not 0 <= side < 2**62 for side in shape):
        raise InputError(f"{where} has the shape {str(shape)[:200]}, which no array has.")
    return ArrayHeader(shape, dtype, bool(fortran_order), len(start) + len(field) + length)


def _check_dtype(where: str, dtype: np.dtype[Any]) -> None:
    if dtype.hasobject:
        raise InputError(
            f"{where} cannot be read: an array of Python objects is refused (allow_pickle=False). Store numbers."
        )
    if dtype.kind not in "biuf" or dtype.itemsize > 8 or dtype.subdtype is not None:
        hint = " If it is bfloat16, which numpy cannot store, save it as float32." if dtype == np.dtype("V2") else ""
        raise InputError(
            f"{where} is of type {str(dtype)[:80]}, and must hold plain booleans, integers or floats.{hint}"
        )
