"""Arrays whose samples come in parts: joined in memory, or in a temporary file where they would take too much of it."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from cos_export.errors import ParityError
from cos_export.storage import temporary_room

__all__ = ["IN_MEMORY", "SampleParts", "blocks"]

IN_MEMORY = 2**29
"""Bytes that the arrays of one run may take in memory, 512 MiB: 64 inputs and four steps of ResNet-20 take 0.05 GB, of
VGG-16 at 224 x 224 3.5. Of a verification three runs are held at once: the record, the reference and the target."""

_AT_ONCE = 2**26
"""Bytes of samples that are handled at once, 64 MiB."""

_CALLED = "the spikes and states of a run"
"""What an error calls the arrays."""

_ALIGNMENT = 64
"""Bytes that an array in the file begins at a multiple of, as numpy has them in memory."""


def blocks(samples: int, sample_bytes: int) -> Iterator[slice]:
    """Consecutive samples of 64 MiB together, and one at least, until all have been.

    Args:
        samples: How many there are.
        sample_bytes: What one takes.
    """
    size = max(1, _AT_ONCE // max(1, sample_bytes))
    for start in range(0, samples, size):
        yield slice(start, min(start + size, samples))


class SampleParts:
    """Arrays by name, of which each is given in parts: consecutive samples, from the first on.

    What takes more than `IN_MEMORY` lies in a temporary file where TMPDIR says. The file has no name there: it is gone
    when nobody refers to the arrays any more, and with this process at the latest, however that ends. The arrays are
    mapped from it and are used like any others; what the machine's memory has no room for is read again.

    Args:
        samples: How many samples there will be.
        axis: Which axis of the arrays counts them.
        nbytes: Bytes that all arrays of the run, these and others, will take.
    """

    def __init__(self, samples: int, axis: int, nbytes: int) -> None:
        self._samples, self._axis = samples, axis
        self._file = _ArraysFile(samples, axis) if nbytes > IN_MEMORY else None
        self._parts: dict[str, list[NDArray[Any]]] = {}

    def add(self, name: str, part: NDArray[Any]) -> None:
        """Takes the next samples of an array.

        Raises:
            StorageError: They do not fit in memory, and the temporary folder cannot hold them.
            ParityError: They are of another type or shape than those before, or more than there should be.
        """
        if self._file is None:
            self._parts.setdefault(name, []).append(part)
        else:
            self._file.write(name, part)

    def blocks(self, sample_bytes: int) -> Iterator[slice]:
        """The samples that are best added at once, where all of them could be: all, or 64 MiB of them.

        Args:
            sample_bytes: What one takes.
        """
        return iter([slice(0, self._samples)]) if self._file is None else blocks(self._samples, sample_bytes)

    def joined(self) -> dict[str, NDArray[Any]]:
        """The arrays by name, once, after the last part.

        Raises:
            ParityError: Some samples of an array have not come.
        """
        if self._file is not None:
            return self._file.arrays()
        arrays = {}
        for name in tuple(self._parts):
            # They are let go of one array after the other, for they may take most of the memory.
            parts = self._parts.pop(name)
            arrays[name] = parts[0] if len(parts) == 1 else np.concatenate(parts, axis=self._axis)
        return arrays


class _Placed(NamedTuple):
    """An array in a file: where it begins, its shape and type."""

    start: int
    shape: tuple[int, ...]
    dtype: np.dtype[Any]


class _ArraysFile:
    """A temporary file without a name, with arrays one after the other.

    It is filled by writing and not through the mapping: where the disk is full, a write fails, and a mapping ends the
    process.
    """

    def __init__(self, samples: int, axis: int) -> None:
        self._samples, self._axis = samples, axis
        self._placed: dict[str, _Placed] = {}
        self._come: dict[str, int] = {}
        self._end = 0
        with temporary_room(_CALLED):
            # Without a buffer, which would tell of a full disk after the write that filled it.
            self._file = tempfile.TemporaryFile(buffering=0)  # noqa: SIM115 - closed once it is mapped

    def write(self, name: str, part: NDArray[Any]) -> None:
        """Writes further samples of an array."""
        shape = (*part.shape[: self._axis], self._samples, *part.shape[self._axis + 1 :])
        if name not in self._placed:
            self._placed[name] = _Placed(self._end, shape, part.dtype)
            self._come[name] = 0
            size = int(np.prod(shape, dtype=np.int64)) * part.dtype.itemsize
            self._end += -(-size // _ALIGNMENT) * _ALIGNMENT
        place, first, count = self._placed[name], self._come[name], part.shape[self._axis]
        if (shape, part.dtype) != (place.shape, place.dtype) or first + count > self._samples:
            raise ParityError(
                f"What was run of {name!r} came as {part.dtype} of shape {part.shape} after {first} samples; "
                f"{place.dtype} of shape {place.shape} was expected in all."
            )
        self._come[name] = first + count
        rows = np.ascontiguousarray(part).reshape(int(np.prod(part.shape[: self._axis], dtype=np.int64)), count, -1)
        row_bytes = rows.shape[-1] * part.dtype.itemsize
        for number, row in enumerate(rows):
            left = memoryview(row.reshape(-1).view(np.uint8))  # type: ignore[arg-type]
            with temporary_room(_CALLED):
                self._file.seek(place.start + (number * self._samples + first) * row_bytes)
                while left:
                    left = left[self._file.write(left) :]

    def arrays(self) -> dict[str, NDArray[Any]]:
        """All of them, mapped; the file is closed, and there as long as one of them is."""
        short = [name for name, count in self._come.items() if count != self._samples]
        if short:
            raise ParityError(f"{self._come[short[0]]} samples of {short[0]!r} were run in place of {self._samples}.")
        with temporary_room(_CALLED), self._file:
            if not self._placed:
                return {}
            self._file.truncate(self._end)
            whole = np.asarray(np.memmap(self._file, np.uint8, "r+", shape=(self._end,)))
        return {
            name: whole[place.start :][: int(np.prod(place.shape, dtype=np.int64)) * place.dtype.itemsize]
            .view(place.dtype)
            .reshape(place.shape)
            for name, place in self._placed.items()
        }
