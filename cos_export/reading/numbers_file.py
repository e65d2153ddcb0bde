"""Images as plain numbers in a file, one after the other: in an archive as it is, or in a temporary file of our own."""

from __future__ import annotations

import hashlib
import math
import os
import tempfile
from collections.abc import Sequence
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from cos_export.errors import InputError
from cos_export.storage import temporary_room

__all__ = ["NumbersFile", "Spool"]


class NumbersFile:
    """An array in a file, in C order, of which samples are read by their number.

    Args:
        file: Open for reading, and this object's own: it is closed when nobody refers to it any more.
        start: Where the numbers begin.
        shape: (samples, ...).
        dtype: Of the numbers.
        name: What errors call it.
        fingerprint: What tells it from others.
        given: The type that is given, by default that of the numbers.
    """

    def __init__(
        self,
        file: BinaryIO,
        start: int,
        shape: tuple[int, ...],
        dtype: np.dtype[Any],
        name: str,
        fingerprint: str,
        given: np.dtype[Any] | None = None,
    ) -> None:
        self._file, self._start, self._dtype, self._name = file, start, dtype, name
        self.shape, self.fingerprint = shape, fingerprint
        self._given = dtype.newbyteorder("=") if given is None else given

    def read(self, numbers: Sequence[int]) -> NDArray[Any]:
        """The samples with these numbers.

        Raises:
            InputError: The file has been cut short since it was opened.
        """
        images = np.empty((len(numbers), *self.shape[1:]), self._dtype)
        size = math.prod(self.shape[1:]) * self._dtype.itemsize
        flat = memoryview(images.reshape(-1).view(np.uint8))  # type: ignore[arg-type]
        for row, number in enumerate(numbers):
            room = flat[row * size : (row + 1) * size]
            if os.preadv(self._file.fileno(), [room], self._start + number * size) != size:
                raise InputError(f"{self._name} has become shorter while it was read.")
        return images.astype(self._given, copy=False)


class Spool:
    """A temporary file of numbers, which is gone when nobody reads it any more, and at the latest with this process.

    Args:
        name: What errors call it.
    """

    def __init__(self, name: str) -> None:
        self._name, self._digest = name, hashlib.blake2b(digest_size=16)
        with temporary_room(self._name):
            self._file: Any = tempfile.TemporaryFile()  # noqa: SIM115 - it lives as long as what reads it

    def add(self, part: bytes) -> None:
        """Writes the bytes of further numbers.

        Raises:
            StorageError: The temporary folder cannot hold them.
        """
        self._digest.update(part)
        with temporary_room(self._name):
            self._file.write(part)

    def numbers(self, shape: tuple[int, ...], dtype: np.dtype[Any], given: np.dtype[Any] | None = None) -> NumbersFile:
        """What was written, as an array of that shape and type; `given` as of `NumbersFile`."""
        with temporary_room(self._name):
            self._file.flush()
        return NumbersFile(self._file, 0, shape, dtype, self._name, self._digest.hexdigest(), given)
