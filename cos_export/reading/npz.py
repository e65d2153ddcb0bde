"""Arrays of numbers from an `.npz`, each checked by its header before anything of its size is allocated.

Nothing is ever unpickled. What numpy reads with `allow_pickle=False` is narrowed further: members that are stored or
deflated, and hold plain booleans, integers or floats; what they inflate to is bounded (`limits`).
"""

from __future__ import annotations

import hashlib
import os
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, BinaryIO, cast

import numpy as np
from numpy.lib import format as npy
from numpy.typing import NDArray

from cos_export.errors import InputError
from cos_export.reading.npy_header import ArrayHeader, read_header
from cos_export.reading.numbers_file import NumbersFile, Spool
from cos_export.reading.plain_file import open_plain
from cos_export.reading.zip_archive import CHUNK, DAMAGE, check_inflated, zip_directory

__all__ = ["NpzReader", "open_npz"]


class NpzReader:
    """An `.npz` that is open. `names` are its arrays; what is in them is read when it is asked for."""

    def __init__(self, path: str, archive: zipfile.ZipFile, file: BinaryIO) -> None:
        self._path, self._archive, self._file = path, archive, file
        self._members: dict[str, zipfile.ZipInfo] = {}
        for member in archive.infolist():
            name = member.filename.removesuffix(".npy")
            if name in self._members:
                raise InputError(f"{path} holds {name[:80]!r} twice.")
            self._members[name] = member
        self._size, self._inflated = os.fstat(file.fileno()).st_size, 0

    @property
    def names(self) -> tuple[str, ...]:
        """What the arrays are called."""
        return tuple(self._members)

    def header(self, name: str) -> ArrayHeader:
        """The header of the array called `name`, which must be one of `names`.

        Raises:
            InputError: It is not an array of plain numbers, or not all of it is there.
        """
        where, member = self._where(name), self._members[name]
        _check_member(where, member)
        with self._opened(name) as file:
            header = read_header(file, where)
        if header.start + header.nbytes != member.file_size:
            raise InputError(
                f"{where} says that it has shape {header.shape} of {header.dtype}, which takes {header.nbytes:,} "
                f"bytes, and the file holds {member.file_size - header.start:,} for it."
            )
        return header

    def read(self, name: str) -> NDArray[Any]:
        """The array called `name`, which must be one of `names`: in C order and native bytes.

        Raises:
            InputError: As `header`; or it is cut short, damaged, or inflates beyond the limits.
        """
        where, header = self._where(name), self.header(name)
        self._inflated += header.nbytes
        check_inflated(self._path, self._inflated, self._size)
        try:
            numbers = np.empty(header.nbytes, np.uint8)
        except MemoryError as error:
            raise InputError(f"{where} takes {header.nbytes:,} bytes, more than this machine has.") from error
        with self._opened(name) as file:
            file.read(header.start)
            for start in range(0, header.nbytes, CHUNK):
                part = file.read(min(CHUNK, header.nbytes - start))
                numbers[start : start + len(part)] = np.frombuffer(part, np.uint8)
                if len(part) != min(CHUNK, header.nbytes - start):
                    raise InputError(f"{where} is cut short.")
            file.read(1)  # The end of a member is where its checksum is compared.
        if header.dtype.kind == "b" and bool((numbers > 1).any()):
            raise InputError(f"{where} is of booleans, and holds bytes other than 0 and 1.")
        flat = numbers.view(header.dtype)
        array = flat.reshape(header.shape[::-1]).T if header.fortran_order else flat.reshape(header.shape)
        return np.ascontiguousarray(array, header.dtype.newbyteorder("=")).reshape(header.shape)

    def stored(self, name: str, given: np.dtype[Any] | None = None) -> NumbersFile:
        """The array called `name`, in C order, where its samples can be read by number as long as the file is there.

        Its bytes are read once, for their checksum. What is compressed is unpacked into a temporary file.

        Args:
            name: One of `names`.
            given: The type that is given, by default that of the numbers.

        Raises:
            InputError: As `header`; or it is cut short, damaged, or inflates beyond the limits.
            StorageError: The temporary folder cannot hold it.
        """
        header, member, where = self.header(name), self._members[name], self._where(name)
        self._inflated += header.nbytes
        check_inflated(self._path, self._inflated, self._size)
        with self._opened(name) as file:
            file.read(header.start)
            parts = iter(lambda: file.read(CHUNK), b"")
            if member.compress_type != zipfile.ZIP_STORED:
                spool = Spool(where)
                for part in parts:
                    spool.add(part)
                return spool.numbers(header.shape, header.dtype, given)
            digest = hashlib.blake2b(digest_size=16)
            for part in parts:
                digest.update(part)
        own = os.fdopen(os.dup(self._file.fileno()), "rb")
        # Before the numbers are the member's own header, its name, whatever else, and the header of the array.
        lengths = os.pread(own.fileno(), 4, member.header_offset + 26)
        name_and_more = sum(int.from_bytes(lengths[i : i + 2], "little") for i in (0, 2))
        start = member.header_offset + 30 + name_and_more + header.start
        return NumbersFile(own, start, header.shape, header.dtype, where, digest.hexdigest(), given)

    def _where(self, name: str) -> str:
        return f"{name[:80]!r} in {self._path}"

    @contextmanager
    def _opened(self, name: str) -> Iterator[BinaryIO]:
        try:
            with self._archive.open(self._members[name]) as file:
                yield cast(BinaryIO, file)
        except DAMAGE as error:
            raise InputError(f"{self._where(name)} is damaged: {error}.") from error


@contextmanager
def open_npz(path: str | os.PathLike[str], *, links: bool = True) -> Iterator[NpzReader]:
    """Opens an `.npz`.

    Args:
        path: The file.
        links: Whether `path` itself may be a symbolic link.

    Raises:
        InputError: It is not a regular file, or not an archive of arrays.
    """
    with open_plain(path, links=links) as file:
        start = file.read(len(npy.MAGIC_PREFIX))
        if start == npy.MAGIC_PREFIX:
            raise InputError(
                f"{path} is a single array, and not an .npz archive. Save arrays by name: numpy.savez(path, name=...)."
            )
        with zip_directory(file, str(path), "an .npz archive") as archive:
            yield NpzReader(str(path), archive, file)


def _check_member(where: str, member: zipfile.ZipInfo) -> None:
    if member.flag_bits & 0x1:
        raise InputError(f"{where} is encrypted. Save it without a password.")
    if member.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        raise InputError(f"{where} is compressed in a way that numpy does not write. Save it with numpy.savez.")
    if member.compress_type == zipfile.ZIP_STORED and member.compress_size != member.file_size:
        raise InputError(f"{where} is damaged: it is stored with two sizes.")
