"""Arrays of numbers from an `.npz`, each checked by its header before anything of its size is allocated.

Nothing is ever unpickled. What numpy reads with `allow_pickle=False` is narrowed further: members that are stored or
deflated, and hold plain booleans, integers or floats; what they inflate to is bounded (`limits`).
"""

from __future__ import annotations

import hashlib
import io
import math
import os
import struct
import tokenize
import warnings
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, BinaryIO, cast

import numpy as np
from numpy.lib import format as npy
from numpy.typing import NDArray

from cos_export.errors import InputError
from cos_export.reading.limits import MAX_DIMENSIONS, MAX_HEADER, MAX_INFLATED, MAX_SWOLLEN
from cos_export.reading.numbers_file import NumbersFile, Spool
from cos_export.reading.plain_file import open_plain

__all__ = ["ArrayHeader", "NpzReader", "check_inflated", "open_npz", "read_header", "read_member", "zip_directory"]

_CHUNK = 2**20
"""Bytes that are read at once; also the most that the directory of an archive may have, for it is read in one."""

_DAMAGE = (
    OSError,
    ValueError,
    EOFError,
    RuntimeError,
    NotImplementedError,
    OverflowError,
    MemoryError,
    LookupError,
    struct.error,
    zipfile.BadZipFile,
    zlib.error,
)
"""What zipfile raises for a damaged archive."""


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
            for start in range(0, header.nbytes, _CHUNK):
                part = file.read(min(_CHUNK, header.nbytes - start))
                numbers[start : start + len(part)] = np.frombuffer(part, np.uint8)
                if len(part) != min(_CHUNK, header.nbytes - start):
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
            parts = iter(lambda: file.read(_CHUNK), b"")
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
        except _DAMAGE as error:
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


@contextmanager
def zip_directory(file: BinaryIO, path: str, what: str) -> Iterator[zipfile.ZipFile]:
    """A zip archive whose directory has been read, which takes no more than `_CHUNK` bytes of it.

    Args:
        file: The archive.
        path: What to call it in messages.
        what: What it should be, in words.

    Raises:
        InputError: It is not an archive.
    """
    try:
        archive = zipfile.ZipFile(cast(BinaryIO, _Frugal(file)))
    except _DAMAGE as error:
        raise InputError(f"{path} is not {what}: {error}.") from error
    with archive:
        yield archive


def read_member(archive: zipfile.ZipFile, member: zipfile.ZipInfo, most: int, path: str) -> bytes:
    """What a member of an archive holds.

    Args:
        archive: Of `zip_directory`.
        member: One of its members.
        most: Bytes that it may hold.
        path: What to call the archive in messages.

    Raises:
        InputError: It holds more, or is damaged.
    """
    name = repr(member.filename[:80])
    if member.file_size > most:
        raise InputError(f"{name} in {path} has {member.file_size:,} bytes, and {most:,} are read at most.")
    try:
        with archive.open(member) as file:
            return b"".join(iter(lambda: file.read(_CHUNK), b""))
    except _DAMAGE as error:
        raise InputError(f"{name} in {path} cannot be read: {error}.") from error


def check_inflated(path: str, inflated: int, size: int) -> None:
    """Refuses an archive of `size` bytes whose content takes `inflated`.

    Raises:
        InputError: That is more than `MAX_INFLATED`, and more than `MAX_SWOLLEN` times its size.
    """
    if inflated > max(MAX_INFLATED, MAX_SWOLLEN * size):
        raise InputError(
            f"{path} has {size:,} bytes and would inflate to {inflated:,}, which real data do not. Save what it holds "
            "without compression if it is genuine."
        )


class _Frugal:
    """A file that gives no more than `_CHUNK` bytes at once, as no honest archive asks for."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self.seek, self.tell, self.seekable = file.seek, file.tell, file.seekable

    def read(self, size: int = -1) -> bytes:
        if size > _CHUNK:
            raise ValueError(f"its directory or a part of it claims {size:,} bytes")
        return self._file.read(_CHUNK if size < 0 else size)

    def close(self) -> None:
        """The file belongs to whoever opened it."""


def _check_member(where: str, member: zipfile.ZipInfo) -> None:
    if member.flag_bits & 0x1:
        raise InputError(f"{where} is encrypted. Save it without a password.")
    if member.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        raise InputError(f"{where} is compressed in a way that numpy does not write. Save it with numpy.savez.")
    if member.compress_type == zipfile.ZIP_STORED and member.compress_size != member.file_size:
        raise InputError(f"{where} is damaged: it is stored with two sizes.")


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
