"""Spikes on the host, as few bits as there can be: in memory up to a budget, and beyond it in files."""

from __future__ import annotations

from contextlib import ExitStack
from itertools import count
from pathlib import Path
from tempfile import gettempdir
from types import TracebackType
from typing import NamedTuple, Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from cos_export.drafts import temporary_folder
from cos_export.errors import StorageError

__all__ = ["MEMORY", "Kept", "SpikeStore"]

MEMORY = 2 * 2**30
"""Bytes of spikes held in memory, 2 GiB: 50,000 images of CIFAR-10 and eight steps of the largest layer of ResNet-20
take 0.8 GB, and a layer and the one before it are held at once. What is larger would crowd out the network."""


class Kept(NamedTuple):
    """Spikes in a store, or how many there were.

    Attributes:
        bits: Eight digits to a byte: the lowest binary digit of every number, in C order, then the next one of every
            number; or the .npy file that holds them.
        shape: Of the numbers.
        digits: How many binary digits a number has.
    """

    bits: NDArray[np.uint8] | Path
    shape: torch.Size
    digits: int

    def read(self) -> Tensor:
        """The numbers, as uint8 if they have up to eight digits and as int32 if more, on the CPU."""
        bits = np.load(self.bits, allow_pickle=False) if isinstance(self.bits, Path) else self.bits
        planes = np.unpackbits(bits, count=self.digits * self.shape.numel()).reshape(self.digits, *self.shape)
        if self.digits == 1:
            return torch.from_numpy(planes[0])
        total = np.zeros(self.shape, np.uint8 if self.digits <= 8 else np.int32)
        for digit, plane in enumerate(planes):
            total |= np.left_shift(plane, digit, dtype=total.dtype)
        return torch.from_numpy(total)


class SpikeStore:
    """Keeps spikes until they are dropped, bit for bit.

    A context: the temporary folder is made when the memory is first exceeded, where TMPDIR says, and is removed when
    the block is left, however it is left.

    Args:
        memory: Bytes to hold in memory; what comes while they are taken is written to files.
    """

    def __init__(self, memory: int = MEMORY) -> None:
        self._free = memory
        self._numbers = count()
        self._folder: Path | None = None
        self._stack = ExitStack()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.close()

    def keep(self, counts: Tensor, most: int = 1) -> Kept:
        """Takes spikes in, or how many there were.

        Args:
            counts: Of any shape, whole numbers from 0 to `most`.
            most: What none exceeds: 1 for spikes.

        Raises:
            StorageError: They do not fit in memory, and the temporary folder cannot hold them.
        """
        digits = most.bit_length()
        whole = counts.to(torch.uint8 if digits <= 8 else torch.int32)
        bits = np.packbits(torch.stack([(whole >> digit) & 1 for digit in range(digits)]).bool().cpu().numpy())
        if bits.nbytes > self._free:
            return Kept(self._written(bits), counts.shape, digits)
        self._free -= bits.nbytes
        return Kept(bits, counts.shape, digits)

    def drop(self, kept: Kept) -> None:
        """Gives back the memory or the file of spikes that nobody will read again."""
        if isinstance(kept.bits, Path):
            kept.bits.unlink()
        else:
            self._free += kept.bits.nbytes

    def _written(self, bits: NDArray[np.uint8]) -> Path:
        try:
            if self._folder is None:
                self._folder = self._stack.enter_context(temporary_folder("spikes"))
            file = self._folder / f"{next(self._numbers)}.npy"
            np.save(file, bits, allow_pickle=False)
        except OSError as error:
            raise StorageError(
                f"{self._folder or gettempdir()} cannot hold the spikes of the calibration images: {error}. Name a "
                "folder on a larger disk in the environment variable TMPDIR, or calibrate on fewer images."
            ) from error
        return file
